"""Simulated batches and their loss -> batches that end with slices of a real scan, and their loss.

The simulated part keeps the network where it is, and alone teaches ATT and the error bars.
"""

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from aslkit.config import TrainingConfig
from aslkit.config.adaptation import AdaptationConfig
from aslkit.core.errors import InputError
from aslkit.fit.curve_table import model_like
from aslkit.fit.variable_projection import weighted
from aslkit.kinetics.model import KineticModel, kinetic_model, take_slices
from aslkit.nets.residual_unet import N_OUTPUTS
from aslkit.train.batches import Batch, Draw
from aslkit.train.domain_classifier import confusion_loss
from aslkit.train.losses import prediction_loss
from aslkit.train.objectives import Loss
from aslkit.train.real_scans import RealScan, draw_real_batch, read_real_scans

REAL = "real_"  # begins the names of what a batch holds of the real scan alone


def read_adaptation_scans(config: TrainingConfig, bids_dir: Path | None) -> tuple[RealScan, ...]:
    """The scans that a configuration adapts to; none where it does not adapt.

    Raises
    ------
    InputError
        When only one of section and data set is there, or no scan serves.
    """
    if (config.adaptation is None) != (bids_dir is None):
        raise InputError(
            "--finetune-bids",
            "",
            found="nothing" if bids_dir is None else "a configuration without adaptation",
            expected="a data set together with a section adaptation",
            fix="give --config exp14 --finetune-bids DIR, or neither section nor data set",
        )
    return () if bids_dir is None else read_real_scans(bids_dir)


def add_real_scans(
    config: TrainingConfig, scans: Sequence[RealScan], draw: Draw, loss: Loss
) -> tuple[Draw, Loss]:
    """Draw and loss of simulated batches, joined by those of real scans where there are any."""
    if config.adaptation is None:
        return draw, loss
    return partial(_draw, config, scans, draw), partial(_loss, config.adaptation, scans, loss)


def _draw(
    config: TrainingConfig, scans: Sequence[RealScan], draw: Draw, rng: np.random.Generator
) -> Batch:
    """A simulated batch whose `channels` and `stack` end with those of a real scan."""
    batch, real = draw(rng), draw_real_batch(scans, config.data, rng)  # type: ignore[arg-type]
    channels = real.pop("channels")
    batch["channels"] = torch.cat([batch["channels"], channels])
    if "stack" in batch:
        number = torch.full((len(channels),), int(batch["stack"].max()) + 1)
        batch["stack"] = torch.cat([batch["stack"], number])
    return batch | {REAL + key: values for key, values in real.items()}


def _loss(
    config: AdaptationConfig, scans: Sequence[RealScan], loss: Loss, outputs: Tensor, batch: Batch
) -> Tensor:
    """Losses (2, 2); what the real scan adds counts as an error of CBF."""
    n = len(batch["truth"])
    simulated = {k: v[:n] for k, v in batch.items() if not k.startswith(REAL)}
    real = {k.removeprefix(REAL): v for k, v in batch.items() if k.startswith(REAL)}
    estimates = outputs[n:, :N_OUTPUTS]
    added = config.weight * prediction_loss(
        estimates, real, _nominal_model(scans, real, estimates)
    )
    if config.adversarial_weight:
        added = added + confusion_loss(outputs[:, N_OUTPUTS:], n)
    losses = loss(outputs[:n, :N_OUTPUTS], simulated)
    return losses + losses.new_tensor([[1, 0], [0, 0]]) * added


def _nominal_model(
    scans: Sequence[RealScan], real: Mapping[str, Tensor], like: Tensor
) -> KineticModel:
    """The weighted model of the slices of a batch, as least squares has it."""
    number, first = real["place"].tolist()
    series = scans[number].series
    model = kinetic_model(series.acquisition, series.mask.shape[2], np.float32)
    model = take_slices(model, slice(first, first + len(like)))
    return model_like(weighted(model, real["weights"].cpu().numpy()), like)
