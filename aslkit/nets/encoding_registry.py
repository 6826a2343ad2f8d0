"""Training configuration or model card -> the encoding of a network's input, by its kind."""

from collections.abc import Mapping
from typing import Any, Protocol

from aslkit.config.schema import TrainingConfig
from aslkit.core.acquisition import Acquisition
from aslkit.nets.experimental import raw_encoding
from aslkit.nets.profile_encoding import KIND, ProfileEncoding


class Encoding(Protocol):
    """What every encoding offers; a training run and a model card describe it alike."""

    @property
    def n_channels(self) -> int:
        """Number of channels, including the mask."""

    def covers(self, acquisition: Acquisition) -> bool:
        """Return whether scans of this protocol can be encoded."""

    def describe(self) -> dict[str, object]:
        """Return the fields of the model card."""


def build_encoding(config: TrainingConfig) -> Encoding:
    """Return the encoding of a training configuration."""
    return _ENCODINGS[config.encoding.kind].from_config(config)


def read_encoding(card: Mapping[str, Any]) -> Encoding:
    """Return the encoding of a model card; without a field `encoding` it is the default one.

    Raises
    ------
    ValueError
        If this version has no such encoding.
    """
    kind = card.get("encoding", {"kind": KIND})["kind"]
    if kind not in _ENCODINGS:
        raise ValueError("channels of another version of aslkit")
    return _ENCODINGS[kind].from_card(card)


_ENCODINGS: dict[str, type[ProfileEncoding] | type[raw_encoding.RawEncoding]] = {
    KIND: ProfileEncoding,
    raw_encoding.KIND: raw_encoding.RawEncoding,
}
