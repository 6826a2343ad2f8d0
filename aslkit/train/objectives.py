"""Configuration -> what a training run needs besides its network: batches, and their loss."""

from collections.abc import Callable
from dataclasses import replace
from functools import partial

import numpy as np
import torch
from torch import Tensor, nn

from aslkit.config.schema import AnyProtocolConfig, LossConfig, TrainingConfig
from aslkit.core.acquisition import Acquisition
from aslkit.core.backend import namespace
from aslkit.fit.curve_table import model_like
from aslkit.kinetics.model import KineticModel, kinetic_model
from aslkit.nets.encoding_registry import build_encoding
from aslkit.nets.raw_encoding import RawEncoding
from aslkit.simulate.fixed_protocol import draw_patches, draw_second_measurement
from aslkit.train.batches import Batch, Draw, draw_batch
from aslkit.train.losses import correction_loss, data_misfit, denoising_loss, estimate_loss

Loss = Callable[[Tensor, Batch], Tensor]


def build_draw(config: TrainingConfig, device: str | None = None) -> Draw:
    """A function from a random generator to a batch.

    Parameters
    ----------
    device : str, optional
        Where batches of one protocol are made; those of any protocol are fitted on the CPU.
    """
    if isinstance(config.data, AnyProtocolConfig):
        return partial(draw_batch, config.data)
    return partial(draw_raw_batch, config, device=device)


def build_loss(config: TrainingConfig) -> Loss:
    """A function from a network's outputs and their batch to the losses, (2, 2)."""
    encoding = build_encoding(config)
    if config.loss is None or not isinstance(encoding, RawEncoding):
        return _correction_loss
    has_confidence = getattr(config.network, "confidence_head", False)
    return partial(_raw_loss, config.loss, encoding, has_confidence)


def run_network(network: nn.Module, batch: Batch) -> Tensor:
    """What a network makes of a batch, with neighbouring slices where it has them."""
    stacks = [batch["stack"]] if "stack" in batch else []
    outputs: Tensor = network(batch["channels"], *stacks)
    return outputs


def pretraining_loss(outputs: Tensor, batch: Batch) -> Tensor:
    """The loss of pre-training: how far the denoised signal is from the batch's other one."""
    return denoising_loss(outputs, batch["again"], batch["channels"][:, -1:])


def draw_raw_batch(
    config: TrainingConfig, rng: np.random.Generator, device: str | None = None
) -> Batch:
    """`channels` (b, c, x, y), `truth` (b, 2, x, y), `signal` (b, n, x, y), `t1_blood` (b,).

    For pre-training also `again`, the signal with other noise.
    """
    encoding = build_encoding(config)
    assert isinstance(encoding, RawEncoding) and not isinstance(config.data, AnyProtocolConfig)
    patches = draw_patches(config.data, rng, device)
    arrays = {
        "channels": encoding.encode(patches.signal, patches.mask, patches.t1_blood_s),
        "truth": namespace(patches.cbf).stack([patches.cbf, patches.att], 1),
        "signal": patches.signal,
        "t1_blood": patches.t1_blood_s,
    }
    if config.pretraining_fraction is not None:
        arrays["again"] = draw_second_measurement(patches, config.data, rng)
    return {name: torch.as_tensor(values) for name, values in arrays.items()}


def _correction_loss(outputs: Tensor, batch: Batch) -> Tensor:
    mask = batch["channels"][:, -1:]
    return correction_loss(outputs, batch["errors"], batch["truth"], batch["base"], mask)


def _raw_loss(
    config: LossConfig, encoding: RawEncoding, has_confidence: bool, outputs: Tensor, batch: Batch
) -> Tensor:
    mask = batch["channels"][:, -1:]
    losses = estimate_loss(outputs, batch["truth"], mask, encoding, config, has_confidence)
    if config.data_consistency_weight:
        model = _nominal_model(encoding, batch["t1_blood"])
        misfit = data_misfit(outputs, batch["signal"], mask, encoding, model)
        losses = losses + losses.new_tensor([[config.data_consistency_weight / 2], [0]]) * misfit
    return losses


def _nominal_model(encoding: RawEncoding, t1_blood_s: Tensor) -> KineticModel:
    """The model that estimators know: nominal efficiencies, T1 of blood of every subject."""
    nominal = kinetic_model(Acquisition(encoding.timings), 1, np.float32)
    return replace(model_like(nominal, t1_blood_s), t1_blood=t1_blood_s[:, None, None])
