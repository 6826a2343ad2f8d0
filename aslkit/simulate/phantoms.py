"""Seed or shape -> phantom: a volume with known perfusion; and phantom files."""

import json
from dataclasses import dataclass, fields
from pathlib import Path

import nibabel as nib
import numpy as np
from numpy.typing import NDArray

from aslkit.bids.json_files import read_json
from aslkit.bids.nifti import read_volumes, stem
from aslkit.core.backend import Array
from aslkit.core.errors import InputError
from aslkit.simulate.anatomy import Tissue, draw_subjects
from aslkit.simulate.lesions import LESION_CLASSES
from aslkit.simulate.random_fields import Planes

Image = NDArray[np.float64]

FIELD_OF_VIEW_MM = (182.0, 210.0, 154.0)  # the tallest heads are cut, as in real scans
SHAPES = ("uniform", "disc", "checker", "ramp", "plan")
SHAPE_GRID = (64, 64, 4)
PHANTOM_SEED = 7_301  # phantoms and training data never share a subject
# Values are rounded to these steps: the same bits on any processor, and small files.
STEPS = {
    **dict.fromkeys(("gm", "wm", "csf"), 2.0**-8),
    **dict.fromkeys(("cbf_gm", "cbf_wm"), 2.0**-4),
    **dict.fromkeys(("att_gm", "att_wm", "abat"), 2.0**-9),
    "abv": 2.0**-14,
}
N_SITES = 60  # Voronoi cells of the phantom "plan"


@dataclass(frozen=True, kw_only=True)
class Phantom(Tissue):
    """The truth of one subject on a grid: the arrays of `Tissue`, (x, y, z).

    Attributes
    ----------
    name : str
        Name of the phantom and of its files.
    affine : array, (4, 4)
        Voxel to world coordinates (RAS, mm).
    """

    name: str
    affine: NDArray[np.float64]


def brain_phantom(
    name: str, seed: int, voxel_size_mm: float = 3.5, matrix: tuple[int, int, int] | None = None
) -> Phantom:
    """Make the whole brain of a random subject; the same seed gives the same subject.

    Parameters
    ----------
    matrix : tuple of int, optional
        Voxels along x, y and z, around the middle of the brain. The default fills
        `FIELD_OF_VIEW_MM`.
    """
    subject = draw_subjects(np.random.default_rng([PHANTOM_SEED, seed]), 1)
    nx, ny, nz = matrix or (int(np.ceil(extent / voxel_size_mm)) for extent in FIELD_OF_VIEW_MM)
    affine = _centred_affine((nx, ny, nz), voxel_size_mm)
    x, y, z = (
        (affine[i, 3] + voxel_size_mm * np.arange(n))[:, None] * np.eye(3)[i]
        for i, n in enumerate((nx, ny, nz))
    )
    planes = Planes(np.broadcast_to(x, (nz, nx, 3)), y + z[:, None])
    tissue = subject.at(planes)
    volumes = {f.name: np.moveaxis(getattr(tissue, f.name), 0, 2) for f in fields(Tissue)}
    return _on_grid(Tissue(**volumes), name, affine)


