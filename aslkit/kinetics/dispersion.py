"""A curve of the arrival time -> the curve of a voxel whose label arrives over a range of times.

The label of a voxel travels different ways. Its transit times are spread as a gamma distribution
of fixed shape around the voxel's ATT; each share of the label is delayed, and decays, by its own
time.
"""

from collections.abc import Callable

import numpy as np
from scipy.special import gammainc, gammaincinv

from aslkit.core.backend import Array, namespace
from aslkit.kinetics.model import KineticModel

GAMMA_SHAPE = 4.0  # skewness 1; the earliest label arrives 2 standard deviations before the mean
N_ARRIVALS = 12  # error of PCASL curves 0.3 % of their peak, of PASL 0.8 %, of arteries 4 %


def _standard_arrivals(n: int) -> tuple[float, ...]:
    """Means of `n` equally likely parts of the distribution, of mean 0 and unit variance."""
    borders = gammaincinv(GAMMA_SHAPE, np.arange(n + 1) / n)
    means = n * GAMMA_SHAPE * np.diff(gammainc(GAMMA_SHAPE + 1, borders))
    return tuple((means - GAMMA_SHAPE) / np.sqrt(GAMMA_SHAPE))


ARRIVALS = _standard_arrivals(N_ARRIVALS)


def dispersed(
    curve: Callable[[KineticModel, Array], Array],
    model: KineticModel,
    att: Array,
    spread_s: float | Array,
) -> Array:
    """`curve(model, att)` with transit times of standard deviation `spread_s` and mean `att`.

    Parameters
    ----------
    curve : callable
        `tissue_curve` or `arterial_curve`.
    att : array (..., voxels), numpy or torch
        Mean arrival times [s].
    spread_s : float or array (..., 1)
        Standard deviation [s]; where it exceeds half of `att`, that half, as no label is
        faster than the labeling.

    Returns
    -------
    array (..., n, voxels)
    """
    spread = namespace(att).minimum(spread_s + 0 * att, att / 2)
    return sum(curve(model, att + spread * a) for a in ARRIVALS) / len(ARRIVALS)
