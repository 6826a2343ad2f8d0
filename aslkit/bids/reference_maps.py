"""A folder of maps from another program -> CBF and ATT of one scan, in aslkit's units."""

from dataclasses import dataclass
from itertools import dropwhile
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from aslkit.bids.nifti import EXTENSIONS, read_on_grid
from aslkit.bids.sidecar import entities, read_sidecar
from aslkit.core.errors import InputError
from aslkit.core.series_and_maps import FloatImage

SUFFIXES = {"cbf": ("cbf",), "att": ("att", "arrival")}
# factor to ml/100 g/min or s, by the text of Units in lower case without spaces
FACTORS = {
    "cbf": {"ml/100g/min": 1.0, "l/kg/min": 100.0, "ml/g/min": 100.0},
    "att": {"s": 1.0, "ms": 0.001},
}
BASIL = {"cbf": "perfusion_calib", "att": "arrival"}  # file names of oxford_asl in native_space
BASIL_UNITS = {"cbf": "ml/100g/min", "att": "s"}  # its maps have no sidecars
LARGEST = {"cbf": 500.0, "att": 10.0}  # a larger median means another unit


@dataclass(frozen=True)
class ReferenceMaps:
    """Maps from another program, or the truth of a simulation.

    Attributes
    ----------
    images : mapping of "cbf" [ml/100 g/min] and, where there is one, "att" [s] to array (x, y, z)
        NaN where CBF is 0, because such maps are 0 outside of the brain.
    files : tuple of Path
    """

    images: dict[str, FloatImage]
    files: tuple[Path, ...]


def read_reference(
    folder: Path, scan: str, shape: tuple[int, ...], affine: NDArray[np.float64]
) -> ReferenceMaps:
    """Read the reference maps of a scan.

    Parameters
    ----------
    folder : Path
        Holds, at any depth, `<scan>[_…]_cbf.nii.gz` and `…_att.nii.gz` or `…_arrival.nii.gz`,
        each with its unit in a JSON sidecar; or folders of oxford_asl, named by BIDS entities
        (`sub-01/ses-1`, `sub-01_ses-1`), with `native_space/perfusion_calib.nii.gz` and
        `arrival.nii.gz`, in ml/100 g/min and s.
    scan : str
        BIDS entities of the scan, as in "sub-01_ses-1".

    Raises
    ------
    InputError
        When there is no single CBF map, the unit is missing or unknown, or the grid differs.
    """
    files = reference_files(folder, scan)
    found = {q: _read(path, q, shape, affine) for q, path in files.items()}
    is_known = found["cbf"] != 0
    images = {q: np.where(is_known, image, np.nan) for q, image in found.items()}
    return ReferenceMaps(
        {q: i.astype(np.float32) for q, i in images.items()}, tuple(files.values())
    )


def reference_files(folder: Path, scan: str) -> dict[str, Path]:
    """Return the paths of the CBF map and, if it exists, the ATT map of a scan, by quantity.

    Raises
    ------
    InputError
        When there is no CBF map or several.
    """
    found = {quantity: _find(folder, scan, quantity) for quantity in SUFFIXES}
    return {quantity: path for quantity, path in found.items() if path is not None}


def _find(folder: Path, scan: str, quantity: str) -> Path | None:
    """Return the map named exactly as the scan, or else the only map with more entities."""
    own = entities(Path(f"{scan}_asl.nii"))[0].items()
    found = [
        path
        for suffix in SUFFIXES[quantity]
        for path in sorted(folder.rglob(f"sub-*_{suffix}.nii*"))
        if path.name.endswith(EXTENSIONS) and own <= entities(path)[0].items()
    ]
    exact = [p for p in found if len(entities(p)[0]) == len(own)]
    exact += [
        path
        for path in sorted(folder.rglob(f"native_space/{BASIL[quantity]}.nii*"))
        if path.name.endswith(EXTENSIONS) and own == _entities_of_folders(path, folder).items()
    ]
    found = exact or found
    if len(found) > 1:
        raise InputError(
            folder,
            f"{quantity} of {scan}",
            found=" and ".join(str(p.relative_to(folder)) for p in found),
            expected="one map",
            fix="give a folder that holds only one of them",
        )
    if not found and quantity == "cbf":
        raise InputError(
            folder,
            f"{quantity} of {scan}",
            found="no such map",
            expected=f"{scan}_cbf.nii.gz, at any depth, or native_space of oxford_asl",
            fix="name the map after the scan, or leave the scan out with --participant-label",
        )
    return next(iter(found), None)


def _entities_of_folders(path: Path, top: Path) -> dict[str, str]:
    """Return the BIDS entities in the names of the folders between `top` and a file."""
    names = [top.absolute().name, *path.relative_to(top).parts[:-2]]
    parts = [part for name in names for part in name.split("_") if "-" in part]
    parts = list(dropwhile(lambda part: not part.startswith("sub-"), parts))
    return entities(Path("_".join([*parts, "asl.nii"])))[0]


def _read(
    path: Path, quantity: str, shape: tuple[int, ...], affine: NDArray[np.float64]
) -> FloatImage:
    sidecar = read_sidecar(path)
    factors = FACTORS[quantity]
    is_basil = path.name.startswith(BASIL[quantity])
    text = BASIL_UNITS[quantity] if is_basil else sidecar.text("Units")
    unit = (text or "").replace(" ", "").lower()
    if unit not in factors:
        raise sidecar.refuse(
            "Units",
            expected=f"one of {', '.join(factors)}",
            fix=f'write "Units": "{next(iter(factors))}" or what it is',
        )
    image = read_on_grid(path, shape, affine) * np.float32(factors[unit])
    inside = image[np.isfinite(image) & (image != 0)]
    median = float(np.median(inside)) if inside.size else float("nan")
    if not abs(median) <= LARGEST[quantity]:
        raise InputError(
            path,
            "median",
            found=f"{median:.4g} after conversion from {unit}" if inside.size else "no value",
            expected=f"at most {LARGEST[quantity]:g} {next(iter(factors))}",
            fix="correct Units in the sidecar, or the map",
        )
    return image
