"""A curve of the arrival time -> the curve of a voxel with dispersed arrival.

The label reaches a voxel on different paths. Its transit times have a gamma distribution of fixed
shape, with the ATT of the voxel as mean. Each part of the label is delayed and decays by its own
transit time.
"""

from collections.abc import Callable

import numpy as np
from scipy.special import gammainc, gammaincinv

from aslkit.core.backend import Array, namespace
from aslkit.kinetics.model import KineticModel

GAMMA_SHAPE = 4.0  # skewness 1; the earliest label arrives 2 standard deviations before the mean
N_ARRIVALS = 12  # error relative to the peak: PCASL 0.3 %, PASL 0.8 %, arterial 4 %


def _standard_arrivals(n: int) -> tuple[float, ...]:
    """Return the means of `n` equally likely parts of the distribution, scaled to mean 0, sd 1."""
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
    """Average `curve(model, att)` over transit times of mean `att` and sd `spread_s`.

    Parameters
    ----------
    curve : callable
        `tissue_curve` or `arterial_curve`.
    att : array (..., voxels), numpy or torch
        Mean arrival times [s].
    spread_s : float or array (..., 1)
        Standard deviation [s]; limited to half of `att`, so that no label arrives before
        labeling.

    Returns
    -------
    array (..., n, voxels)
    """
    spread = namespace(att).minimum(spread_s + 0 * att, att / 2)
    return sum(curve(model, att + spread * a) for a in ARRIVALS) / len(ARRIVALS)
