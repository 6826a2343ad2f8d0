"""Configuration or model card -> the encoding it describes, and back."""

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from aslkit.config.fixed_protocol import FixedProtocolConfig, nominal_timings
from aslkit.config.schema import RawEncodingConfig, TrainingConfig
from aslkit.core.acquisition import Timing
from aslkit.nets.profile_encoding import CHANNELS, ProfileEncoding
from aslkit.nets.raw_encoding import RawEncoding

Encoding = ProfileEncoding | RawEncoding


def build_encoding(config: TrainingConfig) -> Encoding:
    """What the network of a training run sees."""
    if isinstance(config.encoding, RawEncodingConfig) and isinstance(
        config.data, FixedProtocolConfig
    ):
        return RawEncoding(
            nominal_timings(config.data),
            config.encoding.normalization,
            config.encoding.scale,
            config.encoding.features,
            config.data.t1_blood_s,
        )
    return ProfileEncoding()


def describe_encoding(encoding: Encoding) -> dict[str, object]:
    """Fields of the model card, all constants included."""
    if isinstance(encoding, ProfileEncoding):
        return {"encoding": {"kind": "physics_profile"}, "channels": list(CHANNELS)}
    return {"encoding": {"kind": "raw", **asdict(encoding)}}


def read_encoding(card: Mapping[str, Any]) -> Encoding:
    """The encoding of a model card; without a field `encoding` it is the physics profile.

    Raises
    ------
    ValueError
        When this version has no such encoding.
    """
    constants = dict(card.get("encoding", {"kind": "physics_profile"}))
    kind = constants.pop("kind")
    if kind == "raw":
        timings = tuple(Timing(**t) for t in constants.pop("timings"))
        rest: dict[str, Any] = {
            k: tuple(v) if isinstance(v, list) else v for k, v in constants.items()
        }
        return RawEncoding(timings, **rest)
    if kind != "physics_profile" or card.get("channels") != list(CHANNELS):
        raise ValueError("channels of another version of aslkit")
    return ProfileEncoding()
