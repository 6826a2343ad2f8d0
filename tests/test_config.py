"""Configurations: strict, with units; every key of experiment 09 of the plan has an effect."""

from pathlib import Path

import numpy as np
import pytest
import torch
import yaml

from aslkit.config import describe_configs, dump_config, is_dump_of, list_configs, load_config
from aslkit.config.old_keys import RENAMED_KEYS
from aslkit.config.schema import SECTIONS
from aslkit.core.errors import InputError
from aslkit.nets.encoding_registry import build_encoding
from aslkit.nets.model_store import list_models, read_card
from aslkit.nets.registry import build_network
from aslkit.train.registry import build_recipe

EXPERIMENT_09 = """
model_class_name: "AmplitudeAwareSpatialASLNet"
hidden_sizes: [32, 64, 128, 256]
use_film_at_bottleneck: true
use_film_at_decoder: true
use_amplitude_output_modulation: true
normalization_mode: "global_scale"
global_scale_factor: 10.0
learning_rate: 0.0001
batch_size: 32
n_epochs: 50
n_ensembles: 3
dropout_rate: 0.1
norm_type: "group"
loss_type: "l1"
loss_mode: "mae_nll"
cbf_weight: 1.0
att_weight: 1.0
dc_weight: 0.0
variance_weight: 0.1
domain_randomization: true
training_noise_levels: [2.0, 5.0, 10.0, 15.0, 20.0, 25.0]
T1_artery: 1850.0
T1_artery_range: [1550.0, 2150.0]
T_tau: 1800.0
alpha_PCASL: 0.85
alpha_PCASL_range: [0.75, 0.95]
alpha_VSASL: 0.56
alpha_VSASL_range: [0.40, 0.70]
alpha_BS1_range: [0.85, 1.0]
pld_values: [500, 1000, 1500, 2000, 2500, 3000]
active_features: ['mean', 'std', 'peak', 't1_artery']
data_noise_components: ['thermal', 'physio', 'drift']
noise_type: "rician"
"""
OTHER_VALUES = {
    "model_class_name": "SpatialASLNet",
    "hidden_sizes": [8, 24],
    "use_film_at_bottleneck": False,
    "use_film_at_decoder": False,
    "use_amplitude_output_modulation": False,
    "normalization_mode": "per_curve",
    "global_scale_factor": 5.0,
    "batch_size": 3,
    "dropout_rate": 0.5,
    "norm_type": "none",
    "loss_type": "l2",
    "loss_mode": "mae",
    "cbf_weight": 2.0,
    "att_weight": 2.0,
    "dc_weight": 0.3,
    "variance_weight": 0.0,
    "domain_randomization": False,
    "training_noise_levels": [1.0],
    "T1_artery": 1600.0,
    "T1_artery_range": [1400.0, 1500.0],
    "T_tau": 1500.0,
    "alpha_PCASL": 0.8,
    "alpha_PCASL_range": [0.5, 0.6],
    "alpha_VSASL": 0.5,
    "alpha_VSASL_range": [0.3, 0.35],
    "alpha_BS1_range": [0.5, 0.6],
    "pld_values": [500, 1000, 1500, 2000, 2500, 3500],
    "active_features": ["mean"],
    "data_noise_components": ["thermal"],
    "noise_type": "gaussian",
}
TINY = {"name": "tiny", "hidden_sizes": [8, 16], "batch_size": 2}
FILMS = ("use_film_at_bottleneck", "use_film_at_decoder", "use_amplitude_output_modulation")


def written(tmp_path, values):
    path = tmp_path / "own.yaml"
    path.write_text(yaml.safe_dump(values))
    return str(path)


def trace(config):
    """Return the size of the network, the loss of the first step and the nominal efficiencies."""
    torch.manual_seed(0)
    encoding = build_encoding(config)
    network = build_network(config.network, encoding)
    with torch.no_grad():
        for values in network.parameters():  # FiLM starts as the identity
            values += 0.05 * torch.randn_like(values)
    batch = build_recipe(config).draw(np.random.default_rng(1))
    loss = float(build_recipe(config).losses(network(batch["channels"]), batch).sum().detach())
    size = sum(values.numel() for values in network.parameters())
    return size, loss, tuple(t.efficiency for t in encoding.timings)


