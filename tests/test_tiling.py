"""Slices in patches: complete, in place, and without seams."""

import warnings

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from aslkit.core.series_and_maps import bounding_box
from aslkit.predict.tiling import BLENDS, MARGIN, Tiling, run_tiled

STRIDE = 8
ONCE = (0,)


def noise(*shape):
    return np.random.default_rng(0).standard_normal(shape, dtype=np.float32)


def pooled(patches):
    """Replace every block of STRIDE x STRIDE pixels by its mean, like the pooling of a network."""
    n, c, x, y = patches.shape
    blocks = patches.reshape(n, c, x // STRIDE, STRIDE, y // STRIDE, STRIDE)
    return np.broadcast_to(blocks.mean((3, 5), keepdims=True), blocks.shape).reshape(n, c, x, y)


@settings(max_examples=40)
@given(
    shape=st.tuples(st.integers(1, 4), st.integers(1, 150), st.integers(1, 150)),
    patch=st.sampled_from([16, 64, 128, None]),
    overlap=st.floats(0, 0.9),
    blend=st.sampled_from(sorted(BLENDS)),
    batch=st.integers(1, 9),
)
def test_the_identity_returns_the_slices(shape, patch, overlap, blend, batch):
    slices = noise(shape[0], 1, *shape[1:])
    tiling = Tiling(patch, overlap, blend)
    found = run_tiled(lambda patches: patches, slices, tiling, STRIDE, batch)
    np.testing.assert_array_equal(found, slices)


@pytest.mark.parametrize(("n", "x", "y"), [(1, 256, 256), (200, 9, 7), (1, 1, 1)])
def test_any_matrix_and_any_number_of_slices_are_allowed(n, x, y):
    slices = noise(n, 2, x, y)
    for tiling in (Tiling(64), Tiling(128), Tiling()):
        found = run_tiled(lambda patches: patches[:, :1], slices, tiling, STRIDE, 8)
        np.testing.assert_array_equal(found, slices[:, :1])


@pytest.mark.parametrize("patch", [64, 128, None])
def test_the_sides_of_patches_are_multiples_of_the_stride(patch):
    seen = set()

    def run(patches):
        seen.add(patches.shape[2:])
        return patches

    run_tiled(run, noise(1, 1, 51, 77), Tiling(patch), STRIDE, 4)
    assert seen == {(88, 112) if patch is None else (patch, patch)}


def test_a_network_without_pooling_runs_once_on_whole_slices():
    seen = []

    def run(patches):
        seen.extend(patches)
        return patches

    run_tiled(run, noise(3, 1, 51, 77), Tiling(), stride=1, batch=1)
    assert len(seen) == 3


@pytest.mark.parametrize(
    ("tiling", "starts"),
    [
        (Tiling(64, 0.5), [0, 1, 32, 33]),
        (Tiling(64, 0.5, shifts=ONCE), [0, 32]),
        (Tiling(64, 0.0, shifts=ONCE), [0, 64]),
        (Tiling(64, 0.6, shifts=ONCE), [0, 24, 48]),  # 25.6, rounded down to a multiple of 8
        (Tiling(16, 0.9, shifts=ONCE), [*range(0, 81, 8)]),  # at least one stride
        (Tiling(128, shifts=ONCE), [0]),
        (Tiling(None, shifts=ONCE), [0]),
    ],
)
def test_patches_start_every_step_until_the_slice_is_covered(tiling, starts):
    assert tiling.starts(96 - 2 * MARGIN, STRIDE) == starts


def test_patches_are_not_shifted_without_pooling():
    assert Tiling(64, 0.5).starts(96 - 2 * MARGIN, 1) == [0, 32]
    assert Tiling(64, 0.5).starts(96 - 2 * MARGIN, 2) == [0, 1, 32, 33]


@pytest.mark.parametrize(
    ("patch", "stride", "side"), [(1, 8, 8), (8, 8, 8), (9, 8, 16), (None, 1, 42), (None, 4, 44)]
)
def test_the_side_of_a_patch_is_the_next_multiple_of_the_stride(patch, stride, side):
    assert Tiling(patch).side(10, stride) == side


def test_every_patch_runs_once_and_slices_of_one_place_follow_one_another():
    """Use slices of the values 1 to 3, so that the maximum of a patch is its slice."""
    slices = np.zeros((3, 1, 16, 16), dtype=np.float32)
    slices[...] = np.arange(1, 4)[:, None, None, None]
    batches = []

    def run(patches):
        batches.append([int(p.max()) for p in patches])
        return patches

    found = run_tiled(run, slices, Tiling(64), STRIDE, 5)
    assert found.dtype == np.float32
    assert [len(b) for b in batches] == [5, 5, 2]
    assert sum(batches, []) == [1, 2, 3] * 4


def test_every_patch_pools_the_same_pixels():
    slices = noise(2, 1, 101, 90)
    whole, tiled = (
        run_tiled(pooled, slices, Tiling(patch, shifts=ONCE), STRIDE, 4) for patch in (None, 64)
    )
    np.testing.assert_allclose(tiled, whole, atol=1e-6)


def test_overlapping_patches_are_blended_by_their_weights():
    """Blend two patches along x, the first of value 0 and the second of value 1."""
    size = 96 - 2 * MARGIN

    def run(patches):
        return np.stack([np.full((1, 64, 64), float(i)) for i in range(len(patches))])

    slices = np.zeros((1, 1, size, 16), dtype=np.float32)
    weights = {
        blend: run_tiled(run, slices, Tiling(64, 0.5, blend, ONCE), STRIDE, 2)[0, 0, :, 0]
        for blend in BLENDS
    }
    overlap = np.arange(32, 64) - MARGIN
    np.testing.assert_allclose(weights["mean"][overlap], 0.5)
    second = np.arange(32) + 0.5
    np.testing.assert_allclose(
        weights["hann"][overlap], np.sin(np.pi * second / 64) ** 2, atol=1e-6
    )
    first, second = (np.exp(-0.5 * ((i - 31.5) / 8) ** 2) for i in (second + 31.5, second - 0.5))
    np.testing.assert_allclose(
        weights["gaussian"][overlap], second / (first + second), atol=1e-6
    )  # with a standard deviation of an eighth of the patch
    for found in weights.values():
        assert (found[: overlap[0]] == 0).all() and (found[overlap[-1] + 1 :] == 1).all()


@pytest.mark.parametrize(
    ("ours", "theirs", "overlap"),
    [("mean", "constant", 0.25), ("mean", "constant", 0.5), ("gaussian", "gaussian", 0.5)],
)
def test_the_blends_are_those_of_monai(ours, theirs, overlap):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        inferers = pytest.importorskip("monai.inferers")
    torch.manual_seed(0)
    network = torch.nn.Sequential(
        torch.nn.Conv2d(3, 8, 3, padding=1), torch.nn.SiLU(), torch.nn.Conv2d(8, 4, 5, padding=2)
    )
    slices = noise(
        2, 3, 160 - 2 * MARGIN, 160 - 2 * MARGIN
    )  # with these sides both use the same patches
    padded = np.pad(slices, [(0, 0), (0, 0), (MARGIN, MARGIN), (MARGIN, MARGIN)])
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        expected = inferers.sliding_window_inference(
            torch.from_numpy(padded), (64, 64), 4, network, overlap, theirs
        ).numpy()
        found = run_tiled(
            lambda patches: network(torch.from_numpy(patches)).numpy(),
            slices,
            Tiling(64, overlap, ours, ONCE),
            STRIDE,
            4,
        )
    inner = expected[..., MARGIN:-MARGIN, MARGIN:-MARGIN]
    if ours == "mean":
        np.testing.assert_allclose(found, inner, atol=1e-5)
    else:  # the Gaussian of MONAI is at least 0.001
        assert np.abs(found - inner).mean() < 1e-3 * np.abs(inner).mean()


def test_impossible_tilings_are_refused():
    for wrong, message in (
        ({"patch": 0}, "patches of 0 pixels"),
        ({"overlap": 1.0}, "overlap 1: expected 0 to below 1"),
        ({"overlap": -0.1}, "overlap -0.1: expected 0 to below 1"),
        ({"blend": "cosine"}, "blend 'cosine' is not one of hann, gaussian, mean"),
    ):
        with pytest.raises(ValueError, match=message):
            Tiling(**wrong)


def test_the_bounding_box_holds_the_whole_mask():
    mask = np.zeros((5, 6, 7), dtype=bool)
    assert bounding_box(mask) == (slice(0, 0),) * 3
    mask[1, 2, 3] = mask[3, 2, 6] = True
    assert bounding_box(mask) == (slice(1, 4), slice(2, 3), slice(3, 7))
