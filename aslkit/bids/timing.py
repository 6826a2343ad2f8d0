"""Timing fields of a sidecar or the command line -> delays of every volume and slice [s]."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from aslkit.bids.overrides import Overrides
from aslkit.bids.run import PERFUSION_CONTEXTS, RawImage
from aslkit.bids.sidecar import Sidecar
from aslkit.core.constants import LONGEST_DELAY_S
from aslkit.core.errors import InputError

CUT_OFF_TECHNIQUES = ("QUIPSS", "QUIPSSII", "Q2TIPS")
READOUTS = ("2D", "3D", "1D")
SHORTEST_LABEL_S = 0.001  # a label duration of 0 means a missing value


def read_plds(image: RawImage, overrides: Overrides) -> NDArray[np.float64]:
    """Return the post-labeling delay of every volume [s], (v,); for PASL the inversion time.

    Raises
    ------
    InputError
        When it is missing, has a wrong number of entries, or is out of range.
    """
    if overrides.plds_s is not None:
        return _stated(overrides.plds_s, image, "--plds", 0.0)
    return _delays(image, "PostLabelingDelay", "--plds", 0.0)


def read_label_durations(
    image: RawImage, labeling: str, overrides: Overrides
) -> tuple[NDArray[np.float64], tuple[str, ...]]:
    """Return the label duration of every volume [s], (v,), and notes on assumptions.

    It is 0 for VSASL and the bolus duration for PASL.

    Raises
    ------
    InputError
        When it is missing, has a wrong number of entries, or is out of range.
    """
    n = image.volumes.shape[3]
    if labeling == "vsasl":
        return np.zeros(n), ()
    if labeling == "pasl":
        duration_s, notes = _bolus_duration(image.sidecar, overrides)
        return np.full(n, duration_s), notes
    stated, option = overrides.label_durations_s, "--label-duration"
    if stated is not None:
        return _stated(stated, image, option, SHORTEST_LABEL_S), ()
    return _delays(image, "LabelingDuration", option, SHORTEST_LABEL_S), ()


def _bolus_duration(sidecar: Sidecar, overrides: Overrides) -> tuple[float, tuple[str, ...]]:
    """Return TI1 of PASL [s] (infinite without bolus cut-off), and notes on assumptions."""
    if overrides.bolus_duration_s is not None:
        return overrides.bolus_duration_s, ()
    technique = sidecar.text("BolusCutOffTechnique")
    if technique not in (None, *CUT_OFF_TECHNIQUES):
        raise sidecar.refuse(
            "BolusCutOffTechnique",
            expected=f"one of {', '.join(CUT_OFF_TECHNIQUES)}",
            fix="write one of these, or give --bolus-duration S",
        )
    has_cut_off = sidecar.is_true("BolusCutOffFlag")
    times = sidecar.numbers("BolusCutOffDelayTime")
    if has_cut_off is False or (has_cut_off is None and times is None):
        return float("inf"), (
            "no bolus cut-off: the bolus is assumed to be long (--bolus-duration S)",
        )
    is_ascending = times is not None and np.all(np.diff(times) >= 0)
    if times is None or not (is_ascending and times[0] > 0 and times[-1] <= LONGEST_DELAY_S):
        fix = "write it, or give --bolus-duration S"
        if times is not None and times[0] > LONGEST_DELAY_S:
            fix = f'write "BolusCutOffDelayTime": {times[0] / 1000:g}'
        expected = f"seconds, above 0 to {LONGEST_DELAY_S:g}: one number, or an ascending list"
        raise sidecar.refuse("BolusCutOffDelayTime", expected=expected, fix=fix)
    note = "BolusCutOffTechnique QUIPSS saturates the slab, not the bolus: read as QUIPSSII"
    return float(times[0]), (note,) if technique == "QUIPSS" else ()


def _delays(image: RawImage, field: str, option: str, lowest: float) -> NDArray[np.float64]:
    """Return a timing field per volume [s], checked on the perfusion volumes."""
    sidecar = image.sidecar
    values = sidecar.per_volume(field, len(image.contexts))
    if values is None:
        raise sidecar.refuse(
            field,
            expected="seconds, one number or one per volume",
            fix=f'write "{field}": …, or give {option}',
        )
    used = values[image.indices(*PERFUSION_CONTEXTS)]
    if used.min() < lowest or used.max() > LONGEST_DELAY_S:
        raise sidecar.refuse(field, **_range_fault(used, lowest, f'write "{field}": '))
    return values


def _range_fault(used: NDArray[np.float64], lowest: float, write: str) -> dict[str, str]:
    """Describe the fault of delays that are negative or in milliseconds."""
    is_long = used.max() > LONGEST_DELAY_S
    seconds = ", ".join(f"{v / 1000:g}" for v in np.unique(used)[:8])
    is_list = np.unique(used).size > 1 and not write.startswith("give")
    line = f"[{seconds}, …]" if is_list else seconds
    return {
        "found": f"{used.max() if is_long else used.min():g}",
        "expected": f"seconds, {lowest:g} to {LONGEST_DELAY_S:g}",
        "fix": f"{write}{line} (seconds, not milliseconds)" if is_long else "correct the value",
    }


def _stated(
    values: Sequence[float], image: RawImage, option: str, lowest: float
) -> NDArray[np.float64]:
    """Return the command-line delays per volume: one, one per volume, or a repeated cycle."""
    given = np.array(values)
    if given.min() < lowest or given.max() > LONGEST_DELAY_S:
        raise InputError(option, "", **_range_fault(given, lowest, f"give {option} "))
    perfusion = image.indices(*PERFUSION_CONTEXTS)
    n_pairs = len(perfusion) if image.indices("deltam") else len(perfusion) // 2
    if given.size in (1, len(image.contexts)):
        return np.broadcast_to(given, (len(image.contexts),))
    if n_pairs % given.size:
        raise InputError(
            option,
            "",
            found=f"{given.size} values",
            expected=f"1, {len(image.contexts)} (one per volume) or a divisor of {n_pairs} pairs",
            fix="list the delays in the order in which the pairs were acquired",
        )
    spread = np.zeros(len(image.contexts))
    spread[perfusion] = given[np.arange(len(perfusion)) * n_pairs // len(perfusion) % given.size]
    return spread


def read_slice_offsets(
    image: RawImage, overrides: Overrides
) -> tuple[tuple[float, ...], tuple[str, ...]]:
    """Return the delay of each slice after the first [s], in array order, and notes.

    Raises
    ------
    InputError
        When their number is wrong, or they are out of range or along another axis.
    """
    sidecar, n_slices = image.sidecar, image.volumes.shape[2]
    if overrides.slice_dt_s is not None:
        span_s = overrides.slice_dt_s * (n_slices - 1)
        if span_s > LONGEST_DELAY_S:
            raise InputError(
                "--slice-dt",
                "",
                found=f"{span_s:g} s for {n_slices} slices",
                expected=f"at most {LONGEST_DELAY_S:g} s",
                fix=f"give --slice-dt {overrides.slice_dt_s / 1000:g} if it was milliseconds",
            )
        return tuple(overrides.slice_dt_s * i for i in range(n_slices)), ()
    readout, times = sidecar.text("MRAcquisitionType"), sidecar.numbers("SliceTiming")
    if readout not in (None, *READOUTS):
        raise sidecar.refuse(
            "MRAcquisitionType", expected="2D or 3D", fix='write "MRAcquisitionType": "2D" or "3D"'
        )
    if readout == "3D":
        is_ignored = times is not None and np.ptp(times) > 0
        return (0.0,), ("SliceTiming is ignored: the readout is 3D",) if is_ignored else ()
    if times is None:
        return (0.0,), (
            f"{'2D readout' if readout == '2D' else 'MRAcquisitionType is not stated,'} "
            "without SliceTiming: all slices are taken as simultaneous (--slice-dt S)",
        )
    if times.size != n_slices:
        raise sidecar.refuse(
            "SliceTiming",
            found=f"{times.size} entries",
            expected=f"{n_slices}, one per slice of {image.path.name}",
            fix="correct it, or give --slice-dt S",
        )
    if times.min() < 0 or times.max() > LONGEST_DELAY_S:
        raise sidecar.refuse("SliceTiming", **_range_fault(times, 0.0, 'write "SliceTiming": '))
    return _in_array_order(sidecar, times - times.min()), _multiband_note(sidecar, times)


def _multiband_note(sidecar: Sidecar, times: NDArray[np.float64]) -> tuple[str, ...]:
    factor, n_excitations = sidecar.number("MultibandAccelerationFactor"), np.unique(times).size
    if factor is None or n_excitations * factor == times.size:
        return ()
    return (
        f"MultibandAccelerationFactor is {factor:g}, but SliceTiming has {n_excitations} "
        f"different times for {times.size} slices",
    )


def _in_array_order(sidecar: Sidecar, times: NDArray[np.float64]) -> tuple[float, ...]:
    direction = sidecar.text("SliceEncodingDirection") or "k"
    if direction not in ("k", "k-"):
        raise sidecar.refuse(
            "SliceEncodingDirection",
            expected="k or k-: slices along the third axis",
            fix="reorient the images so that slices are the third axis",
        )
    return tuple(float(t) for t in (times[::-1] if direction == "k-" else times))