def test_the_keys_of_the_plan_give_production_v2_and_messages(tmp_path, caplog):
    values = {"name": "production_v2", **yaml.safe_load(EXPERIMENT_09)}
    values |= {"weight_decay": 1e-4, "schedule": "one_cycle"}
    assert load_config(written(tmp_path, values)) == load_config("production_v2")
    assert "pld_values: [500, 1000, 1500, 2000, 2500, 3000] is read as data.plds_s: [0.5" in (
        caplog.text
    )


def test_a_change_by_either_name_overrides_the_file(tmp_path):
    path = written(tmp_path, {"name": "own", **yaml.safe_load(EXPERIMENT_09)})
    assert load_config(path, ("steps=7",)).steps == 7
    assert load_config(path, ("n_epochs=2",)).steps == 2000


def test_keys_of_the_last_version_are_read_with_a_message(tmp_path, caplog):
    values = {
        "base": "exp09",
        "name": "old",
        "averaging": 0.9,
        "balance": "learned",
        "loss": {"dc_weight": 0.2},
        "data": {"kind": "one_protocol", "patch": 32, "patches": 4},
    }
    path = written(tmp_path, values)
    config = load_config(path, ("data.patch=16",))
    assert config.ema_decay == 0.9 and config.loss_weighting == "learned"
    assert config.loss.data_consistency_weight == 0.2
    assert config.data.patch_size == 16 and config.data.patches_per_step == 4
    assert "averaging is now called ema_decay" in caplog.text
    assert "data.kind: one_protocol is now called fixed_protocol" in caplog.text


@pytest.mark.parametrize("model", list_models())
def test_the_training_configuration_in_every_model_card_is_read(tmp_path, model):
    training = dict(read_card(list_models()[model])["training"])
    if training.get("schedule") == "one_cycle":  # earlier versions accepted the key
        training.pop("warmup_steps")
    path = written(tmp_path, training)
    assert load_config(path).name == training["name"]
    assert is_dump_of(Path(path).read_text(), load_config(path))
    assert not is_dump_of(Path(path).read_text(), load_config(path, ("seed=99",)))


@pytest.mark.parametrize("old", RENAMED_KEYS)
def test_every_renamed_key_is_one_of_the_schema(old):
    assert RENAMED_KEYS[old] in SECTIONS and old not in SECTIONS


@pytest.fixture(scope="module")
def usual(tmp_path_factory):
    values = yaml.safe_load(EXPERIMENT_09) | TINY
    return trace(
        load_config(written(tmp_path_factory.mktemp("usual"), values), ("data.patch_size=32",))
    )


@pytest.mark.parametrize("key", sorted(set(yaml.safe_load(EXPERIMENT_09)) & set(OTHER_VALUES)))
def test_each_key_of_the_plan_changes_the_first_step_of_training(tmp_path, usual, key):
    values = yaml.safe_load(EXPERIMENT_09) | TINY | {key: OTHER_VALUES[key]}
    if key == "model_class_name":
        values = {k: v for k, v in values.items() if k not in FILMS}
    assert trace(load_config(written(tmp_path, values), ("data.patch_size=32",))) != usual


def test_every_other_key_of_the_plan_belongs_to_the_training_loop():
    rest = set(yaml.safe_load(EXPERIMENT_09)) - set(OTHER_VALUES)
    assert rest == {"learning_rate", "n_epochs", "n_ensembles"}


