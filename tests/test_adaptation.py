"""Adaptation to real scans: what it trains, what it keeps, and that it resumes."""

import json

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from safetensors.torch import load_file
from scans import volumes, write_scan

from aslkit.cli.train import main as asl_train
from aslkit.config import load_config
from aslkit.core.acquisition import Acquisition, protocol
from aslkit.core.errors import InputError
from aslkit.fit.curve_table import model_like
from aslkit.kinetics.model import delta_m, kinetic_model
from aslkit.nets.card_text import describe_card
from aslkit.nets.model_store import load_model, save_model
from aslkit.prepare.pipeline import PreparationSettings
from aslkit.train.checkpoints import CHECKPOINT
from aslkit.train.experimental.adaptation import read_adaptation_scans
from aslkit.train.experimental.prediction_loss import prediction_loss
from aslkit.train.loop import RunOptions, train

pytestmark = pytest.mark.usefixtures("own_batches")
TINY = (
    "network.widths=[8,8]",
    "data.patch_size=16",
    "data.protocols_per_step=1",
    "data.patches_per_protocol=2",
    "data.slices_per_subject=2",
    "warmup_steps=0",
    "schedule=cosine",
)


def tiny(*changes):
    return load_config("exp14", (*TINY, *changes))


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return write_scan(tmp_path_factory.mktemp("data"), voxels=volumes(noise_sd=1.0)).parents[2]


def saved(out):
    return load_file(out / CHECKPOINT)


def test_the_loss_is_least_for_the_truth_where_it_is_that_of_the_noise():
    torch.manual_seed(0)
    model = kinetic_model(Acquisition(protocol("pcasl", [0.5, 1.0, 1.5, 2.0], 1.8)), 1, np.float32)
    model = model_like(model, torch.zeros(1))
    truth = torch.tensor([60.0, 1.2])[None, :, None, None].expand(1, 2, 64, 64)
    clean = delta_m(model, *truth.flatten(2).unbind(1)).reshape(1, 4, 64, 64)
    sd = torch.full((1, 1, 64, 64), 0.001)
    errors = torch.tensor([5.0, 0.1])[None, :, None, None].expand_as(truth)
    real = {"base": truth + 2 * errors, "errors": errors, "sd": sd, "inside": torch.ones_like(sd)}
    real["signal"] = clean + sd * torch.randn_like(clean)
    real["inside"][..., :8] = 0
    real["signal"][..., :8] = 1.0

    def loss(*shift):
        outputs = torch.tensor([*shift, 0, 0])[None, :, None, None] * torch.ones(1, 4, 64, 64)
        return float(prediction_loss(outputs, real, model))

    assert loss(-2.0, -2.0) == pytest.approx(4 / 2, abs=0.05)
    assert min(loss(-1, -2), loss(-3, -2)) > loss(-2, -2) + 0.01


def test_the_prediction_loss_has_a_gradient_for_cbf_alone():
    outputs = torch.zeros(1, 4, 2, 2, requires_grad=True)
    model = kinetic_model(Acquisition(protocol("pcasl", [0.5, 1.0], 1.8)), 1, np.float32)
    pixels = torch.ones(1, 1, 2, 2)
    pair = torch.cat([40 * pixels, pixels], 1)
    real = {"base": pair, "errors": pair / 10, "sd": pixels / 1000, "inside": pixels}
    real["signal"] = torch.cat([pixels, pixels], 1) / 100
    prediction_loss(outputs, real, model_like(model, outputs)).backward()
    assert (outputs.grad[:, 0] != 0).all() and not outputs.grad[:, 1:].any()


@pytest.mark.slow
def test_the_bias_correction_alone_corrects_a_biased_network(data, tmp_path):
    train(
        tiny("steps=1", "adaptation.bias_correction=true"),
        tmp_path / "first",
        RunOptions(finetune_bids=data),
    )
    weights = {
        k: v.float() for k, v in load_file(tmp_path / "first" / "weights.safetensors").items()
    }
    weights["bias.log_scale"] = torch.tensor([0.3, 0.0])
    save_model(tmp_path / "biased", weights, load_model(str(tmp_path / "first")).card)
    changes = ("steps=24", "learning_rate=0.05", "ema_decay=0", "adaptation.bias_correction=true")
    config = tiny(*changes, "adaptation.weight=10")
    train(
        config,
        tmp_path / "out",
        RunOptions(init_from=str(tmp_path / "biased"), finetune_bids=data),
    )
    found = {k.removeprefix("network."): v for k, v in saved(tmp_path / "out").items()}
    assert abs(found["bias.log_scale"][0]) < 0.1
    for name in (k for k in weights if not k.startswith("bias")):
        torch.testing.assert_close(found[name], weights[name], rtol=0, atol=0)


