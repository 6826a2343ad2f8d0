"""Network -> the same for training, with a classifier whose gradient makes scans look alike.

From the deepest features a small classifier learns to tell real slices from simulated ones; its
gradient turns round before it reaches the network (Ganin 2016, arXiv:1505.07818), which learns
features that do not tell.
"""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from aslkit.config import TrainingConfig
from aslkit.nets.residual_unet import Network, PhysicsResidualNet

HIDDEN = 16


class DomainClassifier(nn.Module):
    """Features (batch, width, x, y) -> log odds (batch,) that a slice is real.

    Parameters
    ----------
    width : int
    weight : float
        Of the gradient that goes back to the features, its sign turned.
    """

    def __init__(self, width: int, weight: float) -> None:
        super().__init__()
        self.weight = weight
        self.layers = nn.Sequential(nn.Linear(width, HIDDEN), nn.SiLU(), nn.Linear(HIDDEN, 1))

    def forward(self, features: Tensor) -> Tensor:
        """The mean features of a slice, of unit size, decide."""
        mean = features.float().mean((2, 3))
        turned = _Turned.apply(functional.normalize(mean), self.weight)
        odds: Tensor = self.layers(turned)
        return odds[:, 0]


class NetworkWithClassifier(Network):
    """A network and its classifier: outputs end with the log odds, the same everywhere."""

    def __init__(self, network: PhysicsResidualNet, classifier: DomainClassifier) -> None:
        super().__init__()
        self.network, self.classifier = network, classifier

    def forward(self, channels: Tensor, *stack: Tensor) -> Tensor:
        """(batch, channels, x, y) -> (batch, 5, x, y)."""
        deepest: list[Tensor] = []
        last = self.network.down_blocks[-1]
        hook = last.register_forward_hook(lambda *given: deepest.append(given[2]))
        try:
            outputs = self.network(channels, *stack)
        finally:
            hook.remove()
        odds = self.classifier(deepest[0])[:, None, None, None]
        return torch.cat([outputs, odds.expand_as(outputs[:, :1])], 1)


def confusion_loss(odds: Tensor, n_simulated: int) -> Tensor:
    """Cross entropy of log odds (batch, 1, x, y) where all slices but the first few are real.

    Both kinds count alike, however many there are of each.
    """
    simulated, real = odds[:n_simulated].mean((1, 2, 3)), odds[n_simulated:].mean((1, 2, 3))
    return (functional.softplus(simulated).mean() + functional.softplus(-real).mean()) / 2


def build_classifier(config: TrainingConfig) -> nn.Module:
    """The classifier of a configuration; without weights where it asks for none."""
    if config.adaptation is None or config.adaptation.adversarial_weight is None:
        return nn.Identity()
    return DomainClassifier(config.network.widths[-1], config.adaptation.adversarial_weight)


def attach_classifier(network: Network, classifier: nn.Module) -> Network:
    """The network, with its classifier where there is one."""
    if isinstance(classifier, DomainClassifier) and isinstance(network, PhysicsResidualNet):
        return NetworkWithClassifier(network, classifier)
    return network


class _Turned(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, values: Tensor, weight: float) -> Tensor:
        ctx.weight = weight
        return values.view_as(values)

    @staticmethod
    def backward(ctx: Any, slope: Tensor) -> tuple[Tensor, None]:
        return -ctx.weight * slope, None
