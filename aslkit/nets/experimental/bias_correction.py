"""Correction of least squares -> the same, with CBF and ATT scaled and shifted by four numbers."""

import torch
from torch import Tensor, nn

from aslkit.core.constants import TYPICAL_ATT_S
from aslkit.nets.profile_encoding import CHANNELS, LEAST_ATT_SE_S
from aslkit.nets.residual_unet import PhysicsResidualNet

CBF, ATT, ATT_SE = (
    CHANNELS.index(name) for name in ("CBF in standard errors", "ATT", "standard error of ATT")
)


class BiasCorrection(nn.Module):
    """A scale and an offset of CBF and of ATT, 1 and 0 at first.

    The offset of CBF is in standard errors, so that CBF still scales with the signal; that of ATT
    is in seconds. Standard deviations are scaled like the estimates.
    """

    def __init__(self) -> None:
        super().__init__()
        self.log_scale = nn.Parameter(torch.zeros(2))
        self.offset = nn.Parameter(torch.zeros(2))

    def forward(self, outputs: Tensor, channels: Tensor) -> Tensor:
        """Scale and shift the outputs (batch, 4, x, y) for channels (batch, c, x, y)."""
        channels = channels.float()
        att_se = channels[:, ATT_SE].exp() - LEAST_ATT_SE_S  # (batch, x, y)
        base = torch.stack(
            [channels[:, CBF].sinh(), (channels[:, ATT] + TYPICAL_ATT_S) / att_se], 1
        )  # least squares in standard errors, (batch, 2, x, y)
        unit = torch.stack([torch.ones_like(att_se), att_se], 1)
        log_scale, offset = (v[None, :, None, None] for v in (self.log_scale, self.offset))
        estimates = log_scale.exp() * (base + outputs[:, :2]) + offset / unit
        return torch.cat([estimates - base, outputs[:, 2:] + log_scale], 1)


class BiasCorrectedNet(PhysicsResidualNet):
    """Physics-residual network followed by a bias correction; parameters as there."""

    zero_at_start = (*PhysicsResidualNet.zero_at_start, "bias.log_scale", "bias.offset")

    def __init__(
        self, n_channels: int, widths: tuple[int, ...], across_slices: bool = False
    ) -> None:
        super().__init__(n_channels, widths, across_slices)
        self.bias = BiasCorrection()

    def outputs(self, parts: tuple[Tensor, Tensor]) -> Tensor:
        """Compute the maps from the last features and the channels."""
        corrected: Tensor = self.bias(super().outputs(parts), parts[1])
        return corrected


def freeze_all_but_bias(network: nn.Module) -> None:
    """Freeze all weights of a network except those of its bias correction."""
    for name, weight in network.named_parameters():
        weight.requires_grad_(name.startswith("bias."))
