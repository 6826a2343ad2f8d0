"""Description in a configuration or a model card -> an untrained network, by its kind."""

from collections.abc import Callable
from typing import Any

from aslkit.config.network_kinds import NetworkConfig
from aslkit.nets.encoding_registry import Encoding
from aslkit.nets.experimental.bias_correction import BiasCorrectedNet
from aslkit.nets.experimental.raw_unet import RAW_NETWORKS
from aslkit.nets.network import Network
from aslkit.nets.residual_unet import PhysicsResidualNet, VoxelwiseNet


def build_network(config: NetworkConfig, encoding: Encoding) -> Network:
    """Return an untrained network for the channels of an encoding."""
    options = config.model_dump(exclude={"kind"})
    return _NETWORKS[config.kind](encoding, options)


def _physics_residual(encoding: Encoding, options: dict[str, Any]) -> Network:
    is_corrected = options.pop("bias_correction")
    network = BiasCorrectedNet if is_corrected else PhysicsResidualNet
    return network(encoding.n_channels, **options)


def _voxelwise(encoding: Encoding, options: dict[str, Any]) -> Network:
    return VoxelwiseNet(encoding.n_channels, **options)


_NETWORKS: dict[str, Callable[[Encoding, dict[str, Any]], Network]] = {
    "physics_residual": _physics_residual,
    "voxelwise": _voxelwise,
    **RAW_NETWORKS,
}
