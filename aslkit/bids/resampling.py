"""An M0 image on another grid -> M0 on the grid of the ASL image."""

from pathlib import Path

import nibabel as nib
import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from aslkit.bids.nifti import is_same_grid, shape_text
from aslkit.bids.run import RawImage
from aslkit.core.errors import InputError
from aslkit.core.series_and_maps import FloatImage

COVERAGE = 0.95  # smallest share of ASL voxels that M0 must cover
EDGE_VOXELS = 1e-3  # tolerance at the edge of the field of view


def resample_to_asl(
    image: RawImage, m0: FloatImage, header: nib.Nifti1Header, path: Path
) -> FloatImage:
    """Return M0 (of `path`) on the grid of the ASL image, by linear interpolation.

    Raises
    ------
    InputError
        When it does not cover the ASL image.
    """
    shape, affine = image.volumes.shape[:3], image.header.get_best_affine()
    has_equal_affine = is_same_grid(header.get_best_affine(), affine)
    if has_equal_affine and m0.shape == shape:
        return m0
    is_placed = all(int(h["qform_code"]) or int(h["sform_code"]) for h in (header, image.header))
    if is_placed and not has_equal_affine:
        resampled = _resample(m0, np.linalg.solve(header.get_best_affine(), affine), shape)
        if np.isfinite(resampled).mean() >= COVERAGE * np.isfinite(m0).mean():
            return resampled
    raise InputError(
        path,
        "image grid",
        found=f"{shape_text(m0.shape)} voxels that do not cover the ASL series",
        expected=f"the grid of {image.path.name}, {shape_text(shape)} voxels",
        fix="resample the M0 image to the ASL series, or give another --m0 FILE",
    )


def _resample(
    voxels: FloatImage, to_source: NDArray[np.float64], shape: tuple[int, ...]
) -> FloatImage:
    """Interpolate voxels at the positions of another grid; NaN outside of the field of view."""
    grid = np.indices(shape).reshape(3, -1)
    places = to_source[:3, :3] @ grid + to_source[:3, 3:]
    middle = (np.array(voxels.shape)[:, None] - 1) / 2
    is_inside = (np.abs(places - middle) <= middle + 0.5 + EDGE_VOXELS).all(axis=0)
    values = ndimage.map_coordinates(voxels, places, order=1, mode="nearest")
    return np.where(is_inside, values, np.nan).reshape(shape).astype(np.float32)
