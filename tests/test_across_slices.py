"""Networks across slices: training stacks, the network, and inference slice by slice."""

import weakref
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from aslkit.config import AnyProtocolConfig, load_config
from aslkit.core.backend import repeat_first_axis
from aslkit.core.errors import InputError
from aslkit.fit.settings import FreeAtt
from aslkit.nets.model_store import Model, load_model
from aslkit.nets.profile_encoding import CHANNELS
from aslkit.nets.residual_unet import PhysicsResidualNet
from aslkit.predict import inference
from aslkit.predict.inference import predict_maps
from aslkit.predict.passes import Passes
from aslkit.predict.tiling import Tiling
from aslkit.simulate.phantoms import brain_phantom
from aslkit.simulate.random_fields import draw_random_fields
from aslkit.simulate.signal import PROTOCOLS, simulate_series
from aslkit.simulate.training_scans import _blur_across_slices, draw_training_scans
from aslkit.train.batches import draw_batch
from aslkit.train.loop import RunOptions, train
from aslkit.train.recipe import run_network

pytestmark = pytest.mark.usefixtures("own_batches")
OFF = FreeAtt()
DATA = AnyProtocolConfig(
    patch_size=32, protocols_per_step=3, patches_per_protocol=8, slices_per_subject=4
)
TINY = (
    "network.widths=[8,8]",
    "data.patch_size=32",
    "data.protocols_per_step=1",
    "data.patches_per_protocol=4",
)
FOUR = (*TINY, "data.slices_per_subject=4")


def random_network(n_channels, widths=(8, 8)):
    """Return a network with random weights, so that all of its inputs change its maps."""
    torch.manual_seed(0)
    network = PhysicsResidualNet(n_channels, widths, across_slices=True).eval()
    for parameter in network.parameters():
        nn.init.normal_(parameter, std=0.3)
    return network


@pytest.fixture(scope="module")
def series():
    brain = brain_phantom("brain", 8, voxel_size_mm=6)
    acquisition = PROTOCOLS["joint6"].acquisition(brain.mask.shape[2])
    series = simulate_series(brain, acquisition, 5.0, seed=2)
    return replace(series, noise_sd=inference.noise_level(series, OFF))


def draws(n=12):
    return [draw_training_scans(DATA, np.random.default_rng(i)) for i in range(n)]


def test_slices_of_a_stack_belong_to_one_subject():
    correlation = {True: [], False: []}
    for scans in (s for s in draws() if s.depth == 4):
        for i in range(7):
            inside = scans.mask[i] & scans.mask[i + 1]
            if inside.sum() > 200:
                pair = np.corrcoef(scans.cbf[i][inside], scans.cbf[i + 1][inside])
                correlation[i != 3].append(pair[0, 1])
    assert np.mean(correlation[True]) > 0.35 > 0.15 > np.mean(correlation[False])


def test_most_training_scans_are_stacks_and_some_are_slices_of_different_subjects():
    depths = [scans.depth for scans in draws(40)]
    assert set(depths) == {1, 4} and 0.6 < np.mean(np.array(depths) == 4) < 0.95


def test_noise_across_slices_is_alike_after_a_blur_and_keeps_its_variance():
    white = np.random.default_rng(0).standard_normal((12, 3, 40, 40)).astype(np.float32)
    found = _blur_across_slices(white, np.array([0.0, 0.8]), 6)
    np.testing.assert_allclose(found[:6], white[:6], atol=1e-6)
    assert found[6:].std((1, 2, 3)) == pytest.approx(np.ones(6), abs=0.03)
    assert np.corrcoef(found[8].ravel(), found[9].ravel())[0, 1] > 0.5


def test_repeated_fields_belong_to_the_same_subject():
    fields = repeat_first_axis(
        draw_random_fields(np.random.default_rng(0), np.full((2, 5), 20.0)), 3
    )
    np.testing.assert_array_equal(fields.phases[0], fields.phases[2])
    assert (fields.phases[2] != fields.phases[3]).any() and len(fields.waves) == 6


def test_every_stack_of_a_batch_has_another_number():
    batch = draw_batch(DATA, np.random.default_rng(1))
    number, counts = np.unique(batch["stack"], return_counts=True)
    assert set(counts) <= {1, 4} and len(batch["stack"]) == len(batch["channels"]) == 24
    assert len(number) == len(np.flatnonzero(np.diff(batch["stack"]))) + 1


def test_a_slice_depends_on_its_own_stack_within_reach():
    network, x = random_network(3), torch.randn(12, 3, 16, 16)
    stack = torch.tensor([0] * 9 + [1] * 3)
    seen = network(x, stack)
    for i in range(12):
        changed = x.clone()
        changed[i] += 1
        difference = (network(changed, stack) - seen).abs().amax((1, 2, 3)) > 1e-4
        near = (torch.arange(12) - i).abs() <= network.reach
        assert torch.equal(difference, near & (stack == stack[i]))


