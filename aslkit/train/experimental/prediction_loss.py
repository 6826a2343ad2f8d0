"""Estimates and a noisy signal of the same scan -> how well CBF predicts the signal."""

from collections.abc import Mapping

import torch
from torch import Tensor

from aslkit.core.constants import ATT_BOUNDS_S
from aslkit.kinetics.model import KineticModel, delta_m


def prediction_loss(outputs: Tensor, real: Mapping[str, Tensor], model: KineticModel) -> Tensor:
    """Return half the mean squared error, in noise sds, of the signal that CBF predicts.

    The noise of the signal is independent of that in the input. Therefore the loss is least for
    the CBF that predicts the signal without noise (Lehtinen 2018, arXiv:1803.04189), within the
    kinetic model and for the ATT of the network. ATT gets no gradient: with arterial signal or
    dispersion, which the model does not describe, the ATT that predicts the signal best is not
    the true one. The arterial signal of the base fit has been subtracted from the signal.

    Parameters
    ----------
    outputs : (batch, 4, x, y)
        Corrections of CBF and ATT in standard errors, and their log sds.
    real : mapping
        `base`, `errors`, `signal`, `sd` and `inside` as in `draw_real_batch`.
    model : KineticModel
        Weighted model of every slice of the batch.
    """
    cbf, att = (real["base"] + real["errors"] * outputs[:, :2]).flatten(2).unbind(1)
    expected = delta_m(model, cbf, att.detach().clamp(*ATT_BOUNDS_S))
    inside, sd = real["inside"].flatten(2), real["sd"].flatten(2)
    z = (real["signal"].flatten(2) - expected) / torch.where(inside > 0, sd, 1)
    return (z.square() * inside).sum() / (2 * inside.sum().clamp(min=1))
