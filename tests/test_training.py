"""The training loop: it learns, stops in time, keeps the best, and starts where it is told."""

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from aslkit.config import load_config
from aslkit.config.schema import NETWORKS
from aslkit.early_stopping import Best, validation_batches, validation_loss
from aslkit.encodings import build_encoding
from aslkit.errors import InputError
from aslkit.networks import build_network
from aslkit.tasks import batches_of, loss_of
from aslkit.training import _SCHEDULES as SCHEDULES
from aslkit.training import train
from aslkit.weights import load_model

TINY = ("network.widths=[8,16]", "data.patch=32", "data.patches=4", "members=1")


def tiny(*changes):
    return load_config("production_v2", (*TINY, *changes))


@pytest.mark.parametrize("kind", ["spatial", "amplitude_aware", "dual_encoder"])
def test_every_network_learns_a_batch(kind):
    torch.manual_seed(0)
    config = tiny("data.snr_levels=[25]", "data.noise_components=[thermal]", "loss.mode=mae")
    described = NETWORKS.validate_python({"kind": kind, "widths": (8, 16)})
    network = build_network(described, build_encoding(config).layout)
    batch, loss_function = batches_of(config)(np.random.default_rng(0)), loss_of(config)
    optimizer = torch.optim.Adam(network.parameters(), 1e-2)
    losses = []
    for _ in range(120):
        loss = loss_function(network(batch["channels"]), batch)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.55 * losses[0]


@pytest.mark.parametrize(
    ("schedule", "expected"),
    [
        ("cosine", {0.0: 1.0, 0.5: 0.5, 1.0: 0.0}),
        ("one_cycle", {0.0: 0.04, 0.15: 0.52, 0.3: 1.0, 0.65: 0.5, 1.0: 0.0}),
    ],
)
def test_the_learning_rate_follows_its_schedule(schedule, expected):
    config = tiny(f"schedule={schedule}")
    found = {done: SCHEDULES[schedule](config, 10**6, done) for done in expected}
    assert found == pytest.approx(expected)
    assert SCHEDULES["cosine"](config, 99, 0.0) == pytest.approx(100 / config.warmup_steps)


def test_the_best_weights_are_kept_and_worse_ones_counted():
    network, best = torch.nn.Linear(1, 1), Best()
    for value, loss in ((1.0, 3.0), (2.0, 1.0), (3.0, 2.0), (4.0, 1.5)):
        torch.nn.init.constant_(network.weight, value)
        best.see(network, loss)
    assert (float(best.weights["weight"]), best.loss, best.n_worse) == (2.0, 1.0, 2)


def test_a_run_that_no_longer_improves_stops(tmp_path):
    changes = ("steps=50", "validation={every_steps: 1, batches: 1, patience: 2}")
    train(tiny(*changes, "learning_rate=1e-12", "averaging=0"), tmp_path / "run")
    assert load_model(str(tmp_path / "run")).card["steps"] <= 10


def test_validation_scans_are_noisy_the_same_for_every_run_and_none_that_trains():
    config = load_config("production_v2", (*TINY, "validation.batches=2"))
    draw = batches_of(config)
    one, two = (validation_batches(config.validation, draw) for _ in range(2))
    assert len(one) == 2 and torch.equal(one[1]["channels"], two[1]["channels"])
    assert not torch.equal(one[0]["channels"], one[1]["channels"])
    quiet = batches_of(tiny("data.noise_components=[]"))
    clean = validation_batches(config.validation, quiet)[0]["signal"]
    assert (one[0]["signal"] - clean).std() > 1e-4


def test_the_validation_loss_is_the_mean_over_the_batches():
    config = load_config("production_v2", (*TINY, "validation.batches=2"))
    batches = validation_batches(config.validation, batches_of(config))
    network = build_network(config.network, build_encoding(config).layout).eval()
    each = [validation_loss(network, [b], loss_of(config)) for b in batches]
    both = validation_loss(network, batches, loss_of(config))
    assert both == pytest.approx(np.mean(each)) and each[0] != each[1]


def test_the_model_of_a_run_with_early_stopping_holds_the_best_weights(tmp_path, monkeypatch):
    losses = iter([2.0, 1.0, 3.0, 4.0])
    monkeypatch.setattr("aslkit.training.validation_loss", lambda *_: next(losses))
    changes = ("learning_rate=0.01", "schedule=cosine", "warmup_steps=0", "averaging=0")
    config = tiny("steps=4", *changes, "validation={every_steps: 1, batches: 1}")
    train(config, tmp_path / "run")
    kept = load_file(tmp_path / "run" / "weights.safetensors")
    run = load_file(tmp_path / "run" / "checkpoint.safetensors")
    name = "cbf_head.0.weight"
    torch.testing.assert_close(kept[name].float(), run[f"best.{name}"], rtol=1e-3, atol=1e-4)
    assert (run[f"best.{name}"] - run[f"average.{name}"]).abs().max() > 0.001


def test_early_stopping_survives_an_interruption(tmp_path):
    changes = ("steps=4", "validation={every_steps: 1, batches: 1, patience: 9}")
    config = tiny(*changes, "checkpoint_minutes=1e-9")

    def interrupt(step, loss):
        if step == 3:
            raise KeyboardInterrupt

    train(config, tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        train(config, tmp_path / "half", progress=interrupt)
    train(config.model_copy(), tmp_path / "half", resume=True)
    assert load_model(str(tmp_path / "half")).card["steps"] == 4


def test_weights_of_another_network_or_encoding_are_no_start(tmp_path):
    with pytest.raises(InputError, match="found another network or encoding in small"):
        train(tiny("steps=1"), tmp_path / "run", init_from="small")
    with pytest.raises(InputError, match="found another network or encoding in small"):
        config = load_config("small", ("network.widths=[8,8]", "steps=1"))
        train(config, tmp_path / "other", init_from="small")
