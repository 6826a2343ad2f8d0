"""Files of grey and white matter probability -> maps on the grid of the scan, checked."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from aslkit.bids.nifti import read_on_grid
from aslkit.core.errors import InputError
from aslkit.core.series_and_maps import FloatImage, MaskImage

PURE_TISSUE = 0.7  # probability above which a voxel counts as pure tissue, as in ASLPrep
OVERSHOOT = 0.01  # tolerance for interpolation


@dataclass(frozen=True)
class TissueMaps:
    """Probabilities of grey matter, white matter and CSF, all (x, y, z).

    CSF is 1 - GM - WM inside of the brain, and 0 outside.
    """

    gm: FloatImage
    wm: FloatImage
    csf: FloatImage


def read_tissue(gm: Path, wm: Path, mask: MaskImage, affine: NDArray[np.float64]) -> TissueMaps:
    """Read both probability maps.

    Parameters
    ----------
    gm, wm : Path
        NIfTI files on the grid of the scan.
    mask : bool array (x, y, z)
        Brain.
    affine : array (4, 4)
        Of the scan.

    Raises
    ------
    InputError
        When a file is on another grid, holds no probabilities, or has no tissue in the brain, or
        when both together exceed 1.
    """
    grey, white = (_read_probability(path, mask, affine) for path in (gm, wm))
    total = float((grey + white)[mask].max())
    if total > 1 + 2 * OVERSHOOT:
        raise InputError(
            wm,
            f"sum with {gm.name}",
            found=f"up to {total:.3g} in the brain",
            expected="GM and WM probabilities that add up to at most 1",
            fix="give both tissue maps of one segmentation",
        )
    return TissueMaps(grey, white, np.where(mask, np.clip(1 - grey - white, 0, 1), 0))


def _read_probability(path: Path, mask: MaskImage, affine: NDArray[np.float64]) -> FloatImage:
    image = read_on_grid(path, mask.shape, affine)
    low, high = float(image.min()), float(image.max())
    if not (low >= -OVERSHOOT and high <= 1 + OVERSHOOT):
        raise InputError(
            path,
            "",
            found=f"values from {low:.3g} to {high:.3g}",
            expected="probabilities from 0 to 1",
            fix="scale the map to 0-1, and replace NaN by 0",
        )
    if not (image[mask] > PURE_TISSUE).any():
        raise InputError(
            path,
            "",
            found=f"no brain voxel above {PURE_TISSUE:g}",
            expected="a tissue probability map that overlaps the brain mask",
            fix="check the map's registration to the scan, or give the mask with -m",
        )
    return image
