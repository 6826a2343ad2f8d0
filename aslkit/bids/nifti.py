"""NIfTI files <-> float32 arrays; nibabel's errors become clear messages here."""

import logging
import math
import os
import zlib
from pathlib import Path

import nibabel as nib
import numpy as np
from nibabel.arrayproxy import ArrayProxy
from nibabel.filebasedimages import ImageFileError
from nibabel.openers import ImageOpener
from nibabel.spatialimages import HeaderDataError
from numpy.typing import NDArray

from aslkit.core.errors import InputError
from aslkit.core.series_and_maps import FloatImage, MaskImage

EXTENSIONS = (".nii.gz", ".nii")
SAME_AFFINE_MM = 1e-3  # tolerance for equal grids

REPAIRED_LEVEL = 30  # nibabel's level of faults that change the meaning of a header
LARGEST_VOXEL = 1e12  # larger values mean damaged bytes
GZIP_LIMIT = 1100  # deflate shrinks at most 1032-fold
FLOAT32_BYTES = 4  # bytes of a voxel in memory
GIB = 2**30
VOXEL_MM = (0.05, 100.0)  # allowed edge lengths of a voxel
SINGULAR = 1e-3  # below this volume, the unit axes of the grid lie in one plane

_SILENT = logging.Logger("NIfTI headers", level=logging.CRITICAL + 1)
_UNREADABLE = (
    OSError,
    EOFError,
    ValueError,
    OverflowError,
    MemoryError,
    zlib.error,
    ImageFileError,
    HeaderDataError,
)
_UNREADABLE_AS = {
    OSError: "it ends early",
    EOFError: "it ends early",
    ImageFileError: "no NIfTI header",
    HeaderDataError: "wrong NIfTI header",
}


def stem(path: Path) -> str:
    """Return the file name without .nii, .nii.gz, .json or .tsv."""
    for extension in (*EXTENSIONS, ".json", ".tsv"):
        if path.name.endswith(extension):
            return path.name[: -len(extension)]
    return path.stem


def read_volumes(path: Path) -> tuple[FloatImage, nib.Nifti1Header]:
    """Read the voxels (x, y, z, v) and the header of a 3D or 4D NIfTI file.

    Raises
    ------
    InputError
        When the file is missing, damaged, or not a 3D or 4D image of real numbers.
    """
    if not os.path.isfile(path):  # Path.is_file raises an error for a name that is too long
        found = "a folder" if os.path.isdir(path) else "no such file"
        _refuse(path, found=found, expected="a NIfTI file", fix="correct the path")
    if not path.name.endswith(EXTENSIONS):
        _refuse(path, found=f"a {path.suffix or 'nameless'} file", expected=".nii or .nii.gz")
    try:
        image = _open_image(path)
        _check_header(path, image.header)
        with np.errstate(over="ignore", invalid="ignore"):  # values beyond float32 become infinite
            voxels = image.get_fdata(dtype=np.float32, caching="unchanged")
    except _UNREADABLE as error:
        found = getattr(error, "strerror", None) or _UNREADABLE_AS.get(type(error), "damaged")
        raise InputError(
            path,
            "",
            found=f"a file that cannot be read ({found})",
            expected="a complete NIfTI file",
            fix="copy or convert it again",
        ) from error
    voxels[np.isinf(voxels)] = np.nan  # infinite values are unusable, too
    extremes = (np.nanmin(voxels), np.nanmax(voxels)) if np.isfinite(voxels).any() else (0, 0)
    if max(-extremes[0], extremes[1]) > LARGEST_VOXEL:
        _refuse(
            path,
            "voxels",
            found=f"values of {extremes[0]:.3g} to {extremes[1]:.3g}",
            expected=f"scanner units, at most {LARGEST_VOXEL:g}",
            fix="copy or convert it again",
        )
    return _as_4d(path, voxels), image.header


def memory_bytes() -> int:
    """Return the physical memory of this machine [bytes]."""
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def _open_image(path: Path) -> nib.Nifti1Image:
    """Open an image as `nib.load` does, but refuse headers that nibabel would have to repair.

    The check has its own level and logger: nibabel's settings, shared by all threads, are kept.
    """
    kind = next((k for k in nib.all_image_classes if k.path_maybe_image(path)[0]), None)
    if kind is None or not issubclass(kind, nib.Nifti1Image):
        raise ImageFileError("no NIfTI")
    header_class = kind.header_class
    with ImageOpener(str(path)) as file:
        block = file.read(header_class.template_dtype.itemsize)
        header_class(block, check=False).check_fix(_SILENT, REPAIRED_LEVEL)
        file.seek(0)
        header = header_class.from_fileobj(file, check=False)  # reads the extensions, too
    header.check_fix(_SILENT, REPAIRED_LEVEL)
    return kind(ArrayProxy(path, header.copy()), None, header)


