"""The training loop: it learns, stops, keeps the best weights, and starts from a model."""

import sys

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from safetensors.torch import load_file

from aslkit.cli.train import main as asl_train
from aslkit.config import load_config
from aslkit.config.old_keys import IMPLIED, PLAN_KEYS
from aslkit.config.schema import NETWORKS
from aslkit.core.errors import InputError
from aslkit.nets.encoding_registry import build_encoding
from aslkit.nets.model_store import load_model
from aslkit.nets.registry import build_network
from aslkit.train.checkpoints import CHECKPOINT
from aslkit.train.experimental.early_stopping import Best, validation_batches, validation_losses
from aslkit.train.experimental.raw_batches import pretraining_loss
from aslkit.train.experimental.recipe import ExperimentalRecipe
from aslkit.train.experimental.schedules import learning_rate
from aslkit.train.loop import RunOptions, train
from aslkit.train.registry import build_recipe

pytestmark = pytest.mark.usefixtures("own_batches")
TINY = ("network.widths=[8,16]", "data.patch_size=32", "data.patches_per_step=4", "members=1")


def tiny(*changes):
    return load_config("production_v2", (*TINY, *changes))


@pytest.mark.parametrize("kind", ["spatial", "amplitude_aware", "dual_encoder"])
def test_every_network_learns_a_batch(kind):
    torch.manual_seed(0)
    config = tiny(
        "data.patch_size=16",
        "data.snr_levels=[25]",
        "data.noise_components=[thermal]",
        "loss.mode=mae",
    )
    described = NETWORKS.validate_python({"kind": kind, "widths": (8, 16)})
    network = build_network(described, build_encoding(config))
    recipe = build_recipe(config)
    batch, loss_function = recipe.draw(np.random.default_rng(0)), recipe.losses
    optimizer = torch.optim.Adam(network.parameters(), 1e-2)
    losses = []
    for _ in range(60):
        loss = loss_function(network(batch["channels"]), batch).sum()
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
    config = tiny(f"schedule={schedule}", "learning_rate=1")
    found = {done: learning_rate(config, 10**6, done) for done in expected}
    assert found == pytest.approx(expected)


def test_scans_of_one_protocol_are_simulated_on_the_device_of_the_network(tmp_path, monkeypatch):
    monkeypatch.setattr(
        "aslkit.train.distributed.n_data_workers", lambda: pytest.fail("a process made batches")
    )
    steps = []
    train(tiny("steps=3"), tmp_path, RunOptions("cpu:0"), lambda step, _: steps.append(step))
    assert steps == [1, 2, 3]


def test_cosine_has_a_warm_up_and_one_cycle_refuses_its_key():
    config = tiny("schedule=cosine", "learning_rate=1")
    assert learning_rate(config, 99, 0.0) == pytest.approx(100 / 200)
    longer = tiny("schedule=cosine", "learning_rate=1", "warmup_steps=1000")
    assert learning_rate(longer, 99, 0.0) == pytest.approx(100 / 1000)
    assert tiny("schedule=one_cycle").warmup_steps is None
    with pytest.raises(InputError, match="warmup_steps: found 5, expected no such key with sched"):
        tiny("schedule=one_cycle", "warmup_steps=5")


def test_from_swa_start_the_model_is_the_plain_mean_and_the_learning_rate_stays(tmp_path):
    config = tiny("steps=8", "swa_start=0.5", "schedule=cosine", "warmup_steps=0")
    assert learning_rate(config, 0, 0.9) == learning_rate(config, 0, 0.5) > 0
    seen = []

    def look(step, loss):
        if step > 4:
            seen.append(load_file(tmp_path / CHECKPOINT)["network.cbf_head.0.weight"])

    train(config.model_copy(update={"checkpoint_minutes": 1e-9}), tmp_path, progress=look)
    end = load_file(tmp_path / CHECKPOINT)  # `look` reads the checkpoint of the previous step
    weights = [*seen[1:], end["network.cbf_head.0.weight"]]
    mean = torch.stack(weights).mean(0)
    torch.testing.assert_close(end["average.cbf_head.0.weight"], mean, rtol=1e-5, atol=1e-7)


def test_a_run_that_diverges_stops_and_keeps_its_last_checkpoint(tmp_path, monkeypatch):
    true = ExperimentalRecipe.losses
    calls = iter(range(9))
    monkeypatch.setattr(
        ExperimentalRecipe,
        "losses",
        lambda *given: true(*given) * (np.inf if next(calls) == 2 else 1),
    )
    options = [o for c in (*TINY, "steps=9", "checkpoint_minutes=1e-9") for o in ("--set", c)]
    command = ["--config", "production_v2", "--out", str(tmp_path), "--device", "cpu", *options]
    done = CliRunner().invoke(asl_train, command)
    assert done.exit_code == 1, done.output
    assert "Error: the loss of step 3 is not finite" in done.output
    assert "with a learning_rate below 0.0001" in done.output
    assert load_model(str(tmp_path)).card["steps"] == 2
    assert all(torch.isfinite(v).all() for v in load_file(tmp_path / CHECKPOINT).values())


