"""Labeling and background-suppression efficiency from a sidecar or the command line."""

from pathlib import Path

import pytest

from aslkit.bids.labeling_efficiency import read_efficiency
from aslkit.bids.overrides import NO_OVERRIDES, Overrides
from aslkit.bids.run import Efficiency
from aslkit.bids.sidecar import Sidecar
from aslkit.core.errors import InputError

PATH = Path("sub-01_asl.json")
PULSES = "BackgroundSuppressionNumberPulses"
UNKNOWN = "and its number of pulses unknown: no loss of label is assumed (--n-bs N)"


def read(labeling="pcasl", overrides=NO_OVERRIDES, **fields):
    return read_efficiency(Sidecar(PATH, fields, dict.fromkeys(fields, PATH)), labeling, overrides)


@pytest.mark.parametrize(
    ("fields", "overrides", "expected"),
    [
        ({}, NO_OVERRIDES, Efficiency(0.56, "default of VSASL", 0, 0.95)),
        (
            {"LabelingEfficiency": 0.01},
            NO_OVERRIDES,
            Efficiency(0.01, "LabelingEfficiency", 0, 0.95),
        ),
        ({"LabelingEfficiency": 1}, NO_OVERRIDES, Efficiency(1, "LabelingEfficiency", 0, 0.95)),
        (
            {"LabelingEfficiency": 0.7},
            Overrides(alpha=0.6, alpha_bs=0.9),
            Efficiency(0.6, "--alpha", 0, 0.9),
        ),
        ({PULSES: 2}, Overrides(n_bs=4), Efficiency(0.56, "default of VSASL", 4, 0.95)),
        ({PULSES: 10}, NO_OVERRIDES, Efficiency(0.56, "default of VSASL", 10, 0.95)),
    ],
)
def test_the_command_line_has_priority_over_the_sidecar_over_the_default(
    fields, overrides, expected
):
    assert read("vsasl", overrides, **fields)[0] == expected


@pytest.mark.parametrize(
    ("fields", "n_pulses", "notes"),
    [
        ({"BackgroundSuppression": False, PULSES: 2}, 0, ()),
        ({"BackgroundSuppression": True, PULSES: 2}, 2, ()),
        ({"BackgroundSuppression": True, PULSES: 0}, 0, ()),
        ({"BackgroundSuppression": True, PULSES: 5}, 5, ()),
        ({"BackgroundSuppression": True}, 0, (f"background suppression is on {UNKNOWN}",)),
        ({}, 0, (f"background suppression is not stated {UNKNOWN}",)),
    ],
)
def test_only_a_known_number_of_pulses_reduces_the_efficiency(fields, n_pulses, notes):
    efficiency, found = read(**fields)
    assert (efficiency.n_pulses, found) == (n_pulses, notes)
    assert efficiency.total == pytest.approx(0.85 * 0.95**n_pulses)


@pytest.mark.parametrize("fields", [{}, {"BackgroundSuppression": True}, {PULSES: 3}])
def test_a_given_number_of_pulses_needs_no_note(fields):
    efficiency, notes = read(overrides=Overrides(n_bs=0), **fields)
    assert (efficiency.n_pulses, notes) == (0, ())


@pytest.mark.parametrize(
    ("field", "values"), [("LabelingEfficiency", (0, 0.009, 1.01)), (PULSES, (-1, 11, 1.5))]
)
def test_values_out_of_range_are_refused(field, values):
    for value in values:
        with pytest.raises(InputError, match=f"{field}: found {value:g}, expected a"):
            read(**{field: value})
