"""Pairs of values -> statistics of their agreement: bias, limits, CCC, ICC(A,1), intervals.

Neighbouring voxels are correlated, so the bootstrap resamples blocks of voxels.
"""

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from aslkit.core.backend import Array
from aslkit.core.constants import Z_95
from aslkit.core.series_and_maps import MaskImage
from aslkit.validate.metrics import FloatArray

BLOCK_MM = 20.0  # edge; larger than the point spread of ASL and the folds of the cortex
N_RESAMPLES = 1000
MIN_BLOCKS = 5  # fewer blocks give no interval
MIN_SUBJECTS = 3

Blocks = NDArray[np.intp]


@dataclass(frozen=True)
class Interval:
    """A value and its 95 % interval; NaN where the data do not define it."""

    value: float
    low: float = float("nan")
    high: float = float("nan")


def assign_blocks(mask: MaskImage, voxel_size_mm: tuple[float, float, float]) -> Blocks:
    """Return the number of the cube of edge `BLOCK_MM` that holds each voxel, (voxels,)."""
    cubes = np.argwhere(mask) * np.asarray(voxel_size_mm) // BLOCK_MM
    return np.asarray(np.unique(cubes, axis=0, return_inverse=True)[1]).ravel()


def agreement(first: FloatArray, second: FloatArray, blocks: Blocks) -> dict[str, Interval]:
    """Compute the agreement of `first` with `second`, with intervals by bootstrap over blocks.

    Parameters
    ----------
    first, second : array (n,)
        Paired values in one unit.
    blocks : int array (n,)
        The block of each pair.

    Returns
    -------
    dict
        "difference" (mean of first - second), "lower limit" and "upper limit" of agreement
        (mean ± 1.96 sd of the differences; Bland and Altman 1986,
        doi:10.1016/S0140-6736(86)90837-8) and "absolute difference" (mean of
        |first - second|), in the unit of the input; without unit "CCC" (Lin 1989,
        doi:10.2307/2532051) and "ICC(A,1)" (McGraw and Wong 1996,
        doi:10.1037/1082-989X.1.1.30).
    """
    middle = first.mean()
    a, b = first - middle, second - middle
    summands = (np.ones_like(a), a, b, a * a, b * b, a * b, np.abs(a - b))
    sums: NDArray[np.float64] = np.stack([np.bincount(blocks, weights=w) for w in summands])
    values = _figures(sums.sum(axis=1))
    n = sums.shape[1]
    if n < MIN_BLOCKS:
        return {name: Interval(float(v)) for name, v in values.items()}
    resampled = _figures(sums @ _draws(n))
    return {
        name: Interval(float(v), *map(float, np.nanpercentile(resampled[name], [2.5, 97.5])))
        if np.isfinite(v)
        else Interval(float("nan"))
        for name, v in values.items()
    }


@lru_cache(maxsize=4)  # the same regions recur, and drawing takes four fifths of the time
def _draws(n: int) -> NDArray[np.float64]:
    """Draw how often each of n blocks is in each resample, (n, resamples)."""
    return np.random.default_rng(0).multinomial(n, np.full(n, 1 / n), N_RESAMPLES).T.astype(float)


def mean_interval(values: FloatArray) -> Interval:
    """Compute the mean over subjects, with its t interval from `MIN_SUBJECTS` on."""
    known = values[np.isfinite(values)]
    if known.size < MIN_SUBJECTS:
        return Interval(float(known.mean()) if known.size else float("nan"))
    half = stats.t.ppf(0.975, known.size - 1) * known.std(ddof=1) / np.sqrt(known.size)
    return Interval(float(known.mean()), float(known.mean() - half), float(known.mean() + half))


def limits_of_agreement(differences: FloatArray) -> tuple[Interval, Interval]:
    """Compute the limits of agreement over subjects, in the unit of the differences.

    Their intervals are those of Bland and Altman 1999 (doi:10.1191/096228099673819272).
    """
    n, sd = differences.size, float(differences.std(ddof=1))
    half = float(stats.t.ppf(0.975, n - 1)) * sd * np.sqrt(1 / n + Z_95**2 / (2 * (n - 1)))
    ends = (differences.mean() - Z_95 * sd, differences.mean() + Z_95 * sd)
    low, high = (Interval(float(e), float(e - half), float(e + half)) for e in ends)
    return low, high


def intraclass_correlation(first: FloatArray, second: FloatArray) -> Interval:
    """Compute the ICC(A,1) of two measurements per subject, with McGraw and Wong's F interval."""
    n, k = first.size, 2
    if n < MIN_SUBJECTS:
        return Interval(float("nan"))
    covariances = np.cov(first, second)[[0, 1, 0], [0, 1, 1]]
    rows, columns, rest = _mean_squares(n, first.mean(), second.mean(), *covariances)
    total = rows + rest + k * (columns - rest) / n
    if not total > 0:  # all values are equal: the ICC is undefined
        return Interval(float("nan"))
    r = (rows - rest) / total
    if not r < 1:
        return Interval(float(r))
    a = k * r / (n * (1 - r))
    b = 1 + a * (n - 1)
    freedom = (a * columns + b * rest) ** 2 / ((a * columns) ** 2 + (b * rest) ** 2 / (n - 1))
    lower, upper = stats.f.ppf(0.975, n - 1, freedom), stats.f.ppf(0.975, freedom, n - 1)
    within = k * columns + (k * n - k - n) * rest
    low = n * (rows - lower * rest) / (lower * within + n * rows)
    high = n * (upper * rows - rest) / (within + n * upper * rows)
    return Interval(float(r), float(low), float(high))


def _figures(sums: NDArray[np.floating]) -> dict[str, NDArray[np.float64]]:
    """Compute the statistics from the sums (7, …) of 1, a, b, aa, bb, ab and |a - b|."""
    n = sums[0]
    a, b, aa, bb, ab, absolute = sums[1:] / n
    var_a, var_b, covariance = aa - a * a, bb - b * b, ab - a * b
    difference = a - b
    half_width = Z_95 * np.sqrt(np.maximum(var_a + var_b - 2 * covariance, 0))
    scale = n / (n - 1)
    variances = (scale * v for v in (var_a, var_b, covariance))
    rows, columns, rest = _mean_squares(n, a, b, *variances)
    with np.errstate(divide="ignore", invalid="ignore"):
        ccc = 2 * covariance / (var_a + var_b + difference**2)
        icc = (rows - rest) / (rows + rest + 2 * (columns - rest) / n)
    return {
        "difference": difference,
        "lower limit": difference - half_width,
        "upper limit": difference + half_width,
        "absolute difference": absolute,
        "CCC": ccc,
        "ICC(A,1)": icc,
    }


def _mean_squares(n: int, a: Array, b: Array, *variances: Array) -> tuple[Array, Array, Array]:
    """Compute the mean squares of rows, columns and residuals of a two-way ANOVA."""
    var_a, var_b, covariance = variances
    rows = (var_a + var_b + 2 * covariance) / 2
    return rows, n * (a - b) ** 2 / 2, (var_a + var_b - 2 * covariance) / 2
