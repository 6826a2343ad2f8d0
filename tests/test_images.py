"""Usable voxels, cropping and scaling of a series."""

import numpy as np
import pytest

from aslkit.core.acquisition import Acquisition, Timing
from aslkit.core.series_and_maps import AslSeries

SHAPE = (5, 4, 2)
AFFINE = np.array([[-3.0, 0, 0, 10], [0, 0, 5, 20], [0, 2, 0, 30], [0, 0, 0, 1]])


@pytest.fixture
def series():
    """A different value in every voxel; one voxel is not finite, another is outside the mask."""
    number = np.arange(np.prod(SHAPE), dtype=np.float32).reshape(SHAPE)
    delta_m, mask = np.stack([number, -number], axis=3), np.ones(SHAPE, bool)
    delta_m[1, 2, 0, 1], mask[2, 2, 1] = np.nan, False
    timings = tuple(Timing("pcasl", pld, 1.8, 0.85) for pld in (1.0, 2.0))
    return AslSeries(delta_m, Acquisition(timings), mask, AFFINE, number + 1, number + 2)


def test_usable_voxels_are_in_the_mask_and_finite(series):
    assert np.argwhere(~series.usable).tolist() == [[1, 2, 0], [2, 2, 1]]


def test_cropping_keeps_values_and_world_coordinates(series):
    part = series.cropped((slice(1, 4), slice(2, None)))
    assert part.mask.shape == (3, 2, 2)
    for name in ("delta_m", "mask", "noise_sd", "m0"):
        expected = getattr(series, name)[1:4, 2:]
        np.testing.assert_array_equal(getattr(part, name), expected)
    np.testing.assert_allclose(part.affine @ [1, 1, 1, 1], AFFINE @ [2, 3, 1, 1])
    np.testing.assert_array_equal(AFFINE, series.affine)


def test_scaling_applies_to_signal_and_noise(series):
    twice = series.scaled(2)
    np.testing.assert_array_equal(twice.delta_m, 2 * series.delta_m)
    np.testing.assert_array_equal(twice.noise_sd, 2 * series.noise_sd)
    assert AslSeries(series.delta_m, series.acquisition, series.mask).scaled(2).noise_sd is None
