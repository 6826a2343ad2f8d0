"""Parts of a series: what is where, and how strong."""

import numpy as np
import pytest

from aslkit.core.acquisition import Acquisition, Timing
from aslkit.core.series_and_maps import AslSeries

SHAPE = (5, 4, 2)
AFFINE = np.array([[-3.0, 0, 0, 10], [0, 0, 5, 20], [0, 2, 0, 30], [0, 0, 0, 1]])


@pytest.fixture
def series():
    """Every voxel of its own signal, noise and M0; one is not finite and one outside the mask."""
    number = np.arange(np.prod(SHAPE), dtype=np.float32).reshape(SHAPE)
    delta_m, mask = np.stack([number, -number], axis=3), np.ones(SHAPE, bool)
    delta_m[1, 2, 0, 1], mask[2, 2, 1] = np.nan, False
    timings = tuple(Timing("pcasl", pld, 1.8, 0.85) for pld in (1.0, 2.0))
    return AslSeries(delta_m, Acquisition(timings), mask, AFFINE, number + 1, number + 2)


def test_a_voxel_is_usable_inside_the_mask_with_a_finite_signal(series):
    assert np.argwhere(~series.usable).tolist() == [[1, 2, 0], [2, 2, 1]]


def test_a_part_keeps_its_voxels_and_where_they_are(series):
    part = series.cropped((slice(1, 4), slice(2, None)))
    assert part.mask.shape == (3, 2, 2)
    for name in ("delta_m", "mask", "noise_sd", "m0"):
        whole = getattr(series, name)[1:4, 2:]
        np.testing.assert_array_equal(getattr(part, name), whole)
    np.testing.assert_allclose(part.affine @ [1, 1, 1, 1], AFFINE @ [2, 3, 1, 1])
    np.testing.assert_array_equal(AFFINE, series.affine)


def test_noise_is_scaled_as_the_signal_is(series):
    twice = series.scaled(2)
    np.testing.assert_array_equal(twice.delta_m, 2 * series.delta_m)
    np.testing.assert_array_equal(twice.noise_sd, 2 * series.noise_sd)
    assert AslSeries(series.delta_m, series.acquisition, series.mask).scaled(2).noise_sd is None
