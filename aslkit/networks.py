"""Description in a configuration or a model card -> an untrained network, by its kind."""

from collections.abc import Callable

from aslkit.config.network_kinds import NetworkConfig, ResidualConfig, VoxelwiseConfig
from aslkit.encoding import Layout
from aslkit.residual_nets import Network, PhysicsResidualNet, VoxelwiseNet
from aslkit.spatial_nets import (
    AmplitudeAwareSpatialASLNet,
    DualEncoderSpatialASLNet,
    SpatialASLNet,
)


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
