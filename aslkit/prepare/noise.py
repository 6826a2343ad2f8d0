"""Scatter of repeated measurements -> map of the noise sd of one averaged volume."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from aslkit.core.series_and_maps import FloatImage, MaskImage

SMOOTHING_FWHM_MM = 8.0  # in-plane; gives a few hundred degrees of freedom per voxel
FWHM_PER_SIGMA = float(np.sqrt(8 * np.log(2)))


def noise_from_repeats(
    groups: Sequence[FloatImage],
    n_averages: Sequence[int],
    mask: MaskImage,
    voxel_size_mm: Sequence[float],
) -> FloatImage | None:
    """Estimate the noise sd of a volume of mean weight from the scatter in timing groups.

    Parameters
    ----------
    groups : sequence of array (x, y, z, repeats)
        The repeats of every timing.
    n_averages : sequence of int
        Number of control-label pairs in the mean of each group.
    mask : bool array (x, y, z)
        Brain; the estimate is smoothed inside and outside of it separately.
    voxel_size_mm : tuple of float
        Edge lengths of a voxel [mm].

    Returns
    -------
    array (x, y, z) or None
        In the unit of the input; None when no group has two repeats.
    """
    repeats = [group.shape[3] for group in groups]
    if max(repeats) < 2:
        return None
    squares, freedom = np.zeros(mask.shape), np.zeros(mask.shape)
    for group, averages in zip(groups, n_averages, strict=True):
        values = group.astype(np.float64)
        distances = (values - finite_mean(values)[..., None]) ** 2
        squares += np.nan_to_num(finite_mean(distances)) * averages  # variance of single pairs
        freedom += np.maximum(np.isfinite(values).sum(axis=3) - 1, 0)
    variance = np.divide(
        squares, freedom, out=np.full(mask.shape, np.nan), where=freedom > 0
    ) / float(np.mean(n_averages))
    sigma_mm = SMOOTHING_FWHM_MM / FWHM_PER_SIGMA
    smoothed = np.where(
        mask,
        smooth_within(variance, mask, sigma_mm, voxel_size_mm),
        smooth_within(variance, ~mask, sigma_mm, voxel_size_mm),
    )
    return np.sqrt(smoothed).astype(np.float32)


def finite_mean(images: NDArray[np.floating]) -> NDArray[np.floating]:
    """Return the mean of the finite values over the last axis; NaN if there are none."""
    is_finite = np.isfinite(images)
    n = is_finite.sum(axis=-1)
    total = np.where(is_finite, images, 0).sum(axis=-1)
    return np.divide(total, n, out=np.full(n.shape, np.nan, images.dtype), where=n > 0)


def smooth_within(
    image: NDArray[np.floating], region: MaskImage, sigma_mm: float, voxel_size_mm: Sequence[float]
) -> NDArray[np.float64]:
    """Smooth in-plane by a Gaussian, normalised over the finite voxels of a region.

    Voxels outside of the region, and voxels that are not finite, become NaN.
    """
    is_used = region & np.isfinite(image)
    sigma = (sigma_mm / voxel_size_mm[0], sigma_mm / voxel_size_mm[1], 0.0)
    blurred = ndimage.gaussian_filter(np.where(is_used, image, 0.0), sigma, mode="constant")
    weight = ndimage.gaussian_filter(is_used.astype(np.float64), sigma, mode="constant")
    return np.divide(blurred, weight, out=np.full(image.shape, np.nan), where=is_used)


def smooth_volumes(
    images: FloatImage, region: MaskImage, sigma_mm: float, voxel_size_mm: Sequence[float]
) -> FloatImage:
    """Smooth every volume of images (x, y, z, n) with `smooth_within`."""
    volumes = np.moveaxis(images, 3, 0)
    smooth = [smooth_within(v, region, sigma_mm, voxel_size_mm) for v in volumes]
    return np.stack(smooth, axis=3).astype(np.float32)
