"""Losses: minimal for the truth, with the right parts and weights."""

import numpy as np
import pytest
import torch

from aslkit.config.schema import LossConfig
from aslkit.kinetics.model import delta_m, kinetic_model
from aslkit.nets.experimental.raw_encoding import PERCENT, RawEncoding
from aslkit.simulate.signal import PROTOCOLS
from aslkit.train.experimental.loss_weighting import build_loss_weighting
from aslkit.train.experimental.raw_batches import _nominal_model
from aslkit.train.experimental.raw_loss import data_misfit, estimate_loss
from aslkit.train.loss import correction_loss

JOINT = PROTOCOLS["joint6"].acquisition(1)
ENCODING = RawEncoding(JOINT.timings, "global_scale", 10.0, (), JOINT.t1_blood_s)


def test_the_loss_is_least_for_the_truth_and_for_intervals_that_hold_95_percent():
    torch.manual_seed(1)
    truth, base = 60 + torch.zeros(1, 2, 16, 16), 60 + torch.randn(1, 2, 16, 16)
    unit, mask = torch.ones(1, 2, 16, 16), torch.ones(1, 1, 16, 16)

    def loss(correction, log_sd):
        outputs = torch.cat([correction, log_sd * unit], 1)
        return float(correction_loss(outputs, unit, truth, base, mask).sum())

    assert loss(truth - base, 0.0) < loss(0.5 * (truth - base), 0.0) < loss(0 * unit, 0.0)
    log_sd = float(torch.quantile((truth - base).abs(), 0.95).div(1.96).log())
    assert loss(0 * unit, log_sd) < min(loss(0 * unit, log_sd + s) for s in (-0.2, 0.2))


@pytest.fixture
def images():
    """Return truth (2, 2, 8, 8) and outputs with errors of 0.5 and 2 units, alternating."""
    torch.manual_seed(2)
    cbf, att = 60 + 10 * torch.randn(2, 8, 8), 1.4 + 0.2 * torch.randn(2, 8, 8)
    target = torch.stack(ENCODING.to_outputs(cbf, att), 1)
    error = torch.where(torch.arange(8) % 2 == 0, 0.5, 2.0).expand_as(target)
    outputs = torch.cat([target + error, torch.zeros_like(target)], 1)
    return torch.stack([cbf, att], 1), outputs, torch.ones(2, 1, 8, 8)


def loss_value(images, **config):
    truth, outputs, mask = images
    settings = LossConfig(**{"mode": "mae", **config})
    return float(estimate_loss(outputs, truth, mask, ENCODING, settings).sum())


def test_errors_are_absolute_squared_or_huber_in_fixed_units(images):
    assert loss_value(images, error="l1") == pytest.approx(2 * (0.5 + 2) / 2, rel=1e-5)
    assert loss_value(images, error="l2") == pytest.approx(2 * (0.25 + 4) / 2, rel=1e-5)
    assert loss_value(images, error="huber") == pytest.approx(2 * (0.125 + 1.5) / 2, rel=1e-5)


def test_cbf_and_att_have_their_weights(images):
    both = loss_value(images)
    cbf, att = loss_value(images, att_weight=0), loss_value(images, cbf_weight=0)
    assert loss_value(images, cbf_weight=3) == pytest.approx(both + 2 * cbf)
    assert cbf + att == pytest.approx(both)


def test_voxels_outside_the_brain_or_without_flow_do_not_count(images):
    truth, outputs, mask = images
    half = mask.clone()
    half[..., ::2] = 0
    assert loss_value((truth, outputs, half)) == pytest.approx(4, rel=1e-5)
    without = truth.clone()
    without[:, 0, :4], without[:, 1, :4] = 0, 3.9
    assert loss_value((without, outputs, mask), cbf_weight=0) == pytest.approx(
        loss_value((truth, outputs, mask), cbf_weight=0), rel=1e-5
    )


def test_the_likelihood_is_best_for_the_sd_of_the_errors(images):
    truth, outputs, mask = images

    def likelihood(log_sd):
        stated = torch.cat([outputs[:, :2], log_sd + outputs[:, 2:]], 1)
        return loss_value((truth, stated, mask), mode="mae_nll")

    best = np.log(1.2533 * 1.25)  # a Gaussian's sd over its mean absolute error, here 1.25
    assert likelihood(best) < min(likelihood(best - 0.3), likelihood(best + 0.3))


@pytest.mark.parametrize("log_sd", [-1e6, -100.0, 100.0, 1e6])
def test_absurd_log_sds_have_a_finite_loss_and_a_gradient_towards_normal_values(images, log_sd):
    truth, outputs, mask = images
    stated = torch.full_like(outputs[:, 2:], log_sd).requires_grad_()
    every = torch.cat([outputs[:, :2], stated], 1)
    unit = torch.ones_like(truth)
    for loss in (
        estimate_loss(every, truth, mask, ENCODING, LossConfig()).sum(),
        correction_loss(every, unit, truth, truth - 1, mask).sum(),
    ):
        (gradient,) = torch.autograd.grad(loss, stated, retain_graph=True)
        assert torch.isfinite(loss) and torch.isfinite(gradient).all()
        assert (gradient.sign() == np.sign(log_sd)).all()


