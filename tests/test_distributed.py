"""Two processes under torchrun train one network, with other batches each."""

import json
import subprocess
import sys

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file

from aslkit.config import load_config
from aslkit.core.errors import InputError
from aslkit.nets.model_store import load_model
from aslkit.train.batches import STREAM_SEED
from aslkit.train.checkpoints import CHECKPOINT
from aslkit.train.distributed import process_group
from aslkit.train.loop import train

pytestmark = pytest.mark.slow

TORCHRUN = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
SIZES = (
    "network.widths=[8,8]",
    "data.patch_size=16",
    "data.protocols_per_step=1",
    "data.patches_per_protocol=2",
)
LOOKS = "validation={interval_steps: 4, batches: 1, patience: 50}"
CHANGES = (*SIZES, LOOKS, "steps=12", "warmup_steps=4", "seed=3", "loss_weighting=learned")
SAME_LOSS = 1e-3  # relative; 1.4e-5 here: the sums of bfloat16 gradients have another order
TWO_RUNS = """
import os, signal, sys
from contextlib import nullcontext
from pathlib import Path
import torch
from aslkit.train import distributed
from aslkit.cli.train import main
from aslkit.config import load_config
from aslkit.train.distributed import process_group, rank
from aslkit.train.loop import RunOptions, train

whole, stopped, *changes = sys.argv[1:]
line = ["--config", "small", "--device", "cpu", "--out", whole]
line += [part for change in changes for part in ("--set", change)]

def stop_second(step, loss):
    if rank() == 1 and step == 3:
        os.kill(os.getpid(), signal.SIGTERM)

with process_group("cpu") as device:
    asked = []
    distributed.process_group = lambda name: asked.append(name) or nullcontext(device)  # once
    main(line, standalone_mode=False)
    assert asked == ["cpu"]
    config, out = load_config("small", tuple(changes)), Path(stopped)
    assert not train(config, out, RunOptions(device), progress=stop_second)
    torch.distributed.barrier()  # until the first process has written its checkpoint
    steps = []
    torch.manual_seed(rank())  # a resumed run depends on its checkpoint only
    assert train(config, out, RunOptions(device, resume=True), lambda step, _: steps.append(step))
    print(f"rank {rank()} stopped before step {steps[0]}")
"""


def numbers(out):
    with safe_open(out / CHECKPOINT, "pt") as opened:
        return json.loads(opened.metadata()["numbers"])


@pytest.fixture(scope="module")
def together(tmp_path_factory):
    """Return the folder with both runs of two processes, and their output."""
    folder = tmp_path_factory.mktemp("together")
    script = folder / "two_runs.py"
    script.write_text(TWO_RUNS)
    line = [*TORCHRUN, str(script), str(folder / "whole"), str(folder / "stopped"), *CHANGES]
    done = subprocess.run(line, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    return folder, done.stdout


def test_two_processes_learn_like_one_process_with_the_batches_of_both(
    together, tmp_path, monkeypatch
):
    def joint(draw, seed, *_):
        for k in range(12):
            pair = [draw(np.random.default_rng([STREAM_SEED, seed, 2 * k + i])) for i in (0, 1)]
            yield {key: torch.cat([batch[key] for batch in pair]) for key in pair[0]}

    monkeypatch.setattr("aslkit.train.loop.stream_batches", joint)
    train(load_config("small", CHANGES), tmp_path)
    expected, found = numbers(tmp_path)["losses"], numbers(together[0] / "whole")["losses"]
    assert len(found) == 12 and found == pytest.approx(expected, rel=SAME_LOSS)
    assert (
        np.ptp(expected) > 200 * SAME_LOSS * expected[0]
    )  # so that losses of other batches would fail
    outs = (tmp_path, together[0] / "whole")
    bests = [numbers(out)["best"] for out in outs]
    assert bests[1] == pytest.approx(bests[0], rel=SAME_LOSS)
    scales = [load_file(out / CHECKPOINT)["balance.log_scales"] for out in outs]
    torch.testing.assert_close(*scales, rtol=SAME_LOSS, atol=0)


def test_only_the_first_process_writes_and_the_card_counts_the_patches_of_all(together):
    folder, printed = together
    assert printed.count("written:") == 1
    assert load_model(str(folder / "whole")).card["patches"] == 12 * 2 * 2


def test_sigterm_to_one_process_stops_both_after_the_same_step_and_the_run_resumes(together):
    folder, printed = together
    stops = [line for line in printed.splitlines() if line.startswith("rank")]
    assert sorted(stops) == [f"rank {i} stopped before step 5" for i in (0, 1)]
    whole, resumed = (load_file(folder / run / CHECKPOINT) for run in ("whole", "stopped"))
    assert [name for name in whole if not torch.equal(whole[name], resumed[name])] == []


def test_processes_that_cannot_use_one_device_together_are_refused(monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(InputError, match="--device: found cpu:0, expected cpu or cuda under"):
        process_group("cpu:0").__enter__()
