"""A scan and its maps -> a table of constants and a paragraph for a methods section."""

import math
from collections.abc import Sequence

from aslkit.core.acquisition import Timing
from aslkit.core.constants import ATT_BOUNDS_S
from aslkit.outputs.provenance import version
from aslkit.report.page import Table
from aslkit.report.shared_sections import join_names
from aslkit.validate.records import is_model
from aslkit.validate.scan_estimates import ScanEstimates

WHITE_PAPER = "Alsop 2015"
KINETICS = {
    "single": "single-compartment kinetic model, in which label decays with the T1 of blood",
    "tissue": "kinetic model in which label decays with the T1 of tissue after its arrival",
}


def quantification_table(scan: ScanEstimates) -> Table:
    """Return all constants and assumptions with their values and origins."""
    acquisition = scan.series.acquisition
    rows = [
        ["kinetic model", acquisition.kinetic, "--kinetic"],
        ["T1 of arterial blood [s]", f"{acquisition.t1_blood_s:g}", WHITE_PAPER],
    ]
    if acquisition.kinetic == "tissue":
        rows.append(["T1 of tissue [s]", f"{acquisition.t1_tissue_s:g}", "default"])
    partition = f"{acquisition.partition_ml_per_g:g}"
    low, high = ATT_BOUNDS_S
    rows += [
        ["partition coefficient [ml/g]", partition, WHITE_PAPER],
        ["range of ATT [s]", f"{low:g} to {high:g}", "default"],
        ["arterial compartment", _compartment(scan), f"--macrovascular {scan.macrovascular}"],
        ["noise level", _noise(scan), ""],
    ]
    for run in scan.runs:
        name, own, m0 = run.source.name, run.efficiency, run.calibration
        tr = "unknown" if m0.repetition_time_s is None else f"{m0.repetition_time_s:g} s"
        rows += [
            ["labeling efficiency", f"{own.alpha:g}", own.origin],
            [
                "background suppression",
                f"{own.per_pulse:g} per pulse, {own.n_pulses} pulses, total {own.total:.3f}",
                name,
            ],
            ["M0", f"scale {m0.scale:g}, TR {tr}, recovery {m0.recovery:.3f}", m0.origin],
            *_timing_rows([t for t in acquisition.timings if t.labeling == run.labeling], name),
        ]
    offsets = acquisition.slice_offsets_s
    if len(offsets) > 1:
        rows.append(["slice timing [s]", f"{min(offsets):g} to {max(offsets):g}", "sidecar"])
    return Table(["quantity", "value", "origin"], rows, n_text=3)


def methods_text(scan: ScanEstimates) -> str:
    """Return a paragraph on the quantification, in the words of a paper."""
    acquisition = scan.series.acquisition
    timings = acquisition.timings
    labelings = " and ".join(dict.fromkeys(t.labeling.upper() for t in timings))
    plds = ", ".join(f"{t.pld_s:g}" for t in timings)
    delays = f"{len(timings)} delays: {plds} s" if len(timings) > 1 else f"delay {plds} s"
    durations = [t.label_duration_s for t in timings if math.isfinite(t.label_duration_s)]
    label = _distinct([f"{d:g}" for d in durations if d])
    duration = f", label duration {label} s" if label else ""
    averages = _distinct([str(t.n_averages) for t in timings])
    plural = "" if averages == "1" else "s"
    efficiencies = " and ".join(dict.fromkeys(f"{t.efficiency:.3g}" for t in timings))
    low, high = ATT_BOUNDS_S
    models = [e for e in scan.maps if is_model(e)]
    other = f" CBF and ATT were also estimated by {join_names(models)}." if models else ""
    arterial = (
        " Where the data supported it, an arterial compartment was estimated together with CBF "
        "and ATT."
        if any(m.abv is not None for m in scan.maps.values())
        else ""
    )
    return (
        f"{labelings} data ({delays}{duration}, {averages} average{plural} per delay) were "
        f"calibrated with M0 and quantified with aslkit {version()}. CBF and arterial transit "
        "time (ATT) were estimated by least squares with the "
        f"{KINETICS[acquisition.kinetic]} (Buxton 1998, doi:10.1002/mrm.1910400308), with "
        "constants after Alsop 2015 (doi:10.1002/mrm.25197): T1 of blood "
        f"{acquisition.t1_blood_s:g} s, partition coefficient "
        f"{acquisition.partition_ml_per_g:g} ml/g. The total labeling efficiency was "
        f"{efficiencies}. ATT was searched between {low:g} and {high:g} s."
        f"{arterial}{other} Standard deviations were based on {_noise(scan)}."
    )


def _distinct(texts: Sequence[str]) -> str:
    return ", ".join(dict.fromkeys(texts))


def _compartment(scan: ScanEstimates) -> str:
    names = [e for e, m in scan.maps.items() if m.abv is not None]
    return f"on for {', '.join(names)}" if names else "off"


def _noise(scan: ScanEstimates) -> str:
    return (
        "the residuals of the fit"
        if scan.series.noise_sd is None
        else "the scatter of the repeats"
    )


def _timing_rows(timings: Sequence[Timing], name: str) -> list[list[str]]:
    """Return rows of delays, label durations and averages of one run."""
    return [
        ["post-labeling delays [s]", ", ".join(f"{t.pld_s:g}" for t in timings), name],
        ["label duration [s]", _distinct([f"{t.label_duration_s:g}" for t in timings]), name],
        ["averages per delay", _distinct([str(t.n_averages) for t in timings]), name],
    ]