def test_a_configuration_written_out_is_read_back(tmp_path):
    for name in list_configs():
        config = load_config(name)
        path = tmp_path / f"{name}.yaml"
        path.write_text(dump_config(config))
        assert load_config(str(path)) == config


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("stepps=3", "stepps: found 3, expected a known key, like steps."),
        ("network.width=[8,8]", "network.width: found [8, 8], expected a known key, like network"),
        ("network.dropout=0.1", "network.dropout: found 0.1, expected a known key, like network"),
        ("steps=-1", "steps: found -1, expected Input should be greater than or equal to 1"),
        ("steps", "--set: steps: found steps, expected section.key=value"),
        ("seed.x=1", "--set: seed.x: found seed, expected section.key=value"),
        ("network.kind=spatial", "expected encoding.kind raw for network.kind spatial"),
        ("encoding.kind=raw", "expected encoding.kind raw together with data.kind fixed_protocol"),
        ("cbf_first_fraction=0.2", "expected network.separate_decoders with cbf_first_fraction"),
        (
            "pretraining_fraction=0.2",
            "expected network.denoising_head together with pretraining_fraction",
        ),
        (
            "loss_weighting=validation",
            "expected a section validation with loss_weighting validation",
        ),
        ("loss.error=l2", "expected a section loss with encoding.kind raw, and only with it"),
    ],
)
def test_a_wrong_configuration_is_named(change, message):
    with pytest.raises(InputError) as caught:
        load_config("small", ("seed=1", change))
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            ("loss_weighting=learned", "loss.att_weight=0"),
            "weights of loss above 0 with loss_weighting",
        ),
        (
            ("loss_weighting=learned", "cbf_first_fraction=0.5", "network.separate_decoders=true"),
            "either cbf_first_fraction or loss_weighting",
        ),
        (
            ("pretraining_fraction=0.5", "network.denoising_head=true", "validation.batches=1"),
            "either pretraining_fraction or validation",
        ),
    ],
)
def test_keys_that_exclude_one_another_are_refused(changes, message):
    with pytest.raises(InputError, match=message):
        load_config("production_v2", changes)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("data.plds_s=[500,1000]", "found [500, 1000], expected delays in seconds, 0 to 20"),
        (
            "data.alpha_bs_range=[1.0,0.8]",
            "data.alpha_bs_range: found [1.0, 0.8], expected a range",
        ),
        (
            "network.widths=[8,8,8,8,8,8,8,8]",
            "expected data.patch_size a multiple of 128, the stride",
        ),
        ("network.widths=[12,24]", "network.widths: found [12, 24], expected multiples of 8"),
    ],
)
def test_invalid_values_are_named(change, message):
    with pytest.raises(InputError) as caught:
        load_config("production_v2", (change,))
    assert message in str(caught.value)


def test_a_voxelwise_network_of_engineered_features_is_a_configuration():
    network = "network={kind: voxelwise, widths: [8, 8]}"
    config = load_config("production_v2", (network, "encoding.normalization=per_curve"))
    layout = build_encoding(config)
    channels = torch.randn(1, layout.n_channels, 8, 8)
    net = build_network(config.network, layout)
    torch.nn.init.normal_(net.head.weight)
    changed = channels.clone()
    changed[:, :-1, 4, 4] += 1
    moved = (net(changed) - net(channels)).abs().amax(1)[0]
    assert moved[4, 4] > 0 and moved.count_nonzero() == 1


def test_a_file_without_keys_and_an_unknown_name_are_refused(tmp_path):
    with pytest.raises(InputError, match="found NoneType, expected keys and values"):
        load_config(written(tmp_path, None))
    (tmp_path / "broken.yaml").write_text("a: [")
    with pytest.raises(InputError, match="expected YAML"):
        load_config(str(tmp_path / "broken.yaml"))
    known = ", ".join(list_configs())
    with pytest.raises(InputError, match=f"found exp99, expected a YAML file or one of {known}"):
        load_config("exp99")


def test_the_configurations_for_users_are_listed_first_and_the_others_by_name():
    listed = describe_configs()
    assert list(listed)[:3] == ["aslnet", "small", "own_protocol"]
    others = listed["experiments of docs/experiments.md"].split()
    assert {*others, *list(listed)[:3]} == set(list_configs())
