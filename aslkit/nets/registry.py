"""Description in a configuration or a model card -> an untrained network, by its kind."""

from collections.abc import Callable

from aslkit.config.network_kinds import NetworkConfig, ResidualConfig, VoxelwiseConfig
from aslkit.nets.profile_encoding import Layout
from aslkit.nets.raw_unet import (
    AmplitudeAwareSpatialASLNet,
    DualEncoderSpatialASLNet,
    SpatialASLNet,
)
from aslkit.nets.residual_unet import Network, PhysicsResidualNet, VoxelwiseNet


def build_network(config: NetworkConfig, layout: Layout) -> Network:
    """An untrained network for channels of a layout."""
    options = config.model_dump(exclude={"kind"})
    if isinstance(config, ResidualConfig):
        return PhysicsResidualNet(layout.n_channels, **options)
    if isinstance(config, VoxelwiseConfig):
        return VoxelwiseNet(layout.n_channels, **options)
    options["has_norm"] = options.pop("norm") == "group"
    return _SPATIAL[config.kind](layout, **options)


_SPATIAL: dict[str, Callable[..., Network]] = {
    "spatial": SpatialASLNet,
    "amplitude_aware": AmplitudeAwareSpatialASLNet,
    "dual_encoder": DualEncoderSpatialASLNet,
}
