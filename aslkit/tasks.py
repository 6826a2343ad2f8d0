"""Configuration -> what a training run needs besides its network: batches, and their loss."""

from collections.abc import Callable
from dataclasses import replace
from functools import partial

import numpy as np
import torch
from torch import Tensor, nn

from aslkit.acquisition import Acquisition
from aslkit.cells import model_like
from aslkit.config.schema import DataConfig, LossConfig, TrainingConfig
from aslkit.datasets import Batch, Draw, draw_batch
from aslkit.encodings import build_encoding
from aslkit.losses import correction_loss, data_misfit, estimate_loss
from aslkit.one_protocol import draw_patches
from aslkit.physics import kinetic_model, namespace
from aslkit.raw_encoding import RawEncoding

Loss = Callable[[Tensor, Batch], Tensor]


def batches_of(config: TrainingConfig, device: str | None = None) -> Draw:
    """A function from a random generator to a batch.

    Parameters
    ----------
    device : str, optional
        Where batches of one protocol are made; those of any protocol are fitted on the CPU.
    """
    if isinstance(config.data, DataConfig):
        return partial(draw_batch, config.data)
    return partial(draw_raw_batch, config, device=device)


def loss_of(config: TrainingConfig) -> Loss:
    """A function from a network's outputs and their batch to the loss."""
    encoding = build_encoding(config)
    if config.loss is None or not isinstance(encoding, RawEncoding):
        return _correction_loss
    return partial(_raw_loss, config.loss, encoding)


def outputs_of(network: nn.Module, batch: Batch) -> Tensor:
    """What a network makes of a batch, with neighbouring slices where it has them."""
    stacks = [batch["stack"]] if "stack" in batch else []
    outputs: Tensor = network(batch["channels"], *stacks)
    return outputs


def draw_raw_batch(
    config: TrainingConfig, rng: np.random.Generator, device: str | None = None
) -> Batch:
    """`channels` (b, c, x, y), `truth` (b, 2, x, y), `signal` (b, n, x, y), `t1_blood` (b,)."""
    encoding = build_encoding(config)
    assert isinstance(encoding, RawEncoding) and not isinstance(config.data, DataConfig)
    patches = draw_patches(config.data, rng, device)
    arrays = {
        "channels": encoding.encode(patches.signal, patches.mask, patches.t1_blood_s),
        "truth": namespace(patches.cbf).stack([patches.cbf, patches.att], 1),
        "signal": patches.signal,
        "t1_blood": patches.t1_blood_s,
    }
    return {name: torch.as_tensor(values) for name, values in arrays.items()}


def _correction_loss(outputs: Tensor, batch: Batch) -> Tensor:
    mask = batch["channels"][:, -1:]
    return correction_loss(outputs, batch["errors"], batch["truth"], batch["base"], mask)


def _raw_loss(config: LossConfig, encoding: RawEncoding, outputs: Tensor, batch: Batch) -> Tensor:
    mask = batch["channels"][:, -1:]
    loss = estimate_loss(outputs, batch["truth"], mask, encoding, config)
    if config.dc_weight:
        model = _told_model(encoding, batch["t1_blood"])
        misfit = data_misfit(outputs, batch["signal"], mask, encoding, model)
        loss = loss + config.dc_weight * misfit
    return loss


def _told_model(encoding: RawEncoding, t1_blood_s):  # type: ignore[no-untyped-def]
    """The model that estimators know: nominal efficiencies, T1 of blood of every subject."""
    nominal = kinetic_model(Acquisition(encoding.timings), 1, np.float32)
    return replace(model_like(nominal, t1_blood_s), t1_blood=t1_blood_s[:, None, None])
