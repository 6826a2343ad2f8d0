"""Losses of CBF and of ATT -> one number, with weights that the run determines."""

from typing import Literal

import torch
from torch import Tensor, nn


class LossWeighting(nn.Module):
    """The sum of all losses, without weights.

    Losses are (2, 2): errors of CBF and ATT, and likelihoods of their standard deviations. The
    likelihoods are never weighted: they can be negative, and have their own outputs.
    """

    def forward(self, losses: Tensor) -> Tensor:
        """Return the sum of the losses (2, 2)."""
        return losses.sum()

    def update(self, losses: Tensor) -> None:
        """Adjust the weights to the validation losses (2, 2)."""

    def weights(self) -> Tensor:
        """Return the weights of CBF and of ATT, (2,)."""
        return torch.ones(2)


class LearnedWeighting(LossWeighting):
    """Errors divided by a learned scale (task uncertainty, Kendall 2018, arXiv:1705.07115).

    Absolute errors e with a Laplace distribution of scale exp(s) have the negative log likelihood
    e exp(-s) + s, up to a constant.
    """

    def __init__(self) -> None:
        super().__init__()
        self.log_scales = nn.Parameter(torch.zeros(2))

    def forward(self, losses: Tensor) -> Tensor:
        """Return the sum of the likelihoods of the errors and of the sds, for losses (2, 2)."""
        errors, likelihoods = losses
        return (errors * (-self.log_scales).exp() + self.log_scales + likelihoods).sum()

    def weights(self) -> Tensor:
        """Return the weights of CBF and of ATT, (2,)."""
        return (-self.log_scales.detach()).exp()


class ValidationWeighting(LossWeighting):
    """Weights in proportion to the validation errors, 1 on average."""

    shares: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("shares", torch.ones(2))

    def forward(self, losses: Tensor) -> Tensor:
        """Return the sum of the losses (2, 2), with weighted errors."""
        return (self.shares * losses[0]).sum() + losses[1].sum()

    def update(self, losses: Tensor) -> None:
        """Set the weights in proportion to the errors of CBF and ATT."""
        self.shares.copy_(2 * losses[0] / losses[0].sum())

    def weights(self) -> Tensor:
        """Return the weights of CBF and of ATT, (2,)."""
        return self.shares


def build_loss_weighting(kind: Literal["learned", "validation"] | None) -> LossWeighting:
    """Return the loss weighting of a configuration; None: no weights."""
    return _WEIGHTINGS[kind]()


_WEIGHTINGS = {None: LossWeighting, "learned": LearnedWeighting, "validation": ValidationWeighting}
