"""Randomly damaged inputs of every kind are read or refused without an internal error."""

import sys
from pathlib import Path

import pytest

sys.path.append(str(Path(__file__).parents[1] / "bin" / "dev"))
from fuzz import KINDS, fuzzed


@pytest.mark.parametrize("kind", KINDS)
def test_damaged_input_is_read_or_refused(kind):
    counts, crashes = fuzzed(kind, 150, seed=7)
    assert not crashes
    assert counts["read"] > 5 and counts["refused"] > 50


def test_a_crash_is_counted(monkeypatch):
    monkeypatch.setitem(KINDS, "broken", lambda rng, folder: lambda: {}["missing"])
    counts, crashes = fuzzed("broken", 3, seed=0)
    assert counts == {"crashed": 3} and list(crashes.values()) == [0]
