"""Outputs and truth -> errors of CBF and ATT, and likelihoods of their sds, (2, 2).

Corrections count in units of the least-squares standard errors: each sample's error is divided
by its mean standard error, so that every SNR counts the same. Estimates of a network that works
without least squares count in fixed units.
"""

import math
from collections.abc import Mapping

import torch
from torch import Tensor
from torch.nn import functional

from aslkit.config.schema import LossConfig
from aslkit.core.constants import ATT_BOUNDS_S, Z_95
from aslkit.kinetics.model import KineticModel, delta_m
from aslkit.nets.raw_encoding import ATT_CLOSE_S, CBF_CLOSE, PERCENT, RawEncoding
from aslkit.nets.residual_unet import N_OUTPUTS

SD_WEIGHT = 0.1  # of the standard deviations' likelihood beside the estimates' error
SD_PER_ERROR = math.sqrt(math.pi / 2)  # sd of a Gaussian over its mean absolute error
INTERVAL = 0.95  # share of the errors inside an interval
INTERVAL_WEIGHT = 0.3
CONFIDENCE_WEIGHT = 0.1  # of the likelihood of what a network says of its own errors
LEAST_ERROR = 1e-4  # of a standard error: smaller ones count as this
LEAST_LOG_SD = -7.0  # a thousandth of the standard error or of the fixed unit
LEAST_FLOW = 3.0  # ATT means nothing where there is less CBF [ml/100 g/min]


def correction_loss(
    outputs: Tensor, errors: Tensor, truth: Tensor, base: Tensor, mask: Tensor
) -> Tensor:
    """L1 of the estimates, and what 95 % of the errors should lie below: 1.96 reported sds.

    The quantile is learned in the logarithm, where a few large errors do not dominate.

    Parameters
    ----------
    outputs : (batch, 4, x, y)
        Corrections of CBF and ATT in standard errors, and log sds relative to them.
    errors, truth, base : (batch, 2, x, y)
        Standard errors, true values and least-squares values of CBF and ATT.
    mask : (batch, 1, x, y)
        1 where the estimates count.
    """
    weight = _counted(mask, truth)
    residual = base + errors * outputs[:, :2] - truth
    scale = (errors * mask).sum((2, 3)).clamp(min=1e-6)
    l1 = (residual.abs() * weight).sum((2, 3)) / scale
    log_sd = outputs[:, 2:]
    z = residual.detach().abs() / errors.clamp(min=1e-6)
    beyond = z.clamp(min=LEAST_ERROR).log() - math.log(Z_95) - log_sd
    pinball = torch.maximum(INTERVAL * beyond, (INTERVAL - 1) * beyond)
    missed = (pinball * weight).sum((2, 3)) / weight.sum((2, 3)).clamp(min=1)
    return torch.stack([l1.mean(0), INTERVAL_WEIGHT / 2 * missed.mean(0)])


def estimate_loss(
    outputs: Tensor,
    truth: Tensor,
    mask: Tensor,
    encoding: RawEncoding,
    config: LossConfig,
    has_confidence: bool = False,
) -> Tensor:
    """Error of the estimates, likelihood of their sds, and a penalty on estimates too alike.

    Parameters
    ----------
    outputs : (batch, 4 or more, x, y)
        CBF and ATT in the units of the encoding, their log sds, and logits of confidence.
    truth : (batch, 2, x, y)
        True CBF and ATT [ml/100 g/min, s].
    mask : (batch, 1, x, y)
        1 where the estimates count.
    has_confidence : bool
        Whether there are logits: of the chance that an estimate is as close as `CBF_CLOSE` and
        `ATT_CLOSE_S` say. Their cross-entropy counts as a likelihood.
    """
    weight = _counted(mask, truth)
    target = torch.stack(encoding.to_outputs(*truth.unbind(1)), dim=1)
    residual = outputs[:, :2] - target
    errors = _mean(_ERRORS[config.error](residual), weight)
    likelihoods = torch.zeros_like(errors)
    if config.mode == "mae_nll":
        z = SD_PER_ERROR * residual.detach().abs()
        likelihoods = SD_WEIGHT * _mean(_surprise(z, outputs[:, 2:N_OUTPUTS]), weight)
    if has_confidence:
        logits = outputs[:, N_OUTPUTS : N_OUTPUTS + 2]
        surprise = functional.binary_cross_entropy_with_logits(
            logits, _is_close(residual, encoding), reduction="none"
        )
        likelihoods = likelihoods + CONFIDENCE_WEIGHT * _mean(surprise, weight)
    if config.variance_weight:
        spread = _spread(outputs[:, :2], weight) / _spread(target, weight).clamp(min=1e-6)
        errors = errors + config.variance_weight * functional.relu(1 - spread)
    return torch.stack([errors, likelihoods]) * errors.new_tensor(
        [config.cbf_weight, config.att_weight]
    )


