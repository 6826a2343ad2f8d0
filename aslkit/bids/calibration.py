"""The M0 of an ASL series, from its file, its volumes or a number -> a `Calibration`."""

import math
from dataclasses import replace
from pathlib import Path

import numpy as np

from aslkit.bids.m0scan import find_m0scans, m0_candidates
from aslkit.bids.nifti import read_volumes
from aslkit.bids.overrides import Overrides
from aslkit.bids.resampling import resample_to_asl
from aslkit.bids.run import PERFUSION_CONTEXTS, Calibration, RawImage
from aslkit.bids.sidecar import Sidecar, path_in_dataset, read_sidecar
from aslkit.core.errors import InputError
from aslkit.core.series_and_maps import FloatImage

RELAXED_TR_S = 5.0  # from this TR on, M0 is not corrected (Alsop 2015, doi:10.1002/mrm.25197)
SHORTEST_TR_S = 0.1
LONGEST_TR_S = 60.0  # a longer TR was probably written in milliseconds
GAINS = (1e-7, 1e3)  # mean ASL signal over M0: control images about 1, differences about 0.005
M0_TYPES = ("Separate", "Included", "Estimate", "Absent")
READOUT = {
    "EchoTime": (" s", "T2* decay does not cancel (--m0-scale X)"),
    "FlipAngle": ("°", "M0 and ASL differ in gain (--m0-scale X)"),
}


def read_calibration(image: RawImage, overrides: Overrides) -> Calibration:
    """Find and read the M0 of an ASL image.

    Raises
    ------
    InputError
        When M0 is missing, contradicts M0Type, or does not cover the ASL image.
    """
    calibration = _found(image, overrides)
    _check_gain(image, calibration)
    return calibration


def _found(image: RawImage, overrides: Overrides) -> Calibration:
    if overrides.m0 is not None:
        return _given(image, overrides.m0, overrides)
    m0_type = _m0_type(image)
    calibration = _of_type(image, m0_type, overrides)
    notes = []
    if image.sidecar.values.get("M0Type") is None:
        notes.append(f"M0Type is not stated: read as {m0_type}")
    if m0_type != "Included" and image.indices("m0scan"):
        notes.append(f"M0Type is {m0_type}: the m0scan volumes of the series are not used")
    return replace(calibration, notes=(*notes, *calibration.notes))


def _of_type(image: RawImage, m0_type: str, overrides: Overrides) -> Calibration:
    sidecar, included = image.sidecar, image.indices("m0scan")
    if m0_type == "Included":
        if not included:
            raise sidecar.refuse(
                "M0Type",
                expected="an m0scan line in the aslcontext file",
                fix="mark the M0 volume as m0scan in the aslcontext file, or give --m0 FILE",
            )
        return _from_volumes(image, included, f"m0scan volumes of {image.path.name}", overrides)
    if m0_type == "Separate":
        return _from_file(image, _linked_m0(image), overrides)
    if m0_type == "Estimate":
        return _from_estimate(sidecar, overrides)
    return _from_controls(image, overrides)


def _check_gain(image: RawImage, calibration: Calibration) -> None:
    """Check that M0 and the ASL images have the same unit."""
    m0 = np.asarray(calibration.equilibrium, dtype=np.float64)
    volumes = image.volumes[..., image.indices(*PERFUSION_CONTEXTS)]
    strength = np.nanmean(np.abs(volumes), dtype=np.float64)
    usable = m0[np.isfinite(m0) & (m0 > 0)]
    gain = strength / usable.mean() if usable.size else math.inf
    lowest, highest = GAINS
    if not lowest <= gain <= highest:
        raise InputError(
            calibration.sources[0] if calibration.sources else calibration.origin,
            "M0",
            found=f"ASL images with {gain:.2g} times the signal of M0",
            expected=f"a ratio of {lowest:g} to {highest:g}",
            fix="give the M0 of this series, or its gain with --m0-scale",
        )