def test_the_best_weights_are_kept_and_later_validations_counted():
    network, best = torch.nn.Linear(1, 1), Best()
    for value, loss in ((1.0, 3.0), (2.0, 1.0), (3.0, 2.0), (4.0, 1.5)):
        torch.nn.init.constant_(network.weight, value)
        best.update(network, loss)
    assert (float(best.weights["weight"]), best.loss, best.n_worse) == (2.0, 1.0, 2)


def test_a_run_that_no_longer_improves_stops(tmp_path):
    changes = ("steps=50", "validation={interval_steps: 1, batches: 1, patience: 2}")
    train(tiny(*changes, "learning_rate=1e-12", "ema_decay=0"), tmp_path / "run")
    assert load_model(str(tmp_path / "run")).card["steps"] <= 10


def test_validation_scans_are_the_same_in_every_run_and_differ_from_training_scans():
    config = load_config("production_v2", (*TINY, "validation.batches=2"))
    draw = build_recipe(config).draw
    one, two = (validation_batches(config.validation, draw) for _ in range(2))
    assert len(one) == 2 and torch.equal(one[1]["channels"], two[1]["channels"])
    assert not torch.equal(one[0]["channels"], one[1]["channels"])
    quiet = build_recipe(tiny("data.noise_components=[]")).draw
    clean = validation_batches(config.validation, quiet)[0]["signal"]
    assert (one[0]["signal"] - clean).std() > 1e-4


def test_the_validation_loss_is_the_mean_over_the_batches():
    config = load_config("production_v2", (*TINY, "validation.batches=2"))
    batches = validation_batches(config.validation, build_recipe(config).draw)
    network = build_network(config.network, build_encoding(config)).eval()
    each = [validation_losses(network, [b], build_recipe(config).losses) for b in batches]
    both = validation_losses(network, batches, build_recipe(config).losses)
    torch.testing.assert_close(both, (each[0] + each[1]) / 2)
    assert (each[0] != each[1]).all()


def test_the_model_of_a_run_with_early_stopping_holds_the_best_weights(tmp_path, monkeypatch):
    losses = iter(torch.tensor([2.0, 1.0, 3.0, 4.0])[:, None, None].expand(4, 2, 2))
    monkeypatch.setattr(
        "aslkit.train.experimental.recipe.validation_losses", lambda *_: next(losses)
    )
    changes = ("learning_rate=0.01", "schedule=cosine", "warmup_steps=0", "ema_decay=0")
    config = tiny("steps=4", *changes, "validation={interval_steps: 1, batches: 1}")
    train(config, tmp_path / "run")
    kept = load_file(tmp_path / "run" / "weights.safetensors")
    run = load_file(tmp_path / "run" / "checkpoint.safetensors")
    name = "cbf_head.0.weight"
    torch.testing.assert_close(kept[name].float(), run[f"best.{name}"], rtol=1e-3, atol=1e-4)
    assert (run[f"best.{name}"] - run[f"average.{name}"]).abs().max() > 0.001


def test_early_stopping_resumes_after_an_interruption(tmp_path):
    changes = ("steps=4", "validation={interval_steps: 1, batches: 1, patience: 9}")
    config = tiny(*changes, "checkpoint_minutes=1e-9")

    def interrupt(step, loss):
        if step == 3:
            raise KeyboardInterrupt

    train(config, tmp_path / "uninterrupted")
    with pytest.raises(KeyboardInterrupt):
        train(config, tmp_path / "half", progress=interrupt)
    train(config.model_copy(), tmp_path / "half", RunOptions(resume=True))
    assert load_model(str(tmp_path / "half")).card["steps"] == 4


