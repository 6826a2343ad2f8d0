"""Encoded slices -> outputs of every pass of a model, combined by the law of total variance:

    variance = mean of the variances that the passes predict    (noise of the data)
             + variance of the estimates between the passes     (uncertainty of the network)

A pass is one run of one network on all slices: of one member of the model, as trained or with
random dropout (MC dropout), on the slices as they are or mirrored.
"""

import logging
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from itertools import islice, product
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.special import expit
from torch import Tensor, nn

from aslkit.core.errors import InputError, UnavailableError
from aslkit.core.series_and_maps import FloatImage, MaskImage, ParameterMaps
from aslkit.core.threads import n_threads
from aslkit.nets.model_store import Model
from aslkit.nets.network import N_OUTPUTS, MapFunction, Network
from aslkit.predict.tiling import Tiling, run_tiled

logger = logging.getLogger(__name__)

UNMIRRORED: tuple[tuple[int, ...], ...] = ((),)
MIRRORED = ((), (2,), (3,), (2, 3))  # axes of (n, channels, x, y)
PIXELS_PER_RUN = {"cpu": 2**15, "cuda": 2**21}  # larger batches are not faster
BYTES_PER_PIXEL = 4096  # memory of a running network
LARGEST_LOG_SD = 300.0  # exp(2 * 300) is finite in float64


