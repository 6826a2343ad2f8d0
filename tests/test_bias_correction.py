"""Bias correction: a scale and an offset of CBF and ATT, without effect at first."""

import pytest
import torch

from aslkit.nets.experimental.bias_correction import (
    BiasCorrectedNet,
    BiasCorrection,
    freeze_all_but_bias,
)
from aslkit.nets.profile_encoding import CHANNELS

CBF_SE, ATT_SE = 8.0, 0.2


def channels_of(cbf, att):
    """Return channels (1, c, 1, 1) of a voxel with these least-squares estimates."""
    channels = torch.zeros(1, len(CHANNELS), 1, 1)
    values = {
        "CBF in standard errors": torch.tensor(cbf / CBF_SE).asinh(),
        "ATT": att - 1.3,
        "standard error of ATT": torch.tensor(ATT_SE + 1e-3).log(),
    }
    for name, value in values.items():
        channels[:, CHANNELS.index(name)] = value
    return channels


def corrected(module, cbf=40.0, att=1.1, g=(0.5, -1.0), log_sd=(-0.2, 0.1)):
    """Return CBF, ATT and their log sds after the correction."""
    outputs = torch.tensor([*g, *log_sd])[None, :, None, None]
    found = module(outputs, channels_of(cbf, att)).detach().flatten()
    return [cbf + CBF_SE * found[0], att + ATT_SE * found[1], *found[2:]]


def test_a_new_bias_correction_changes_nothing():
    assert corrected(BiasCorrection()) == pytest.approx([44.0, 0.9, -0.2, 0.1], abs=1e-5)


def test_estimates_are_scaled_and_shifted_and_their_sds_scaled():
    module = BiasCorrection()
    module.log_scale.data = torch.tensor([1.25, 0.8]).log()
    module.offset.data = torch.tensor([0.5, 0.1])
    cbf, att, cbf_log_sd, att_log_sd = corrected(module)
    assert float(cbf) == pytest.approx(1.25 * 44 + 0.5 * CBF_SE, rel=1e-5)
    assert float(att) == pytest.approx(0.8 * 0.9 + 0.1, rel=1e-5)
    expected = torch.tensor([-0.2, 0.1]) + torch.tensor([1.25, 0.8]).log()
    assert [cbf_log_sd, att_log_sd] == pytest.approx(expected.tolist(), rel=1e-5)


def test_only_the_bias_correction_is_trained():
    network = BiasCorrectedNet(len(CHANNELS), (8, 8))
    freeze_all_but_bias(network)
    trained = [name for name, weight in network.named_parameters() if weight.requires_grad]
    assert trained == ["bias.log_scale", "bias.offset"]
