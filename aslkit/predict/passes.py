"""Encoded slices -> corrections by every pass of a model, combined by the law of total variance:

    variance = mean of the variances that the passes predict    (the data)
             + variance of the passes' corrections              (the network)

A pass is one network (a member of the model, as trained, or with random dropout) that sees the
slices once (as they are, or mirrored).
"""

import logging
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from itertools import islice, product
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.special import expit
from torch import Tensor, nn

from aslkit.core.errors import InputError, UnavailableError
from aslkit.core.series_and_maps import FloatImage
from aslkit.core.threads import n_threads
from aslkit.nets.model_store import Model
from aslkit.nets.residual_unet import N_OUTPUTS, MapFunction, Network
from aslkit.predict.tiling import Tiling, run_tiled

logger = logging.getLogger(__name__)

AS_THEY_ARE: tuple[tuple[int, ...], ...] = ((),)
MIRRORED = ((), (2,), (3,), (2, 3))  # axes of (n, channels, x, y)
PIXELS_PER_RUN = {"cpu": 2**15, "cuda": 2**21}  # more is no faster
BYTES_PER_PIXEL = 4096  # of a network at work


@dataclass(frozen=True)
class Passes:
    """How often, and on what, a model runs.

    Attributes
    ----------
    members : int, optional
        The first so many members of the model; None takes all.
    n_mc_dropout : int
        Runs of every member with random dropout (MC dropout); 0: one run without dropout.
    is_mirrored : bool
        Whether the slices are seen mirrored in x, in y and in both, too.
    tiling : Tiling
        How they are cut into patches.
    batch : int, optional
        Patches at a time; None takes what the free memory of the device allows.
    """

    members: int | None = None
    n_mc_dropout: int = 0
    is_mirrored: bool = False
    tiling: Tiling = Tiling()  # noqa: RUF009  # frozen
    batch: int | None = None

    def check(self, model: Model) -> None:
        """Refuse what the model cannot do.

        Raises
        ------
        InputError
        """
        n = len(model.members)
        if self.members is not None and self.members > n:
            raise InputError(
                f"model {model.name}",
                "members",
                found=f"{n}",
                expected=f"at least {self.members}",
                fix=f"give --members {n} or less, or another --model",
            )
        if self.n_mc_dropout and not any(_dropouts(member) for member in model.members):
            raise InputError(
                f"model {model.name}",
                "network",
                found="no dropout layer",
                expected="dropout, which --mc-dropout draws from",
                fix="leave --mc-dropout out, or give another --model",
            )

    def count(self, model: Model) -> int:
        """Number of passes."""
        n_members = len(model.members[: self.members])
        return n_members * max(self.n_mc_dropout, 1) * (len(MIRRORED) if self.is_mirrored else 1)


@dataclass(frozen=True)
class PassSummary:
    """What all passes say, in least-squares standard errors; CBF and ATT, (n, 2, x, y) each.

    `confidence`, the mean probability that the estimates are close, is (n, 0, x, y) where the
    networks state none.
    """

    mean: FloatImage
    data_variance: FloatImage
    network_variance: FloatImage
    confidence: FloatImage


def run_passes(
    model: Model, slices: FloatImage, passes: Passes, device: torch.device
) -> PassSummary:
    """Run all passes of a model on its device on encoded slices (n, channels, x, y)."""
    n = passes.count(model)
    mean, square, variance, confidence = (np.zeros(()) for _ in range(4))
    for outputs in _outputs(model, slices, passes, device):
        estimates, log_sds, logits = np.split(outputs, (2, N_OUTPUTS), axis=1)
        mean = mean + estimates / n
        square = square + estimates**2 / n
        variance = variance + np.exp(2 * log_sds) / n
        confidence = confidence + expit(logits) / n
    spread = np.maximum(square - mean**2, 0) * (n > 1)
    return PassSummary(*(v.astype(np.float32) for v in (mean, variance, spread, confidence)))


