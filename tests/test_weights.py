"""A card and weights that do not match are refused with the name of the first difference."""

import json

import pytest
import torch
from safetensors.torch import load_file, save_file

from aslkit.config import load_config
from aslkit.core.errors import InputError
from aslkit.nets.encoding_registry import build_encoding
from aslkit.nets.model_store import CARD, WEIGHTS, load_model, save_model
from aslkit.nets.registry import build_network
from aslkit.train.model_card import model_card

TINY = ("network.widths=[8,16]", "members=1")


@pytest.fixture
def model(tmp_path):
    """Save an untrained amplitude-aware network and return its folder."""
    config = load_config("exp09", TINY)
    network = build_network(config.network, build_encoding(config))
    save_model(tmp_path, network.state_dict(), model_card(config, 1, 1, 1.0, None))
    assert load_model(str(tmp_path)).kind == "amplitude-aware"
    return tmp_path


def edit(folder, section, key, value):
    card = json.loads((folder / CARD).read_text())
    card[section][key] = value
    (folder / CARD).write_text(json.dumps(card))


def rewrite(folder, change):
    tensors = load_file(folder / WEIGHTS)
    change(tensors)
    save_file(tensors, folder / WEIGHTS)


def refusal(folder):
    with pytest.raises(InputError) as caught:
        load_model(str(folder))
    return str(caught.value)


@pytest.mark.parametrize(
    ("section", "key", "value", "original"),
    [
        ("network", "film_at_decoder", False, "true"),
        ("network", "output_modulation", False, "true"),
        ("network", "kind", "spatial", '"amplitude_aware"'),
        ("network", "norm", "none", '"group"'),
        ("encoding", "normalization", "per_curve", '"global_scale"'),
        ("encoding", "scale", 1.0, "10.0"),
        ("encoding", "features", ["mean"], '["mean", "std", "peak", "t1_artery"]'),
    ],
)
def test_an_edited_flag_is_named_with_its_value_in_training(model, section, key, value, original):
    edit(model, section, key, value)
    message = refusal(model)
    assert f"{CARD}: {section}.{key}: found {json.dumps(value)}, expected {original}" in message


def test_an_unknown_key_of_the_network_is_named(model):
    edit(model, "network", "attention", True)
    assert f"{CARD}: network.attention: found true, expected" in refusal(model)
    rewrite(model, lambda tensors: None)  # old weights without a copy of the card
    assert "network.attention: found True, expected Extra inputs are not permitted" in refusal(
        model
    )


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: t.pop("att_head.bias"), "att_head.bias: found nothing, expected a tensor (2,)"),
        (
            lambda t: t.update({"films.9.bias": torch.zeros(3)}),
            "films.9.bias: found a tensor (3,), expected nothing",
        ),
        (
            lambda t: t.update({"att_head.bias": torch.zeros(7)}),
            "att_head.bias: found a tensor (7,), expected a tensor (2,)",
        ),
    ],
)
def test_a_missing_or_unknown_tensor_or_another_shape_is_named(model, change, message):
    rewrite(model, change)
    assert f"{WEIGHTS}: {message} for the network of {CARD}. Fix: put" in refusal(model)


def test_weights_with_other_numbers_are_refused(model):
    rewrite(model, lambda tensors: tensors["att_head.bias"].add_(1))
    assert f"{WEIGHTS}: sha256: found" in refusal(model)


def test_weights_of_another_model_are_refused(model, tmp_path):
    other = tmp_path / "other"
    config = load_config("exp00", TINY)
    network = build_network(config.network, build_encoding(config))
    save_model(other, network.state_dict(), model_card(config, 1, 1, 1.0, None))
    (model / WEIGHTS).write_bytes((other / WEIGHTS).read_bytes())
    assert "network.att_attention: found false, expected nothing, as" in refusal(model)
