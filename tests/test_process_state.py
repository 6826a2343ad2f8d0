"""Training and prediction leave the process as they found it, in any thread."""

import os
import random
import signal
import threading

import numpy as np
import pytest
import torch

from aslkit.config import load_config
from aslkit.nets.model_store import load_model
from aslkit.predict.passes import Passes, run_passes
from aslkit.train.checkpoints import CHECKPOINT
from aslkit.train.loop import train

pytestmark = pytest.mark.usefixtures("own_batches")
TINY = (
    "network.widths=[8,8]",
    "data.patch_size=16",
    "data.protocols_per_step=1",
    "data.patches_per_protocol=2",
    "steps=2",
)
OF_IMPORTS = ("KMP_", "TORCHINDUCTOR_")  # variables that scikit-learn and torch set when imported


def in_thread(function):
    """Run a function in a new thread and return its result."""
    results = []
    thread = threading.Thread(target=lambda: results.append(function()))
    thread.start()
    thread.join()
    assert results, "the thread ended with an error"
    return results[0]


def state():
    """Global settings of torch, numpy, random and signals that training could change."""
    return {
        "threads": torch.get_num_threads(),
        "threads of new threads": in_thread(torch.get_num_threads),
        "deterministic": torch.are_deterministic_algorithms_enabled(),
        "benchmark": torch.backends.cudnn.benchmark,
        "default dtype": torch.get_default_dtype(),
        "gradients": torch.is_grad_enabled(),
        "autocast": torch.is_autocast_enabled("cpu"),
        "torch random numbers": torch.get_rng_state().tolist(),
        "numpy random numbers": [str(part) for part in np.random.get_state()],  # noqa: NPY002
        "random numbers": random.getstate(),
        "sigterm": signal.getsignal(signal.SIGTERM),
        "sigint": signal.getsignal(signal.SIGINT),
        "working folder": os.getcwd(),
        "environment": {k: v for k, v in os.environ.items() if not k.startswith(OF_IMPORTS)},
    }


@pytest.mark.parametrize("call", [lambda f: f(), in_thread], ids=["main thread", "other thread"])
def test_training_leaves_the_process_as_it_was(tmp_path, call):
    before = state()
    assert call(lambda: train(load_config("small", TINY), tmp_path))
    assert state() == before
    assert (tmp_path / CHECKPOINT).is_file()


def test_training_in_a_thread_gives_the_same_weights(tmp_path):
    config = load_config("small", TINY)
    for name, call in (("main", lambda f: f()), ("thread", in_thread)):
        torch.manual_seed(len(name))
        call(lambda name=name: train(config, tmp_path / name))
    one, other = ((tmp_path / n / "weights.safetensors").read_bytes() for n in ("main", "thread"))
    assert one == other


def test_sigterm_stops_training_and_the_previous_handler_is_back(tmp_path):
    def stop(step, numbers):
        os.kill(os.getpid(), signal.SIGTERM)

    received = []
    previous = signal.signal(signal.SIGTERM, lambda *_: received.append(True))
    try:
        assert not train(load_config("small", TINY), tmp_path, progress=stop)
        assert not received
        os.kill(os.getpid(), signal.SIGTERM)
        assert received == [True]
    finally:
        signal.signal(signal.SIGTERM, previous)


def test_prediction_leaves_the_process_as_it_was():
    model, before = load_model("voxelwise"), state()
    slices = np.zeros((2, 35, 16, 16), dtype=np.float32)
    slices[:, -1] = 1
    run_passes(model, slices, Passes(), torch.device("cpu"))
    assert state() == before


@pytest.mark.filterwarnings("error")
def test_absurd_standard_deviations_stay_finite_without_a_warning():
    class Absurd(torch.nn.Module):
        stride, reach, n_outputs = 1, 0, 4

        def forward(self, x):
            return torch.full((len(x), 4, *x.shape[2:]), 1e4)

    model = load_model("voxelwise")
    absurd = type(model)("absurd", Absurd(), model.card, "")
    found = run_passes(absurd, np.ones((1, 35, 8, 8), np.float32), Passes(), torch.device("cpu"))
    assert np.isfinite(found.sd).all() and found.sd.min() > 1e18