def _outputs(
    model: Model, slices: FloatImage, passes: Passes, device: torch.device
) -> Iterator[NDArray[np.float64]]:
    """What each pass returns, (n, 4 or 6, x, y)."""
    n = n_threads() if device.type == "cpu" else 1
    for network, seed in product(
        model.members[: passes.members], range(max(passes.n_mc_dropout, 1))
    ):
        dropout = _mc_dropout(network, seed if passes.n_mc_dropout else None)
        with dropout, _workers(n) as pool:
            each = (
                map if passes.n_mc_dropout else _at_once(pool, n)
            )  # masks are drawn layer by layer
            for axes in MIRRORED if passes.is_mirrored else AS_THEY_ARE:
                seen = np.flip(slices, axes)
                batch = passes.batch or _batch(seen, passes.tiling, network, device)
                found = _tiled(network, seen, passes.tiling, batch, device, each)
                yield np.flip(found, axes).astype(np.float64)


def _tiled(
    network: Network,
    slices: FloatImage,
    tiling: Tiling,
    batch: int,
    device: torch.device,
    each: MapFunction,
) -> FloatImage:
    """What the network makes of the slices; half as many patches at a time if memory ends.

    A network that sees neighbouring slices goes through all of them, place by place.
    """

    def run(patches: FloatImage) -> FloatImage:
        there = torch.from_numpy(patches).to(device)
        with torch.inference_mode():
            outputs = (
                network.forward_stack(there.split(1), each) if network.reach else [network(there)]
            )
            return torch.cat([*outputs]).cpu().numpy()

    n, apply = (len(slices), map) if network.reach else (batch, each)
    try:
        return run_tiled(run, slices, tiling, network.stride, n, apply)
    except torch.cuda.OutOfMemoryError as error:
        if network.reach or batch == 1:
            reason = "its memory does not hold one patch"
            fix = "Give --patch 64 or 128, or --device cpu."
            raise UnavailableError(f"device {device} is not enough: {reason}. {fix}") from error
    torch.cuda.empty_cache()
    logger.info("Memory of %s ended at %d patches: half of them at a time", device, batch)
    return _tiled(network, slices, tiling, batch // 2, device, each)


def _workers(n: int) -> ThreadPoolExecutor:
    """Threads that run a batch each: on a busy CPU far faster than all cores on one batch."""
    return ThreadPoolExecutor(n, initializer=torch.set_num_threads, initargs=(1,))


def _at_once(pool: ThreadPoolExecutor, n: int) -> MapFunction:
    """`map` by the threads of a pool, `n` items at a time."""

    def run(function: Callable[..., Any], item: object) -> object:
        with torch.inference_mode():
            return function(item)

    def each(function: Callable[..., Any], items: Iterable[Any]) -> Iterator[Any]:
        items = iter(items)
        while done := deque(pool.map(partial(run, function), islice(items, n))):
            while done:  # nothing is held for longer than the next one needs it
                yield done.popleft()

    return each


def _batch(slices: FloatImage, tiling: Tiling, network: Network, device: torch.device) -> int:
    """Patches that run at a time: as many as pay, and fit into half of the free memory."""
    pixels = PIXELS_PER_RUN.get(device.type, PIXELS_PER_RUN["cpu"])
    if device.type == "cuda":
        pixels = min(pixels, torch.cuda.mem_get_info(device)[0] // 2 // BYTES_PER_PIXEL)
    sides = [tiling.side(size, network.stride) for size in slices.shape[2:]]
    return max(pixels // int(np.prod(sides)), 1)


@contextmanager
def _mc_dropout(network: nn.Module, seed: int | None) -> Iterator[None]:
    """The network without the features that one draw of its dropout layers takes away."""
    generator = torch.Generator()
    masks: dict[nn.Module, Tensor] = {}

    def drop(layer: nn.Module, inputs: tuple[Tensor], _: Tensor) -> Tensor:
        x, p = inputs[0], float(layer.p)  # type: ignore[arg-type]
        if layer not in masks:
            kept = torch.rand((1, x.shape[1], 1, 1), generator=generator) >= p
            masks[layer] = (kept / (1 - p)).to(x)
        return x * masks[layer]

    hooks = []
    if seed is not None:
        generator.manual_seed(seed)
        hooks = [layer.register_forward_hook(drop) for layer in _dropouts(network)]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


def _dropouts(network: nn.Module) -> list[nn.Module]:
    return [layer for layer in network.modules() if isinstance(layer, nn.Dropout2d)]