def test_a_bias_correction_starts_from_a_model_without_one(data, tmp_path):
    train(load_config("exp21", (*TINY, "steps=1")), tmp_path / "plain")
    config = tiny("steps=1", "adaptation.bias_correction=true")
    train(
        config, tmp_path / "out", RunOptions(init_from=str(tmp_path / "plain"), finetune_bids=data)
    )
    model = load_model(str(tmp_path / "out"))
    assert model.network.bias is not None and model.card["network"]["bias_correction"]


@pytest.mark.parametrize(
    "change", ["adaptation.adversarial_weight=0.1", "adaptation.bias_correction=true"]
)
def test_an_adaptation_resumes_bit_for_bit(data, tmp_path, change):
    config = tiny("steps=4", "learning_rate=0.01", change)
    config = config.model_copy(update={"checkpoint_minutes": 1e-9})

    def interrupt(step, numbers):
        if step == 3:
            raise KeyboardInterrupt

    train(config, tmp_path / "uninterrupted", RunOptions(finetune_bids=data))
    with pytest.raises(KeyboardInterrupt):
        train(config, tmp_path / "half", RunOptions(finetune_bids=data), progress=interrupt)
    train(config, tmp_path / "half", RunOptions(resume=True, finetune_bids=data))
    uninterrupted, half = saved(tmp_path / "uninterrupted"), saved(tmp_path / "half")
    assert uninterrupted.keys() == half.keys()
    assert all(torch.equal(uninterrupted[k], half[k]) for k in half)


def test_real_scans_and_classifier_change_the_weights(data, tmp_path):
    runs = {
        "weak": ("adaptation.weight=0.001",),
        "strong": ("adaptation.weight=1",),
        "adversarial": ("adaptation.weight=1", "adaptation.adversarial_weight=1"),
    }
    for name, changes in runs.items():
        train(
            tiny("steps=3", "learning_rate=0.01", *changes),
            tmp_path / name,
            RunOptions(finetune_bids=data),
        )
    stems = [saved(tmp_path / name)["network.down_blocks.1.second.weight"] for name in runs]
    assert not torch.equal(stems[0], stems[1]) and not torch.equal(stems[1], stems[2])
    moved = saved(tmp_path / "adversarial")
    assert any(k.startswith("classifier.") for k in moved)
    assert not any(
        "classifier" in k for k in load_file(tmp_path / "adversarial/weights.safetensors")
    )


def test_a_run_resumes_with_the_same_scans_only(data, tmp_path):
    other = write_scan(tmp_path / "other", voxels=volumes(noise_sd=2.0)).parents[2]
    train(tiny("steps=1"), tmp_path / "run", RunOptions(finetune_bids=data))
    with pytest.raises(InputError, match="adapted_to: found other scans, expected those of the"):
        train(tiny("steps=1"), tmp_path / "run", RunOptions(resume=True, finetune_bids=other))


def test_the_configuration_chooses_the_realignment_of_real_scans(monkeypatch, tmp_path):
    asked = []
    monkeypatch.setattr(
        "aslkit.train.experimental.adaptation.read_real_scans", lambda *a: asked.append(a) or ()
    )
    for moco in (False, True):
        config = load_config("exp14", (f"adaptation.moco={str(moco).lower()}",))
        read_adaptation_scans(config, tmp_path)
    assert asked == [(tmp_path, PreparationSettings(realign=moco)) for moco in (False, True)]


def test_the_card_describes_the_scans_of_an_adaptation(data, tmp_path):
    train(tiny("steps=1"), tmp_path / "run", RunOptions(finetune_bids=data))
    card = load_model(str(tmp_path / "run")).card
    assert (card["adapted_to"]["scans"], card["adapted_to"]["repeats"]) == (1, [2, 2])
    assert str(data) not in json.dumps(card) and "sub-01" not in json.dumps(card)
    assert "adapted to: 1 scans; 1 subjects; sha256" in "\n".join(describe_card(card))


@pytest.mark.parametrize(
    ("config", "options", "found"),
    [
        ("exp14", [], "found nothing"),
        ("exp21", ["--finetune-bids", "DATA"], "found a configuration without adaptation"),
    ],
)
def test_the_section_and_the_data_set_go_together(data, tmp_path, config, options, found):
    given = [str(data) if option == "DATA" else option for option in options]
    line = ["--config", config, "--out", str(tmp_path / "out"), "--device", "cpu", *given]
    done = CliRunner().invoke(asl_train, line)
    assert done.exit_code == 3 and f"--finetune-bids: {found}, expected a data" in done.output


@pytest.mark.parametrize(
    ("config", "changes", "message"),
    [
        ("exp14", ("adaptation.wieght=2",), "expected a known key, like adaptation.weight"),
        (
            "exp14",
            ("adaptation={bias_correction: true, adversarial_weight: 1}",),
            "freezes the network",
        ),
        ("exp21", ("network.bias_correction=true",), "by adaptation.bias_correction alone"),
        ("exp09", ("adaptation.weight=1",), "network.kind physics_residual with a section"),
    ],
)
def test_keys_that_exclude_each_other_are_refused(config, changes, message):
    with pytest.raises(InputError, match=message):
        load_config(config, changes)
