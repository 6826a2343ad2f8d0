"""Runs as read -> the calibrated series that every estimator takes, and a record of the steps.

runs ─ brain mask ─ realignment (optional) ─ outlier rejection ─ ΔM/M0 averages ─▶ series
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from aslkit.bids.nifti import read_mask
from aslkit.bids.run import AslRun
from aslkit.bids.tissue_maps import TissueMaps, read_tissue
from aslkit.core.constants import OUTLIER_Z
from aslkit.core.progress import Progress
from aslkit.core.series_and_maps import AslSeries, MaskImage
from aslkit.prepare.outliers import PairScore, outlier_table, remove_outliers, score_pairs
from aslkit.prepare.series import run_brain_mask, series_from_runs


@dataclass(frozen=True)
class PreparationSettings:
    """How runs become a series.

    Attributes
    ----------
    mask : Path, optional
        NIfTI file of the brain mask; computed from M0 or the mean control by default.
    realign : bool
        Whether every volume is moved to the position of M0 by a rigid transform.
    outlier_z : float, optional
        Robust z above which a control-label pair is rejected; None keeps all pairs.
    smoothing_sigma_mm : float
        In-plane Gaussian smoothing of every difference image [mm].
    gm, wm : Path, optional
        NIfTI files of tissue fractions on the grid of the scan.
    """

    mask: Path | None = None
    realign: bool = False
    outlier_z: float | None = OUTLIER_Z
    smoothing_sigma_mm: float = 0.0
    gm: Path | None = None
    wm: Path | None = None


@dataclass(frozen=True)
class Prepared:
    """A scan that is ready for estimation.

    Attributes
    ----------
    runs : list of AslRun
        The runs after realignment; the volumes of rejected pairs are n/a.
    series : AslSeries
        ΔM/M0, noise and brain mask.
    tissue : TissueMaps, optional
        Tissue fractions, if they were given.
    scores : tuple of PairScore
        Outlier scores of all pairs; empty without outlier rejection.
    fields : dict
        What was done, as fields of the output sidecars.
    files : dict
        Name and content of the tables and plots about motion and outliers.
    messages : list of str
        What was done, for the terminal.
    """

    runs: list[AslRun]
    series: AslSeries
    tissue: TissueMaps | None = None
    scores: tuple[PairScore, ...] = ()
    fields: dict[str, object] = field(default_factory=dict)
    files: dict[str, bytes] = field(default_factory=dict)
    messages: list[str] = field(default_factory=list)


def prepare_runs(
    runs: Sequence[AslRun],
    settings: PreparationSettings = PreparationSettings(),  # noqa: B008
    progress: Progress = iter,
) -> Prepared:
    """Find the brain, realign, reject outliers, subtract, calibrate and average.

    Parameters
    ----------
    runs : sequence of AslRun
        The runs of one acquisition, on one grid.
    settings : PreparationSettings
        Which steps are done, and how.
    progress : callable
        Wraps the volumes that are realigned, as tqdm does.

    Returns
    -------
    Prepared
        The series, and what was done.

    Raises
    ------
    InputError
        When a file does not fit the scan, or the runs do not fit each other.
    """
    record = _Record()
    kept = list(runs)
    if settings.mask is None:
        brain = run_brain_mask(kept[0])
    else:
        brain = read_mask(settings.mask, kept[0].volumes.shape[:3], kept[0].affine)
    if settings.realign:
        kept = _realign(kept, brain, record, progress)
    kept, scores = _reject_outliers(kept, brain, settings.outlier_z, record)
    series = series_from_runs(kept, brain, settings.smoothing_sigma_mm)
    tissue = None
    if settings.gm is not None and settings.wm is not None:
        tissue = read_tissue(settings.gm, settings.wm, brain, kept[0].affine)
    return Prepared(kept, series, tissue, scores, record.fields, record.files, record.messages)


@dataclass(frozen=True)
class _Record:
    """What the steps did."""

    fields: dict[str, object] = field(default_factory=dict)
    files: dict[str, bytes] = field(default_factory=dict)
    messages: list[str] = field(default_factory=list)


def _realign(
    runs: list[AslRun], brain: MaskImage, record: _Record, progress: Progress
) -> list[AslRun]:
    """Move every volume to the position of M0, or else of the first timing of its run."""
    from aslkit.prepare.motion import framewise_displacement, realign
    from aslkit.prepare.motion_report import motion_plot, motion_table

    m0 = runs[0].calibration.m0
    reference = m0 if isinstance(m0, np.ndarray) else None
    found = {run.source: realign(run, reference, brain, progress) for run in runs}
    motion = {source: parameters for source, (_, parameters) in found.items()}
    displacements = np.concatenate([framewise_displacement(p) for p in motion.values()])
    mean, largest = np.nanmean(displacements), np.nanmax(displacements)
    record.messages.append(
        f"motion: framewise displacement {mean:.2f} mm on average, {largest:.2f} mm at most"
    )
    record.fields["MotionCorrection"] = "rigid, cubic splines, slice timing as acquired"
    record.fields["MeanFramewiseDisplacement"] = round(float(mean), 4)
    record.files["motion.tsv"] = motion_table(runs, motion).encode()
    record.files["motion.png"] = motion_plot(motion)
    return [run for run, _ in found.values()]


def _reject_outliers(
    runs: list[AslRun], brain: MaskImage, threshold: float | None, record: _Record
) -> tuple[list[AslRun], tuple[PairScore, ...]]:
    """Mark the volumes of outlier pairs as n/a; return the runs and the scores of all pairs."""
    record.fields["OutlierThreshold"] = threshold
    if threshold is None:
        return runs, ()
    scores = {run.source: score_pairs(run, brain, threshold) for run in runs}
    rejected = [(source, s) for source, rows in scores.items() for s in rows if s.is_rejected]
    for source, s in rejected:
        volumes = " and ".join(str(i + 1) for i in sorted(s.pair.indices))
        record.messages.append(
            f"rejected: volumes {volumes} of {source.name} (PLD {s.pld_s:g} s), "
            f"z = {s.z:.1f}, worst in slice {s.worst_slice + 1}"
        )
    record.fields["RejectedVolumes"] = [
        {"Source": source.name, "Volumes": sorted(s.pair.indices), "Z": round(s.z, 2)}
        for source, s in rejected
    ]
    record.files["outliers.tsv"] = outlier_table(scores).encode()
    kept = [remove_outliers(run, scores[run.source]) for run in runs]
    return kept, tuple(s for rows in scores.values() for s in rows)
