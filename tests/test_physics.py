"""The signal model against numeric anchors, convolution, finite differences and torch."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from aslkit.acquisition import Acquisition, Timing, protocol
from aslkit.physics import Block, delta_m, kinetic_model, tissue_curve, tissue_slope

PLDS = [0.5, 1, 1.5, 2, 2.5, 3]
CASES = [("pcasl", 1.8), ("casl", 1.4), ("pasl", 0.8), ("pasl", np.inf), ("vsasl", 0)]
ATTS = np.linspace(0.113, 3.713, 37)[None]


@pytest.mark.parametrize(
    ("labeling", "t1_blood", "att", "expected"),
    [
        ("pcasl", 1.65, 1.2, [7.33, 9.35, 8.34, 6.16, 4.55, 3.36]),
        ("pcasl", 1.85, 1.2, [8.19, 10.57, 9.66, 7.37, 5.63, 4.29]),
        ("pcasl", 1.85, 1.6, [4.64, 7.02, 8.84, 7.37, 5.63, 4.29]),
        ("vsasl", 1.85, 1.6, [4.75, 7.25, 8.30, 6.75, 5.15, 3.93]),
    ],
)
def test_signal_equals_the_published_anchors(labeling, t1_blood, att, expected):
    model = kinetic_model(Acquisition(protocol(labeling, PLDS, 1.8), t1_blood_s=t1_blood))
    signal = delta_m(model, np.array([[60.0]]), np.array([[att]]))[0, :, 0]
    np.testing.assert_allclose(1000 * signal, expected, atol=0.006)


def convolved(labeling, t, tau, att, kinetic, n=200_000):
    """Delivery convolved with decay after arrival, by the midpoint rule on the bolus."""
    t1_blood, t1 = 1.65, 1.65 if kinetic == "single" else 1.3
    arrived = min(max(t - att, 0), tau)
    s = att + (np.arange(n) + 0.5) * arrived / n
    travel = att if labeling == "pcasl" else s
    kernel = np.exp(-travel / t1_blood - (t - s) / t1)
    alpha = 0.85 if labeling == "pcasl" else 0.98
    return 2 * alpha / 0.9 / 6000 * kernel.sum() * arrived / n


@pytest.mark.parametrize("kinetic", ["single", "tissue"])
@pytest.mark.parametrize(("labeling", "tau"), [("pcasl", 1.8), ("pasl", 0.8)])
@pytest.mark.parametrize("att", [0.3, 1.2, 2.2])
def test_curve_equals_a_numerical_convolution(labeling, tau, kinetic, att):
    model = kinetic_model(Acquisition(protocol(labeling, PLDS, tau), kinetic=kinetic))
    lead = tau if labeling == "pcasl" else 0
    oracle = [convolved(labeling, p + lead, tau, att, kinetic) for p in PLDS]
    np.testing.assert_allclose(
        tissue_curve(model, np.array([[att]]))[0, :, 0], oracle, rtol=1e-6, atol=1e-15
    )


@pytest.mark.parametrize("kinetic", ["single", "tissue"])
@pytest.mark.parametrize(("labeling", "tau"), CASES)
def test_slope_equals_finite_differences(labeling, tau, kinetic):
    model = kinetic_model(Acquisition(protocol(labeling, PLDS, tau), kinetic=kinetic))
    step = 1e-6
    difference = (tissue_curve(model, ATTS + step) - tissue_curve(model, ATTS - step)) / (2 * step)
    scale = np.abs(difference).max()
    np.testing.assert_allclose(tissue_slope(model, ATTS) / scale, difference / scale, atol=1e-7)


@pytest.mark.parametrize(("labeling", "tau"), CASES)
def test_curve_is_continuous_where_its_branches_meet(labeling, tau):
    model = kinetic_model(Acquisition(protocol(labeling, PLDS, tau)))
    kinks = np.array([[p + s * tau for p in PLDS for s in (-1, 0, 1) if 0 < p + s * tau < 9]])
    below, above = tissue_curve(model, kinks - 1e-9), tissue_curve(model, kinks + 1e-9)
    np.testing.assert_allclose(below, above, atol=1e-11)


@pytest.mark.parametrize("kinetic", ["single", "tissue"])
@pytest.mark.parametrize(("labeling", "tau"), CASES)
def test_torch_equals_numpy_and_is_differentiable(labeling, tau, kinetic):
    model = kinetic_model(Acquisition(protocol(labeling, PLDS, tau), kinetic=kinetic))
    blocks = tuple(
        Block(b.labeling, *map(torch.tensor, (b.plds, b.label_durations, b.efficiencies)))
        for b in model.blocks
    )
    att = torch.tensor(ATTS, requires_grad=True)
    curve = tissue_curve(replace(model, blocks=blocks), att)
    np.testing.assert_allclose(curve.detach().numpy(), tissue_curve(model, ATTS), rtol=1e-6)
    curve.sum().backward()
    np.testing.assert_allclose(att.grad.numpy(), tissue_slope(model, ATTS).sum(1), atol=1e-12)


def test_signal_is_linear_in_cbf():
    model = kinetic_model(Acquisition(protocol("pcasl", PLDS, 1.8)))
    one, three = (delta_m(model, np.full((1, 37), c), ATTS) for c in (16.0, 64.0))
    np.testing.assert_array_equal(4 * one, three)


def test_a_delay_in_milliseconds_is_refused():
    with pytest.raises(ValueError, match="PLD 1800 s is outside 0-20 s"):
        Timing("pcasl", 1800, 1.8, 0.85)