def _check_header(path: Path, header: nib.Nifti1Header) -> None:
    """Check that a header describes a scan, before memory is allocated for the voxels."""
    dtype, shape = header.get_data_dtype(), header.get_data_shape()
    if np.dtype(dtype).kind not in "iuf":
        _refuse(path, found=f"{dtype} voxels", expected="real numbers")
    n_bytes = math.prod(int(n) for n in shape) * dtype.itemsize
    room = path.stat().st_size * (GZIP_LIMIT if path.name.endswith(".gz") else 1)
    if min(shape, default=0) < 1 or n_bytes > room:
        _refuse(
            path,
            found=(
                f"a header for {shape_text(shape)} voxels in a file of {path.stat().st_size} bytes"
            ),
            expected="a complete NIfTI file",
            fix="copy or convert it again",
        )
    if (needed := math.prod(shape) * FLOAT32_BYTES) > memory_bytes():
        _refuse(
            path,
            found=f"an image of {shape_text(shape)} voxels, which takes {needed / GIB:.2g} GiB",
            expected=f"one that fits into {memory_bytes() / GIB:.2g} GiB of memory",
            fix="use a machine with more memory, if the image is right",
        )
    affine = header.get_best_affine()
    size = np.linalg.norm(affine[:3, :3], axis=0)
    shortest, longest = VOXEL_MM
    has_size = np.isfinite(affine).all() and size.min() >= shortest and size.max() <= longest
    if not (has_size and abs(np.linalg.det(affine[:3, :3] / size)) > SINGULAR):
        _refuse(
            path,
            "affine",
            found=f"voxels of {' x '.join(f'{s:.3g}' for s in size)} mm, or axes in one plane",
            expected=f"three axes, {shortest:g} to {longest:g} mm",
            fix="correct the affine (sform, qform), or convert the scan again",
        )


def read_on_grid(path: Path, shape: tuple[int, ...], affine: NDArray[np.float64]) -> FloatImage:
    """Read a 3D image and check that it is on the grid (shape, affine).

    Raises
    ------
    InputError
        When it is on another grid.
    """
    voxels, header = read_volumes(path)
    has_shape = voxels.shape == (*shape, 1)
    if not has_shape or not is_same_grid(header.get_best_affine(), affine):
        _refuse(
            path,
            "image grid",
            found="another affine"
            if has_shape
            else f"{shape_text(header.get_data_shape())} voxels",
            expected=f"the grid of the ASL series, {shape_text(shape)} voxels",
            fix="resample the image to the ASL series",
        )
    return voxels[..., 0]


def read_mask(path: Path, shape: tuple[int, ...], affine: NDArray[np.float64]) -> MaskImage:
    """Read a 3D mask on the grid (shape, affine): True where its voxels are above zero.

    Raises
    ------
    InputError
        When the mask is on another grid, or empty.
    """
    mask = read_on_grid(path, shape, affine) > 0
    if not mask.any():
        _refuse(path, found="no voxel above 0", expected="a brain mask", fix="give another -m")
    return mask


def is_same_grid(affine: NDArray[np.float64], other: NDArray[np.float64]) -> bool:
    """Whether two affines agree within `SAME_AFFINE_MM`."""
    return bool(np.abs(np.asarray(affine) - np.asarray(other)).max() < SAME_AFFINE_MM)


def write_image(path: Path, voxels: NDArray[np.generic], header: nib.Nifti1Header) -> None:
    """Write voxels with the affine, affine codes and units of another image's header."""
    new = header.copy()
    new.set_data_dtype(voxels.dtype)
    new.set_slope_inter(1, 0)
    new["cal_min"] = new["cal_max"] = 0
    new["descrip"] = b"aslkit"
    new.extensions.clear()
    nib.save(image_class(header)(voxels, None, new), path)


def image_class(header: nib.Nifti1Header) -> type[nib.Nifti1Image]:
    """Return the image class of a header (NIfTI-1 or NIfTI-2)."""
    return nib.Nifti2Image if isinstance(header, nib.Nifti2Header) else nib.Nifti1Image


def shape_text(shape: tuple[int, ...]) -> str:
    """Format a shape, as in "64 x 64 x 24"."""
    return " x ".join(str(n) for n in shape)


def _as_4d(path: Path, voxels: FloatImage) -> FloatImage:
    if voxels.ndim > 4 and voxels.size == np.prod(voxels.shape[:3]) * max(voxels.shape[3:]):
        voxels = voxels.reshape((*voxels.shape[:3], -1), order="F")
    if voxels.ndim not in (3, 4) or not voxels.size:
        _refuse(
            path,
            found=f"an image of {shape_text(voxels.shape)} voxels",
            expected="a 3D or 4D image",
        )
    return voxels[..., None] if voxels.ndim == 3 else voxels


def _refuse(
    path: Path, field: str = "", *, found: str, expected: str, fix: str = "convert it to NIfTI"
) -> None:
    raise InputError(path, field, found=found, expected=expected, fix=fix)
