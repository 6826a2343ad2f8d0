"""The environment that torchrun sets -> processes (ranks) that train one network together.

Without torchrun there is one rank, and nothing here does anything.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import cast

import torch
from torch import Tensor, distributed
from torch.nn.parallel import DistributedDataParallel

from aslkit.core.errors import InputError
from aslkit.nets.device import select_device
from aslkit.nets.network import Network


@contextmanager
def process_group(device: str) -> Iterator[str]:
    """Join the ranks that torchrun has started, and part from them at the end.

    Yields
    ------
    str
        The device of this rank: of several GPUs, each rank has its own.

    Raises
    ------
    InputError
        When several ranks cannot share the device.
    UnavailableError
        When it is not there.
    """
    chosen = select_device(device)
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        yield str(chosen)
        return
    if chosen.type not in _BACKENDS or chosen.index is not None:
        raise InputError(
            "--device",
            "",
            found=str(chosen),
            expected="cpu or cuda under torchrun, which gives every process a GPU of its own",
            fix="give --device cpu or cuda, and choose GPUs by CUDA_VISIBLE_DEVICES",
        )
    if chosen.type == "cuda":
        chosen = select_device(f"cuda:{os.environ['LOCAL_RANK']}")
        torch.cuda.set_device(chosen)
    distributed.init_process_group(_BACKENDS[chosen.type])
    try:
        yield str(chosen)
    finally:
        distributed.destroy_process_group()


def rank() -> int:
    """Number of this process, 0 of the one that writes and shows progress."""
    return distributed.get_rank() if distributed.is_initialized() else 0


def n_processes() -> int:
    """How many processes train together."""
    return distributed.get_world_size() if distributed.is_initialized() else 1


def n_data_workers() -> int:
    """How many background processes this rank may have for its batches."""
    return max(1, (os.cpu_count() or 1) // int(os.environ.get("LOCAL_WORLD_SIZE", "1")))


def share_gradients(network: Network) -> Network:
    """A network whose gradients are means over the ranks."""
    if n_processes() == 1:
        return network
    return cast(Network, DistributedDataParallel(network))


def all_mean(*values: float) -> list[float]:
    """Means over the ranks, the same on each; the ranks wait here for one another."""
    if n_processes() == 1:
        return list(values)
    sums = _tensor(*values)
    distributed.all_reduce(sums)
    return (sums / n_processes()).tolist()


def from_first(*values: float) -> list[float]:
    """The values that the first rank has; the others wait for them."""
    if n_processes() == 1:
        return list(values)
    sent = _tensor(*values)
    distributed.broadcast(sent, src=0)
    return sent.tolist()


def _tensor(*values: float) -> Tensor:
    """Numbers where the ranks can exchange them."""
    device = "cuda" if distributed.get_backend() == "nccl" else "cpu"
    return torch.tensor(values, dtype=torch.float64, device=device)


_BACKENDS = {"cpu": "gloo", "cuda": "nccl"}
