"""Training that is killed and resumed: the very weights of a run that nobody disturbed."""

import json
import os
import signal
import subprocess
import sys
import time

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file

from aslkit.checkpoints import CHECKPOINT
from aslkit.config import load_config
from aslkit.errors import InputError
from aslkit.training import train

N_STEPS = 12
COMMON = (f"steps={N_STEPS}", "seed=5", "data.patch=16", "checkpoint_minutes=1e-9")
LOOKS = "validation={every_steps: 2, batches: 1, patience: 50}"
RUNS = {
    "amplitude_aware": (
        "production_v2",
        (*COMMON, LOOKS, "members=1", "network.widths=[8,16]", "data.patches=2"),
    ),
    "physics_residual": (
        "small",
        (*COMMON, "network.widths=[8,8]", "data.groups=1", "data.patches_per_group=2"),
    ),
}


def command(kind, out, *more):
    name, changes = RUNS[kind]
    parts = [part for change in (*changes, *more) for part in ("--set", change)]
    line = ["-m", "aslkit.cli.train", "--config", name, "--device", "cpu", "--out", str(out)]
    return [sys.executable, *line, *parts]


def numbers(out):
    """What the checkpoint of a folder, which is whole whenever one looks, holds beside tensors."""
    with safe_open(out / CHECKPOINT, "pt") as opened:
        return json.loads(opened.metadata()["numbers"])


def steps_done(out):
    """Steps in the checkpoint of a folder."""
    return numbers(out)["step"] if (out / CHECKPOINT).is_file() else 0


def wait_for_steps(process, out, n):
    """Wait until the checkpoint of a folder holds some steps; a run that never gets there ends."""
    end = time.monotonic() + 300
    while steps_done(out) < n:
        if time.monotonic() > end:
            process.kill()
            pytest.fail("the run does not get on")
        time.sleep(0.002)


@pytest.mark.parametrize("kind", RUNS)
def test_a_killed_run_is_resumed_to_the_very_weights_of_an_undisturbed_one(tmp_path, kind):
    name, changes = RUNS[kind]
    config = load_config(name, changes)
    assert kind == config.network.kind and getattr(config.network, "dropout", 0.1) == 0.1
    train(config, tmp_path / "whole")
    with subprocess.Popen(command(kind, tmp_path / "killed")) as process:
        wait_for_steps(process, tmp_path / "killed", 3)
        process.kill()
    assert process.returncode == -signal.SIGKILL and steps_done(tmp_path / "killed") < N_STEPS
    train(config, tmp_path / "killed", resume=True)
    whole, killed = (load_file(tmp_path / run / CHECKPOINT) for run in ("whole", "killed"))
    assert {n.partition(".")[0] for n in whole} >= {"network", "average", "optimizer"}
    assert [n for n in whole if not torch.equal(whole[n], killed[n])] == []
    first, second = ((tmp_path / run / "weights.safetensors") for run in ("whole", "killed"))
    assert first.read_bytes() == second.read_bytes()
    curves = [numbers(tmp_path / run)["losses"] for run in ("whole", "killed")]
    assert curves[0] == curves[1] and len(curves[0]) == N_STEPS


def test_sigterm_to_the_whole_process_group_leaves_a_run_that_goes_on(tmp_path):
    line = command("physics_residual", tmp_path, "steps=100000")
    with subprocess.Popen(line, start_new_session=True, stderr=subprocess.PIPE) as process:
        wait_for_steps(process, tmp_path, 2)
        os.killpg(process.pid, signal.SIGTERM)
        errors = process.stderr.read().decode()
    assert process.returncode == 0 and "Stopped after step" in errors, errors
    assert f"Stopped after step {steps_done(tmp_path)}," in errors


def test_lines_of_metrics_after_the_checkpoint_are_written_anew(tmp_path):
    name, changes = RUNS["physics_residual"]
    (tmp_path / "metrics.csv").write_text("step,minutes,loss\n50,0.1,9.9\n")
    train(load_config(name, (*changes, "steps=50")), tmp_path)
    header, line = (tmp_path / "metrics.csv").read_text().splitlines()
    assert header == "step,minutes,loss" and line.startswith("50,")
    assert float(line.split(",")[2]) != 9.9


def test_a_damaged_checkpoint_is_named(tmp_path):
    (tmp_path / CHECKPOINT).write_bytes(b"damaged")
    name, changes = RUNS["physics_residual"]
    with pytest.raises(InputError, match="expected a checkpoint of asl_train"):
        train(load_config(name, changes), tmp_path, resume=True)
