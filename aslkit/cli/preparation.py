"""Runs as read -> what the estimators take, and the tables of what was done to the volumes."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from aslkit.cli.scan_options import ScanArguments
from aslkit.cli.terminal import print_result, progress
from aslkit.core.constants import N_ARTERIAL_PARAMETERS
from aslkit.core.errors import InputError

if TYPE_CHECKING:
    from aslkit.bids.run import AslRun
    from aslkit.bids.tissue_maps import TissueMaps
    from aslkit.core.series_and_maps import AslSeries, MaskImage


@dataclass(frozen=True)
class Prepared:
    """Preprocessed scan: runs without rejected pairs, their series, fields and files to write."""

    runs: "list[AslRun]"
    series: "AslSeries"
    tissue: "TissueMaps | None"
    fields: dict[str, object]
    files: dict[str, bytes]


def prepare(
    scan: ScanArguments, runs: "list[AslRun]", smoothing_sigma_mm: float = 0.0
) -> Prepared:
    """Preprocess the runs with the user's mask, as the options say."""
    from aslkit.bids.nifti import read_mask
    from aslkit.bids.tissue_maps import read_tissue
    from aslkit.prepare.series import brain_of, series_from_runs

    fields: dict[str, object] = {}
    files: dict[str, bytes] = {}
    if scan.mask is not None:
        brain = read_mask(scan.mask, runs[0].volumes.shape[:3], runs[0].affine)
    else:
        brain = brain_of(runs[0])
    if scan.moco:
        runs = _realigned(runs, brain, fields, files)
    runs = _without_outliers(scan, runs, brain, fields, files)
    series = series_from_runs(runs, brain, smoothing_sigma_mm)
    _check_macrovascular(scan, series)
    tissue = None
    if scan.gm is not None and scan.wm is not None:
        tissue = read_tissue(scan.gm, scan.wm, brain, runs[0].affine)
    return Prepared(runs, series, tissue, fields, files)


def _realigned(
    runs: "list[AslRun]", brain: "MaskImage", fields: dict[str, object], files: dict[str, bytes]
) -> "list[AslRun]":
    """The runs with every volume where the M0 image is, else the first timing of its run."""
    import numpy as np

    from aslkit.prepare.motion import framewise_displacement, realign
    from aslkit.prepare.motion_report import motion_plot, motion_table

    m0 = runs[0].calibration.m0
    reference = m0 if isinstance(m0, np.ndarray) else None
    found = {run.source: realign(run, reference, brain, progress) for run in runs}
    motion = {source: parameters for source, (_, parameters) in found.items()}
    displacements = np.concatenate([framewise_displacement(p) for p in motion.values()])
    mean, largest = np.nanmean(displacements), np.nanmax(displacements)
    print_result(
        f"motion: framewise displacement {mean:.2f} mm on average, {largest:.2f} mm at most"
    )
    fields["MotionCorrection"] = "rigid, cubic splines, slice timing as acquired"
    fields["MeanFramewiseDisplacement"] = round(float(mean), 4)
    files["motion.tsv"] = motion_table(runs, motion).encode()
    files["motion.png"] = motion_plot(motion)
    return [run for run, _ in found.values()]


def _without_outliers(
    scan: ScanArguments,
    runs: "list[AslRun]",
    brain: "MaskImage",
    fields: dict[str, object],
    files: dict[str, bytes],
) -> "list[AslRun]":
    """The runs without the pairs that stray, after saying which."""
    from aslkit.prepare.outliers import outlier_table, score_pairs, without_outliers

    fields["OutlierThreshold"] = scan.outliers
    if scan.outliers is None:
        return runs
    scores = {run.source: score_pairs(run, brain, scan.outliers) for run in runs}
    rejected = [(source, s) for source, rows in scores.items() for s in rows if s.is_rejected]
    for source, s in rejected:
        volumes = " and ".join(str(i + 1) for i in sorted(s.pair.indices))
        print_result(
            f"rejected: volumes {volumes} of {source.name} (PLD {s.pld_s:g} s), "
            f"z = {s.z:.1f}, worst in slice {s.worst_slice + 1}"
        )
    fields["RejectedVolumes"] = [
        {"Source": source.name, "Volumes": sorted(s.pair.indices), "Z": round(s.z, 2)}
        for source, s in rejected
    ]
    files["outliers.tsv"] = outlier_table(scores).encode()
    return [without_outliers(run, scores[run.source]) for run in runs]


def _check_macrovascular(scan: ScanArguments, series: "AslSeries") -> None:
    labelings = [timing.labeling for timing in series.acquisition.timings]
    n_delays = len(labelings) - labelings.count("vsasl")
    if scan.macrovascular == "on" and n_delays < N_ARTERIAL_PARAMETERS:
        raise InputError(
            "--macrovascular on",
            "",
            found=f"{n_delays} delays of PCASL, CASL or PASL",
            expected=f"at least {N_ARTERIAL_PARAMETERS}, one for each of CBF, ATT, aBV and aBAT",
            fix="give --macrovascular auto",
        )
