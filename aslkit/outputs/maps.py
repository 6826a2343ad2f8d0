"""ParameterMaps -> NIfTI maps with JSON sidecars, written all or none."""

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType

import nibabel as nib
import numpy as np
from numpy.typing import NDArray

from aslkit.bids.nifti import stem, write_image
from aslkit.bids.run import AslRun
from aslkit.core.errors import InputError
from aslkit.core.series_and_maps import AslSeries, Flag, FloatImage, ParameterMaps
from aslkit.core.tables import rows_text
from aslkit.outputs.atomic_write import write_together
from aslkit.outputs.map_names import MAP_KINDS, Destination, check_output
from aslkit.outputs.provenance import command_line, version
from aslkit.prepare.series import LOWEST_M0
from aslkit.quality.figures import FIGURES, Figures


def write_maps(
    maps: ParameterMaps,
    destination: Destination,
    header: nib.Nifti1Header,
    sidecar: Mapping[str, object],
    figures: Figures,
    images: Mapping[str, FloatImage],
    files: Mapping[str, bytes] = MappingProxyType({}),
) -> list[Path]:
    """Write maps and quality table with JSON sidecars, all or none; the sidecar of CBF last.

    Parameters
    ----------
    maps : ParameterMaps
        The estimates.
    destination : Destination
        Path of the CBF map and rules for the other names; the folder is created.
    header : Nifti1Header
        Header of the ASL image, for affine, affine codes and units.
    sidecar : mapping
        Fields of all sidecars.
    figures : Figures
        Quality figures, for the table and the sidecar of the CBF map.
    images : mapping of arrays (x, y, z, …)
        Further maps, by kind.
    files : mapping
        Other files beside the maps, such as outliers.tsv: name to content.

    Returns
    -------
    list of Path
        The images, the CBF map first, and the other files.

    Raises
    ------
    InputError
        When the output name is not a NIfTI name, or a file cannot be written.
    """
    check_output(destination.cbf)
    named: dict[str, NDArray[np.generic] | None] = {
        "cbf": maps.cbf,
        "att": maps.att,
        "cbf-std": maps.cbf_std,
        "att-std": maps.att_std,
        "flags": maps.flags,
        "abv": maps.abv,
        "t1t": maps.t1_tissue,
        "t1t-std": maps.t1_tissue_std,
        "cbf-confidence": maps.cbf_confidence,
        "att-confidence": maps.att_confidence,
        **images,
    }
    out = destination.cbf
    table = stem(destination.path("quality"))
    try:
        with write_together(out.parent, last=f"{stem(out)}.json") as folder:
            targets = []
            for kind, voxels in named.items():
                if voxels is not None:
                    target = destination.path(kind)
                    stored = np.uint8 if kind == "flags" else np.float32
                    write_image(folder / target.name, voxels.astype(stored), header)
                    shared = {**sidecar, "QualityFigures": figures} if kind == "cbf" else sidecar
                    _write_sidecar(folder / f"{stem(target)}.json", kind, shared)
                    targets.append(target)
            _write_table(folder / table, figures)
            for name, content in files.items():
                kind, end = name.split(".")
                target = out.with_name(f"{stem(destination.path(kind))}.{end}")
                (folder / target.name).write_bytes(content)
                targets.append(target)
    except OSError as error:
        raise InputError(
            out,
            "",
            found=f"a place that cannot be written ({error.strerror})",
            expected="a writable folder with room for the maps",
            fix="write to another place",
        ) from error
    return [*targets, out.with_name(f"{table}.tsv")]


def describe_scan(
    runs: Sequence[AslRun], series: AslSeries, notes: Sequence[str]
) -> dict[str, object]:
    """Return the properties of input and model that the maps depend on, as sidecar fields.

    `notes` are appended to the notes of the runs.
    """
    acquisition, timings = series.acquisition, series.acquisition.timings
    return {
        "SkullStripped": False,
        "GeneratedBy": [{"Name": "aslkit", "Version": version()}],
        "CommandLine": command_line(),
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
        "Overrides": _overrides(runs[0]),
        "Notes": [*dict.fromkeys(note for run in runs for note in run.notes), *notes],
    }


def _overrides(run: AslRun) -> dict[str, object]:
    """Return the overridden values; an M0 image is named by its path in its data set."""
    changed, m0 = run.overrides.changed, run.calibration
    return changed | {"m0": m0.origin} if "m0" in changed and m0.sources else changed


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
        "Units": MAP_KINDS[kind].units,
        "Description": MAP_KINDS[kind].description,
    }
    if kind == "flags":
        fields["Levels"] = {str(int(flag)): flag.name for flag in Flag}
    if MAP_KINDS[kind].volumes:
        fields["Volumes"] = list(MAP_KINDS[kind].volumes)
    _write_json(path, {**fields, **shared})


def _write_table(path: Path, figures: Figures) -> None:
    """Write the figures as a table of one row, path.tsv, and its column meanings, path.json."""
    text = rows_text(list(figures), [list(figures.values())])
    path.with_name(f"{path.name}.tsv").write_text(text, encoding="utf-8")
    columns = {
        name: {"Units": FIGURES[name].units, "Description": FIGURES[name].description}
        for name in figures
    }
    _write_json(path.with_name(f"{path.name}.json"), columns)


def _write_json(path: Path, fields: Mapping[str, object]) -> None:
    text = json.dumps(fields, indent=2, ensure_ascii=False, allow_nan=False)
    path.write_text(text + "\n", encoding="utf-8")
