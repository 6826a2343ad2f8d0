"""Measure training: patches per second of a configuration and of its parts.

Usage: python bin/dev/benchmark_train.py [CONFIG ...] [--device cuda] [--steps 60] [--set K=V ...]
`whole` is asl_train with simulation; `drawing` and `network` are measured separately.
"""

import argparse
import os
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import torch

from aslkit.config import TrainingConfig, load_config
from aslkit.nets.device import select_device
from aslkit.nets.encoding_registry import build_encoding
from aslkit.nets.registry import build_network
from aslkit.report.page import machine
from aslkit.train.batches import STREAM_SEED, Batch
from aslkit.train.loop import RunOptions, train
from aslkit.train.registry import build_recipe

WARM_SHARE = 0.3  # share of the steps that are not timed
N_BATCHES = 4


def main() -> None:
    """Measure the requested configurations."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("configs", nargs="*", default=["exp09", "small"], metavar="CONFIG")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--set", dest="changes", action="append", default=[], metavar="KEY=VALUE")
    options = parser.parse_args()
    device = str(select_device(options.device))
    print(f"machine: {machine()}; device {device}, {torch.get_num_threads()} threads")
    for name in options.configs:
        config = load_config(name, (*options.changes, f"steps={options.steps}", "members=1"))
        batches = drawn(config, device)
        found = {
            "whole": whole_rate(config, device),
            "drawing, one process": drawing_rate(config, device),
            "network and loss": network_rate(config, batches, device),
        }
        for part, rate in found.items():
            print(f"{name}: {part}: {rate:.0f} patches/s")


def whole_rate(config: TrainingConfig, device: str) -> float:
    """Return the patches/s of the training loop after the first steps."""
    times = {}

    def note(step: int, _: Mapping[str, float]) -> None:
        times[step] = time.perf_counter()

    with tempfile.TemporaryDirectory() as folder:
        train(config, Path(folder), RunOptions(device), note)
    first = max(round(WARM_SHARE * config.steps), 1)
    return (
        (config.steps - first)
        * config.data.patches_per_step
        / (times[config.steps] - times[first])
    )


def drawing_rate(config: TrainingConfig, device: str) -> float:
    """Return the patches/s of simulation and encoding, on the device of the training loop."""
    rate = config.data.patches_per_step / seconds(lambda: drawn(config, device), device)
    return N_BATCHES * rate


def network_rate(config: TrainingConfig, batches: list[Batch], device: str) -> float:
    """Return the patches/s of forward pass, loss and backward pass on prepared batches."""
    network = build_network(config.network, build_encoding(config)).to(device)
    network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    loss_function = build_recipe(config).losses

    def step() -> None:
        for batch in batches:
            images = batch["channels"].contiguous(memory_format=torch.channels_last)
            with torch.autocast(torch.device(device).type, dtype=torch.bfloat16):
                outputs = network(images)
            loss_function(outputs, batch).sum().backward()

    return N_BATCHES * config.data.patches_per_step / seconds(step, device)


def drawn(config: TrainingConfig, device: str) -> list[Batch]:
    """Draw batches of the stream on the device."""
    draw = build_recipe(config, device).draw
    rngs = (np.random.default_rng([STREAM_SEED, 1, k]) for k in range(N_BATCHES))
    return [{k: v.to(device) for k, v in draw(rng).items()} for rng in rngs]


def seconds(run: Callable[[], object], device: str, n: int = 5) -> float:
    """Return the mean wall time of n runs [s], after one warm-up run."""
    run()
    synchronise(device)
    start = time.perf_counter()
    for _ in range(n):
        run()
    synchronise(device)
    return (time.perf_counter() - start) / n


def synchronise(device: str) -> None:
    """Wait until the GPU has finished."""
    if device.startswith("cuda"):
        torch.cuda.synchronize()


if __name__ == "__main__":
    os.environ.setdefault("OMP_NUM_THREADS", str(os.cpu_count()))
    main()
