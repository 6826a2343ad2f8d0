"""U-Nets of raw curves: their sizes, their options, and what must not change their maps."""

from functools import partial

import numpy as np
import pytest
import torch
from torch.nn import functional

from aslkit.config.schema import NETWORKS
from aslkit.core.acquisition import protocol
from aslkit.nets.experimental.masked_layers import BrainNorm, brain_statistics
from aslkit.nets.experimental.raw_encoding import RawEncoding
from aslkit.nets.registry import build_network

PLDS_S = (0.5, 1.0, 1.5, 2.0, 2.5, 3.0)
JOINT = RawEncoding(
    (*protocol("pcasl", PLDS_S, 1.8), *protocol("vsasl", PLDS_S, 0.0)),
    "global_scale",
    scale=10.0,
    features=("mean", "std", "peak", "t1_artery"),
    t1_blood_s=1.65,
)
SWITCHES = dict.fromkeys(
    ("separate_decoders", "att_film", "att_attention", "context_branch", "confidence_head"), True
)
KINDS = ("spatial", "amplitude_aware", "dual_encoder")


def network(kind, widths=(8, 16, 32), **options):
    torch.manual_seed(0)
    config = NETWORKS.validate_python({"kind": kind, "widths": widths, **options})
    return build_network(config, JOINT).eval()


@pytest.fixture
def channels():
    """Return two slices (2, 20, 32, 32) of random curves in a round brain."""
    rng = np.random.default_rng(3)
    x, y = np.mgrid[:32, :32] - 15.5
    mask = np.broadcast_to(x**2 + y**2 < 12**2, (2, 1, 32, 32))
    values = rng.normal(5, 2, (2, JOINT.n_channels - 1, 32, 32))
    return torch.from_numpy(np.concatenate([values * mask, mask], 1).astype(np.float32))


def perturb(net):
    """Change every weight at random, because FiLM is the identity at first."""
    with torch.no_grad():
        for values in net.parameters():
            values += 0.05 * torch.randn_like(values)
    return net


@pytest.mark.parametrize(
    ("kind", "millions"), [("spatial", 1.93), ("amplitude_aware", 2.04), ("dual_encoder", 5.07)]
)
def test_the_number_of_parameters_is_that_of_the_plan(kind, millions):
    net = network(kind, (32, 64, 128, 256))
    n = sum(values.numel() for values in net.parameters())
    assert n / 1e6 == pytest.approx(millions, rel=0.05)


