"""ParameterMaps -> NIfTI maps with JSON sidecars, written all or none."""

import json
import math
import os
import re
import shlex
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from types import MappingProxyType

import nibabel as nib
import numpy as np
from numpy.typing import NDArray

from aslkit.errors import InputError
from aslkit.images import AslSeries, Flag, FloatImage, ParameterMaps
from aslkit.nifti import EXTENSIONS, stem, write_image
from aslkit.preprocess import LOWEST_M0
from aslkit.runs import AslRun

CBF_TOKEN = re.compile(r"(?<![A-Za-z0-9])cbf(?![A-Za-z0-9])")


@dataclass(frozen=True)
class MapKind:
    """Unit and meaning of a map, for its sidecar."""

    units: str
    description: str


def write_maps(
    maps: ParameterMaps,
    out: Path,
    header: nib.Nifti1Header,
    sidecar: Mapping[str, object],
    fitted: FloatImage | None = None,
    extras: Mapping[str, bytes] = MappingProxyType({}),
) -> list[Path]:
    """Write every map and its JSON sidecar; nothing is left behind when one fails.

    Parameters
    ----------
    maps : ParameterMaps
        The estimates.
    out : Path
        The CBF map; the others are named after it (see `sibling`).
    header : Nifti1Header
        Of the ASL image, for affine, affine codes and units.
    sidecar : mapping
        Fields that all maps share.
    fitted : array (x, y, z, n), optional
        The model's ΔM/M0.
    extras : mapping
        Other files beside the maps, such as outliers.tsv: name to content.

    Returns
    -------
    list of Path
        The images, the CBF map first, and the other files.

    Raises
    ------
    InputError
        When `out` is no NIfTI name or cannot be written.
    """
    check_output(out)
    images: dict[str, NDArray[np.generic] | None] = {
        "cbf": maps.cbf,
        "att": maps.att,
        "cbf-std": maps.cbf_std,
        "att-std": maps.att_std,
        "flags": maps.flags,
        "abv": maps.abv,
        "fit": fitted,
    }
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=out.parent, prefix=".aslkit-") as folder:
            targets = []
            for kind, voxels in images.items():
                if voxels is not None:
                    target = sibling(out, kind)
                    stored = np.uint8 if kind == "flags" else np.float32
                    write_image(Path(folder) / target.name, voxels.astype(stored), header)
                    _write_sidecar(Path(folder) / f"{stem(target)}.json", kind, sidecar)
                    targets.append(target)
            for name, content in extras.items():
                kind, end = name.split(".")
                target = sibling(out, kind).with_name(f"{stem(sibling(out, kind))}.{end}")
                (Path(folder) / target.name).write_bytes(content)
                targets.append(target)
            for path in sorted(Path(folder).iterdir()):
                os.replace(path, out.parent / path.name)
    except OSError as error:
        raise InputError(
            out,
            "",
            found=f"a place that cannot be written ({error.strerror})",
            expected="a writable folder with room for the maps",
            fix="give another -o",
        ) from error
    return targets


def check_output(out: Path) -> None:
    """Refuse an output name that is no NIfTI file."""
    if not out.name.endswith(EXTENSIONS) or out.is_dir():
        raise InputError(
            out,
            "",
            found="a folder" if out.is_dir() else "another kind of file",
            expected="a file name that ends in .nii.gz or .nii",
            fix="give -o cbf.nii.gz",
        )


def sibling(out: Path, kind: str) -> Path:
    """Name of another map beside the CBF map: its `cbf` token replaced, else the kind appended."""
    if kind == "cbf":
        return out
    name = stem(out)
    tokens = list(CBF_TOKEN.finditer(name))
    extension = out.name[len(name) :]
    if not tokens:
        return out.with_name(f"{name}_{kind}{extension}")
    start, end = tokens[-1].span()
    return out.with_name(f"{name[:start]}{kind}{name[end:]}{extension}")


def version() -> str:
    """Version of the installed package; a checkout that is not installed has none."""
    try:
        return metadata.version("aslkit")
    except metadata.PackageNotFoundError:
        return "not installed"


def describe(runs: Sequence[AslRun], series: AslSeries) -> dict[str, object]:
    """Everything of the input and the model that the maps depend on, as sidecar fields."""
    acquisition, timings = series.acquisition, series.acquisition.timings
    return {
        "SkullStripped": False,
        "Sources": list(dict.fromkeys(str(p) for run in runs for p in run.sources)),
        "GeneratedBy": [{"Name": "aslkit", "Version": version()}],
        "CommandLine": shlex.join([Path(sys.argv[0]).name, *sys.argv[1:]]),
        "ArterialSpinLabelingType": [t.labeling.upper() for t in timings],
        "PostLabelingDelay": [t.pld_s for t in timings],
        "LabelingDuration": [_finite(t.label_duration_s) for t in timings],
        "AveragedPairs": [t.n_averages for t in timings],
        "SliceOffsets": list(acquisition.slice_offsets_s),
        "LabelingEfficiency": [t.efficiency for t in timings],
        "LabelingEfficiencyOrigin": [
            f"{e.alpha:g} ({e.origin}) x {e.per_pulse:g}^{e.n_pulses}"
            for e in (run.efficiency for run in runs)
        ],
        "M0": [_describe_m0(run) for run in runs],
        "KineticModel": acquisition.kinetic,
        "BloodT1": acquisition.t1_blood_s,
        "TissueT1": acquisition.t1_tissue_s,
        "PartitionCoefficient": acquisition.partition_ml_per_g,
        "NoiseOrigin": "residuals" if series.noise_sd is None else "repeats",
        "Overrides": runs[0].overrides.changed,
        "Notes": list(dict.fromkeys(note for run in runs for note in run.notes)),
    }


def _describe_m0(run: AslRun) -> dict[str, object]:
    m0 = run.calibration
    return {
        "Origin": m0.origin,
        "Scale": m0.scale,
        "RepetitionTime": m0.repetition_time_s,
        "Recovery": m0.recovery,
        "LowestOfMean": LOWEST_M0,
    }


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None


def _write_sidecar(path: Path, kind: str, shared: Mapping[str, object]) -> None:
    fields: dict[str, object] = {
        "Units": _KINDS[kind].units,
        "Description": _KINDS[kind].description,
    }
    if kind == "flags":
        fields["Levels"] = {str(int(flag)): flag.name for flag in Flag}
    path.write_text(
        json.dumps({**fields, **shared}, indent=2, ensure_ascii=False, allow_nan=False) + "\n",
        encoding="utf-8",
    )


_KINDS = {
    "cbf": MapKind("mL/100 g/min", "Cerebral blood flow"),
    "att": MapKind("s", "Arterial transit time"),
    "cbf-std": MapKind("mL/100 g/min", "Standard deviation of the cerebral blood flow"),
    "att-std": MapKind("s", "Standard deviation of the arterial transit time"),
    "flags": MapKind("arbitrary", "Quality of every voxel's estimate"),
    "abv": MapKind("1", "Arterial blood volume, a fraction"),
    "fit": MapKind("1", "Fitted control - label difference, a fraction of M0"),
}
