"""`AslSeries`, the input of every estimator, and `ParameterMaps`, its output."""

from dataclasses import dataclass, field, replace
from enum import IntEnum

import numpy as np
from numpy.typing import NDArray

from aslkit.core.acquisition import Acquisition

FloatImage = NDArray[np.float32]
MaskImage = NDArray[np.bool_]


class Flag(IntEnum):
    """Quality of the estimate of one voxel."""

    OK = 0
    AT_ATT_BOUND = 1
    ATT_UNDETERMINED = 2
    NOT_FINITE = 3
    OUTSIDE = 4


@dataclass(frozen=True)
class AslSeries:
    """Calibrated perfusion signal, its acquisition and its mask.

    Attributes
    ----------
    delta_m : array, (x, y, z, n)
        Mean of (control - label) / M0, a fraction; NaN where M0 or the data are unusable.
    acquisition : Acquisition
        One timing per volume of `delta_m`.
    mask : bool array, (x, y, z)
        Brain mask: for statistics and noise estimation, and the voxels that networks map.
    affine : array, (4, 4)
        Voxel to world (RAS mm).
    noise_sd : array, (x, y, z), optional
        Noise standard deviation of one volume of mean weight, from the repeats. None without
        repeats: estimators then use the residuals of the fit.
    m0 : array, (x, y, z), optional
        Calibration image in scanner units.
    """

    delta_m: FloatImage
    acquisition: Acquisition
    mask: MaskImage
    affine: NDArray[np.float64] = field(default_factory=lambda: np.eye(4))
    noise_sd: FloatImage | None = None
    m0: FloatImage | None = None

    def __post_init__(self) -> None:
        n = self.acquisition.n_timings
        if self.delta_m.ndim != 4 or self.delta_m.shape[3] != n:
            raise ValueError(f"delta_m has shape {self.delta_m.shape}, expected (x, y, z, {n})")
        grid = self.delta_m.shape[:3]
        for name in ("mask", "noise_sd", "m0"):
            image = getattr(self, name)
            if image is not None and image.shape != grid:
                raise ValueError(f"{name} has shape {image.shape}, expected {grid}")

    @property
    def voxel_size_mm(self) -> tuple[float, float, float]:
        """Edge lengths of a voxel [mm]."""
        return voxel_size_mm(self.affine)

    @property
    def has_signal(self) -> MaskImage:
        """Voxels (x, y, z) with a finite signal at every timing."""
        return np.asarray(np.isfinite(self.delta_m).all(axis=3))

    @property
    def usable(self) -> MaskImage:
        """Voxels (x, y, z) of the mask with a finite signal at every timing."""
        return self.mask & self.has_signal

    def scaled(self, factor: float) -> "AslSeries":
        """Return the series with signal and noise multiplied by a factor."""
        noise = None if self.noise_sd is None else self.noise_sd * np.float32(factor)
        return replace(self, delta_m=self.delta_m * np.float32(factor), noise_sd=noise)

    def cropped(self, box: tuple[slice, ...]) -> "AslSeries":
        """Return the part of every slice inside a box (x, y) of the grid."""
        corner = [side.indices(n)[0] for side, n in zip(box, self.mask.shape, strict=False)]
        affine = self.affine.copy()
        affine[:3, 3] += affine[:3, :2] @ corner
        return replace(
            self,
            delta_m=self.delta_m[box],
            mask=self.mask[box],
            affine=affine,
            noise_sd=None if self.noise_sd is None else self.noise_sd[box],
            m0=None if self.m0 is None else self.m0[box],
        )


@dataclass(frozen=True)
class ParameterMaps:
    """Estimated or true parameters on one grid, all (x, y, z).

    Attributes
    ----------
    cbf, cbf_std : array
        Cerebral blood flow and its standard deviation [ml/100 g/min].
    att, att_std : array
        Arterial transit time and its standard deviation [s].
    flags : uint8 array
        Values of `Flag`.
    abv, abat : array, optional
        Arterial blood volume [fraction] and arterial arrival time [s], if estimated.
    t1_tissue, t1_tissue_std : array, optional
        T1 of tissue and its standard deviation [s], if estimated.
    cbf_std_network, att_std_network : array, optional
        Part of the standard deviations that comes from the network, after several passes.
    cbf_confidence, att_confidence : array, optional
        Probability that CBF and ATT are close to the truth, from networks that estimate it.
    """

    cbf: FloatImage
    att: FloatImage
    cbf_std: FloatImage
    att_std: FloatImage
    flags: NDArray[np.uint8]
    abv: FloatImage | None = None
    abat: FloatImage | None = None
    t1_tissue: FloatImage | None = None
    t1_tissue_std: FloatImage | None = None
    cbf_std_network: FloatImage | None = None
    att_std_network: FloatImage | None = None
    cbf_confidence: FloatImage | None = None
    att_confidence: FloatImage | None = None

    def __post_init__(self) -> None:
        for name, image in vars(self).items():
            if image is not None and image.shape != self.cbf.shape:
                raise ValueError(f"{name} has shape {image.shape}, expected {self.cbf.shape}")


def voxel_size_mm(affine: NDArray[np.float64]) -> tuple[float, float, float]:
    """Return the edge lengths of a voxel [mm] from an affine (4, 4)."""
    x, y, z = np.linalg.norm(affine[:3, :3], axis=0)
    return float(x), float(y), float(z)


def as_slices(image: FloatImage) -> NDArray[np.floating]:
    """Reshape an image (x, y, z) to rows (z, x*y), the input of the signal model."""
    return np.moveaxis(image, 2, 0).reshape(image.shape[2], -1)


def as_image(rows: NDArray[np.floating], shape: tuple[int, ...]) -> FloatImage:
    """Reshape rows (z, …, x*y) to an image (x, y, z, …), float32."""
    image = rows.reshape(*rows.shape[:-1], *shape[:2])
    order = (image.ndim - 2, image.ndim - 1, *range(image.ndim - 2))
    return np.ascontiguousarray(image.transpose(order), dtype=np.float32)


def bounding_box(mask: MaskImage) -> tuple[slice, ...]:
    """Return the smallest box that contains the mask, one slice object per axis."""
    return tuple(
        slice(int(indices.min()), int(indices.max()) + 1) if indices.size else slice(0, 0)
        for indices in np.nonzero(mask)
    )