def confident_loss(error, logit):
    """Return the loss of estimates with an error [ml/100 g/min, s], and its gradient."""
    truth = torch.tensor([60.0, 1.4])[:, None, None].expand(1, 2, 4, 4)
    estimates = torch.stack(ENCODING.to_outputs(*(truth[0] + error[:, None, None])))[None]
    outputs = torch.cat([estimates, torch.zeros(1, 2, 4, 4), logit * torch.ones(1, 2, 4, 4)], 1)
    outputs.requires_grad_()
    config, mask = LossConfig(mode="mae", att_weight=0.5), torch.ones(1, 1, 4, 4)
    losses = estimate_loss(outputs, truth, mask, ENCODING, config, has_confidence=True)
    return losses[1], torch.autograd.grad(losses[1].sum(), outputs)[0]


@pytest.mark.parametrize(("share", "is_close"), [(0.98, True), (1.02, False)])
def test_confidence_is_for_errors_below_10_ml_and_200_ms_without_gradient_of_estimates(
    share, is_close
):
    right = 2.0 if is_close else -2.0
    loss, slopes = confident_loss(share * torch.tensor([10.0, -0.2]), right)
    expected = 0.1 * np.log1p(np.exp(-2.0)) * np.array([1.0, 0.5])
    np.testing.assert_allclose(loss.detach(), expected, rtol=1e-4)
    assert not slopes[:, :4].any() and (slopes[:, 4:].sign() == -np.sign(right)).all()


def test_constant_estimates_are_penalised_and_true_ones_are_not(images):
    truth, outputs, mask = images
    target = torch.stack(ENCODING.to_outputs(*truth.unbind(1)), 1)
    flat = torch.cat([0 * target, 0 * target], 1)
    exact = torch.cat([target, 0 * target], 1)
    penalty = [
        loss_value((truth, o, mask), variance_weight=1.0) - loss_value((truth, o, mask))
        for o in (flat, exact)
    ]
    assert penalty[0] == pytest.approx(2, abs=0.01) and penalty[1] == pytest.approx(0, abs=1e-4)


def test_the_misfit_to_the_data_is_zero_for_the_truth_and_has_a_gradient():
    outputs = torch.zeros(1, 4, 4, 4, requires_grad=True)
    cbf, att = (np.full((1, 16), v, dtype=np.float32) for v in ENCODING.from_outputs(0.0, 0.0))
    signal = delta_m(kinetic_model(JOINT, 1, np.float32), cbf, att).reshape(1, 12, 4, 4)
    model = _nominal_model(ENCODING, torch.tensor([JOINT.t1_blood_s]))
    mask = torch.ones(1, 1, 4, 4)
    exact = data_misfit(outputs, torch.from_numpy(signal), mask, ENCODING, model)
    assert float(exact.detach()) < 1e-6
    off = data_misfit(outputs, torch.from_numpy(signal) + 0.001, mask, ENCODING, model)
    assert float(off.detach()) == pytest.approx(0.001 * PERCENT, rel=1e-3)
    off.backward()
    assert outputs.grad[:, 0].abs().min() > 0 and outputs.grad[:, 2:].abs().max() == 0


def test_errors_and_likelihoods_of_cbf_and_att_are_separate(images):
    truth, outputs, mask = images
    sds, att = outputs.clone(), outputs.clone()
    sds[:, 2:] += 1
    att[:, 1] += 3
    unit = torch.ones_like(truth)
    for places in (
        lambda o: estimate_loss(o, truth, mask, ENCODING, LossConfig()),
        lambda o: correction_loss(o, unit, truth, truth, mask),
    ):
        before = places(outputs)
        assert (places(sds) != before).tolist() == [[False, False], [True, True]]
        assert (places(att) != before).tolist() == [[False, True], [False, True]]


def test_learned_weights_end_at_the_inverse_errors():
    weighting, errors = build_loss_weighting("learned"), torch.tensor([0.2, 0.5])
    optimizer = torch.optim.Adam(weighting.parameters(), 0.02)
    for _ in range(600):
        loss = weighting(torch.stack([errors, -torch.ones(2)]))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    torch.testing.assert_close(weighting.weights(), 1 / errors, rtol=0.01, atol=0)
    assert loss.item() == pytest.approx(errors.log().sum().item(), abs=0.01)


def test_validation_weights_the_larger_error_more_and_not_the_likelihoods():
    weighting, losses = build_loss_weighting("validation"), torch.tensor([[0.1, 0.3], [-0.5, 0.7]])
    assert float(weighting(losses)) == pytest.approx(0.6)
    weighting.update(losses)
    torch.testing.assert_close(weighting.weights(), torch.tensor([0.5, 1.5]))
    assert float(weighting(losses)) == pytest.approx(0.05 + 0.45 + 0.2)
