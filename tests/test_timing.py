"""Timing fields: limits of their ranges, defaults, and notes on missing fields."""

from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from aslkit.bids.overrides import NO_OVERRIDES, Overrides
from aslkit.bids.run import RawImage
from aslkit.bids.sidecar import Sidecar
from aslkit.bids.timing import read_label_durations, read_plds, read_slice_offsets
from aslkit.core.errors import InputError

PATH = Path("sub-01_asl.json")
SERIES = ("m0scan", *("label", "control") * 4)
DIFFERENCES = ("m0scan", *["deltam"] * 4)


def raw(contexts=SERIES, n_slices=3, **fields):
    volumes = np.ones((2, 2, n_slices, len(contexts)), np.float32)
    sidecar = Sidecar(PATH, fields, dict.fromkeys(fields, PATH))
    return RawImage(PATH.with_suffix(".nii"), volumes, nib.Nifti1Header(), sidecar, contexts)


@pytest.mark.parametrize("pld", [0, 20, 1.8])
def test_a_single_delay_applies_to_all_volumes(pld):
    np.testing.assert_array_equal(read_plds(raw(PostLabelingDelay=pld), NO_OVERRIDES), [pld] * 9)


@pytest.mark.parametrize("pld", [-0.001, 20.001])
def test_a_delay_out_of_range_is_refused_for_perfusion_volumes_only(pld):
    plds = [pld, *[1.8] * 8]
    np.testing.assert_array_equal(read_plds(raw(PostLabelingDelay=plds), NO_OVERRIDES), plds)
    with pytest.raises(InputError, match=f"PostLabelingDelay: found {pld:g}, expected seconds"):
        read_plds(raw(PostLabelingDelay=plds[::-1]), NO_OVERRIDES)
    with pytest.raises(InputError, match="^--plds: found"):
        read_plds(raw(), Overrides(plds_s=(1.8, pld)))


@pytest.mark.parametrize(
    ("plds", "fix"),
    [
        (1800, 'write "PostLabelingDelay": 1.8 (seconds, not milliseconds)'),
        (
            [0, *[500, 1800] * 4],
            'write "PostLabelingDelay": [0.5, 1.8, …] (seconds, not milliseconds)',
        ),
        (-1, "correct the value"),
    ],
)
def test_the_fix_for_milliseconds_gives_the_value_in_seconds(plds, fix):
    with pytest.raises(InputError) as caught:
        read_plds(raw(PostLabelingDelay=plds), NO_OVERRIDES)
    assert str(caught.value).endswith(f"expected seconds, 0 to 20. Fix: {fix}.")


@pytest.mark.parametrize(
    ("contexts", "stated", "expected"),
    [
        (SERIES, (0.5,), [0.5] * 9),
        (SERIES, (0.5, 1), [0, 0.5, 0.5, 1, 1, 0.5, 0.5, 1, 1]),
        (SERIES, (0.5, 1, 1.5, 2), [0, 0.5, 0.5, 1, 1, 1.5, 1.5, 2, 2]),
        (SERIES, tuple(range(9)), [*range(9)]),
        (DIFFERENCES, (0.5, 1), [0, 0.5, 1, 0.5, 1]),
        (DIFFERENCES, (0, 20), [0, 0, 20, 0, 20]),
    ],
)
def test_given_delays_are_assigned_to_the_pairs_in_order(contexts, stated, expected):
    found = read_plds(raw(contexts, PostLabelingDelay=3), Overrides(plds_s=stated))
    np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("contexts", [SERIES, DIFFERENCES])
def test_given_delays_are_refused_if_their_number_does_not_divide_the_pairs(contexts):
    message = rf"--plds: found 3 values, expected 1, {len(contexts)} \(one per volume\) or a divi"
    with pytest.raises(InputError, match=message + "sor of 4 pairs"):
        read_plds(raw(contexts), Overrides(plds_s=(0.5, 1.0, 1.5)))


@pytest.mark.parametrize("labeling", ["pcasl", "casl"])
def test_the_label_duration_is_at_least_one_millisecond(labeling):
    for duration in (0.001, 20.0):
        for image, overrides in (
            (raw(LabelingDuration=duration), NO_OVERRIDES),
            (raw(LabelingDuration=1.8), Overrides(label_durations_s=(duration,))),
        ):
            found, notes = read_label_durations(image, labeling, overrides)
            np.testing.assert_array_equal(found, [duration] * 9)
            assert notes == ()
    with pytest.raises(InputError, match="LabelingDuration: found 0, expected seconds, 0.001 to"):
        read_label_durations(raw(LabelingDuration=0), labeling, NO_OVERRIDES)
    with pytest.raises(InputError, match="^--label-duration: found 0, .* Fix: correct the value"):
        read_label_durations(raw(), labeling, Overrides(label_durations_s=(0.0,)))
    with pytest.raises(InputError, match="^--label-duration: .* Fix: give --label-duration 1.8 "):
        read_label_durations(raw(), labeling, Overrides(label_durations_s=(1800.0,)))


def test_vsasl_has_no_label_duration():
    found, notes = read_label_durations(raw(LabelingDuration=1.8), "vsasl", NO_OVERRIDES)
    np.testing.assert_array_equal(found, [0] * 9)
    assert notes == ()


