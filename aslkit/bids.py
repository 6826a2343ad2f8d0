"""An ASL file with its BIDS sidecars -> an `AslRun`, interpreted and checked."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from aslkit.acquisition import EFFICIENCY, LABELINGS
from aslkit.calibration import read_calibration
from aslkit.delays import read_label_durations, read_plds, read_slice_offsets
from aslkit.errors import InputError
from aslkit.nifti import read_volumes, stem
from aslkit.overrides import AS_STORED, ORDERS, Overrides
from aslkit.runs import (
    PERFUSION_CONTEXTS,
    AslRun,
    Efficiency,
    RawImage,
    timing_groups,
    timings,
    unpaired_volumes,
)
from aslkit.sidecars import Sidecar, find_context, read_context, read_sidecar

__all__ = ["Overrides", "read_run", "timing_table"]

FIELD_STRENGTH_T = (2.5, 3.5)  # where the default relaxation times hold


def read_run(path: Path, overrides: Overrides = AS_STORED) -> AslRun:
    """Read one raw ASL file and everything that BIDS says about it.

    Parameters
    ----------
    path : Path
        NIfTI file; sidecar, aslcontext and m0scan are found beside or above it.
    overrides : Overrides
        Values that replace those of the sidecar.

    Raises
    ------
    InputError
        When a file is missing or damaged, or a field is absent, contradictory or out of range.
    """
    image, context_file = _read_image(path, overrides)
    _refuse_unsupported(image)
    labeling = _labeling(image.sidecar, overrides)
    efficiency, efficiency_notes = _efficiency(image.sidecar, labeling, overrides)
    slice_offsets_s, slice_notes = read_slice_offsets(image, overrides)
    calibration = read_calibration(image, overrides)
    pairs_per_deltam, pair_notes = _pairs_per_deltam(image)
    run = AslRun(
        source=path,
        volumes=image.volumes,
        header=image.header,
        contexts=image.contexts,
        plds_s=read_plds(image, overrides),
        label_durations_s=read_label_durations(image, labeling, overrides),
        labeling=labeling,
        efficiency=efficiency,
        calibration=calibration,
        slice_offsets_s=slice_offsets_s,
        has_crusher=bool(image.sidecar.is_true("VascularCrushing")),
        pairs_per_deltam=pairs_per_deltam,
        overrides=overrides,
        sources=(path, *image.sidecar.files, *context_file, *calibration.sources),
        notes=(
            *efficiency_notes,
            *slice_notes,
            *_field_strength_note(image.sidecar, overrides),
            *calibration.notes,
            *pair_notes,
        ),
    )
    timing_groups(run)  # refuses timings that leave a control without its label
    return run


def _read_image(path: Path, overrides: Overrides) -> tuple[RawImage, tuple[Path, ...]]:
    volumes, header = read_volumes(path)
    contexts, files = _contexts(path, volumes.shape[3], overrides)
    image = RawImage(path, volumes, header, read_sidecar(path), contexts)
    if not image.indices(*PERFUSION_CONTEXTS):
        raise InputError(
            files[0] if files else "--order",
            "volume_type",
            found=f"only {', '.join(sorted(set(contexts)))}",
            expected="control and label, or deltam, volumes",
            fix="correct the volume types",
        )
    for i in image.indices(*PERFUSION_CONTEXTS, "m0scan"):
        if not np.isfinite(volumes[..., i]).any():
            raise InputError(
                path,
                f"volume {i + 1} of {volumes.shape[3]} ({contexts[i]})",
                found="no finite voxel",
                expected="numbers",
                fix="reconstruct it again, or mark it n/a in the aslcontext file",
            )
    return image, files


def _contexts(
    path: Path, n_volumes: int, overrides: Overrides
) -> tuple[tuple[str, ...], tuple[Path, ...]]:
    """Volume type of every volume, and the file that says so."""
    file = find_context(path)
    if file is None and overrides.order is None:
        name = stem(path).removesuffix("asl").removesuffix("_")
        raise InputError(
            path.with_name(f"{name}_aslcontext.tsv"),
            "",
            found="no such file",
            expected="the type of every volume, one a line",
            fix="add it, or give --order ct, tc or diff",
        )
    stated = read_context(file) if file else (PERFUSION_CONTEXTS[0],) * n_volumes
    if len(stated) != n_volumes:
        raise InputError(
            file,
            "volume_type",
            found=f"{len(stated)} volumes",
            expected=f"{n_volumes}, the number of volumes of {path.name}",
            fix="write one line per volume, m0scan volumes included",
        )
    files = () if file is None else (file,)
    return (_reordered(stated, overrides.order) if overrides.order else stated), files


def _reordered(contexts: Sequence[str], order: str) -> tuple[str, ...]:
    """The perfusion volumes relabelled in the order that the user states."""
    cycle = ORDERS[order]
    positions = [i for i, c in enumerate(contexts) if c in PERFUSION_CONTEXTS]
    if len(positions) % len(cycle):
        raise InputError(
            "--order",
            "",
            found=f"{order} for {len(positions)} perfusion volumes",
            expected="an even number of volumes",
            fix="mark m0scan volumes in an aslcontext file, or give --order diff",
        )
    new = dict(zip(positions, cycle * (len(positions) // len(cycle)), strict=True))
    return tuple(new.get(i, c) for i, c in enumerate(contexts))


def _refuse_unsupported(image: RawImage) -> None:
    sidecar = image.sidecar
    if sidecar.is_true("LookLocker"):
        raise sidecar.refuse(
            "LookLocker",
            expected="false: Look-Locker readouts need another signal model",
            fix="use a tool for Look-Locker ASL; aslkit reads one excitation per volume",
        )
    encoded = [f for f, v in sidecar.values.items() if _is_hadamard(f) and v]
    if encoded and not image.indices("deltam"):
        raise sidecar.refuse(
            encoded[0],
            expected="decoded deltam volumes",
            fix="decode the Hadamard (time-encoded) series first and mark the volumes deltam",
        )
    if image.indices("deltam") and image.indices("control", "label"):
        raise InputError(
            image.path,
            "volume types",
            found="deltam volumes besides control or label volumes",
            expected="one of both",
            fix="mark one kind n/a in the aslcontext file",
        )


def _is_hadamard(field: str) -> bool:
    return "hadamard" in field.lower() or field.startswith("TimeEncodedMatrix")


def _labeling(sidecar: Sidecar, overrides: Overrides) -> str:
    if overrides.labeling is not None:
        return overrides.labeling
    stated = sidecar.text("ArterialSpinLabelingType")
    if stated is None or stated.lower() not in LABELINGS:
        raise sidecar.refuse(
            "ArterialSpinLabelingType",
            expected="PCASL, CASL, PASL or VSASL",
            fix='write "ArterialSpinLabelingType": "PCASL" (or another), or give --labeling',
        )
    return stated.lower()


def _efficiency(
    sidecar: Sidecar, labeling: str, overrides: Overrides
) -> tuple[Efficiency, tuple[str, ...]]:
    alpha, origin = EFFICIENCY[labeling], f"default of {labeling.upper()}"
    measured = sidecar.number("LabelingEfficiency")
    if overrides.alpha is not None:
        alpha, origin = overrides.alpha, "--alpha"
    elif measured is not None:
        if not 0 < measured <= 1:
            raise sidecar.refuse(
                "LabelingEfficiency", expected="a fraction, 0 to 1", fix="write it as a fraction"
            )
        alpha, origin = measured, "LabelingEfficiency"
    n_pulses, notes = _n_pulses(sidecar, overrides)
    return Efficiency(alpha, origin, n_pulses, overrides.alpha_bs), notes


def _n_pulses(sidecar: Sidecar, overrides: Overrides) -> tuple[int, tuple[str, ...]]:
    """Background-suppression pulses that act on the label."""
    if overrides.n_bs is not None:
        return overrides.n_bs, ()
    is_suppressed = sidecar.is_true("BackgroundSuppression")
    number = sidecar.number("BackgroundSuppressionNumberPulses")
    if is_suppressed is False:
        return 0, ()
    if number is None:
        state = "on" if is_suppressed else "not stated"
        return 0, (
            f"background suppression is {state} and its number of pulses unknown: "
            "no loss of label is assumed (--n-bs N)",
        )
    if number < 0 or number != int(number):
        raise sidecar.refuse(
            "BackgroundSuppressionNumberPulses", expected="a whole number", fix="give --n-bs N"
        )
    return int(number), ()


def _pairs_per_deltam(image: RawImage) -> tuple[int, tuple[str, ...]]:
    """Pairs that the scanner averaged into one deltam volume, checked against the sidecar."""
    stated = image.sidecar.number("TotalAcquiredPairs")
    n_deltam = len(image.indices("deltam"))
    n_pairs = n_deltam or len(image.indices("control", "label")) // 2
    if stated is None or stated == n_pairs:
        return 1, ()
    if n_deltam and stated > 0 and stated % n_deltam == 0:
        return int(stated) // n_deltam, ()
    return 1, (f"TotalAcquiredPairs is {stated:g}, but the file holds {n_pairs} pairs",)


def _field_strength_note(sidecar: Sidecar, overrides: Overrides) -> tuple[str, ...]:
    tesla = sidecar.number("MagneticFieldStrength")
    lowest, highest = FIELD_STRENGTH_T
    is_usual = tesla is None or lowest <= tesla <= highest
    if is_usual or overrides.t1_blood_s != AS_STORED.t1_blood_s:
        return ()
    return (f"the default T1 of blood is for 3 T, the scanner has {tesla:g} T: give --t1b",)


def timing_table(runs: Sequence[AslRun]) -> str:
    """What was understood of the runs, for the user to check before anything is fitted."""
    return "\n\n".join(_run_table(run) for run in runs)


def _run_table(run: AslRun) -> str:
    offsets = run.slice_offsets_s
    readout = f"2D, {len(offsets)} slices over {max(offsets):g} s" if max(offsets) else "3D"
    efficiency, m0 = run.efficiency, run.calibration
    lines = [
        f"{run.source}",
        f"  labeling    {run.labeling.upper()}, efficiency {efficiency.total:.3f} = "
        f"{efficiency.alpha:g} ({efficiency.origin}) x "
        f"{efficiency.per_pulse:g}^{efficiency.n_pulses} (background suppression)",
        f"  readout     {readout}" + (", vascular crushing" if run.has_crusher else ""),
        f"  M0          {m0.origin}, scale {m0.scale:g}, TR {_seconds(m0.repetition_time_s)}, "
        f"recovery {m0.recovery:.3f}",
        "  volume   label duration [s]   PLD [s]   effective PLD [s]   pairs",
    ]
    for number, timing in enumerate(timings(run), start=1):
        first, last = timing.pld_s, timing.pld_s + max(offsets)
        effective = f"{first:g}" if first == last else f"{first:g} - {last:g}"
        lines.append(
            f"  {number:6d}   {timing.label_duration_s:18g}   {timing.pld_s:7g}"
            f"   {effective:>17s}   {timing.n_averages:5d}"
        )
    unpaired = unpaired_volumes(run)
    left_out = [f"volumes without a partner are left out: {[i + 1 for i in unpaired]}"]
    lines += [f"  note: {note}" for note in (*run.notes, *(left_out if unpaired else []))]
    return "\n".join(lines)


def _seconds(value: float | None) -> str:
    return "unknown" if value is None else f"{value:g} s"
