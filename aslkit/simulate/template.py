"""Points in template space (mm) -> tissue fractions, vascular territories, distance to arteries.

The tissue maps are those of the ICBM 2009 template in nilearn (Fonov 2011,
doi:10.1016/j.neuroimage.2010.07.033). The functions accept arrays of numpy and of torch.
"""

from dataclasses import dataclass
from functools import cache
from math import prod
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter

from aslkit.core.backend import Array, as_indices, namespace, take_rows
from aslkit.simulate.vessels import MAX_ARTERY_DISTANCE_MM, artery_distance_mm, territory_weights

if TYPE_CHECKING:
    import torch

TEMPLATE_MM = 2
TEMPLATE_BLUR_MM = 1.0
MAPS = ("gm", "wm", "brain", "aca", "mca", "pca", "artery_mm")
SLICEWISE = (2, 0, 1)  # order of the axes in memory
MIN_BRAIN = 0.01  # fraction of brain in the voxels for which vessels are computed


@dataclass(frozen=True)
class Atlas:
    """Maps on a grid: one row per voxel of the template.

    Attributes
    ----------
    rows : array (voxels, maps), float32
        Columns as in `MAPS`. z is the slowest axis, because points mostly lie in slices.
    shape : tuple of int
        Voxels of the grid along (z, x, y).
    centre : tuple of float
        Voxel coordinates (z, x, y) of the point (0, 0, 0).
    """

    rows: NDArray[np.float32]
    shape: tuple[int, ...]
    centre: tuple[float, ...]

    def at(self, points_mm: Array) -> dict[str, Array]:
        """Interpolate the maps (…) linearly at points (…, 3); a dictionary by name."""
        xp = namespace(points_mm)
        rows = self.rows if xp is np else _rows_on(points_mm.device)
        flat, parts = as_indices(0 * points_mm[..., 0]), []
        for axis, size, centre in zip(SLICEWISE, self.shape, self.centre, strict=True):
            place = points_mm[..., axis] / TEMPLATE_MM + centre
            place = xp.clip(place, 0, size - 1.001)
            low = xp.floor(place)
            parts.append(place - low)
            flat = flat * size + as_indices(low)
        values = 0 * points_mm[..., :1]
        for corner in np.ndindex(2, 2, 2):
            sides = (p if upper else 1 - p for p, upper in zip(parts, corner, strict=True))
            weight = prod(sides)
            step = int(np.ravel_multi_index(corner, self.shape))
            values = values + take_rows(rows, flat + step) * weight[..., None]
        return {name: values[..., i] for i, name in enumerate(MAPS)}


@cache
def atlas() -> Atlas:
    """Load the template and compute its vessels; the result is cached."""
    from nilearn import datasets

    loaders = (
        datasets.load_mni152_gm_template,
        datasets.load_mni152_wm_template,
        datasets.load_mni152_brain_mask,
    )
    every = slice(None, None, TEMPLATE_MM)  # the same voxels as resampling to 2 mm
    images = [load(resolution=1).dataobj[every, every, every].astype(float) for load in loaders]
    tissue = np.stack([gaussian_filter(i, TEMPLATE_BLUR_MM / TEMPLATE_MM) for i in images], -1)
    inside = np.argwhere(tissue[..., 2] > 0.5)
    centre = (inside.min(axis=0) + inside.max(axis=0)) / 2
    vessels = np.zeros((*tissue.shape[:3], 4))
    vessels[..., 3] = MAX_ARTERY_DISTANCE_MM
    near = tissue[..., 2] > MIN_BRAIN
    points = (np.argwhere(near) - centre) * TEMPLATE_MM
    vessels[near, :3] = territory_weights(points)
    vessels[near, 3] = artery_distance_mm(points)
    maps = np.concatenate([np.clip(tissue, 0, 1), vessels], axis=-1).transpose(*SLICEWISE, 3)
    rows = np.ascontiguousarray(maps, dtype=np.float32).reshape(-1, maps.shape[-1])
    return Atlas(rows, maps.shape[:3], tuple(centre[list(SLICEWISE)].tolist()))


@cache
def _rows_on(device: "torch.device") -> "torch.Tensor":
    """Return the rows as a tensor on a device."""
    import torch

    return torch.as_tensor(atlas().rows, device=device)
