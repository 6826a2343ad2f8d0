"""Scatter of repeated measurements -> map of the noise of one averaged volume."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from aslkit.images import FloatImage, MaskImage

SMOOTHING_FWHM_MM = 8.0  # in-plane; a few hundred degrees of freedom per voxel
FWHM_PER_SIGMA = float(np.sqrt(8 * np.log(2)))


def noise_from_repeats(
    groups: Sequence[FloatImage],
    n_averages: Sequence[int],
    mask: MaskImage,
    voxel_size_mm: Sequence[float],
) -> FloatImage | None:
    """Standard deviation of a volume of mean weight, from the scatter within timing groups.

    Parameters
    ----------
    groups : sequence of array (x, y, z, repeats)
        The repeats of every timing.
    n_averages : sequence of int
        Control-label pairs that the mean of each group stands for.
    mask : bool array (x, y, z)
        Brain; the estimate is smoothed within it and outside it separately.
    voxel_size_mm : tuple of float
        Edge lengths of a voxel [mm].

    Returns
    -------
    array (x, y, z) or None
        In the unit of the input; None when no group has two repeats.
    """
    repeats = [group.shape[3] for group in groups]
    freedom = sum(n - 1 for n in repeats)
    if not freedom:
        return None
    squares = np.zeros(mask.shape)
    for group, averages in zip(groups, n_averages, strict=True):
        squares += group.var(axis=3, dtype=np.float64) * averages  # sum of squares of single pairs
    variance = squares / freedom / float(np.mean(n_averages))
    sigma_mm = SMOOTHING_FWHM_MM / FWHM_PER_SIGMA
    smoothed = np.where(
        mask,
        smooth_within(variance, mask, sigma_mm, voxel_size_mm),
        smooth_within(variance, ~mask, sigma_mm, voxel_size_mm),
    )
    return np.sqrt(smoothed).astype(np.float32)


def smooth_within(
    image: NDArray[np.floating],
    region: MaskImage,
    sigma_mm: float,
    voxel_size_mm: Sequence[float],
) -> NDArray[np.float64]:
    """In-plane Gaussian smoothing by normalised convolution over the finite voxels of a region.

    Voxels outside the region, and those that are not finite, become NaN.
    """
    is_used = region & np.isfinite(image)
    sigma = (sigma_mm / voxel_size_mm[0], sigma_mm / voxel_size_mm[1], 0.0)
    blurred = ndimage.gaussian_filter(np.where(is_used, image, 0.0), sigma, mode="constant")
    weight = ndimage.gaussian_filter(is_used.astype(np.float64), sigma, mode="constant")
    return np.divide(blurred, weight, out=np.full(image.shape, np.nan), where=is_used)
