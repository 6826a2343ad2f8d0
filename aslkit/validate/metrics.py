"""Estimates and truth of a set of voxels -> metrics of accuracy and of the standard deviations.

All inputs are arrays (voxels,) in one common unit. Metrics that the data do not define (such as
R² of a constant truth) are NaN.
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
N_RESAMPLES = 2000  # bootstrap resamples; limits vary by about 1 % of the width of the interval
LARGE_ERRORS = 0.1  # share of the voxels, those with the largest |error|


@dataclass(frozen=True)
class ScaleDeviation:
    """Difference between CBF(k·S) and k·CBF(S) for a signal S and a factor k, without unit.

    Attributes
    ----------
    slope : float
        Slope of the regression of CBF(k·S) on k·CBF(S) through the origin; 1 is perfect.
    mean : float
        Relative deviation of the mean CBF; 0 is perfect.
    p95 : float
        95th percentile over voxels of the absolute relative deviation; 0 is perfect.
    """

    slope: float
    mean: float
    p95: float


def mean_absolute_error(estimate: FloatArray, truth: FloatArray) -> float:
    """Compute the mean of |estimate - truth|, in the unit of the input."""
    return float(np.mean(np.abs(estimate - truth)))


def bias(estimate: FloatArray, truth: FloatArray) -> float:
    """Compute the mean of estimate - truth, in the unit of the input."""
    return float(np.mean(estimate - truth))


def root_mean_square_error(estimate: FloatArray, truth: FloatArray) -> float:
    """Compute the square root of the mean of (estimate - truth)², in the unit of the input."""
    return float(np.sqrt(np.mean((estimate - truth) ** 2)))


def r_squared(estimate: FloatArray, truth: FloatArray) -> float:
    """Compute R² = 1 - Σ(estimate - truth)² / Σ(truth - mean truth)², without unit."""
    if np.ptp(truth) == 0:
        return float("nan")
    return 1 - float(np.sum((estimate - truth) ** 2) / np.sum((truth - np.mean(truth)) ** 2))


def concordance(estimate: FloatArray, truth: FloatArray) -> float:
    """Compute Lin's concordance correlation coefficient, -1 to 1 (doi:10.2307/2532051)."""
    covariance = np.mean((estimate - np.mean(estimate)) * (truth - np.mean(truth)))
    squared_bias = (np.mean(estimate) - np.mean(truth)) ** 2
    return _ratio(2 * covariance, np.var(estimate) + np.var(truth) + squared_bias)


def slope(estimate: FloatArray, truth: FloatArray) -> float:
    """Compute the slope of the regression of estimate on truth; below 1: reduced contrast."""
    if np.ptp(truth) == 0:
        return float("nan")
    centred = truth - np.mean(truth)
    return float(np.sum(centred * estimate) / np.sum(centred**2))


def wins(error: FloatArray, reference_error: FloatArray) -> FloatArray:
    """Return 1 per voxel where |error| < |reference_error|, 0 where larger, 1/2 where equal."""
    absolute, reference = np.abs(error), np.abs(reference_error)
    return (absolute < reference) + 0.5 * (absolute == reference)


def coverage(error: FloatArray, sd: FloatArray, level: float) -> float:
    """Compute the share of voxels (0-1) with the truth inside the central interval of `level`.

    `level` (0-1) is the nominal probability of the Gaussian interval.
    """
    if np.isnan(sd).any():
        return float("nan")
    half_width = NormalDist().inv_cdf(0.5 + level / 2)
    return float(np.mean(np.abs(error) <= half_width * sd))


def crps(error: FloatArray, sd: FloatArray) -> float:
    """Compute the mean continuous ranked probability score of Gaussian predictions.

    Gneiting 2007 (doi:10.1198/016214506000001437); in the unit of the error, smaller is better.
    Voxels with sd 0 contribute |error|.
    """
    if np.isnan(sd).any():
        return float("nan")
    width = np.where(sd > 0, sd, 1.0)
    z = error / width
    density = np.exp(-(z**2) / 2) / np.sqrt(2 * np.pi)
    score = width * (z * (2 * ndtr(z) - 1) + 2 * density - 1 / np.sqrt(np.pi))
    return float(np.mean(np.where(sd > 0, score, np.abs(error))))


def negative_log_likelihood(error: FloatArray, sd: FloatArray) -> float:
    """Compute the mean negative log-likelihood of Gaussian predictions [nats].

    It is NaN unless all standard deviations are positive.
    """
    if not (sd > 0).all():
        return float("nan")
    return float(np.mean(0.5 * np.log(2 * np.pi * sd**2) + 0.5 * (error / sd) ** 2))


def auroc_of_large_errors(error: FloatArray, sd: FloatArray) -> float:
    """Compute the area under the ROC curve (0-1) of detecting the largest errors by their sd.

    1: each of the `LARGE_ERRORS` has a larger sd than any other voxel; 0.5: chance.
    """
    absolute = np.abs(error)
    is_large = absolute >= np.quantile(absolute, 1 - LARGE_ERRORS)
    n_large, n_small = int(is_large.sum()), int((~is_large).sum())
    if not (n_large and n_small) or np.isnan(sd).any():
        return float("nan")
    n_ordered_pairs = rankdata(sd)[is_large].sum() - n_large * (n_large + 1) / 2
    return float(n_ordered_pairs / (n_large * n_small))


def spearman(first: FloatArray, second: FloatArray) -> float:
    """Compute Spearman's rank correlation, -1 to 1."""
    a, b = (rankdata(v) - (v.size + 1) / 2 for v in (first, second))
    return _ratio(np.sum(a * b), np.sqrt(np.sum(a**2) * np.sum(b**2)))


def root_mean_square(values: FloatArray) -> float:
    """Compute the square root of the mean square, in the unit of the input."""
    return float(np.sqrt(np.mean(np.square(values, dtype=np.float64))))


def bootstrap_interval(
    numerators: FloatArray, denominators: FloatArray, rng: np.random.Generator
) -> tuple[float, float]:
    """Compute the 95 % interval of sum(numerators) / sum(denominators) by bootstrap over subjects.

    Parameters
    ----------
    numerators, denominators : array (subjects,)
        Sums over the voxels of each subject, for example of errors and of voxels.

    Returns
    -------
    tuple of float
        Lower and upper limit; NaN for a single subject.
    """
    n = len(numerators)
    if n < 2:
        return float("nan"), float("nan")
    drawn = rng.integers(n, size=(N_RESAMPLES, n))
    ratios = np.sum(numerators[drawn], axis=1) / np.sum(denominators[drawn], axis=1)
    low, high = np.percentile(ratios, [2.5, 97.5])
    return float(low), float(high)


def scale_deviation(cbf: FloatArray, scaled_cbf: FloatArray, factor: float) -> ScaleDeviation:
    """Compare the CBF of a signal with the CBF of `factor` times the signal; no CBF may be 0."""
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
