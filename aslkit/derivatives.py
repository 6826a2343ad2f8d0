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
from aslkit.quality import FIGURES, Figures
from aslkit.runs import AslRun

ENDS = ("low", "high")
CBF_TOKEN = re.compile(r"(?<![A-Za-z0-9])cbf(?![A-Za-z0-9])")


@dataclass(frozen=True)
class MapKind:
    """Unit and meaning of a map, for its sidecar."""

    units: str
    description: str
    volumes: tuple[str, ...] = ()


def write_maps(
    maps: ParameterMaps,
    out: Path,
    header: nib.Nifti1Header,
    sidecar: Mapping[str, object],
    figures: Figures,
    images: Mapping[str, FloatImage],
    files: Mapping[str, bytes] = MappingProxyType({}),
) -> list[Path]:
    """Write maps and quality table with JSON sidecars; nothing is left behind when one fails.

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
    figures : Figures
        Quality figures, for the table and the sidecar of the CBF map.
    images : mapping of arrays (x, y, z, …)
        More maps, by kind.
    files : mapping
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
    named: dict[str, NDArray[np.generic] | None] = {
        "cbf": maps.cbf,
        "att": maps.att,
        "cbf-std": maps.cbf_std,
        "att-std": maps.att_std,
        "flags": maps.flags,
        "abv": maps.abv,
        "t1t": maps.t1_tissue,
        "t1t-std": maps.t1_tissue_std,
        **images,
    }
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=out.parent, prefix=".aslkit-") as folder:
            targets = []
            for kind, voxels in named.items():
                if voxels is not None:
                    target = sibling(out, kind)
                    stored = np.uint8 if kind == "flags" else np.float32
                    write_image(Path(folder) / target.name, voxels.astype(stored), header)
                    shared = {**sidecar, "QualityFigures": figures} if kind == "cbf" else sidecar
                    _write_sidecar(Path(folder) / f"{stem(target)}.json", kind, shared)
                    targets.append(target)
            table = stem(sibling(out, "quality"))
            _write_table(Path(folder) / table, figures)
            for name, content in files.items():
                kind, end = name.split(".")
                target = out.with_name(f"{stem(sibling(out, kind))}.{end}")
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
    return [*targets, out.with_name(f"{table}.tsv")]


def check_output(out: Path, sources: Sequence[Path] = ()) -> None:
    """Refuse an output name that is no NIfTI file, or whose maps would replace a source."""
    if not out.name.endswith(EXTENSIONS) or out.is_dir():
        raise InputError(
            out,
            "",
            found="a folder" if out.is_dir() else "another kind of file",
            expected="a file name that ends in .nii.gz or .nii",
            fix="give -o cbf.nii.gz",
        )
    written = {_without_extension(sibling(out, kind)) for kind in _KINDS}
    for source in sources:
        if _without_extension(source) in written:
            raise InputError(
                out,
                "",
                found=f"a name that would replace {source}",
                expected="a place of its own for the maps",
                fix="give another -o",
            )


def _without_extension(path: Path) -> Path:
    return Path(os.path.realpath(path.parent)) / stem(path)


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


def describe(runs: Sequence[AslRun], series: AslSeries, notes: Sequence[str]) -> dict[str, object]:
    """Everything of the input and the model that the maps depend on, as sidecar fields.

    `notes` are put after those of the runs.
    """
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
        "Notes": [*dict.fromkeys(note for run in runs for note in run.notes), *notes],
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
    if _KINDS[kind].volumes:
        fields["Volumes"] = list(_KINDS[kind].volumes)
    _write_json(path, {**fields, **shared})


def _write_table(path: Path, figures: Figures) -> None:
    """The figures as a table of one row, path.tsv, and the meaning of its columns, path.json."""
    values = ["n/a" if v is None else f"{v:.6g}" for v in figures.values()]
    rows = ("\t".join(figures), "\t".join(values))
    path.with_name(f"{path.name}.tsv").write_text("\n".join(rows) + "\n", encoding="utf-8")
    columns = {
        name: {"Units": FIGURES[name].units, "Description": FIGURES[name].description}
        for name in figures
    }
    _write_json(path.with_name(f"{path.name}.json"), columns)


def _write_json(path: Path, fields: Mapping[str, object]) -> None:
    text = json.dumps(fields, indent=2, ensure_ascii=False, allow_nan=False)
    path.write_text(text + "\n", encoding="utf-8")


_KINDS = {
    "cbf": MapKind("mL/100 g/min", "Cerebral blood flow"),
    "att": MapKind("s", "Arterial transit time"),
    "cbf-std": MapKind("mL/100 g/min", "Standard deviation of the cerebral blood flow"),
    "att-std": MapKind("s", "Standard deviation of the arterial transit time"),
    "flags": MapKind("arbitrary", "Quality of every voxel's estimate"),
    "abv": MapKind("1", "Arterial blood volume, a fraction"),
    "t1t": MapKind("s", "T1 of tissue, within TissueT1Bounds"),
    "t1t-std": MapKind("s", "Standard deviation of the T1 of tissue"),
    "cbf-std-data": MapKind("mL/100 g/min", "Part of cbf-std that is the data's noise"),
    "att-std-data": MapKind("s", "Part of att-std that is the data's noise"),
    "cbf-std-network": MapKind(
        "mL/100 g/min", "Part of cbf-std in which the passes of the network differ"
    ),
    "att-std-network": MapKind("s", "Part of att-std in which the passes of the network differ"),
    "ood": MapKind(
        "1", "Mean square of the smoothed residuals, in units of that of white noise; 1 or less"
    ),
    "fit": MapKind("1", "Fitted control - label difference, a fraction of M0"),
    "chi2": MapKind("1", "Reduced chi2: squared residuals over noise and degrees of freedom"),
    "adequacy": MapKind("1", "Probability of a chi2 at least as large, were the model true"),
    "cbf-ci95": MapKind("mL/100 g/min", "95 % interval of the cerebral blood flow", ENDS),
    "att-ci95": MapKind("s", "95 % interval of the arterial transit time, cut at ATTBounds", ENDS),
    "pld": MapKind(
        "s", "Post-labeling delay with slice timing; a volume per entry of PostLabelingDelay"
    ),
}
