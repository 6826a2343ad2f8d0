"""Estimates and truth of a set of voxels -> the figures of merit of the benchmark.

All inputs are flat arrays of equal length, one value per voxel, in any common unit; a figure that
the data do not define (R² of a constant truth, an interval from one subject) is NaN.
"""

from collections.abc import Callable
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtr
from scipy.stats import rankdata

FloatArray = NDArray[np.floating]

EFFICIENT_ERROR = float(np.sqrt(2 / np.pi))  # E|e| / sd of a Gaussian error, about 0.8
N_RESAMPLES = 2000  # bootstrap draws: limits then repeat to about 1 % of the interval's width
LARGE_ERRORS = 0.1  # share of the voxels, those of largest |error|, that an sd should point at


@dataclass(frozen=True)
class ScaleDeviation:
    """How far CBF(k·S) is from k·CBF(S).

    Attributes
    ----------
    slope : float
        Of CBF(k·S) on k·CBF(S), through the origin; 1 is perfect.
    mean, p95 : float
        Relative deviation of the mean, and its 95th percentile over voxels; 0 is perfect.
    """

    slope: float
    mean: float
    p95: float


def mean_absolute_error(estimate: FloatArray, truth: FloatArray) -> float:
    """Mean of |estimate - truth|."""
    return float(np.mean(np.abs(estimate - truth)))


def bias(estimate: FloatArray, truth: FloatArray) -> float:
    """Mean of estimate - truth."""
    return float(np.mean(estimate - truth))


def root_mean_square_error(estimate: FloatArray, truth: FloatArray) -> float:
    """Root of the mean squared error."""
    return float(np.sqrt(np.mean((estimate - truth) ** 2)))


def r_squared(estimate: FloatArray, truth: FloatArray) -> float:
    """Share of the truth's variance that the estimate explains as it stands (no refitting)."""
    if np.ptp(truth) == 0:
        return float("nan")
    return 1 - float(np.sum((estimate - truth) ** 2) / np.sum((truth - np.mean(truth)) ** 2))


def concordance(estimate: FloatArray, truth: FloatArray) -> float:
    """Lin's concordance correlation coefficient (doi:10.2307/2532051)."""
    covariance = np.mean((estimate - np.mean(estimate)) * (truth - np.mean(truth)))
    apart = (np.mean(estimate) - np.mean(truth)) ** 2
    return _ratio(2 * covariance, np.var(estimate) + np.var(truth) + apart)


def slope(estimate: FloatArray, truth: FloatArray) -> float:
    """Regression of estimate on truth: below 1 where contrasts are flattened."""
    if np.ptp(truth) == 0:
        return float("nan")
    centred = truth - np.mean(truth)
    return float(np.sum(centred * estimate) / np.sum(centred**2))


def wins(error: FloatArray, reference_error: FloatArray) -> FloatArray:
    """1 where |error| is below the reference's, 0 where above, 1/2 for a tie."""
    mine, theirs = np.abs(error), np.abs(reference_error)
    return (mine < theirs) + 0.5 * (mine == theirs)


def coverage(error: FloatArray, sd: FloatArray, level: float) -> float:
    """Share of voxels whose truth lies within the nominal central interval of `level` (0-1)."""
    if np.isnan(sd).any():
        return float("nan")
    half_width = NormalDist().inv_cdf(0.5 + level / 2)
    return float(np.mean(np.abs(error) <= half_width * sd))


def crps(error: FloatArray, sd: FloatArray) -> float:
    """Mean continuous ranked probability score of Gaussian predictions; |error| where sd is 0.

    Gneiting 2007 (doi:10.1198/016214506000001437); in the unit of the error, smaller is better.
    """
    if np.isnan(sd).any():
        return float("nan")
    width = np.where(sd > 0, sd, 1.0)
    z = error / width
    density = np.exp(-(z**2) / 2) / np.sqrt(2 * np.pi)
    score = width * (z * (2 * ndtr(z) - 1) + 2 * density - 1 / np.sqrt(np.pi))
    return float(np.mean(np.where(sd > 0, score, np.abs(error))))


def negative_log_likelihood(error: FloatArray, sd: FloatArray) -> float:
    """Mean of that of Gaussian predictions [nats]; NaN unless every sd is positive."""
    if not (sd > 0).all():
        return float("nan")
    return float(np.mean(0.5 * np.log(2 * np.pi * sd**2) + 0.5 * (error / sd) ** 2))


def auroc_of_large_errors(error: FloatArray, sd: FloatArray) -> float:
    """How well the sd tells the largest errors from the rest: 1 always, 0.5 not at all."""
    size = np.abs(error)
    is_large = size >= np.quantile(size, 1 - LARGE_ERRORS)
    n_large, n_small = int(is_large.sum()), int((~is_large).sum())
    if not (n_large and n_small) or np.isnan(sd).any():
        return float("nan")
    above = rankdata(sd)[is_large].sum() - n_large * (n_large + 1) / 2
    return float(above / (n_large * n_small))


def spearman(first: FloatArray, second: FloatArray) -> float:
    """Rank correlation."""
    a, b = (rankdata(v) - (v.size + 1) / 2 for v in (first, second))
    return _ratio(np.sum(a * b), np.sqrt(np.sum(a**2) * np.sum(b**2)))


def root_mean_square(values: FloatArray) -> float:
    """Root of the mean square."""
    return float(np.sqrt(np.mean(np.square(values, dtype=np.float64))))


def bootstrap_interval(
    numerators: FloatArray, denominators: FloatArray, rng: np.random.Generator
) -> tuple[float, float]:
    """95 % interval of sum(numerators) / sum(denominators) when subjects are drawn again.

    Parameters
    ----------
    numerators, denominators : array, (subjects,)
        Sums over the voxels of each subject: errors and counts, wins and counts, errors of two
        estimators. NaN for both limits when there is only one subject.
    """
    n = len(numerators)
    if n < 2:
        return float("nan"), float("nan")
    drawn = rng.integers(n, size=(N_RESAMPLES, n))
    ratios = np.sum(numerators[drawn], axis=1) / np.sum(denominators[drawn], axis=1)
    low, high = np.percentile(ratios, [2.5, 97.5])
    return float(low), float(high)


def scale_deviation(cbf: FloatArray, scaled_cbf: FloatArray, factor: float) -> ScaleDeviation:
    """Compare the CBF of a signal with that of `factor` times the signal (no CBF may be 0)."""
    expected = factor * cbf
    return ScaleDeviation(
        slope=_ratio(np.sum(scaled_cbf * expected), np.sum(expected**2)),
        mean=_ratio(np.mean(scaled_cbf), np.mean(expected)) - 1,
        p95=float(np.percentile(np.abs(scaled_cbf / expected - 1), 95)),
    )


def _ratio(numerator: np.floating, denominator: np.floating) -> float:
    return float(numerator / denominator) if denominator > 0 else float("nan")


ACCURACY: dict[str, Callable[[FloatArray, FloatArray], float]] = {
    "MAE": mean_absolute_error,
    "bias": bias,
    "RMSE": root_mean_square_error,
    "R2": r_squared,
    "CCC": concordance,
    "slope": slope,
}
