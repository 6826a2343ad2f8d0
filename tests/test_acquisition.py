"""Checks and derived values of acquisitions and their timings."""

from dataclasses import replace

import numpy as np
import pytest

from aslkit.core.acquisition import Acquisition, Timing, protocol

EARLY = protocol("pcasl", [0.5, 1.0, 1.5, 2.0, 2.5], 1.8)
ONE = Timing("pcasl", 1.8, 1.8, 0.85)


@pytest.mark.parametrize(
    ("labeling", "alpha"), [("pcasl", 0.85), ("casl", 0.68), ("pasl", 0.98), ("vsasl", 0.56)]
)
def test_protocol_has_the_default_efficiency_of_its_labeling_or_the_given_one(labeling, alpha):
    assert {t.efficiency for t in protocol(labeling, [1, 2], 0.7)} == {alpha}
    assert {t.efficiency for t in protocol(labeling, [1, 2], 0.7, 0.6)} == {0.6}


def test_label_duration_may_differ_between_delays():
    assert protocol("pcasl", [0.5, 1], [1.2, 1.8], 1.0) == (
        Timing("pcasl", 0.5, 1.2, 1.0, 1),
        Timing("pcasl", 1.0, 1.8, 1.0, 1),
    )


@pytest.mark.parametrize(
    "fields",
    [{"pld_s": 0}, {"pld_s": 20}, {"label_duration_s": 0}, {"label_duration_s": np.inf},
     {"efficiency": 1}, {"efficiency": 0.01}],
)  # fmt: skip
def test_timing_at_a_limit_of_its_range_is_accepted(fields):
    replace(ONE, **fields)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"labeling": "PCASL"}, "labeling 'PCASL' is not one of pcasl, casl, pasl, vsasl"),
        ({"pld_s": -0.1}, "PLD -0.1 s is outside 0-20 s"),
        ({"pld_s": 20.1}, "PLD 20.1 s is outside 0-20 s"),
        ({"pld_s": np.nan}, "PLD nan s is outside 0-20 s"),
        ({"label_duration_s": -0.1}, "label duration -0.1 s is negative"),
        ({"label_duration_s": np.nan}, "label duration nan s is negative"),
        ({"efficiency": 0}, "labeling efficiency 0 is outside 0-1"),
        ({"efficiency": 1.01}, "labeling efficiency 1.01 is outside 0-1"),
        ({"n_averages": 0}, "0 averages: at least one is needed"),
    ],
)
def test_invalid_timing_is_refused(fields, message):
    with pytest.raises(ValueError, match=f"^{message}$"):
        replace(ONE, **fields)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"timings": ()}, "an acquisition needs at least one timing"),
        ({"kinetic": "double"}, "kinetic 'double' is not one of single, tissue"),
        ({"slice_offsets_s": (0.1, -0.1)}, "slice offsets must not be negative"),
        ({"t1_blood_s": 0.0}, "t1_blood_s is 0.0, must be positive"),
        ({"t1_tissue_s": np.inf}, "t1_tissue_s is inf, must be positive"),
        ({"partition_ml_per_g": -0.9}, "partition_ml_per_g is -0.9, must be positive"),
    ],
)
def test_invalid_acquisition_is_refused(fields, message):
    with pytest.raises(ValueError, match=f"^{message}$"):
        Acquisition(**{"timings": EARLY, **fields})


@pytest.mark.parametrize(
    ("acquisition", "is_expected"),
    [
        (Acquisition(EARLY), True),
        (Acquisition(EARLY, has_crusher=True), False),
        (Acquisition(EARLY[:4]), False),
        (Acquisition(EARLY[:4] + protocol("vsasl", [1.5], 0)), False),
        (Acquisition(protocol("vsasl", [0.5, 1.0, 1.5, 2.0, 2.5], 0)), False),
        (Acquisition(EARLY + protocol("vsasl", [1.5], 0)), True),
        (Acquisition(EARLY[1:] + EARLY[4:]), False),  # the shortest delay is 1 s
        (Acquisition(EARLY, (0.5, 0.6)), False),  # 1 s in the first slice too
        (Acquisition(EARLY, (0.7, 0.45)), True),
    ],
)
def test_arterial_signal_needs_five_delays_without_crusher_and_one_below_1_s(
    acquisition, is_expected
):
    assert acquisition.has_arterial_signal == is_expected


def test_weights_are_the_averages_divided_by_their_mean():
    timings = tuple(replace(ONE, n_averages=n) for n in (1, 2, 6))
    np.testing.assert_allclose(Acquisition(timings).weights, [1 / 3, 2 / 3, 2])


def test_slice_offsets_add_to_the_delays():
    acquisition = Acquisition(EARLY[:2], (0.0, 0.04, 0.08))
    assert acquisition.n_timings == 2
    np.testing.assert_allclose(
        acquisition.effective_plds_s(3), [[0.5, 1.0], [0.54, 1.04], [0.58, 1.08]]
    )
    with pytest.raises(ValueError, match="^3 slice offsets for 2 slices$"):
        acquisition.slice_offsets(2)


def test_slices_of_a_3d_readout_have_the_same_delay():
    np.testing.assert_array_equal(Acquisition(EARLY).slice_offsets(3), [0.0, 0.0, 0.0])
