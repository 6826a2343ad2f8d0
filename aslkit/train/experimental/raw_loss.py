"""Outputs of networks of raw curves -> their losses, in the fixed units of the encoding."""

import math

import torch
from torch import Tensor
from torch.nn import functional

from aslkit.config.schema import LossConfig
from aslkit.kinetics.model import KineticModel, delta_m
from aslkit.nets.experimental.raw_encoding import ATT_CLOSE_S, CBF_CLOSE, PERCENT, RawEncoding
from aslkit.nets.network import N_OUTPUTS
from aslkit.train.loss import counted

SD_WEIGHT = 0.1  # of the likelihood of the standard deviations beside the errors
SD_PER_ERROR = math.sqrt(math.pi / 2)  # sd of a Gaussian over its mean absolute error
CONFIDENCE_WEIGHT = 0.1  # of the cross-entropy of the confidence
LEAST_LOG_SD = -7.0  # a thousandth of the unit


def estimate_loss(
    outputs: Tensor,
    truth: Tensor,
    mask: Tensor,
    encoding: RawEncoding,
    config: LossConfig,
    has_confidence: bool = False,
) -> Tensor:
    """Return errors and negative log likelihoods of the estimates, (2, 2).

    A penalty on maps with too little variance is added to the errors if the configuration says so.

    Parameters
    ----------
    outputs : (batch, 4 or more, x, y)
        CBF and ATT in the units of the encoding, their log sds, and logits of confidence.
    truth : (batch, 2, x, y)
        True CBF and ATT [ml/100 g/min, s].
    mask : (batch, 1, x, y)
        1 where the estimates count.
    has_confidence : bool
        Whether outputs hold logits of the probability that errors are below `CBF_CLOSE` and
        `ATT_CLOSE_S`. Their cross-entropy is added to the likelihoods.
    """
    weight = counted(mask, truth)
    target = torch.stack(encoding.to_outputs(*truth.unbind(1)), dim=1)
    residual = outputs[:, :2] - target
    errors = _mean(_ERRORS[config.error](residual), weight)
    likelihoods = torch.zeros_like(errors)
    if config.mode == "mae_nll":
        z = SD_PER_ERROR * residual.detach().abs()
        likelihoods = SD_WEIGHT * _mean(
            _negative_log_likelihood(z, outputs[:, 2:N_OUTPUTS]), weight
        )
    if has_confidence:
        logits = outputs[:, N_OUTPUTS : N_OUTPUTS + 2]
        cross_entropy = functional.binary_cross_entropy_with_logits(
            logits, _is_close(residual, encoding), reduction="none"
        )
        likelihoods = likelihoods + CONFIDENCE_WEIGHT * _mean(cross_entropy, weight)
    if config.variance_weight:
        ratio = _sd(outputs[:, :2], weight) / _sd(target, weight).clamp(min=1e-6)
        errors = errors + config.variance_weight * functional.relu(1 - ratio)
    return torch.stack([errors, likelihoods]) * errors.new_tensor(
        [config.cbf_weight, config.att_weight]
    )


def data_misfit(
    outputs: Tensor, signal: Tensor, mask: Tensor, encoding: RawEncoding, model: KineticModel
) -> Tensor:
    """Return the mean distance between the signal and that of the estimates [% of M0].

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


def denoising_loss(outputs: Tensor, signal: Tensor, mask: Tensor) -> Tensor:
    """Return the mean squared distance of the denoised signal from a noisy one [(% of M0)^2].

    If the noise is independent of that in the input, the loss is least for the signal without
    noise (Lehtinen 2018, arXiv:1803.04189).

    Parameters
    ----------
    outputs : (batch, 4 + … + n, x, y)
        The last n are the denoised signal [% of M0].
    signal : (batch, n, x, y)
        ΔM/M0.
    mask : (batch, 1, x, y)
    """
    n = signal.shape[1]
    return _mean((outputs[:, -n:] - PERCENT * signal).square(), mask).mean()


def _is_close(residual: Tensor, encoding: RawEncoding) -> Tensor:
    """Return 1 where estimates are close to the truth, else 0, without gradient."""
    limits = [CBF_CLOSE / encoding.cbf_unit[1], ATT_CLOSE_S / encoding.att_unit[1]]
    return (residual.abs() < residual.new_tensor(limits)[:, None, None]).float()


def _negative_log_likelihood(z: Tensor, log_sd: Tensor) -> Tensor:
    """Return the negative log likelihood of errors `z` for log standard deviations.

    Below LEAST_LOG_SD the exponential continues as its tangent, so that the loss stays finite and
    its gradient increases the standard deviation.
    """
    inner = log_sd.clamp(min=LEAST_LOG_SD)
    return log_sd + z * (-inner).exp() * (1 + inner - log_sd)


def _mean(values: Tensor, weight: Tensor) -> Tensor:
    """Return the weighted mean of every channel."""
    axes = [0, *range(2, values.ndim)]
    weight = weight.expand_as(values)
    return (values * weight).sum(axes) / weight.sum(axes).clamp(min=1)


def _sd(values: Tensor, weight: Tensor) -> Tensor:
    """Return the weighted standard deviation of every channel."""
    centred = values - _mean(values, weight)[:, None, None]
    return (_mean(centred.square(), weight) + 1e-8).sqrt()


_ERRORS = {
    "l1": torch.abs,
    "l2": torch.square,
    "huber": lambda r: functional.huber_loss(r, torch.zeros_like(r), reduction="none"),
}