def test_forward_stack_equals_forward():
    x = torch.randn(9, 3, 17, 16)
    for network in (
        random_network(3).to_shift_equivariant(),
        PhysicsResidualNet(3, (8, 8)).to_shift_equivariant(),
    ):
        found = torch.cat([*network.forward_stack(x.split(1))])
        torch.testing.assert_close(found, network(x, torch.zeros(9)), rtol=1e-4, atol=1e-4)
    assert [*random_network(3).forward_stack([])] == []


def test_forward_stack_frees_slices_beyond_reach():
    network, seen, most = random_network(3).to_shift_equivariant(), [], 0

    def slices():
        for _ in range(40):
            x = torch.randn(1, 3, 16, 16)
            seen.append(weakref.ref(x))
            yield x

    with torch.inference_mode():
        for _ in network.forward_stack(slices()):
            most = max(most, sum(x() is not None for x in seen))
    assert len(seen) == 40 and most <= network.reach + 2


def test_a_stack_of_one_slice_equals_a_single_slice():
    network, x = random_network(3), torch.randn(2, 3, 16, 16)
    apart = network(x, torch.tensor([0, 1]))
    torch.testing.assert_close(apart, network(x))
    assert (network(x, torch.tensor([0, 0])) - apart).abs().max() > 0.01


@pytest.mark.slow
def test_groups_of_slices_and_patches_change_nothing(series, monkeypatch):
    network = random_network(len(CHANNELS))
    nn.init.normal_(network.head.weight, std=0.02)
    model = Model("random", network, {}, "")
    whole = predict_maps(series, model, OFF)
    difference = predict_maps(series, load_model("small"), OFF).cbf - whole.cbf
    assert np.abs(difference[series.mask]).mean() > 0.1
    tiled = predict_maps(series, model, OFF, passes=Passes(tiling=Tiling(64)))
    np.testing.assert_allclose(tiled.cbf, whole.cbf, rtol=1e-2, atol=0.05)
    monkeypatch.setattr(inference, "PIXELS_AT_ONCE", 1)
    monkeypatch.setattr(inference, "SLICES_AT_ONCE", 5)
    seen = []
    grouped = predict_maps(
        series, model, OFF, progress=lambda firsts: seen.extend(firsts) or firsts
    )
    assert seen == list(range(0, np.ptp(np.nonzero(series.mask)[2]) + 1, 5))
    np.testing.assert_allclose(grouped.cbf, whole.cbf, rtol=1e-3, atol=1e-3)


def test_a_slice_without_brain_between_others_is_allowed(series):
    z = series.mask.shape[2] // 2
    mask = series.mask.copy()
    mask[:, :, z] = False
    maps = predict_maps(
        replace(series, mask=mask), Model("random", random_network(len(CHANNELS)), {}, ""), OFF
    )
    assert np.isfinite(maps.cbf[mask]).all() and maps.cbf_std[mask].min() > 0


def test_a_network_across_slices_starts_with_the_maps_of_its_first_model(tmp_path):
    train(load_config("small", (*TINY, "steps=3", "warmup_steps=0")), tmp_path / "flat")
    config = load_config("exp21", (*FOUR, "steps=1", "warmup_steps=0", "learning_rate=1e-9"))
    train(config, tmp_path / "deep", RunOptions(init_from=str(tmp_path / "flat")))
    flat, deep = (load_model(str(tmp_path / name)).network for name in ("flat", "deep"))
    batch = draw_batch(config.data, np.random.default_rng(0))
    with torch.no_grad():
        torch.testing.assert_close(
            run_network(deep, batch), flat(batch["channels"]), rtol=1e-3, atol=1e-3
        )


def test_training_changes_the_weights_across_slices(tmp_path):
    config = load_config("exp21", (*FOUR, "steps=3", "warmup_steps=0", "learning_rate=0.01"))
    train(config, tmp_path / "model")
    weights = load_model(str(tmp_path / "model")).network.state_dict()
    assert weights["down_blocks.0.across.weight"].abs().max() > 0


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            "data.slices_per_subject=1",
            "network.across_slices together with data.slices_per_subject above 1",
        ),
        (
            "network.across_slices=false",
            "network.across_slices together with data.slices_per_subject above",
        ),
        ("data.slices_per_subject=3", "slices_per_subject that divides patches_per_protocol"),
    ],
)
def test_stacks_need_a_network_across_slices_and_the_other_way_round(change, message):
    with pytest.raises(InputError, match=message):
        load_config("exp21", (change,))
