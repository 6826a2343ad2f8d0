"""Environment variables of torchrun -> processes that train one network together.

Without torchrun there is one process, and these functions return their arguments.
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
    """Join the processes of torchrun, and leave the group at the end.

    Yields
    ------
    str
        The device of this process; each process has a GPU of its own.

    Raises
    ------
    InputError
        If several processes cannot use the device together.
    UnavailableError
        If the device is not available.
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
    """Return the rank of this process; the process of rank 0 writes and shows progress."""
    return distributed.get_rank() if distributed.is_initialized() else 0


def n_processes() -> int:
    """Return the number of processes that train together."""
    return distributed.get_world_size() if distributed.is_initialized() else 1


def n_data_workers() -> int:
    """Return the number of background processes that draw the batches of this process."""
    return max(1, (os.cpu_count() or 1) // int(os.environ.get("LOCAL_WORLD_SIZE", "1")))


def share_gradients(network: Network) -> Network:
    """Return a network whose gradients are averaged over the processes."""
    if n_processes() == 1:
        return network
    return cast(Network, DistributedDataParallel(network))


def all_mean(*values: float) -> list[float]:
    """Return means over the processes; each process waits for all others."""
    if n_processes() == 1:
        return list(values)
    sums = _tensor(*values)
    distributed.all_reduce(sums)
    return (sums / n_processes()).tolist()


def from_first(*values: float) -> list[float]:
    """Return the values of the first process; the others wait for it."""
    if n_processes() == 1:
        return list(values)
    sent = _tensor(*values)
    distributed.broadcast(sent, src=0)
    return sent.tolist()


def _tensor(*values: float) -> Tensor:
    """Return numbers as a tensor on a device from which the processes can exchange it."""
    device = "cuda" if distributed.get_backend() == "nccl" else "cpu"
    return torch.tensor(values, dtype=torch.float64, device=device)


_BACKENDS = {"cpu": "gloo", "cuda": "nccl"}