@pytest.mark.parametrize(
    ("fields", "duration", "note"),
    [
        ({"BolusCutOffFlag": True, "BolusCutOffDelayTime": 0.7}, 0.7, None),
        ({"BolusCutOffDelayTime": [0.7, 1.2]}, 0.7, None),
        ({"BolusCutOffDelayTime": 20}, 20, None),
        ({"BolusCutOffDelayTime": 0.7, "BolusCutOffTechnique": "Q2TIPS"}, 0.7, None),
        ({"BolusCutOffDelayTime": 0.7, "BolusCutOffTechnique": "QUIPSSII"}, 0.7, None),
        ({"BolusCutOffDelayTime": 0.7, "BolusCutOffTechnique": "QUIPSS"}, 0.7, "as QUIPSSII"),
        ({"BolusCutOffFlag": False, "BolusCutOffDelayTime": 0.7}, np.inf, "no bolus cut-off"),
        ({}, np.inf, "no bolus cut-off: the bolus is assumed to be long"),
    ],
)
def test_the_label_duration_of_pasl_is_the_bolus_cut_off_delay(fields, duration, note):
    found, notes = read_label_durations(raw(**fields), "pasl", NO_OVERRIDES)
    np.testing.assert_array_equal(found, [duration] * 9)
    assert len(notes) == (note is not None) and (not notes or note in notes[0])
    stated = Overrides(bolus_duration_s=0.6)
    found, notes = read_label_durations(raw(**fields), "pasl", stated)
    assert found[0] == 0.6 and notes == ()


@pytest.mark.parametrize(
    ("times", "fix"),
    [
        (0, "write it, or give"),
        ([0.7, 0.6], "write it, or give"),
        ([0.7, 0.5, 0.9], "write it, or give"),
        ([0.7, 20.1], "write it, or give"),
        ([20, 19], "write it, or give"),
        (20.1, 'write "BolusCutOffDelayTime": 0.0201'),
        ([700, 1200], 'write "BolusCutOffDelayTime": 0.7'),
    ],
)
def test_an_invalid_bolus_cut_off_is_refused(times, fix):
    image = raw(BolusCutOffFlag=True, BolusCutOffDelayTime=times)
    with pytest.raises(
        InputError, match=f"above 0 to 20: one number, or an ascending list.* Fix: {fix}"
    ):
        read_label_durations(image, "pasl", NO_OVERRIDES)


@pytest.mark.parametrize(
    ("n_slices", "dt", "expected"), [(1, 30.0, (0,)), (3, 10.0, (0, 10, 20)), (2, 0.05, (0, 0.05))]
)
def test_a_given_slice_dt_means_slices_in_ascending_order(n_slices, dt, expected):
    image = raw(n_slices=n_slices, MRAcquisitionType="3D", SliceTiming=[0.0, 0.3, 0.6])
    assert read_slice_offsets(image, Overrides(slice_dt_s=dt)) == (expected, ())


def test_a_slice_dt_that_is_too_long_is_refused():
    with pytest.raises(InputError, match="found 90 s for 3 slices.* give --slice-dt 0.045 if"):
        read_slice_offsets(raw(), Overrides(slice_dt_s=45.0))


@pytest.mark.parametrize(
    ("fields", "expected", "note"),
    [
        ({"SliceTiming": [0.0, 0.05, 0.1]}, (0, 0.05, 0.1), None),
        ({"SliceTiming": [20.0, 19.0, 0.0]}, (20, 19, 0), None),
        (
            {"SliceTiming": [0.0, 0.05, 0.1], "SliceEncodingDirection": "k-"},
            (0.1, 0.05, 0),
            None,
        ),
        ({"SliceTiming": [1.0, 1.5, 1.0], "MultibandAccelerationFactor": 1.5}, (0, 0.5, 0), None),
        ({"SliceTiming": [0.0, 0.5, 0.0], "MultibandAccelerationFactor": 3}, (0, 0.5, 0), "has 2"),
        ({"MRAcquisitionType": "2D"}, (0,), "2D readout without SliceTiming"),
        ({}, (0,), "MRAcquisitionType is not stated, without SliceTiming"),
        ({"MRAcquisitionType": "3D"}, (0,), None),
        ({"MRAcquisitionType": "3D", "SliceTiming": [0.2, 0.2]}, (0,), None),
        ({"MRAcquisitionType": "3D", "SliceTiming": [0.0, 0.2]}, (0,), "SliceTiming is ignored"),
    ],
)
def test_slice_offsets_are_relative_to_the_first_excitation(fields, expected, note):
    offsets, notes = read_slice_offsets(raw(**fields), NO_OVERRIDES)
    assert offsets == pytest.approx(expected)
    assert len(notes) == (note is not None) and (not notes or note in notes[0])


@pytest.mark.parametrize("times", [[0.0, 0.05, 20.1], [-0.01, 0.0, 0.05]])
def test_slice_times_out_of_range_are_refused(times):
    with pytest.raises(InputError, match="SliceTiming: found .*, expected seconds, 0 to 20"):
        read_slice_offsets(raw(SliceTiming=times), NO_OVERRIDES)
