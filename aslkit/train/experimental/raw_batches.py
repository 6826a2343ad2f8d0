"""Configuration of one protocol -> batches of raw curves, and their losses."""

from collections.abc import Callable
from dataclasses import replace
from functools import partial

import numpy as np
import torch
from torch import Tensor

from aslkit.config.schema import AnyProtocolConfig, LossConfig, TrainingConfig
from aslkit.core.acquisition import Acquisition
from aslkit.core.backend import namespace
from aslkit.fit.curve_table import model_like
from aslkit.kinetics.model import KineticModel, kinetic_model
from aslkit.nets.encoding_registry import build_encoding
from aslkit.nets.experimental.raw_encoding import RawEncoding
from aslkit.simulate.fixed_protocol import draw_patches, draw_second_measurement
from aslkit.train.batches import Batch
from aslkit.train.experimental.raw_loss import data_misfit, denoising_loss, estimate_loss


def draw_raw_batch(
    config: TrainingConfig, rng: np.random.Generator, device: str | None = None
) -> Batch:
    """Draw simulated slices of one protocol.

    Parameters
    ----------
    device : str, optional
        Device on which the scans are simulated.

    Returns
    -------
    dict
        `channels` (b, c, x, y), `truth` (b, 2, x, y), `signal` (b, n, x, y), `t1_blood` (b,) and,
        for pre-training, `again`: the signal with other noise.
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


def build_raw_losses(config: TrainingConfig) -> Callable[[Tensor, Batch], Tensor]:
    """Return a function from outputs and batch to the losses (2, 2) of a raw encoding."""
    encoding = build_encoding(config)
    assert isinstance(encoding, RawEncoding) and config.loss is not None
    has_confidence = getattr(config.network, "confidence_head", False)
    return partial(_raw_losses, config.loss, encoding, has_confidence)


def pretraining_loss(outputs: Tensor, batch: Batch) -> Tensor:
    """Return the mean squared distance of the denoised signal from the second noisy one."""
    return denoising_loss(outputs, batch["again"], batch["channels"][:, -1:])


def _raw_losses(
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
    """Return the kinetic model with nominal efficiencies and each subject's T1 of blood (b,)."""
    nominal = kinetic_model(Acquisition(encoding.timings), 1, np.float32)
    return replace(model_like(nominal, t1_blood_s), t1_blood=t1_blood_s[:, None, None])
