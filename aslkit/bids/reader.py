"""An ASL file with its BIDS sidecars -> an `AslRun`, interpreted and checked."""

from dataclasses import replace
from pathlib import Path

import numpy as np

from aslkit.bids.aslcontext import read_volume_types
from aslkit.bids.calibration import read_calibration
from aslkit.bids.labeling_efficiency import read_efficiency
from aslkit.bids.nifti import read_volumes
from aslkit.bids.overrides import NO_OVERRIDES, Overrides
from aslkit.bids.run import PERFUSION_CONTEXTS, AslRun, RawImage, timing_groups, unpaired_volumes
from aslkit.bids.sidecar import Sidecar, entities, is_magnitude, read_sidecar
from aslkit.bids.timing import read_label_durations, read_plds, read_slice_offsets
from aslkit.core.acquisition import LABELINGS
from aslkit.core.errors import InputError

FIELD_STRENGTH_T = (2.5, 3.5)  # range of field strengths for the default relaxation times
SHORTEST_SINGLE_LABEL_S = 1.0  # shorter durations are blocks of a time-encoded label


def read_run(path: Path, overrides: Overrides = NO_OVERRIDES) -> AslRun:
    """Read one raw ASL file and its BIDS metadata.

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
    efficiency, efficiency_notes = read_efficiency(image.sidecar, labeling, overrides)
    slice_offsets_s, slice_notes = read_slice_offsets(image, overrides)
    calibration = read_calibration(image, overrides)
    pairs_per_deltam, pair_notes = _pairs_per_deltam(image)
    label_durations_s, label_notes = read_label_durations(image, labeling, overrides)
    run = AslRun(
        source=path,
        volumes=image.volumes,
        header=image.header,
        contexts=image.contexts,
        plds_s=read_plds(image, overrides),
        label_durations_s=label_durations_s,
        labeling=labeling,
        efficiency=efficiency,
        calibration=calibration,
        slice_offsets_s=slice_offsets_s,
        has_crusher=bool(image.sidecar.is_true("VascularCrushing")),
        pairs_per_deltam=pairs_per_deltam,
        overrides=overrides,
        sources=(path, *image.sidecar.files, *context_file, *calibration.sources),
        notes=(
            *label_notes,
            *efficiency_notes,
            *slice_notes,
            *_field_strength_note(image.sidecar, overrides),
            *calibration.notes,
            *pair_notes,
        ),
    )
    return replace(run, notes=(*_timing_notes(run), *run.notes))


def _read_image(path: Path, overrides: Overrides) -> tuple[RawImage, tuple[Path, ...]]:
    volumes, header = read_volumes(path)
    contexts, files = read_volume_types(path, volumes.shape[3], overrides)
    image = RawImage(path, volumes, header, read_sidecar(path), contexts)
    for i in image.indices(*PERFUSION_CONTEXTS, "m0scan"):
        is_finite = np.isfinite(volumes[..., i])
        is_raw = contexts[i] in ("control", "label")
        if not is_finite.any() or (is_raw and not volumes[..., i][is_finite].any()):
            raise InputError(
                path,
                f"volume {i + 1} of {volumes.shape[3]} ({contexts[i]})",
                found="zeros only" if is_finite.any() else "no finite voxel",
                expected="an image",
                fix="reconstruct it again, or mark it n/a in the aslcontext file",
            )
    return image, files


def _refuse_unsupported(image: RawImage) -> None:
    """Check that the series needs no decoding, combination or other signal model."""
    sidecar, names = image.sidecar, entities(image.path)[0]
    if not is_magnitude(image.path):
        raise InputError(
            image.path,
            "part",
            found=names["part"],
            expected="mag: magnitude images",
            fix="give the magnitude image",
        )
    echo_times = sidecar.per_volume("EchoTime", len(image.contexts))
    used = image.indices(*PERFUSION_CONTEXTS)
    if "echo" in names or (echo_times is not None and np.ptp(echo_times[used]) > 0):
        raise InputError(
            image.path,
            "echo",
            found=f"echo {names['echo']} of several" if "echo" in names else "several EchoTimes",
            expected="one echo",
            fix="combine the echoes first, or give a copy of one under a name without echo-",
        )
    if sidecar.is_true("LookLocker"):
        raise sidecar.refuse(
            "LookLocker",
            expected="false: Look-Locker readouts need another signal model",
            fix="use a tool for Look-Locker ASL; aslkit reads one excitation per volume",
        )
    encoded = [f for f, v in sidecar.values.items() if _is_time_encoded(f) and v]
    if encoded and not image.indices("deltam"):
        raise sidecar.refuse(
            encoded[0],
            expected="decoded deltam volumes",
            fix="decode the Hadamard (time-encoded) series first and mark the volumes deltam",
        )


def _is_time_encoded(field: str) -> bool:
    return "hadamard" in field.lower() or field.startswith("TimeEncoded")


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


def _pairs_per_deltam(image: RawImage) -> tuple[int, tuple[str, ...]]:
    """Return the pairs averaged into one deltam volume by the scanner, and notes."""
    stated = image.sidecar.number("TotalAcquiredPairs")
    if stated is not None and (stated < 1 or stated % 1):
        raise image.sidecar.refuse(
            "TotalAcquiredPairs", expected="a whole number, 1 or more", fix="correct or remove it"
        )
    n_deltam = len(image.indices("deltam"))
    n_pairs = n_deltam or len(image.indices("control", "label")) // 2
    if stated is None or stated == n_pairs:
        return 1, ()
    if n_deltam and stated % n_deltam == 0:
        return int(stated) // n_deltam, ()
    return 1, (f"TotalAcquiredPairs is {stated:g}, but the file holds {n_pairs} pairs",)


def _field_strength_note(sidecar: Sidecar, overrides: Overrides) -> tuple[str, ...]:
    tesla = sidecar.number("MagneticFieldStrength")
    lowest, highest = FIELD_STRENGTH_T
    is_usual = tesla is None or lowest <= tesla <= highest
    if is_usual or overrides.t1_blood_s != NO_OVERRIDES.t1_blood_s:
        return ()
    return (f"the default T1 of blood is for 3 T, the scanner has {tesla:g} T: give --t1b",)


def _timing_notes(run: AslRun) -> tuple[str, ...]:
    """Return notes on unusual timing groups; raise InputError for controls without label."""
    groups = timing_groups(run)
    notes = []
    unpaired = unpaired_volumes(run)
    if unpaired:
        numbers = ", ".join(str(i + 1) for i in unpaired)
        notes.append(f"volumes without a partner of equal timing are left out: {numbers}")
    durations, plds = {key[0] for key in groups}, [key[1] for key in groups]
    longest = max(durations)
    if run.labeling == "pasl" and min(plds) < longest < float("inf"):
        notes.append(
            f"the inversion time of {min(plds):g} s is shorter than the bolus of {longest:g} s: "
            "PostLabelingDelay of PASL counts from the inversion (TI)"
        )
    is_one_label = len(durations) == 1 and SHORTEST_SINGLE_LABEL_S <= longest < min(plds)
    if run.labeling in ("pcasl", "casl") and is_one_label and len(plds) > 2:
        notes.append(
            f"every PLD ({min(plds):g} to {max(plds):g} s) exceeds the label duration of "
            f"{longest:g} s: are they inflow times (label duration included)?"
        )
    return tuple(notes)
