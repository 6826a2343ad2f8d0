"""Corrections and truth -> one number, in units of the least-squares standard errors.

Each sample's error is divided by its mean standard error, so that every SNR counts the same.
"""

import math

from torch import Tensor

SD_WEIGHT = 0.1  # of the standard deviations' likelihood beside the estimates' error
SD_PER_ERROR = math.sqrt(math.pi / 2)  # sd of a Gaussian over its mean absolute error
LEAST_FLOW = 3.0  # ATT means nothing where there is less CBF [ml/100 g/min]


def correction_loss(
    outputs: Tensor, errors: Tensor, truth: Tensor, base: Tensor, mask: Tensor
) -> Tensor:
    """L1 of the estimates plus the likelihood of their errors for the reported sds.

    The likelihood is Laplace's, which a few large errors do not dominate; the sds are those of
    a Gaussian with the same mean absolute error.

    Parameters
    ----------
    outputs : (batch, 4, x, y)
        Corrections of CBF and ATT in standard errors, and log sds relative to them.
    errors, truth, base : (batch, 2, x, y)
        Standard errors, true values and least-squares values of CBF and ATT.
    mask : (batch, 1, x, y)
        1 where the estimates count.
    """
    weight = mask.expand_as(truth).clone()
    weight[:, 1] *= truth[:, 0] > LEAST_FLOW
    residual = base + errors * outputs[:, :2] - truth
    scale = (errors * mask).sum((2, 3)).clamp(min=1e-6)
    l1 = (residual.abs() * weight).sum((2, 3)) / scale
    log_sd = outputs[:, 2:]
    z = SD_PER_ERROR * residual.detach().abs() / errors.clamp(min=1e-6)
    likelihood = (log_sd + z * (-log_sd).exp()) * weight
    nll = likelihood.sum((2, 3)) / weight.sum((2, 3)).clamp(min=1)
    return 2 * l1.mean() + SD_WEIGHT * nll.mean()