@dataclass(frozen=True)
class Passes:
    """How many passes of a model run, and on which patches.

    Attributes
    ----------
    members : int, optional
        Number of members of the model that run; None: all.
    n_mc_dropout : int
        Runs of every member with random dropout (MC dropout); 0: one run without dropout.
    is_mirrored : bool
        Whether to run also on the slices mirrored in x, in y and in both.
    tiling : Tiling
        How slices are cut into patches.
    batch : int, optional
        Number of patches that run together; None: as many as the free memory allows.
    """

    members: int | None = None
    n_mc_dropout: int = 0
    is_mirrored: bool = False
    tiling: Tiling = Tiling()  # noqa: RUF009  # frozen
    batch: int | None = None

    def check(self, model: Model) -> None:
        """Check that the model has enough members and, for MC dropout, a dropout layer.

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
        if self.n_mc_dropout and not any(_dropout_layers(member) for member in model.members):
            raise InputError(
                f"model {model.name}",
                "network",
                found="no dropout layer",
                expected="dropout, which --mc-dropout draws from",
                fix="leave --mc-dropout out, or give another --model",
            )

    def count(self, model: Model) -> int:
        """Return the number of passes."""
        n_members = len(model.members[: self.members])
        n_views = len(MIRRORED) if self.is_mirrored else 1
        return n_members * max(self.n_mc_dropout, 1) * n_views


@dataclass(frozen=True)
class PassSummary:
    """Means and variances of all passes, in the units of the network's outputs.

    Attributes
    ----------
    mean, data_variance, network_variance : array (n, 2, x, y) or (2, x, y, z)
        Of CBF and ATT: mean estimate, mean predicted variance, variance between passes.
    confidence : array (n, 2 or 0, x, y) or (2 or 0, x, y, z)
        Mean probability that CBF and ATT are close to the truth, if the networks state it.
    """

    mean: FloatImage
    data_variance: FloatImage
    network_variance: FloatImage
    confidence: FloatImage

    @property
    def sd(self) -> FloatImage:
        """Total standard deviation of CBF and ATT."""
        return np.sqrt(self.data_variance + self.network_variance)


# Runs all passes on a scan, given a function that encodes slice z and the mask (x, y, z).
RunSlices = Callable[[Callable[[int], FloatImage], MaskImage], PassSummary]


def run_passes(
    model: Model, slices: FloatImage, passes: Passes, device: torch.device
) -> PassSummary:
    """Run all passes of a model, which is on `device`, on encoded slices (n, channels, x, y)."""
    n = passes.count(model)
    mean, square, variance, confidence = (np.zeros(()) for _ in range(4))
    for outputs in _run_each(model, slices, passes, device):
        estimates, log_sds, logits = np.split(outputs, (2, N_OUTPUTS), axis=1)
        mean = mean + estimates / n
        square = square + estimates**2 / n
        variance = variance + np.exp(2 * np.minimum(log_sds, LARGEST_LOG_SD)) / n
        confidence = confidence + expit(logits) / n
    between = np.maximum(square - mean**2, 0) * (n > 1)
    largest = np.finfo(np.float32).max
    limited = (np.minimum(v, largest) for v in (mean, variance, between, confidence))
    return PassSummary(*(v.astype(np.float32) for v in limited))


def add_network_sds(
    maps: ParameterMaps,
    found: PassSummary,
    cbf_unit: FloatImage | float,
    att_unit: FloatImage | float,
) -> ParameterMaps:
    """Add the standard deviations between passes to the maps, in units of the outputs."""
    cbf_std, att_std = np.sqrt(found.network_variance)
    return replace(maps, cbf_std_network=cbf_unit * cbf_std, att_std_network=att_unit * att_std)


def _run_each(
    model: Model, slices: FloatImage, passes: Passes, device: torch.device
) -> Iterator[NDArray[np.float64]]:
    """Yield the outputs (n, 4 or 6, x, y) of each pass."""
    n = n_threads() if device.type == "cpu" else 1
    members, seeds = model.members[: passes.members], range(max(passes.n_mc_dropout, 1))
    for network, seed in product(members, seeds):
        dropout = _mc_dropout(network, seed if passes.n_mc_dropout else None)
        with dropout, _worker_threads(n) as pool:
            # dropout masks are drawn layer by layer, hence in one thread
            apply = map if passes.n_mc_dropout else _parallel_map(pool, n)
            for axes in MIRRORED if passes.is_mirrored else UNMIRRORED:
                view = np.flip(slices, axes)
                batch = passes.batch or _batch_size(view, passes.tiling, network, device)
                outputs = _run_tiles(network, view, passes.tiling, batch, device, apply)
                yield np.flip(outputs, axes).astype(np.float64)


def _run_tiles(
    network: Network,
    slices: FloatImage,
    tiling: Tiling,
    batch: int,
    device: torch.device,
    apply: MapFunction,
) -> FloatImage:
    """Run a network on the patches of slices; halve the batch if GPU memory is exhausted.

    A network across slices runs on the same patch of all slices at once.
    """

    def run(patches: FloatImage) -> FloatImage:
        inputs = torch.from_numpy(patches).to(device)
        with torch.inference_mode():
            if not network.reach:
                return network(inputs).cpu().numpy()
            outputs = [*network.forward_stack(inputs.split(1), apply)]
            return torch.cat(outputs).cpu().numpy()

    n, apply_run = (len(slices), map) if network.reach else (batch, apply)
    try:
        return run_tiled(run, slices, tiling, network.stride, n, apply_run)
    except torch.cuda.OutOfMemoryError as error:
        if network.reach or batch == 1:
            reason = "its memory does not hold one patch"
            fix = "Give --patch 64 or 128, or --device cpu."
            raise UnavailableError(f"device {device} is not enough: {reason}. {fix}") from error
    torch.cuda.empty_cache()
    logger.info("Memory of %s ended at %d patches: half of them at a time", device, batch)
    return _run_tiles(network, slices, tiling, batch // 2, device, apply)


@contextmanager
def _worker_threads(n: int) -> Iterator[ThreadPoolExecutor]:
    """Start threads with one core each: faster than all cores on one batch on a busy CPU.

    The number of threads that torch gives to later threads is restored at the end.
    """
    own = torch.get_num_threads()
    try:
        with ThreadPoolExecutor(n, initializer=torch.set_num_threads, initargs=(1,)) as pool:
            yield pool
    finally:
        torch.set_num_threads(own)


def _parallel_map(pool: ThreadPoolExecutor, n: int) -> MapFunction:
    """Return a `map` that runs `n` items at a time in the threads of a pool."""

    def run(function: Callable[..., Any], item: object) -> object:
        with torch.inference_mode():
            return function(item)

    def apply(function: Callable[..., Any], items: Iterable[Any]) -> Iterator[Any]:
        items = iter(items)
        while done := deque(pool.map(partial(run, function), islice(items, n))):
            while done:  # each result is freed as soon as it has been used
                yield done.popleft()

    return apply


def _batch_size(slices: FloatImage, tiling: Tiling, network: Network, device: torch.device) -> int:
    """Return the number of patches that run together, within half of the free GPU memory."""
    pixels = PIXELS_PER_RUN.get(device.type, PIXELS_PER_RUN["cpu"])
    if device.type == "cuda":
        pixels = min(pixels, torch.cuda.mem_get_info(device)[0] // 2 // BYTES_PER_PIXEL)
    sides = [tiling.side(size, network.stride) for size in slices.shape[2:]]
    return max(pixels // int(np.prod(sides)), 1)


@contextmanager
def _mc_dropout(network: nn.Module, seed: int | None) -> Iterator[None]:
    """Drop the same random features of a network in every call; none if `seed` is None."""
    generator = torch.Generator()
    masks: dict[nn.Module, Tensor] = {}

    def drop(layer: nn.Module, inputs: tuple[Tensor], _: Tensor) -> Tensor:
        x, p = inputs[0], float(layer.p)  # type: ignore[arg-type]
        if layer not in masks:
            is_kept = torch.rand((1, x.shape[1], 1, 1), generator=generator) >= p
            masks[layer] = (is_kept / (1 - p)).to(x)
        return x * masks[layer]

    hooks = []
    if seed is not None:
        generator.manual_seed(seed)
        hooks = [layer.register_forward_hook(drop) for layer in _dropout_layers(network)]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


def _dropout_layers(network: nn.Module) -> list[nn.Module]:
    return [layer for layer in network.modules() if isinstance(layer, nn.Dropout2d)]