def shape_phantom(kind: str, seed: int) -> Phantom:
    """Make one of `SHAPES`: a uniform volume, a disc, a checkerboard, a ramp, or random cells.

    Raises
    ------
    ValueError
        For an unknown kind.
    """
    if kind not in SHAPES:
        raise ValueError(f"anatomy {kind!r} is not one of brain, {', '.join(SHAPES)}")
    rng = np.random.default_rng([PHANTOM_SEED, seed])
    x, y, z = np.meshgrid(*map(np.arange, SHAPE_GRID), indexing="ij")
    gm, wm, cbf, att = (np.full(SHAPE_GRID, value) for value in (1.0, 0.0, 60.0, 1.2))
    lesions = np.zeros(SHAPE_GRID)
    if kind == "disc":
        gm = (np.hypot(x - 31.5, y - 31.5) < 10 + 4 * z).astype(float)
    elif kind == "checker":
        is_even = (x // 2 ** (z + 1) + y // 2 ** (z + 1)) % 2 == 0
        cbf, att = np.where(is_even, 60.0, 20.0), np.where(is_even, 1.0, 1.6)
    elif kind == "ramp":
        cbf, att = 100.0 * x / 63, 0.5 + 2.5 * y / 63
    elif kind == "plan":
        gm, wm, cbf, att = _plan_cells(rng, x, y, z)
        cbf, att, lesions = _plan_lesions(rng, x, y, cbf, att)
    tissue = _plain_tissue(gm, wm, cbf, att, lesions)
    return _on_grid(tissue, f"{kind}-{seed:02d}", _centred_affine(SHAPE_GRID, 3.5))


def save_phantom(phantom: Phantom, folder: Path) -> None:
    """Write NAME.nii.gz, with one volume per map, and NAME.json, with the names of the maps."""
    maps = [f.name for f in fields(Tissue)]
    volumes = np.stack([getattr(phantom, m).astype(np.float32) for m in maps], axis=-1)
    nib.save(nib.Nifti1Image(volumes, phantom.affine), folder / f"{phantom.name}.nii.gz")
    card = {"Maps": maps, "LesionClasses": LESION_CLASSES}
    (folder / f"{phantom.name}.json").write_text(json.dumps(card, indent=2) + "\n")


def load_phantom(path: Path) -> Phantom:
    """Read a phantom from its .nii.gz file and the .json file beside it.

    Raises
    ------
    InputError
        When the JSON is missing or does not name the volumes, or a file is damaged.
    """
    card = _card(path)
    wanted = [f.name for f in fields(Tissue)]
    maps = read_json(card).get("Maps") if card.is_file() else None
    volumes, header = read_volumes(path)
    if maps != wanted or volumes.shape[3] != len(wanted):
        raise InputError(
            card,
            "Maps",
            found=f"{maps or 'nothing'} and {volumes.shape[3]} volumes",
            expected=f"{', '.join(wanted)}, one per volume of {path.name}",
            fix="make the phantom with asl_sim",
        )
    arrays = {m: np.ascontiguousarray(volumes[..., i]) for i, m in enumerate(wanted)}
    if not np.isfinite(volumes).all() or not arrays["mask"].any():
        raise InputError(
            path,
            "voxels",
            found="values that are not finite, or an empty mask",
            expected="numbers, and a brain",
            fix="make the phantom with asl_sim",
        )
    lesions, mask = arrays.pop("lesions").astype(np.uint8), arrays.pop("mask") > 0
    affine = header.get_best_affine()
    return Phantom(name=stem(path), affine=affine, lesions=lesions, mask=mask, **arrays)


def find_phantoms(folder: Path) -> list[Path]:
    """Return the phantom files in a folder, sorted by name.

    Raises
    ------
    InputError
        When the folder has no phantom.
    """
    found = [p for p in sorted(folder.glob("*.nii.gz")) if _card(p).is_file()]
    if not found:
        raise InputError(
            folder,
            "",
            found="no phantom",
            expected="NAME.nii.gz with NAME.json",
            fix="give --phantoms shipped, or make some with asl_sim --phantoms-only",
        )
    return found


def _card(path: Path) -> Path:
    """Return the path of the JSON file of a phantom."""
    return path.with_name(f"{stem(path)}.json")


def _on_grid(tissue: Tissue, name: str, affine: NDArray[np.float64]) -> Phantom:
    """Round the maps to `STEPS`, set them to 0 outside the mask, and make a phantom."""
    maps = {}
    for f in fields(Tissue):
        values = getattr(tissue, f.name)
        if values.dtype.kind == "f":
            step = STEPS[f.name]
            values = (np.round(values / step) * step).astype(np.float32)
        maps[f.name] = np.ascontiguousarray(np.where(tissue.mask, values, 0), values.dtype)
    return Phantom(name=name, affine=affine, **maps)


def _plain_tissue(gm: Image, wm: Image, cbf: Image, att: Image, lesions: Image) -> Tissue:
    """Make tissue without vessels, with the same CBF and ATT in GM and WM."""
    zeros, mask = np.zeros(gm.shape), gm + wm > 0
    return Tissue(
        gm=gm,
        wm=wm,
        csf=zeros,
        cbf_gm=cbf,
        cbf_wm=cbf,
        att_gm=att,
        att_wm=att,
        abv=zeros,
        abat=zeros,
        lesions=lesions.astype(np.uint8),
        mask=mask,
    )


def _plan_cells(rng: np.random.Generator, x: Array, y: Array, z: Array) -> tuple[Array, ...]:
    """Draw Voronoi cells of GM, WM and CSF in an ellipse; return GM, WM, CBF and ATT."""
    sites = rng.uniform(0, 64, (N_SITES, 2))
    kinds = rng.choice(3, N_SITES, p=(0.45, 0.4, 0.15))
    cbf = np.choose(
        kinds, [rng.uniform(50, 70, N_SITES), rng.uniform(18, 28, N_SITES), np.zeros(N_SITES)]
    )
    att = np.choose(
        kinds, [rng.uniform(1.0, 1.6, N_SITES), rng.uniform(1.2, 1.8, N_SITES), np.ones(N_SITES)]
    )
    shifted = np.stack([x + 3 * z, y - 2 * z], axis=-1)[..., None, :]
    cell = ((shifted - sites) ** 2).sum(axis=-1).argmin(axis=-1)
    is_inside = ((x - 31.5) / 24) ** 2 + ((y - 31.5) / 29) ** 2 < 1
    gm, wm = (is_inside & (kinds[cell] == k) for k in (0, 1))
    return gm.astype(float), wm.astype(float), cbf[cell], att[cell]


def _plan_lesions(
    rng: np.random.Generator, x: Array, y: Array, cbf: Array, att: Array
) -> tuple[Array, Array, Array]:
    """Add a tumour and a stroke, one disc per side; return CBF, ATT and lesion classes."""
    lesions = np.zeros(cbf.shape)
    for side, name, flow, delay in (
        (-1, 4, rng.uniform(1.4, 2.0), rng.uniform(-0.2, 0.1)),
        (1, 1, rng.uniform(0.1, 0.4), rng.uniform(0.5, 1.2)),
    ):
        centre = (31.5 + side * rng.uniform(8, 14), rng.uniform(20, 43))
        inside = np.hypot(x - centre[0], y - centre[1]) < rng.uniform(4, 7)
        cbf, att = np.where(inside, flow * cbf, cbf), np.where(inside, att + delay, att)
        lesions[inside] = name
    return cbf, att, lesions


def _centred_affine(shape: tuple[int, ...], voxel_size_mm: float) -> NDArray[np.float64]:
    affine = np.diag([voxel_size_mm] * 3 + [1.0])
    affine[:3, 3] = -voxel_size_mm * (np.array(shape) - 1) / 2
    return affine
