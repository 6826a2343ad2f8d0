"""Training that is killed and resumed gives the weights of an uninterrupted run."""

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

from aslkit.config import load_config
from aslkit.core.errors import InputError
from aslkit.train.checkpoints import CHECKPOINT
from aslkit.train.loop import RunOptions, train

pytestmark = pytest.mark.slow

N_STEPS = 12
COMMON = (f"steps={N_STEPS}", "seed=5", "data.patch_size=16", "checkpoint_minutes=1e-9")
LOOKS = "validation={interval_steps: 2, batches: 1, patience: 50}"
RUNS = {
    "amplitude_aware": (
        "production_v2",
        (*COMMON, LOOKS, "members=1", "network.widths=[8,16]", "data.patches_per_step=2"),
    ),
    "physics_residual": (
        "small",
        (
            *COMMON,
            "network.widths=[8,8]",
            "data.protocols_per_step=1",
            "data.patches_per_protocol=2",
        ),
    ),
}


def command(kind, out):
    name, changes = RUNS[kind]
    parts = [part for change in changes for part in ("--set", change)]
    line = ["-m", "aslkit.cli.train", "--config", name, "--device", "cpu", "--out", str(out)]
    return [sys.executable, *line, *parts]


def numbers(out):
    """Return the numbers in the checkpoint of a folder."""
    with safe_open(out / CHECKPOINT, "pt") as opened:
        return json.loads(opened.metadata()["numbers"])


def steps_done(out):
    """Return the number of steps in the checkpoint of a folder."""
    return numbers(out)["step"] if (out / CHECKPOINT).is_file() else 0


def wait_for_steps(process, out, n):
    """Wait until the checkpoint of a folder has `n` steps, at most 300 s."""
    end = time.monotonic() + 300
    while steps_done(out) < n:
        if time.monotonic() > end:
            process.kill()
            pytest.fail("the run did not reach the step in 300 s")
        time.sleep(0.002)


def assert_resumes(kind, out, uninterrupted):
    """Check that a resumed run ends with the weights of an uninterrupted run."""
    name, changes = RUNS[kind]
    config = load_config(name, changes)
    assert kind == config.network.kind and getattr(config.network, "dropout", 0.1) == 0.1
    assert steps_done(out) < N_STEPS
    train(config, uninterrupted)
    train(config, out, RunOptions(resume=True))
    first, second = (load_file(run / CHECKPOINT) for run in (uninterrupted, out))
    assert {n.partition(".")[0] for n in first} >= {"network", "average", "optimizer"}
    assert [n for n in first if not torch.equal(first[n], second[n])] == []
    weights = [(run / "weights.safetensors").read_bytes() for run in (uninterrupted, out)]
    assert weights[0] == weights[1]
    curves = [numbers(run)["losses"] for run in (uninterrupted, out)]
    assert curves[0] == curves[1] and len(curves[0]) == N_STEPS


def test_a_killed_run_can_be_resumed(tmp_path):
    with subprocess.Popen(command("amplitude_aware", tmp_path / "killed")) as process:
        wait_for_steps(process, tmp_path / "killed", 3)
        process.kill()
    assert process.returncode == -signal.SIGKILL
    assert_resumes("amplitude_aware", tmp_path / "killed", tmp_path / "uninterrupted")


def test_a_run_whose_process_group_gets_sigterm_can_be_resumed(tmp_path):
    out = tmp_path / "stopped"
    line = command("physics_residual", out)
    with subprocess.Popen(line, start_new_session=True, stderr=subprocess.PIPE) as process:
        wait_for_steps(process, out, 2)
        os.killpg(process.pid, signal.SIGTERM)
        errors = process.stderr.read().decode()
    assert process.returncode == 0 and f"Stopped after step {steps_done(out)}," in errors, errors
    assert_resumes("physics_residual", out, tmp_path / "uninterrupted")


def test_metrics_after_the_checkpoint_are_replaced(tmp_path):
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
        train(load_config(name, changes), tmp_path, RunOptions(resume=True))