@pytest.mark.parametrize("norm", ["group", "none"])
@pytest.mark.parametrize(
    ("kind", "switches"), [*((kind, {}) for kind in KINDS), ("amplitude_aware", SWITCHES)]
)
def test_air_around_the_head_changes_nothing(kind, switches, norm, channels):
    net = perturb(network(kind, norm=norm, **switches))
    wide = functional.pad(channels, (8, 16, 8, 16))
    with torch.inference_mode():
        one, other = net(channels), net(wide)[:, :, 8:40, 8:40]
    inside = channels[:, -1:] > 0
    torch.testing.assert_close(other * inside, one * inside, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("kind", KINDS)
def test_maps_depend_on_neighbouring_voxels_and_not_on_other_slices(kind, channels):
    net = perturb(network(kind))
    changed = channels.clone()
    changed[0, :-1, 16, 16] += 5
    with torch.inference_mode():
        difference = (net(changed) - net(channels)).abs().amax(1)
    assert difference[0, 16, 19] > 0 and difference[1].max() == 0


def test_statistics_are_taken_over_the_brain(channels):
    found = brain_statistics(channels)
    inside = channels[0, -1] > 0
    values = channels[0, :-1][:, inside]
    torch.testing.assert_close(found[0, :19], values.mean(1))
    torch.testing.assert_close(found[0, 19:], values.std(1, correction=0), rtol=1e-4, atol=1e-4)
    assert torch.isfinite(brain_statistics(0 * channels)).all()


def test_the_norm_is_a_group_norm_if_the_mask_fills_the_image():
    x, mask = torch.randn(2, 16, 8, 8), torch.ones(2, 1, 8, 8)
    expected = functional.relu(functional.group_norm(x, 8))
    torch.testing.assert_close(BrainNorm(16)(x, mask), expected, rtol=1e-4, atol=1e-4)


def plainly_normed(norm, x, mask):
    """What `BrainNorm` computes, written with operations that know their own slopes."""
    grouped, inside = x.unflatten(1, (8, -1)), mask[:, None]
    n = inside.sum((2, 3, 4), keepdim=True) * grouped.shape[2]
    centred = grouped - (grouped * inside).sum((2, 3, 4), keepdim=True) / n
    variance = (centred.square() * inside).sum((2, 3, 4), keepdim=True) / n
    unit = (centred * torch.rsqrt(variance + 1e-5)).flatten(1, 2)
    return functional.relu(unit * norm.weight[:, None, None] + norm.bias[:, None, None]) * mask


def test_the_gradients_of_the_norm_are_those_of_its_formula():
    norm, mask = BrainNorm(16), (torch.rand(3, 1, 8, 8) > 0.4).float()
    with torch.no_grad():
        norm.weight.normal_()
        norm.bias.normal_()
    upstream, found = torch.randn(3, 16, 8, 8), []
    for function in (norm, partial(plainly_normed, norm)):
        x = torch.randn(3, 16, 8, 8, generator=torch.Generator().manual_seed(1)) + 2
        x.requires_grad_()
        y = function(x, mask)
        found.append((y, *torch.autograd.grad(y, (x, norm.weight, norm.bias), upstream)))
    for own, expected in zip(*found, strict=True):
        torch.testing.assert_close(own, expected, rtol=1e-4, atol=1e-4)


def test_film_is_the_identity_before_training(channels):
    plain = network("amplitude_aware", film_at_bottleneck=False, film_at_decoder=False)
    film = network("amplitude_aware")
    film.load_state_dict(plain.state_dict(), strict=False)
    with torch.inference_mode():
        torch.testing.assert_close(film(channels), plain(channels))


@pytest.mark.parametrize(
    ("switch", "part"),
    [
        ("film_at_bottleneck", "films.0."),
        ("film_at_decoder", "films.1."),
        ("output_modulation", "cbf_head.2."),
    ],
)
def test_each_amplitude_path_can_be_switched_off(switch, part):
    on, off = network("amplitude_aware"), network("amplitude_aware", **{switch: False})
    assert any(name.startswith(part) for name in on.state_dict())
    missing = set(on.state_dict()) - set(off.state_dict())
    assert any("films" in name or part in name for name in missing)


def test_without_all_paths_the_first_block_has_no_norm(channels):
    names = ("film_at_bottleneck", "film_at_decoder", "output_modulation")
    aware = network("amplitude_aware", **dict.fromkeys(names, False))
    plain = network("spatial")
    normed = set(plain.state_dict()) - set(aware.state_dict())
    assert normed == {f"encoder.pairs.0.norms.{i}.{p}" for i in (0, 1) for p in ("weight", "bias")}


def moved_by(net, channels, part):
    """Return whether CBF, ATT and their log sds change with the weights of a part."""
    with torch.inference_mode():
        before = net(channels)
    with torch.no_grad():
        for name, values in net.named_parameters():
            if name.startswith(part):
                values += 0.05 * torch.randn_like(values)
    with torch.inference_mode():
        return (net(channels) - before).abs().amax((0, 2, 3)).gt(0).tolist()


CBF, ATT = [True, False, True, False], [False, True, False, True]


def test_separate_decoders_change_cbf_or_att_alone(channels):
    net = perturb(network("amplitude_aware", separate_decoders=True))
    assert moved_by(net, channels, "decoder.") == CBF
    assert moved_by(net, channels, "att_decoder.") == ATT
    assert moved_by(net, channels, "encoder.") == [True] * 4


def test_confidence_of_cbf_and_att_comes_from_their_heads(channels):
    net = perturb(network("amplitude_aware", confidence_head=True))
    assert net.n_outputs == 6 and network("amplitude_aware").n_outputs == 4
    assert moved_by(net, channels, "cbf_head.") == [True, False] * 3
    assert moved_by(net, channels, "att_head.") == [False, True] * 3


def test_att_film_has_its_own_code_of_amplitudes(channels):
    net = perturb(network("amplitude_aware", separate_decoders=True, att_film=True))
    assert moved_by(net, channels, "att_condition.") == ATT
    assert moved_by(net, channels, "att_films.0") == ATT
    assert moved_by(net, channels, "condition.") == moved_by(net, channels, "films.") == CBF


def test_attention_changes_att_alone_and_is_the_identity_before_training(channels):
    plain, attentive = (network("amplitude_aware", att_attention=on) for on in (False, True))
    attentive.load_state_dict(plain.state_dict(), strict=False)
    with torch.inference_mode():
        torch.testing.assert_close(attentive(channels), plain(channels))
    assert moved_by(perturb(attentive), channels, "att_attention.") == ATT


def test_att_film_without_separate_decoders_or_film_is_refused():
    with pytest.raises(ValueError, match="att_film with separate_decoders and a film_at_"):
        network("amplitude_aware", att_film=True)
    off = {"film_at_bottleneck": False, "film_at_decoder": False}
    with pytest.raises(ValueError, match="att_film with separate_decoders and a film_at_"):
        network("amplitude_aware", att_film=True, separate_decoders=True, **off)


def test_the_context_branch_enlarges_the_receptive_field(channels):
    """Compare the distance at which a changed pixel changes the outputs, about twice."""

    def reach(**switches):
        net = perturb(
            network("amplitude_aware", film_at_bottleneck=False, norm="none", **switches)
        )
        seen = torch.ones(1, JOINT.n_channels, 128, 128)
        changed = seen.clone()
        changed[0, :-1, 64, 64] += 5
        with torch.inference_mode():
            moved = (net(changed) - net(seen)).abs().amax((0, 1)) > 0
        return int(moved.any(1).nonzero().max()) - 64

    off = {"film_at_decoder": False}
    near, far = reach(**off), reach(context_branch=True, **off)
    assert near + 12 <= far < 63


def test_each_encoder_gets_the_curves_of_its_labeling(channels):
    net = perturb(network("dual_encoder"))
    masks = [channels[:, -1:]]
    seen = []
    for encoder in net.encoders:
        encoder.pairs[0].register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    net(channels)
    assert masks[0].shape[1] == 1
    torch.testing.assert_close(seen[0][:, :6], channels[:, :6])
    torch.testing.assert_close(seen[1][:, :6], channels[:, 6:12])
    assert seen[0].shape[1] == seen[1].shape[1] == 6 + 7 + 1


def test_dropout_is_active_in_training_only(channels):
    net = network("spatial", dropout=0.5)
    with torch.no_grad():
        assert torch.equal(net(channels), net(channels))
        net.train()
        assert not torch.equal(net(channels), net(channels))
