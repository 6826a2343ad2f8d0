"""Network -> the same with a domain classifier, for adversarial training.

A small classifier learns to distinguish real from simulated slices by the deepest features. Its
gradient is reversed before it reaches the network (Ganin 2016, arXiv:1505.07818), so that the
network learns features that are alike for both.
"""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from aslkit.config import TrainingConfig
from aslkit.nets.network import Network
from aslkit.nets.residual_unet import PhysicsResidualNet

HIDDEN = 16  # features between the two layers


class DomainClassifier(nn.Module):
    """Features (batch, width, x, y) -> log odds (batch,) that a slice is real.

    Parameters
    ----------
    width : int
        Number of features.
    weight : float
        Factor of the reversed gradient of the features.
    """

    def __init__(self, width: int, weight: float) -> None:
        super().__init__()
        self.weight = weight
        self.layers = nn.Sequential(nn.Linear(width, HIDDEN), nn.SiLU(), nn.Linear(HIDDEN, 1))

    def forward(self, features: Tensor) -> Tensor:
        """Classify slices by their mean features, normalised to unit length."""
        mean = features.float().mean((2, 3))  # (batch, width)
        unit = _ReversedGradient.apply(functional.normalize(mean), self.weight)
        odds: Tensor = self.layers(unit)
        return odds[:, 0]


class NetworkWithClassifier(Network):
    """A network and its classifier; the last output is the log odds, equal in all pixels."""

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
    """Return the cross-entropy of log odds (batch, 1, x, y); the first slices are simulated.

    Real and simulated slices have the same total weight.
    """
    simulated, real = odds[:n_simulated].mean((1, 2, 3)), odds[n_simulated:].mean((1, 2, 3))
    return (functional.softplus(simulated).mean() + functional.softplus(-real).mean()) / 2


def build_classifier(config: TrainingConfig) -> nn.Module:
    """Return the classifier of a configuration, or a module without weights."""
    if config.adaptation is None or config.adaptation.adversarial_weight is None:
        return nn.Identity()
    return DomainClassifier(config.network.widths[-1], config.adaptation.adversarial_weight)


def attach_classifier(network: Network, classifier: nn.Module) -> Network:
    """Return the network with its classifier, if it has one."""
    if isinstance(classifier, DomainClassifier) and isinstance(network, PhysicsResidualNet):
        return NetworkWithClassifier(network, classifier)
    return network


class _ReversedGradient(torch.autograd.Function):
    """Identity function whose gradient is multiplied by -weight (gradient reversal)."""

    @staticmethod
    def forward(ctx: Any, values: Tensor, weight: float) -> Tensor:
        ctx.weight = weight
        return values.view_as(values)

    @staticmethod
    def backward(ctx: Any, slope: Tensor) -> tuple[Tensor, None]:
        return -ctx.weight * slope, None
