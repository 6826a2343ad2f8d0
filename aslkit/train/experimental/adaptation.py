"""Simulated batches and their losses -> batches that end with slices of a real scan, and losses.

The simulated slices keep the network close to its start. They alone train ATT and error bars.
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
from aslkit.nets.network import N_OUTPUTS
from aslkit.prepare.pipeline import PreparationSettings
from aslkit.train.batches import Batch, Draw
from aslkit.train.experimental.domain_classifier import confusion_loss
from aslkit.train.experimental.prediction_loss import prediction_loss
from aslkit.train.experimental.real_scans import RealScan, draw_real_batch, read_real_scans
from aslkit.train.recipe import Losses

REAL = "real_"  # prefix of the keys of a batch that describe the real scan


def read_adaptation_scans(config: TrainingConfig, bids_dir: Path | None) -> tuple[RealScan, ...]:
    """Read the scans that a configuration adapts to; none without a section `adaptation`.

    Raises
    ------
    InputError
        If only one of section and data set is given, or no scan can be used.
    """
    if (config.adaptation is None) != (bids_dir is None):
        raise InputError(
            "--finetune-bids",
            "",
            found="nothing" if bids_dir is None else "a configuration without adaptation",
            expected="a data set together with a section adaptation",
            fix="give --config exp14 --finetune-bids DIR, or neither section nor data set",
        )
    if config.adaptation is None or bids_dir is None:
        return ()
    return read_real_scans(bids_dir, PreparationSettings(realign=config.adaptation.moco))


def add_real_scans(config: TrainingConfig, scans: Sequence[RealScan], draw: Draw) -> Draw:
    """Return a function that draws simulated slices and, for an adaptation, real ones."""
    return partial(_draw, config, scans, draw) if config.adaptation else draw


def add_real_losses(config: TrainingConfig, scans: Sequence[RealScan], losses: Losses) -> Losses:
    """Return the losses of simulated slices and, for an adaptation, of real ones."""
    return partial(_losses, config.adaptation, scans, losses) if config.adaptation else losses


def _draw(
    config: TrainingConfig, scans: Sequence[RealScan], draw: Draw, rng: np.random.Generator
) -> Batch:
    """Draw a simulated batch; append slices of a real scan to `channels` and `stack`."""
    batch, real = draw(rng), draw_real_batch(scans, config.data, rng)  # type: ignore[arg-type]
    channels = real.pop("channels")
    batch["channels"] = torch.cat([batch["channels"], channels])
    if "stack" in batch:
        number = torch.full((len(channels),), int(batch["stack"].max()) + 1)
        batch["stack"] = torch.cat([batch["stack"], number])
    return batch | {REAL + key: values for key, values in real.items()}


def _losses(
    config: AdaptationConfig,
    scans: Sequence[RealScan],
    losses: Losses,
    outputs: Tensor,
    batch: Batch,
) -> Tensor:
    """Return the losses (2, 2); that of the real scan is added to the error of CBF."""
    n = len(batch["truth"])
    simulated = {k: v[:n] for k, v in batch.items() if not k.startswith(REAL)}
    real = {k.removeprefix(REAL): v for k, v in batch.items() if k.startswith(REAL)}
    estimates = outputs[n:, :N_OUTPUTS]
    added = config.weight * prediction_loss(
        estimates, real, _nominal_model(scans, real, estimates)
    )
    if config.adversarial_weight:
        added = added + confusion_loss(outputs[:, N_OUTPUTS:], n)
    result = losses(outputs[:n, :N_OUTPUTS], simulated)
    return result + result.new_tensor([[1, 0], [0, 0]]) * added


def _nominal_model(
    scans: Sequence[RealScan], real: Mapping[str, Tensor], like: Tensor
) -> KineticModel:
    """Return the weighted nominal model of the slices of a batch, as in least squares."""
    number, first = real["place"].tolist()
    series = scans[number].series
    model = kinetic_model(series.acquisition, series.mask.shape[2], np.float32)
    model = take_slices(model, slice(first, first + len(like)))
    return model_like(weighted(model, real["weights"].cpu().numpy()), like)
