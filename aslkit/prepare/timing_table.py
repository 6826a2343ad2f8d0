"""Runs as read -> the table of timings and assumptions that a user checks."""

from collections.abc import Sequence

import numpy as np

from aslkit.bids.run import AslRun, Calibration, Efficiency, Pair, timing_groups, timings
from aslkit.prepare.series import joined_acquisition

SHOWN_PAIRS = 4
HEADER = "  group   label [s]   PLD [s]   in slice 1 to last [s]   pairs   volumes"


def timing_table(runs: Sequence[AslRun]) -> str:
    """Return the metadata of the runs as text, one paragraph each, warnings last."""
    together = joined_acquisition(runs)
    plds = [t.pld_s for t in together.timings if t.labeling != "vsasl"]
    early = f"{len(plds)} delay{'s' * (len(plds) > 1)} from {min(plds, default=0):g} s"
    reason = "vascular crushing" if together.has_crusher and plds else early if plds else "VSASL"
    state = "on" if together.has_arterial_signal else "off"
    has_repeats = any(len(pairs) > 1 for run in runs for pairs in timing_groups(run).values())
    noise = (
        "the scatter of the repeats" if has_repeats else "the residuals of the fit (no repeats)"
    )
    shared = [
        f"  noise       from {noise}",
        f"  arterial    compartment {state} with --macrovascular auto ({reason})",
    ]
    return "\n\n".join(_run_table(run, shared) for run in runs)


def _run_table(run: AslRun, shared: Sequence[str]) -> str:
    groups = timing_groups(run)
    offsets = np.broadcast_to(run.slice_offsets_s, run.volumes.shape[2])
    lines = [
        f"{run.source}",
        f"  volumes     {_volumes(run)}",
        f"  labeling    {run.labeling.upper()}, efficiency {_efficiency(run.efficiency)}",
        f"  readout     {_readout(offsets)}" + (", vascular crushing" if run.has_crusher else ""),
        f"  M0          {_calibration(run.calibration)}",
        *shared,
        HEADER,
    ]
    for number, (timing, pairs) in enumerate(
        zip(timings(run), groups.values(), strict=True), start=1
    ):
        first, last = timing.pld_s + offsets[0], timing.pld_s + offsets[-1]
        readout = f"{first:g}" if np.ptp(offsets) == 0 else f"{first:g} to {last:g}"
        lines.append(
            f"  {number:5d}   {timing.label_duration_s:9g}   {timing.pld_s:7g}"
            f"   {readout:>22s}   {timing.n_averages:5d}   {_listed(pairs)}"
        )
    return "\n".join([*lines, *(f"  warning: {note}" for note in run.notes)])


def _volumes(run: AslRun) -> str:
    """Return the number of volumes of every type, in order of appearance."""
    counts = [f"{run.contexts.count(c)} {c}" for c in dict.fromkeys(run.contexts)]
    meaning = "differences" if "deltam" in run.contexts else "control - label"
    return f"{len(run.contexts)}: {', '.join(counts)}; the signal is {meaning}"


def _efficiency(efficiency: Efficiency) -> str:
    n = efficiency.n_pulses
    suppression = f"{efficiency.per_pulse:g}^{n} ({n} background-suppression pulses)"
    label = f"{efficiency.alpha:g} ({efficiency.origin})"
    if not n:
        return f"{label}, no loss by background suppression"
    return f"{efficiency.total:.3f} = {label} x {suppression}"


def _readout(offsets: np.ndarray) -> str:
    if not offsets.any():
        return f"all {offsets.size} slices at the PLD"
    steps, n_excitations = np.diff(offsets), np.unique(offsets).size
    order = "ascending" if (steps > 0).all() else "descending" if (steps < 0).all() else "mixed"
    at_once = f", {n_excitations} excitations" if n_excitations < offsets.size else ""
    return f"2D, {offsets.size} slices over {offsets.max():g} s, {order} order{at_once}"


def _calibration(m0: Calibration) -> str:
    tr = "unknown" if m0.repetition_time_s is None else f"{m0.repetition_time_s:g} s"
    recovery = "no correction for its TR"
    if m0.recovery < 1:
        recovery = (
            f"divided by its recovery {m0.recovery:.3f} (--no-m0-tr-correction turns this off)"
        )
    return f"{m0.origin}, scale {m0.scale:g}, TR {tr}, {recovery}"


def _listed(pairs: Sequence[Pair]) -> str:
    """Return the numbers of the volumes, from 1: control-label pairs as 2-1, differences as 3."""
    shown = ["-".join(str(i + 1) for i in pair.indices) for pair in pairs[:SHOWN_PAIRS]]
    return " ".join([*shown, *(["…"] if len(pairs) > SHOWN_PAIRS else [])])
