"""AslSeries and ParameterMaps -> how much structure the maps leave in the data.

Noise differs from voxel to voxel. What the model does not know (motion, ghosts, spikes, wrong
delays) is alike in neighbours, and stays when the residuals are smoothed.
"""

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from aslkit.fitting import fitted_signal
from aslkit.images import AslSeries, Flag, FloatImage, ParameterMaps

SIGMA_PIXELS = 1.0  # of the smoothing, in-plane
SCORE_PERCENTILE = 99  # of the map in the mask: an artefact need not be everywhere
OFFSETS = np.arange(-4, 5)


def residual_structure(series: AslSeries, maps: ParameterMaps) -> FloatImage:
    """Mean square of the smoothed residuals, in units of that of white noise, (x, y, z).

    NaN outside the mask and where there is no estimate. Where nothing but white noise is left,
    the mean is a little below 1, since the maps follow the noise.

    Parameters
    ----------
    series : AslSeries
        Its noise level, `noise_sd`, must be known.
    """
    if series.noise_sd is None:
        raise ValueError("the structure of residuals needs the noise level")
    inside = series.mask & (maps.flags != Flag.NOT_FINITE) & (series.noise_sd > 0)
    sd = np.where(inside, series.noise_sd, 1)
    fitted = fitted_signal(maps, series.acquisition)
    kernel = np.exp(-0.5 * (OFFSETS / SIGMA_PIXELS) ** 2)
    squares = np.zeros(inside.shape)
    for i, weight in enumerate(series.acquisition.weights):
        residual = np.where(inside, (series.delta_m[..., i] - fitted[..., i]) / sd, 0)
        squares += weight * _smoothed(residual, kernel) ** 2
    of_noise = series.acquisition.n_timings * _smoothed(inside.astype(np.float64), kernel**2)
    nothing = np.full(inside.shape, np.nan)
    return np.divide(squares, of_noise, out=nothing, where=inside).astype(np.float32)


def score(structure: FloatImage) -> float | None:
    """The 99th percentile of the map; None without a voxel."""
    values = structure[np.isfinite(structure)]
    return float(np.percentile(values, SCORE_PERCENTILE)) if values.size else None


def _smoothed(image: FloatImage, kernel: NDArray[np.float64]) -> NDArray[np.float64]:
    along_x = ndimage.convolve1d(image, kernel, axis=0, mode="constant")
    return np.asarray(ndimage.convolve1d(along_x, kernel, axis=1, mode="constant"))
