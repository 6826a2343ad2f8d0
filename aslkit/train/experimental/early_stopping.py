"""Weights during a training run -> the weights with the lowest validation loss."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from aslkit.config.schema import ValidationConfig
from aslkit.nets.network import Network
from aslkit.train.batches import Batch, Draw
from aslkit.train.recipe import Losses, run_network

VALIDATION_SEED = 31_337  # the same scans in every run, none of them a training scan


@dataclass
class Best:
    """The best weights so far, their loss, and the number of validations since."""

    weights: dict[str, Tensor] = field(default_factory=dict)
    loss: float = math.inf
    n_worse: int = 0

    def update(self, network: Network, loss: float) -> None:
        """Take the weights of a network if its loss is the lowest so far."""
        if loss < self.loss:
            self.weights = {k: v.clone() for k, v in network.state_dict().items()}
            self.loss, self.n_worse = loss, 0
        else:
            self.n_worse += 1


def validation_batches(config: ValidationConfig, draw: Draw) -> list[Batch]:
    """Draw the validation scans."""
    return [draw(np.random.default_rng([VALIDATION_SEED, i])) for i in range(config.batches)]


def validation_losses(network: Network, batches: Sequence[Batch], losses: Losses) -> Tensor:
    """Return the mean losses (2, 2) of a network without dropout, in full precision."""
    device = next(network.parameters()).device
    total = torch.zeros(2, 2, dtype=torch.float64)
    with torch.no_grad():
        for batch in batches:
            here = {k: v.to(device) for k, v in batch.items()}
            total += losses(run_network(network, here), here).cpu()
    return total / len(batches)