@pytest.mark.parametrize("kind", ["learned", "validation"])
def test_a_loss_weighting_resumes_bit_for_bit(tmp_path, kind):
    looks = "validation={interval_steps: 1, batches: 1, patience: 9}"
    config = tiny("steps=4", "learning_rate=0.01", f"loss_weighting={kind}", looks)
    config = config.model_copy(update={"checkpoint_minutes": 1e-9})
    weights = []

    def note(step, numbers):
        weights.append((numbers["cbf_weight"], numbers["att_weight"]))

    def interrupt(step, numbers):
        if step == 3:
            raise KeyboardInterrupt

    train(config, tmp_path / "uninterrupted", progress=note)
    with pytest.raises(KeyboardInterrupt):
        train(config, tmp_path / "half", progress=interrupt)
    train(config, tmp_path / "half", RunOptions(resume=True))
    uninterrupted, half = (
        load_file(tmp_path / out / CHECKPOINT) for out in ("uninterrupted", "half")
    )
    assert uninterrupted.keys() == half.keys()
    assert all(torch.equal(uninterrupted[k], half[k]) for k in half)
    assert len({pair for pair in weights}) == 4 and weights[-1][0] != weights[-1][1]


@pytest.mark.parametrize("kind", ["learned", "validation"])
def test_any_network_can_train_with_loss_weighting(tmp_path, kind):
    looks = "validation={interval_steps: 1, batches: 1}"
    sizes = (
        "network.widths=[8,8]",
        "data.patch_size=16",
        "data.protocols_per_step=1",
        "data.patches_per_protocol=2",
    )
    config = load_config("small", (*sizes, "steps=2", f"loss_weighting={kind}", looks))
    train(config, tmp_path / "run")
    saved = load_file(tmp_path / "run" / CHECKPOINT)
    assert [saved[k] for k in saved if k.startswith("balance.")][0].shape == (2,)


PRETRAINED = ("pretraining_fraction=0.5", "network.denoising_head=true", "weight_decay=0")


def test_pre_training_does_not_change_the_heads_of_the_estimates(tmp_path):
    def weights(share):
        changes = (*PRETRAINED, f"pretraining_fraction={share}")
        train(tiny("steps=3", "learning_rate=0.01", *changes), tmp_path / f"{share}")
        return load_file(tmp_path / f"{share}" / CHECKPOINT)

    torch.manual_seed(0)
    config = tiny(*PRETRAINED)
    fresh = build_network(config.network, build_encoding(config)).state_dict()
    early, late = weights(0.9), weights(0.5)
    for name, is_early in (
        ("encoder.pairs.0.convs.0.weight", True),
        ("denoising_head.weight", True),
        ("cbf_head.0.weight", False),
        ("att_head.weight", False),
    ):
        assert torch.equal(early[f"network.{name}"], fresh[name]) != is_early
        assert not torch.equal(late[f"network.{name}"], fresh[name])


@pytest.mark.slow
def test_the_network_learns_to_denoise_from_pairs_of_noisy_scans():
    torch.manual_seed(0)
    small = (*PRETRAINED, "data.patch_size=16")
    config = tiny("data.snr_levels=[2]", "data.noise_components=[thermal]", *small)
    network = build_network(config.network, build_encoding(config))
    optimizer = torch.optim.Adam(network.parameters(), 5e-3)
    draw = build_recipe(config).draw
    for k in range(150):
        batch = draw(np.random.default_rng(k))
        loss = pretraining_loss(network(batch["channels"]), batch)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    batch = draw(np.random.default_rng(999))
    inside = batch["channels"][:, -1:].expand_as(batch["signal"]) > 0
    quiet = tiny("data.noise_components=[]", *small)
    clean = build_recipe(quiet).draw(np.random.default_rng(999))["signal"]
    with torch.no_grad():
        found = network(batch["channels"])[:, 4:] / 100
    errors = [((s - clean)[inside]).square().mean().sqrt() for s in (found, batch["signal"])]
    assert errors[0] < 0.6 * errors[1]
    assert network.eval()(batch["channels"]).shape[1] == 4


def test_the_second_scan_of_a_pair_has_the_same_signal_and_other_noise():
    config = tiny("data.snr_levels=[2]", "data.noise_components=[thermal]", *PRETRAINED)
    batch = build_recipe(config).draw(np.random.default_rng(5))
    quiet = build_recipe(tiny("data.noise_components=[]")).draw(np.random.default_rng(5))["signal"]
    inside = quiet != 0
    one, two = ((batch[name] - quiet)[inside] for name in ("signal", "again"))
    assert abs(float(torch.corrcoef(torch.stack([one, two]))[0, 1])) < 0.02
    assert float(two.std()) == pytest.approx(float(one.std()), rel=0.05)


def test_a_pre_trained_model_predicts_like_any_other(tmp_path):
    train(tiny("steps=2", *PRETRAINED), tmp_path / "run")
    model = load_model(str(tmp_path / "run"))
    assert model.network(torch.zeros(1, 20, 16, 16)).shape[1] == 4
    assert "again" not in build_recipe(tiny()).draw(np.random.default_rng(0))