def _m0_type(image: RawImage) -> str:
    """Return the stated M0Type, or the type that the files imply."""
    stated = image.sidecar.text("M0Type")
    if stated is None:
        if image.indices("m0scan"):
            return "Included"
        if image.sidecar.values.get("M0Estimate") is not None:
            return "Estimate"
        return "Separate"
    if stated not in M0_TYPES:
        raise image.sidecar.refuse(
            "M0Type", expected=f"one of {', '.join(M0_TYPES)}", fix="write one of these"
        )
    if stated == "Absent" and image.indices("m0scan"):
        raise image.sidecar.refuse(
            "M0Type",
            found="Absent, although the aslcontext file has an m0scan volume",
            expected="Included",
            fix='write "M0Type": "Included"',
        )
    return stated


def _linked_m0(image: RawImage) -> Path:
    """Return the only m0scan image that names the series in IntendedFor."""
    linked = find_m0scans(image.path)
    if len(linked) == 1:
        return linked[0]
    unlinked = ", ".join(p.name for p in m0_candidates(image.path))
    target = path_in_dataset(image.path)
    found, fix = "no m0scan image", "add the m0scan image, or give --m0 FILE or --m0 NUMBER"
    if unlinked:
        found = f"no m0scan image linked to the series ({unlinked} is not)"
        fix = f'write "IntendedFor": "bids::{target}" in its sidecar, or give --m0 FILE'
    if linked:
        found = f"several m0scan images ({', '.join(p.name for p in linked)})"
        fix = "give --m0 FILE"
    raise image.sidecar.refuse(
        "M0Type",
        found=f"{image.sidecar.values.get('M0Type', 'nothing')} and {found}",
        expected="one perf/*_m0scan image whose IntendedFor names the series",
        fix=fix,
    )


def _given(image: RawImage, m0: str, overrides: Overrides) -> Calibration:
    try:
        value = float(m0)
    except ValueError:
        return _from_file(image, Path(m0), overrides)
    if not (math.isfinite(value) and value > 0):
        raise InputError(
            "--m0", "", found=m0, expected="a positive number", fix="give the M0 in scanner units"
        )
    return Calibration(value, "--m0", overrides.m0_scale)


def _from_estimate(sidecar: Sidecar, overrides: Overrides) -> Calibration:
    value = sidecar.number("M0Estimate")
    if value is None or value <= 0:
        raise sidecar.refuse(
            "M0Estimate", expected="a positive number", fix="write the M0, or give --m0 NUMBER"
        )
    origin = f"M0Estimate of {sidecar.origins['M0Estimate'].name}"
    return Calibration(value, origin, overrides.m0_scale)


def _from_volumes(
    image: RawImage, indices: list[int], origin: str, overrides: Overrides
) -> Calibration:
    mean = _mean(image.volumes[..., indices], image.path)
    measured = image.sidecar, image.volumes.shape[3], indices
    return _calibration(image, mean, measured, origin, (), overrides)


def _from_file(image: RawImage, path: Path, overrides: Overrides) -> Calibration:
    volumes, header = read_volumes(path)
    sidecar = read_sidecar(path)
    mean = resample_to_asl(image, _mean(volumes, path), header, path)
    n = volumes.shape[3]
    sources = (path, *sidecar.files)
    return _calibration(
        image, mean, (sidecar, n, list(range(n))), path_in_dataset(path), sources, overrides
    )


def _from_controls(image: RawImage, overrides: Overrides) -> Calibration:
    """Use the mean control image for M0Type Absent, without background suppression only."""
    controls = image.indices("control")
    if not controls or image.sidecar.is_true("BackgroundSuppression") is not False:
        raise image.sidecar.refuse(
            "M0Type",
            found="Absent, and no control images without background suppression",
            expected="an M0 image or value",
            fix="give --m0 FILE or --m0 NUMBER",
        )
    calibration = _from_volumes(image, controls, f"mean control of {image.path.name}", overrides)
    note = "M0Type is Absent: the mean control image serves as M0"
    return replace(calibration, notes=(note, *calibration.notes))


