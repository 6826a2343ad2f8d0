"""A run -> outlier score of every control-label pair, and the run without outliers.

Each difference is compared with the voxel-wise median of its timing group: the RMS residual in
every slice, relative to the median over all pairs of the run, then the mean over the worst slices.
The median and MAD of these values, one per pair, give the robust z.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from aslkit.bids.run import AslRun, Pair, difference, timing_groups
from aslkit.core.series_and_maps import FloatImage, MaskImage
from aslkit.core.tables import rows_text

WORST_SLICES = 0.25  # share of the slices that are averaged
OUTLIER_COLUMNS = ("source", "volumes", "label_duration", "pld", "worst_slice", "z", "rejected")
SMALL_SLICE = 0.1  # slices with less than this share of the largest brain area are skipped
SD_PER_MAD = 1.4826  # for a normal distribution
LEAST_SPREAD = 0.15  # smallest sd, as a fraction of the median


@dataclass(frozen=True)
class PairScore:
    """Outlier score of one pair.

    Attributes
    ----------
    pair : Pair
        Its volumes.
    label_duration_s, pld_s : float
        Timing of its group [s].
    worst_slice : int
        The slice with the largest residual, counted from 0.
    z : float
        Robust z of its residual; NaN if the group has no other pair.
    is_rejected : bool
        Whether the pair is excluded from the average.
    """

    pair: Pair
    label_duration_s: float
    pld_s: float
    worst_slice: int
    z: float
    is_rejected: bool


def score_pairs(run: AslRun, brain: MaskImage, threshold: float) -> tuple[PairScore, ...]:
    """Score every pair of a run; at least half of every timing group is kept.

    Parameters
    ----------
    run : AslRun
        Control and label, or difference, volumes.
    brain : bool array (x, y, z)
        Voxels whose residuals are used.
    threshold : float
        Robust z above which a pair is rejected.

    Returns
    -------
    tuple of PairScore
        In the order of `timing_groups`.
    """
    groups = timing_groups(run)
    differences = [np.stack([difference(run, p) for p in g], axis=3) for g in groups.values()]
    finite = np.all([np.isfinite(d).all(axis=3) for d in differences], axis=0)
    slices = _slices_that_count(brain & finite)
    relative = np.stack([_relative(differences, z, (brain & finite)[:, :, z]) for z in slices], 1)
    worst = slices[np.argmax(np.nan_to_num(relative), axis=1)]
    z = _robust_z(relative)
    scores, start = [], 0
    for (duration, pld), pairs in groups.items():
        own = slice(start, start + len(pairs))
        rejected = _rejected(z[own], threshold)
        rows = zip(pairs, worst[own], z[own], rejected, strict=True)
        scores += [PairScore(p, duration, pld, int(w), float(s), bool(r)) for p, w, s, r in rows]
        start += len(pairs)
    return tuple(scores)


def remove_outliers(run: AslRun, scores: Sequence[PairScore]) -> AslRun:
    """Mark the volumes of rejected pairs as n/a, which excludes them."""
    rejected = {i for s in scores if s.is_rejected for i in s.pair.indices}
    contexts = tuple("n/a" if i in rejected else c for i, c in enumerate(run.contexts))
    return replace(run, contexts=contexts)


def outlier_table(scores: Mapping[Path, Sequence[PairScore]]) -> str:
    """Return the scores of all runs as tab-separated text; volumes and slices count from 0."""
    rows = [
        (
            source.name,
            ",".join(str(i) for i in sorted(s.pair.indices)),
            s.label_duration_s,
            s.pld_s,
            s.worst_slice,
            f"{s.z:.2f}" if np.isfinite(s.z) else None,
            int(s.is_rejected),
        )
        for source, pairs in scores.items()
        for s in pairs
    ]
    return rows_text(OUTLIER_COLUMNS, rows)


def _slices_that_count(usable: MaskImage) -> NDArray[np.intp]:
    sizes = usable.sum(axis=(0, 1))
    return np.flatnonzero(sizes >= SMALL_SLICE * sizes.max())


def _relative(differences: Sequence[FloatImage], z: int, inside: MaskImage) -> NDArray[np.float64]:
    """Return the RMS residual of every pair in one slice, relative to the median over pairs."""
    if not inside.any():  # realignment may leave no voxel that is inside of all volumes
        return np.full(sum(d.shape[3] for d in differences), np.nan)
    groups = [d[:, :, z][inside].astype(np.float64) for d in differences]
    overall = np.median(np.concatenate(groups, axis=1), axis=1)
    squares = [np.mean((g - _reference(g, overall)) ** 2, axis=0) for g in groups]
    residuals = np.concatenate([np.sqrt(q / _shrinkage(q.size)) for q in squares])
    judged = residuals[np.isfinite(residuals)]
    typical = np.median(judged) if judged.size else 0.0
    return residuals / (typical if typical > 0 else 1.0)


def _reference(group: NDArray[np.float64], overall: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the median of a group, (voxels, 1); two pairs use the run's median as a third."""
    if group.shape[1] == 2:
        group = np.column_stack([group, overall])
    return np.median(group, axis=1, keepdims=True)


def _shrinkage(n: int) -> float:
    """Return the mean square distance of n normal values from their median / their variance.

    NaN for a single value. The variance of the median is approximate, to 2 %.
    """
    n = 3 if n == 2 else n  # the run's median is the third value
    return 1 + np.pi / (2 * n + np.pi - 2) - 2 / n if n > 1 else np.nan


def _robust_z(relative: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the robust z of the mean over each pair's worst slices, from (pairs, slices)."""
    n_worst = max(round(WORST_SLICES * relative.shape[1]), 1)
    badness = np.sort(relative, axis=1)[:, -n_worst:].mean(axis=1)
    judged = badness[np.isfinite(badness)]
    if not judged.size:
        return badness
    middle = np.median(judged)
    spread = SD_PER_MAD * np.median(np.abs(judged - middle))
    return (badness - middle) / max(spread, LEAST_SPREAD * middle, np.finfo(float).tiny)


def _rejected(z: NDArray[np.float64], threshold: float) -> NDArray[np.bool_]:
    """Select the pairs above the threshold, at most half of them, the worst first."""
    is_among_worst = np.zeros(z.size, dtype=bool)
    is_among_worst[np.argsort(-np.nan_to_num(z), kind="stable")[: z.size // 2]] = True
    return is_among_worst & (z > threshold)