def test_cbf_is_learned_first_then_att_by_its_decoder_and_head_alone(tmp_path):
    changes = ("network.separate_decoders=true", "weight_decay=0", "cbf_first_fraction=0.5")
    config = tiny("steps=3", "learning_rate=0.01", "checkpoint_minutes=1e-9", *changes)

    def stop_before_att(step, numbers):
        if step == 3:
            raise KeyboardInterrupt

    def weights():
        saved = load_file(tmp_path / CHECKPOINT)
        return {k.removeprefix("network."): v for k, v in saved.items() if k.startswith("network")}

    torch.manual_seed(0)
    fresh = build_network(config.network, build_encoding(config)).state_dict()
    with pytest.raises(KeyboardInterrupt):
        train(config, tmp_path, progress=stop_before_att)
    after_cbf = weights()
    train(config, tmp_path, RunOptions(resume=True))
    after_att = weights()
    own = {name for name in fresh if name.startswith("att_")}
    moved_first = {k for k, v in after_cbf.items() if not torch.equal(v, fresh[k])}
    moved_then = {k for k, v in after_att.items() if not torch.equal(v, after_cbf[k])}
    assert moved_then == own and moved_first.isdisjoint(own)
    assert {"cbf_head.0.weight", "encoder.pairs.0.convs.0.weight"} <= moved_first


SHORT = ("steps=2", "validation={interval_steps: 2, batches: 1}")


def asl_train_tiny(out, *options):
    changes = [part for change in (*TINY, *SHORT) for part in ("--set", change)]
    line = ["--config", "production_v2", "--out", str(out), "--device", "cpu", *changes]
    return CliRunner().invoke(asl_train, [*line, *options])


def test_tensorboard_shows_losses_and_learning_rates(tmp_path):
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    done = asl_train_tiny(tmp_path, "--tensorboard")
    assert done.exit_code == 0, done.output
    events = EventAccumulator(str(tmp_path / "tensorboard")).Reload()
    steps = {name: [e.step for e in events.Scalars(name)] for name in events.Tags()["scalars"]}
    assert steps == {"loss": [1, 2], "learning_rate": [1, 2], "validation_loss": [2]}


def test_a_run_with_tensorboard_does_not_start_if_it_is_not_installed(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    done = asl_train_tiny(tmp_path / "run", "--tensorboard")
    assert done.exit_code == 5 and not (tmp_path / "run").exists()
    assert "Fix: pip install 'aslkit[tensorboard]', or leave out --tensorboard" in done.output


def test_weights_of_another_network_or_encoding_are_refused_as_a_start(tmp_path):
    with pytest.raises(InputError, match="found another network or encoding in small"):
        train(tiny("steps=1"), tmp_path / "run", RunOptions(init_from="small"))
    with pytest.raises(InputError, match="found another network or encoding in small"):
        config = load_config("small", ("network.widths=[8,8]", "steps=1"))
        train(config, tmp_path / "other", RunOptions(init_from="small"))


LOOP = {
    "seed": "1",
    "steps": "4",
    "learning_rate": "0.01",
    "weight_decay": "50",
    "schedule": "cosine",
    "ema_decay": "0.1",
    "swa_start": "0.1",
    "data.patch_size": "16",
    "data.labelings": "[vsasl]",
}


def trained(folder, *changes):
    train(tiny("data.patches_per_step=2", "steps=3", "learning_rate=0.001", *changes), folder)
    return load_model(str(folder)).network.state_dict()


@pytest.fixture(scope="module")
def usual(tmp_path_factory):
    return trained(tmp_path_factory.mktemp("usual"))


@pytest.mark.parametrize("key", LOOP)
def test_a_key_of_the_run_changes_the_weights(tmp_path, usual, key):
    found = trained(tmp_path, f"{key}={LOOP[key]}")
    assert any(v.shape != usual[k].shape or (v != usual[k]).any() for k, v in found.items())


def test_every_key_of_production_v2_is_a_key_of_the_plan_or_of_the_run():
    values = load_config("production_v2").model_dump(mode="json", exclude_none=True)
    keys = {k for k, v in values.items() if not isinstance(v, dict)}
    keys |= {f"{s}.{k}" for s, own in values.items() if isinstance(own, dict) for k in own}
    of_the_plan = {new for new, _ in PLAN_KEYS.values()} | set(IMPLIED)
    named = {"name", "checkpoint_minutes"}  # in the card; see test_interruptions
    heads = ("denoising_head", "confidence_head")
    names = ("separate_decoders", "att_film", "att_attention", "context_branch", *heads)
    later = {"data.extended_randomization", *(f"network.{name}" for name in names)}
    assert keys - of_the_plan - later == (set(LOOP) | named) - {*of_the_plan, "swa_start"}