def data_misfit(
    outputs: Tensor, signal: Tensor, mask: Tensor, encoding: RawEncoding, model: KineticModel
) -> Tensor:
    """Mean distance of the signal from that of the estimates [% of M0].

    Parameters
    ----------
    outputs : (batch, 4, x, y)
    signal : (batch, n, x, y)
        Measured ΔM/M0.
    mask : (batch, 1, x, y)
    model : KineticModel
        Its arrays are tensors that broadcast against (batch, n, pixels).
    """
    cbf, att = encoding.from_outputs(*outputs[:, :2].flatten(2).unbind(1))
    expected = delta_m(model, cbf, att.clamp(min=0))
    return PERCENT * _mean((signal.flatten(2) - expected).abs(), mask.flatten(2)).mean()


def prediction_loss(outputs: Tensor, real: Mapping[str, Tensor], model: KineticModel) -> Tensor:
    """Half the squared distance, in its noise, of a signal from the one that CBF predicts.

    The noise of the signal is another than what the network has seen, so the loss is least for
    the CBF that predicts the signal without noise (Lehtinen 2018, arXiv:1803.04189), within the
    kinetic model and at the network's ATT. ATT is not judged: the best predictor of a signal that
    the model does not describe, with arteries or dispersion, has a wrong one. Of the arterial
    signal, what the base fit found is taken off beforehand.

    Parameters
    ----------
    outputs : (batch, 4, x, y)
        Corrections of CBF and ATT in standard errors, and their log sds.
    real : mapping
        `base`, `errors`, `signal`, `sd` and `inside` as in `draw_real_batch`.
    model : KineticModel
        Whitened, of every slice of the batch.
    """
    cbf, att = (real["base"] + real["errors"] * outputs[:, :2]).flatten(2).unbind(1)
    expected = delta_m(model, cbf, att.detach().clamp(*ATT_BOUNDS_S))
    inside, sd = real["inside"].flatten(2), real["sd"].flatten(2)
    z = (real["signal"].flatten(2) - expected) / torch.where(inside > 0, sd, 1)
    return (z.square() * inside).sum() / (2 * inside.sum().clamp(min=1))


def denoising_loss(outputs: Tensor, signal: Tensor, mask: Tensor) -> Tensor:
    """Mean squared distance of the signal without noise from one with noise [(% of M0)^2].

    Where that noise is another than the network has seen, it is least for the signal itself
    (Lehtinen 2018, arXiv:1803.04189).

    Parameters
    ----------
    outputs : (batch, 4 + … + n, x, y)
        The last n are the signal [% of M0].
    signal : (batch, n, x, y)
        ΔM/M0.
    mask : (batch, 1, x, y)
    """
    n = signal.shape[1]
    return _mean((outputs[:, -n:] - PERCENT * signal).square(), mask).mean()


def _counted(mask: Tensor, truth: Tensor) -> Tensor:
    """1 where errors of CBF and of ATT (batch, 2, x, y) count, else 0."""
    weight = mask.expand_as(truth).clone()
    weight[:, 1] *= truth[:, 0] > LEAST_FLOW
    return weight


def _is_close(residual: Tensor, encoding: RawEncoding) -> Tensor:
    """1 where estimates are close to the truth, else 0; no gradient leads through it."""
    limits = [CBF_CLOSE / encoding.cbf_unit[1], ATT_CLOSE_S / encoding.att_unit[1]]
    return (residual.abs() < residual.new_tensor(limits)[:, None, None]).float()


def _surprise(z: Tensor, log_sd: Tensor) -> Tensor:
    """Negative log likelihood of errors.

    Below LEAST_LOG_SD the exponential goes on as its tangent: no standard deviation, however
    absurd, gives an infinite loss, and the gradient leads back.
    """
    inner = log_sd.clamp(min=LEAST_LOG_SD)
    return log_sd + z * (-inner).exp() * (1 + inner - log_sd)


def _mean(values: Tensor, weight: Tensor) -> Tensor:
    """Weighted mean of every channel."""
    axes = [0, *range(2, values.ndim)]
    weight = weight.expand_as(values)
    return (values * weight).sum(axes) / weight.sum(axes).clamp(min=1)


def _spread(values: Tensor, weight: Tensor) -> Tensor:
    """Weighted standard deviation of every channel."""
    centred = values - _mean(values, weight)[:, None, None]
    return (_mean(centred.square(), weight) + 1e-8).sqrt()


_ERRORS = {
    "l1": torch.abs,
    "l2": torch.square,
    "huber": lambda r: functional.huber_loss(r, torch.zeros_like(r), reduction="none"),
}
