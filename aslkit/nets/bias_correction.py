"""Corrections of a network -> the same with the estimates scaled and shifted, a few numbers."""

import torch
from torch import Tensor, nn

from aslkit.core.constants import TYPICAL_ATT_S
from aslkit.nets.profile_encoding import CHANNELS, LEAST_ATT_SE_S

CBF, ATT, ATT_SE = (
    CHANNELS.index(name) for name in ("CBF in standard errors", "ATT", "standard error of ATT")
)


def freeze_all_but_bias(network: nn.Module) -> None:
    """Freeze everything but the bias correction of a network."""
    for name, weight in network.named_parameters():
        weight.requires_grad_(name.startswith("bias."))


class BiasCorrection(nn.Module):
    """A scale and an offset of CBF and of ATT; at first they change nothing.

    CBF is shifted in its standard errors, so that it still scales with the signal, and ATT in
    seconds. Standard deviations are scaled like the estimates.
    """

    def __init__(self) -> None:
        super().__init__()
        self.log_scale = nn.Parameter(torch.zeros(2))
        self.offset = nn.Parameter(torch.zeros(2))

    def forward(self, outputs: Tensor, channels: Tensor) -> Tensor:
        """Outputs (batch, 4, x, y) of a network for channels (batch, c, x, y) -> the same."""
        channels = channels.float()
        att_se = channels[:, ATT_SE].exp() - LEAST_ATT_SE_S
        base = torch.stack(
            [channels[:, CBF].sinh(), (channels[:, ATT] + TYPICAL_ATT_S) / att_se], 1
        )
        unit = torch.stack([torch.ones_like(att_se), att_se], 1)
        log_scale, offset = (v[None, :, None, None] for v in (self.log_scale, self.offset))
        estimates = log_scale.exp() * (base + outputs[:, :2]) + offset / unit
        return torch.cat([estimates - base, outputs[:, 2:] + log_scale], 1)
