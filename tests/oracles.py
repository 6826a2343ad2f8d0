"""An independent implementation of the signal model, and a lookup in a tidy table."""

import numpy as np

ALPHA = {"pcasl": 0.85, "casl": 0.68, "pasl": 0.98, "vsasl": 0.56}
T1_BLOOD_S, T1_TISSUE_S, PARTITION = 1.65, 1.3, 0.9


def convolved(labeling, t, tau, att, kinetic, n=200_000, t1_tissue=T1_TISSUE_S):
    """Convolve delivery with the decay after arrival, by the midpoint rule on the bolus."""
    t1 = T1_BLOOD_S if kinetic == "single" else t1_tissue
    arrived = min(max(t - att, 0), tau)
    s = att + (np.arange(n) + 0.5) * arrived / n
    travel = s if labeling == "pasl" else att
    kernel = np.exp(-travel / T1_BLOOD_S - (t - s) / t1)
    return 2 * ALPHA[labeling] / PARTITION / 6000 * kernel.sum() * arrived / n


def signal_of(labeling, pld, tau, att, kinetic, t1_tissue=T1_TISSUE_S):
    """Return ΔM/M0 for unit CBF at a PLD (PASL: inversion time)."""
    if labeling == "vsasl":
        scale = 2 * ALPHA["vsasl"] / PARTITION / 6000
        return scale * min(pld, att) * np.exp(-pld / T1_BLOOD_S)
    lead = 0.0 if labeling == "pasl" else tau
    return convolved(labeling, pld + lead, tau, att, kinetic, 20_000, t1_tissue)


def lookup(table, **where):
    """Return the value of the first row with these fields, or NaN."""
    found = (r["value"] for r in table if all(r[k] == v for k, v in where.items()))
    return float(next(found, "nan"))