def _calibration(
    image: RawImage,
    m0: FloatImage,
    measured: tuple[Sidecar, int, list[int]],
    origin: str,
    sources: tuple[Path, ...],
    overrides: Overrides,
) -> Calibration:
    """Return the calibration of an M0 image from the sidecar and volumes of its file."""
    tr_s, notes = overrides.m0_tr_s, _readout_notes(image, *measured)
    if tr_s is None:
        tr_s, assumed = _repetition_time(*measured)
        notes = (*assumed, *notes)
    recovery = 1.0
    if tr_s is not None and tr_s < RELAXED_TR_S and overrides.correct_m0_tr:
        recovery = 1 - math.exp(-tr_s / overrides.t1_tissue_s)
    return Calibration(m0, origin, overrides.m0_scale, tr_s, recovery, sources, notes)


def _repetition_time(
    sidecar: Sidecar, n_volumes: int, indices: list[int]
) -> tuple[float | None, tuple[str, ...]]:
    """Return the TR of some volumes [s], None if unknown, and notes on assumptions."""
    for field in ("RepetitionTimePreparation", "RepetitionTime"):
        values = sidecar.per_volume(field, n_volumes)
        if values is None:
            continue
        used = np.unique(values[indices])
        wrong = used[(used != 0) & ((used < SHORTEST_TR_S) | (used > LONGEST_TR_S))]
        if wrong.size:
            is_long = wrong[-1] > LONGEST_TR_S
            raise sidecar.refuse(
                field,
                found=f"{wrong[-1]:g}",
                expected=f"seconds, {SHORTEST_TR_S:g} to {LONGEST_TR_S:g}, or 0 if unknown",
                fix=f'write "{field}": {wrong[-1] / 1000:g}' if is_long else "correct it",
            )
        if used.size > 1:
            raise sidecar.refuse(
                field,
                found=f"{used.size} different values for the M0 volumes",
                expected="one TR",
                fix="give --m0-tr S",
            )
        if used[0] > 0:
            is_fallback = field == "RepetitionTime"
            note = f"RepetitionTimePreparation is unknown: RepetitionTime {used[0]:g} s is used"
            return float(used[0]), (note,) if is_fallback else ()
    return None, (f"{sidecar.path.name}: the TR of M0 is unknown, so M0 is not corrected for it",)


def _values(sidecar: Sidecar, field: str, n_volumes: int, indices: list[int]) -> list[float]:
    """Return the distinct values of a field for some volumes; empty if the field is absent."""
    values = sidecar.per_volume(field, n_volumes)
    return [] if values is None else [float(v) for v in np.unique(values[indices])]


def _readout_notes(
    image: RawImage, sidecar: Sidecar, n_volumes: int, indices: list[int]
) -> tuple[str, ...]:
    """Return notes on readout differences between M0 and ASL that bias their ratio."""
    m0 = {f: _values(sidecar, f, n_volumes, indices) for f in READOUT}
    perfusion = image.indices(*PERFUSION_CONTEXTS)
    asl = {f: _values(image.sidecar, f, len(image.contexts), perfusion) for f in READOUT}
    return tuple(
        f"{field} of M0 is {m0[field][0]:g}{unit} and of ASL {asl[field][0]:g}{unit}: {effect}"
        for field, (unit, effect) in READOUT.items()
        if m0[field] and asl[field] and m0[field] != asl[field]
    )


def _mean(volumes: FloatImage, path: Path) -> FloatImage:
    mean = volumes.mean(axis=3, dtype=np.float64).astype(np.float32)
    if not (mean[np.isfinite(mean)] > 0).any():
        raise InputError(
            path,
            "M0",
            found="no voxel above 0",
            expected="an M0 image",
            fix="check which volume is the m0scan, or give --m0 FILE",
        )
    return mean
