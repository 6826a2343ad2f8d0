"""Losses of CBF and of ATT -> one number, where a run finds their weights itself."""

from typing import Literal

import torch
from torch import Tensor, nn


class LossWeighting(nn.Module):
    """Both count as the configuration says.

    Losses are (2, 2): the errors of CBF and of ATT, and the likelihoods of their standard
    deviations, which no balance weighs: they can be negative, and guide outputs of their own.
    """

    def forward(self, losses: Tensor) -> Tensor:
        """Losses (2, 2) -> their sum."""
        return losses.sum()

    def update(self, losses: Tensor) -> None:
        """Take notice of the losses (2, 2) on the validation scans."""

    def weights(self) -> Tensor:
        """Of CBF and of ATT, (2,)."""
        return torch.ones(2)


class LearnedWeighting(LossWeighting):
    """Errors in units of their scale, which trains with the network.

    For absolute errors e of a Laplace distribution of scale exp(s), the likelihood is e exp(-s)
    + s (task uncertainty, Kendall 2018, arXiv:1705.07115).
    """

    def __init__(self) -> None:
        super().__init__()
        self.log_scales = nn.Parameter(torch.zeros(2))

    def forward(self, losses: Tensor) -> Tensor:
        """Losses (2, 2) -> the likelihood of the errors, and those of the sds."""
        errors, likelihoods = losses
        return (errors * (-self.log_scales).exp() + self.log_scales + likelihoods).sum()

    def weights(self) -> Tensor:
        """Of CBF and of ATT, (2,)."""
        return (-self.log_scales.detach()).exp()


class ValidationWeighting(LossWeighting):
    """The quantity with the larger errors on the validation scans counts more: 1 on average."""

    shares: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("shares", torch.ones(2))

    def forward(self, losses: Tensor) -> Tensor:
        """Losses (2, 2) -> their sum, the errors weighted."""
        return (self.shares * losses[0]).sum() + losses[1].sum()

    def update(self, losses: Tensor) -> None:
        """Weights in proportion to the errors."""
        self.shares.copy_(2 * losses[0] / losses[0].sum())

    def weights(self) -> Tensor:
        """Of CBF and of ATT, (2,)."""
        return self.shares


def build_loss_weighting(kind: Literal["learned", "validation"] | None) -> LossWeighting:
    """The balance of a configuration; None: none that the run finds."""
    return _WEIGHTINGS[kind]()


_WEIGHTINGS = {None: LossWeighting, "learned": LearnedWeighting, "validation": ValidationWeighting}
