"""State of a training run: networks, optimizer and counters."""

from collections.abc import Mapping
from dataclasses import dataclass, field

import torch

from aslkit.nets.network import Network


@dataclass
class TrainingState:
    """What changes in a run, besides the modules and numbers of its recipe.

    Attributes
    ----------
    network, average : Network
        The network that trains, and the running average of its weights.
    optimizer : torch.optim.AdamW
    origin : mapping, optional
        Model of the first weights, as in the model card.
    step, n_batches : int
        Number of steps, and of the batches that all processes have drawn.
    seconds : float
        Training time.
    losses : list of float
        Losses since the last line of metrics.csv.
    """

    network: Network
    average: Network
    optimizer: torch.optim.AdamW
    origin: Mapping[str, object] | None = None
    step: int = 0
    n_batches: int = 0
    seconds: float = 0.0
    losses: list[float] = field(default_factory=list)
