"""Outputs and truth -> errors of CBF and ATT, and losses of their standard deviations, (2, 2).

Errors are in units of the least-squares standard errors: the error of each sample is divided by
its mean standard error, so that every SNR has the same weight.
"""

import math

import torch
from torch import Tensor

from aslkit.core.constants import Z_95

INTERVAL = 0.95  # share of the errors inside an interval
INTERVAL_WEIGHT = 0.3  # of the loss of the intervals beside the errors
LEAST_ERROR = 1e-4  # of a standard error: smaller errors count as this
LEAST_FLOW = 3.0  # CBF [ml/100 g/min] below which errors of ATT do not count


def correction_loss(
    outputs: Tensor, errors: Tensor, truth: Tensor, base: Tensor, mask: Tensor
) -> Tensor:
    """Return the L1 error of the estimates and the quantile loss of their 95 % intervals.

    Half the width of the interval, 1.96 reported sds, should be the 95 % quantile of the absolute
    errors. It is learned in the logarithm, so that few large errors do not dominate.

    Parameters
    ----------
    outputs : (batch, 4, x, y)
        Corrections of CBF and ATT in standard errors, and log sds in the same unit.
    errors, truth, base : (batch, 2, x, y)
        Standard errors, true values and least-squares values of CBF and ATT.
    mask : (batch, 1, x, y)
        1 where the estimates count.

    Returns
    -------
    (2, 2)
        Errors of CBF and ATT, then losses of their intervals.
    """
    weight = counted(mask, truth)  # (batch, 2, x, y)
    residual = base + errors * outputs[:, :2] - truth
    scale = (errors * mask).sum((2, 3)).clamp(min=1e-6)  # (batch, 2)
    l1 = (residual.abs() * weight).sum((2, 3)) / scale
    log_sd = outputs[:, 2:]
    z = residual.detach().abs() / errors.clamp(min=1e-6)
    beyond = z.clamp(min=LEAST_ERROR).log() - math.log(Z_95) - log_sd
    pinball = torch.maximum(INTERVAL * beyond, (INTERVAL - 1) * beyond)
    missed = (pinball * weight).sum((2, 3)) / weight.sum((2, 3)).clamp(min=1)
    return torch.stack([l1.mean(0), INTERVAL_WEIGHT / 2 * missed.mean(0)])


def counted(mask: Tensor, truth: Tensor) -> Tensor:
    """Return 1 where errors of CBF and of ATT (batch, 2, x, y) count, else 0."""
    weight = mask.expand_as(truth).clone()
    weight[:, 1] *= truth[:, 0] > LEAST_FLOW
    return weight
