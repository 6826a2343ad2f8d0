"""Domain classifier: it learns, and its gradient is reversed before the network."""

import pytest
import torch

from aslkit.nets.residual_unet import PhysicsResidualNet
from aslkit.train.experimental.domain_classifier import (
    DomainClassifier,
    NetworkWithClassifier,
    confusion_loss,
)


def test_the_gradient_of_the_features_is_reversed():
    torch.manual_seed(0)
    features = torch.randn(4, 6, 3, 3, requires_grad=True)
    slopes = []
    for weight in (-1.0, 0.5):
        torch.manual_seed(1)
        classifier = DomainClassifier(6, weight)
        odds = classifier(features)[:, None, None, None]
        slopes.append(torch.autograd.grad(confusion_loss(odds, 2), features)[0])
    torch.testing.assert_close(slopes[1], -0.5 * slopes[0])
    assert slopes[0].abs().max() > 0


def test_the_classifier_learns_and_its_loss_weights_real_and_simulated_slices_equally():
    torch.manual_seed(0)
    features = torch.randn(9, 6, 2, 2) + torch.tensor([2.0] * 6 + [-2.0] * 3)[:, None, None, None]
    classifier = DomainClassifier(6, 1.0)
    optimizer = torch.optim.Adam(classifier.parameters(), 0.05)
    for _ in range(50):
        loss = confusion_loss(classifier(features)[:, None, None, None], 6)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert loss < 0.1
    undecided = torch.zeros(9, 1, 2, 2)
    assert float(confusion_loss(undecided, 6)) == pytest.approx(0.6931, abs=1e-4)


def test_a_network_with_a_classifier_returns_its_maps_and_the_log_odds():
    torch.manual_seed(0)
    network = PhysicsResidualNet(3, (8, 16))
    torch.nn.init.normal_(network.head.weight)
    channels = torch.randn(2, 3, 8, 8)
    outputs = NetworkWithClassifier(network, DomainClassifier(16, 1.0))(channels)
    torch.testing.assert_close(outputs[:, :4], network(channels))
    assert outputs.shape == (2, 5, 8, 8) and (outputs[:, 4] == outputs[:, 4, :1, :1]).all()
    assert outputs[0, 4, 0, 0] != outputs[1, 4, 0, 0]
