"""AslSeries and ParameterMaps -> structure in the residuals: a map and a score.

Noise is independent between voxels. Artefacts are similar in neighbouring voxels and remain after
smoothing (motion, ghosts, wrong delays), or they have one strong spatial frequency in one slice
and volume (spikes). Both are compared with the residuals themselves, because artefacts that
change between repeats would raise a noise level from the repeats.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from aslkit.core.series_and_maps import AslSeries, Flag, FloatImage, MaskImage, ParameterMaps
from aslkit.fit.least_squares import fitted_signal

SIGMA_PIXELS = 1.0  # smoothing of the residuals, in-plane
NOISE_SIGMA_PIXELS = 4.0  # averaging of the noise level, in-plane
SCORE_PERCENTILE = 99  # percentile of the map in the mask, because artefacts may be local
FEWEST_VOXELS = 50  # smallest slice for the spatial frequencies
SECOND_DIFFERENCE = np.array([1.0, -2.0, 1.0])

Image = NDArray[np.float64]


@dataclass(frozen=True)
class ResidualStructure:
    """Structure in the residuals.

    Attributes
    ----------
    structure : array (x, y, z)
        Mean square of the smoothed residuals / that of white noise; NaN outside of the mask and
        without an estimate.
    score : float or None
        99th percentile of the map times the prominence of the strongest spatial frequency (1 for
        noise); None if no voxel has a known noise level.
    """

    structure: FloatImage
    score: float | None


def residual_structure(series: AslSeries, maps: ParameterMaps) -> ResidualStructure:
    """Compute map and score of the structure in the residuals."""
    inside = series.usable & (maps.flags != Flag.NOT_FINITE)
    fitted = fitted_signal(maps, series.acquisition)
    residuals = np.where(inside[..., None], series.delta_m - fitted, 0).astype(np.float64)
    residuals *= np.sqrt(series.acquisition.weights)
    structure = _structure(residuals, inside)
    known = structure[np.isfinite(structure)]
    if not known.size:
        return ResidualStructure(structure, None)
    tail = float(np.percentile(known, SCORE_PERCENTILE))
    return ResidualStructure(structure, tail * _prominence(residuals, inside))


def _structure(residuals: Image, inside: MaskImage) -> FloatImage:
    """Return the mean square after smoothing / that of white noise of equal differences."""
    squares, differences = np.zeros(inside.shape), np.zeros(inside.shape)
    for residual in np.moveaxis(residuals, 3, 0):
        squares += _smooth_in_plane(residual, SIGMA_PIXELS) ** 2
        along_x = ndimage.convolve1d(residual, SECOND_DIFFERENCE, axis=0, mode="constant")
        differences += ndimage.convolve1d(along_x, SECOND_DIFFERENCE, axis=1, mode="constant") ** 2
    core = ndimage.binary_erosion(inside, np.ones((3, 3, 1)))
    share = _smooth_in_plane(core.astype(np.float64), NOISE_SIGMA_PIXELS)
    of_noise = _smooth_in_plane(differences * core, NOISE_SIGMA_PIXELS) * _kept(inside)
    of_noise /= np.sum(SECOND_DIFFERENCE**2) ** 2
    is_known = inside & (of_noise > 0)
    nothing = np.full(inside.shape, np.nan)
    return np.divide(squares * share, of_noise, out=nothing, where=is_known).astype(np.float32)


def _prominence(residuals: Image, inside: MaskImage) -> float:
    """Return the largest power of a frequency / its median over slices and volumes; 1 in noise.

    The largest of n exponential numbers is about ln n times their mean.
    """
    slices = np.flatnonzero(inside.sum((0, 1)) >= FEWEST_VOXELS)
    if not slices.size:
        return 1.0
    area = inside.sum((0, 1))[slices, None]
    power = np.abs(np.fft.rfft2(residuals[:, :, slices], axes=(0, 1))) ** 2 / area
    mean = np.median(power, axis=(2, 3), keepdims=True) / np.log(2)
    relative = np.divide(power, mean, out=np.zeros_like(power), where=mean > 0)
    return float(relative.max() / np.log(inside[..., slices].sum() * residuals.shape[3]))


def _kept(inside: MaskImage) -> Image:
    """Return the share of white-noise variance that remains after smoothing."""
    radius = int(4 * SIGMA_PIXELS + 0.5)
    kernel = np.exp(-0.5 * (np.arange(-radius, radius + 1) / SIGMA_PIXELS) ** 2)
    squares = (kernel / kernel.sum()) ** 2
    along_x = ndimage.convolve1d(inside.astype(np.float64), squares, axis=0, mode="constant")
    return np.asarray(ndimage.convolve1d(along_x, squares, axis=1, mode="constant"))


def _smooth_in_plane(image: Image, sigma: float) -> Image:
    return np.asarray(ndimage.gaussian_filter(image, (sigma, sigma, 0), mode="constant"))
