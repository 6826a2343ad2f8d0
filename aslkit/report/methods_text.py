"""A scan as read -> every constant behind its numbers, and a paragraph for the methods section."""

import math
from collections.abc import Sequence

from aslkit.core.acquisition import Timing
from aslkit.outputs.provenance import version
from aslkit.report.page import Table
from aslkit.validate.records import is_model
from aslkit.validate.split_half import ScanEstimates

WHITE_PAPER = "Alsop 2015"
KINETICS = {
    "single": "single-compartment kinetic model (label decays with the T1 of blood)",
    "tissue": "kinetic model in which label decays with the T1 of tissue after arrival",
}


def quantification_table(scan: ScanEstimates) -> Table:
    """Every constant and assumption, its value, and where it comes from."""
    acquisition, settings = scan.series.acquisition, scan.settings
    rows = [
        ["kinetic model", acquisition.kinetic, "--kinetic"],
        ["T1 of arterial blood [s]", f"{acquisition.t1_blood_s:g}", WHITE_PAPER],
    ]
    if acquisition.kinetic == "tissue":
        rows.append(["T1 of tissue [s]", f"{acquisition.t1_tissue_s:g}", "default"])
    partition = f"{acquisition.partition_ml_per_g:g}"
    low, high = settings.att_bounds_s
    rows += [
        ["partition coefficient [ml/g]", partition, WHITE_PAPER],
        ["ATT searched [s]", f"{low:g} to {high:g}", "default"],
        ["arterial compartment", _compartment(scan), f"--macrovascular {settings.macrovascular}"],
        ["noise level", _noise(scan), ""],
    ]
    for run in scan.runs:
        name, own, m0 = run.source.name, run.efficiency, run.calibration
        tr = "unknown" if m0.repetition_time_s is None else f"{m0.repetition_time_s:g} s"
        rows += [
            ["labeling efficiency", f"{own.alpha:g}", own.origin],
            [
                "background suppression",
                f"{own.per_pulse:g} per pulse, {own.n_pulses} pulses: {own.total:.3f} in all",
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
    """What was done, in the words of a paper."""
    acquisition = scan.series.acquisition
    first = acquisition.timings[0]
    labelings = " and ".join(dict.fromkeys(t.labeling.upper() for t in acquisition.timings))
    duration = first.label_duration_s
    label = f", label duration {duration:g} s" if math.isfinite(duration) and duration else ""
    plds = ", ".join(f"{t.pld_s:g}" for t in acquisition.timings)
    efficiencies = " and ".join(dict.fromkeys(f"{t.efficiency:.3g}" for t in acquisition.timings))
    models = [e for e in scan.maps if is_model(e)]
    network = (
        f" These were corrected by the network{'s' * (len(models) > 1)} {' and '.join(models)}."
        if models
        else ""
    )
    arterial = (
        " An arterial compartment was estimated with CBF and ATT where the evidence supported it."
        if any(m.abv is not None for m in scan.maps.values())
        else ""
    )
    return (
        f"{labelings} data ({acquisition.n_timings} delays: {plds} s{label}, "
        f"{first.n_averages} averages) were calibrated voxel by voxel with M0 and quantified with "
        f"aslkit {version()}. CBF and arterial transit time (ATT) were estimated by least squares "
        f"with the {KINETICS[acquisition.kinetic]} (Buxton 1998, doi:10.1002/mrm.1910400308; "
        f"constants after Alsop 2015, doi:10.1002/mrm.25197): T1 of blood "
        f"{acquisition.t1_blood_s:g} s, partition coefficient "
        f"{acquisition.partition_ml_per_g:g} ml/g, total labeling efficiency {efficiencies}, ATT "
        f"between {scan.settings.att_bounds_s[0]:g} and {scan.settings.att_bounds_s[1]:g} s."
        f"{arterial}{network} Standard deviations were based on {_noise(scan)}."
    )


def _compartment(scan: ScanEstimates) -> str:
    found = [e for e, m in scan.maps.items() if m.abv is not None]
    return f"on for {', '.join(found)}" if found else "off"


def _noise(scan: ScanEstimates) -> str:
    return (
        "the residuals of the fit"
        if scan.series.noise_sd is None
        else "the scatter of the repeats"
    )


def _timing_rows(timings: Sequence[Timing], name: str) -> list[list[str]]:
    """Delays, label durations and averages of one run."""
    durations = dict.fromkeys(f"{t.label_duration_s:g}" for t in timings)
    averages = dict.fromkeys(str(t.n_averages) for t in timings)
    return [
        ["post-labeling delays [s]", ", ".join(f"{t.pld_s:g}" for t in timings), name],
        ["label duration [s]", ", ".join(durations), name],
        ["averages per delay", ", ".join(averages), name],
    ]
