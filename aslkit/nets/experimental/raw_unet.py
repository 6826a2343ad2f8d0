"""Raw curves of a slice -> CBF and ATT: U-Nets with features inside the brain mask only.

    curves ─ conv² ─ pool ─ conv² ─ pool ─ conv² ─ pool ─ conv² ─ up ─ conv² ─ … ─ 1x1 heads
                └──────────────────────── skips ────────────────────────┘

The layers are those of `masked_layers`. Outputs are in the units of the encoding.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from aslkit.nets.encoding_registry import Encoding
from aslkit.nets.experimental.masked_layers import (
    CONDITION_WIDTH,
    ConvPair,
    Decoder,
    Encoder,
    FiLM,
    Film,
    SpatialAttention,
    brain_statistics,
    mask_pyramid,
)
from aslkit.nets.experimental.raw_encoding import Layout, RawEncoding
from aslkit.nets.network import Network

AMPLITUDE_WIDTH = 32  # features of the CBF head with the amplitudes of the pixel as input


class SpatialASLNet(Network):
    """U-Net of raw curves.

    Parameters
    ----------
    layout : Layout
        Order of the channels.
    widths : sequence of int
        Number of features per resolution, finest first, multiples of 8.
    has_norm : bool
        Whether convolutions are followed by a group norm.
    dropout : float
        Share of the features that are dropped in training.
    n_maps : int
        Number of outputs for each of CBF and ATT: 2, or 3 with a logit of confidence.
    """

    _is_first_normed = True

    def __init__(
        self,
        layout: Layout,
        widths: tuple[int, ...],
        has_norm: bool = True,
        dropout: float = 0.0,
        n_maps: int = 2,
    ) -> None:
        super().__init__()
        self.stride = 2 ** (len(widths) - 1)
        self.n_outputs = 2 * n_maps
        self.layout = layout
        self.encoder = Encoder(layout.n_channels, widths, has_norm, dropout, self._is_first_normed)
        self.decoder = Decoder(widths, 1, has_norm, dropout)
        self.cbf_head: nn.Module = nn.Conv2d(widths[0], n_maps, 1)
        self.att_head = nn.Conv2d(widths[0], n_maps, 1)
        self.denoising_head: nn.Module | None = None

    def forward(self, channels: Tensor) -> Tensor:
        """(batch, channels, x, y) -> CBF, ATT, their log sds … (batch, 4 or 6, x, y), float32.

        In training, a network with a denoising head appends the denoised signal [% of M0].
        """
        x, skips, masks = self._encoded(channels)
        x, for_att = self._decoded(x, skips, masks, channels)
        cbf = self.cbf_head(self._cbf_features(x, channels))
        outputs = _interleaved(cbf, self.att_head(for_att))
        if self.denoising_head is None or not self.training:
            return outputs
        return torch.cat([outputs, self.denoising_head(x).float()], dim=1)

    def _encoded(self, channels: Tensor) -> tuple[Tensor, list[Tensor], list[Tensor]]:
        """Return the deepest features, and skips and masks, finest first."""
        masks = mask_pyramid(channels[:, -1:], self.stride)
        return *self.encoder(channels, masks), masks

    def _decoded(
        self, x: Tensor, skips: list[Tensor], masks: list[Tensor], channels: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Decode the deepest features to full resolution, for CBF and for ATT."""
        x = _decode(self.decoder, x, skips, masks, self._films(channels, masks))
        return x, x

    def _films(self, channels: Tensor, masks: list[Tensor]) -> Sequence[Film]:
        """Return the functions applied to the features of every resolution, coarsest first."""
        return [nn.Identity()] * len(masks)

    def _cbf_features(self, x: Tensor, channels: Tensor) -> Tensor:
        """Return the input of the CBF head."""
        return x


class AmplitudeAwareSpatialASLNet(SpatialASLNet):
    """U-Net of raw curves with their amplitudes as further input, in three ways.

    Parameters
    ----------
    layout, widths, has_norm, dropout
        As for `SpatialASLNet`.
    film_at_bottleneck, film_at_decoder : bool
        Whether a code of the amplitudes of the whole slice scales and shifts the features there.
    output_modulation : bool
        Whether the amplitudes of the pixel are an input of the CBF head.
    separate_decoders : bool
        Whether ATT has a decoder of its own.
    att_film : bool
        Whether the ATT decoder has its own code of amplitudes and FiLM layers.
    att_attention : bool
        Whether spatial attention weights the features of the ATT head.
    denoising_head : bool
        Whether there is a head for the denoised signal, for pre-training.
    context_branch : bool
        Whether a second encoder processes the image at half the resolution; its features, of
        twice the field of view, are added at the bottleneck.
    confidence_head : bool
        Whether the heads also return logits of the probability that CBF and ATT are close to the
        truth.
    """

    _is_first_normed = False

    def __init__(
        self,
        layout: Layout,
        widths: tuple[int, ...],
        has_norm: bool = True,
        dropout: float = 0.0,
        film_at_bottleneck: bool = True,
        film_at_decoder: bool = True,
        output_modulation: bool = True,
        separate_decoders: bool = False,
        att_film: bool = False,
        att_attention: bool = False,
        denoising_head: bool = False,
        context_branch: bool = False,
        confidence_head: bool = False,
    ) -> None:
        n_maps = 2 + confidence_head
        super().__init__(layout, widths, has_norm, dropout, n_maps)
        self.is_modulated = [film_at_bottleneck] + [film_at_decoder] * (len(widths) - 1)
        modulated = [w for w, is_on in zip(widths[::-1], self.is_modulated, strict=True) if is_on]
        self.films = nn.ModuleList(FiLM(w) for w in modulated)
        if self.films:
            self.condition = _condition(layout)
        self.output_modulation = output_modulation
        if output_modulation:
            self.cbf_head = nn.Sequential(
                nn.Conv2d(widths[0] + len(layout.curves), AMPLITUDE_WIDTH, 1),
                nn.ReLU(),
                nn.Conv2d(AMPLITUDE_WIDTH, n_maps, 1),
            )
        self.att_decoder = Decoder(widths, 1, has_norm, dropout) if separate_decoders else None
        self.att_films = nn.ModuleList(FiLM(w) for w in modulated if att_film)
        self.att_condition = _condition(layout) if att_film else None
        self.att_attention = SpatialAttention() if att_attention else nn.Identity()
        if denoising_head:
            self.denoising_head = nn.Conv2d(widths[0], sum(layout.curves), 1)
        self.context: Encoder | None = None
        if context_branch:
            self.stride *= 2
            self.context = Encoder(layout.n_channels, widths, has_norm, dropout, False)
            self.join = ConvPair(2 * widths[-1], widths[-1], has_norm, dropout)

    def _encoded(self, channels: Tensor) -> tuple[Tensor, list[Tensor], list[Tensor]]:
        if self.context is None:
            return super()._encoded(channels)
        *masks, coarsest = mask_pyramid(channels[:, -1:], self.stride)
        x, skips = self.encoder(channels, masks)
        wide, _ = self.context(functional.avg_pool2d(channels, 2), [*masks[1:], coarsest])
        both = torch.cat([x, functional.interpolate(wide, scale_factor=2)], dim=1)
        return self.join(both, masks[-1]), skips, masks

    def _decoded(
        self, x: Tensor, skips: list[Tensor], masks: list[Tensor], channels: Tensor
    ) -> tuple[Tensor, Tensor]:
        films = self._films(channels, masks)
        for_cbf = for_att = _decode(self.decoder, x, skips, masks, films)
        if self.att_condition is not None:
            films = self._driven(self.att_condition, self.att_films, channels, masks)
        if self.att_decoder is not None:
            for_att = _decode(self.att_decoder, x, skips, masks, films)
        return for_cbf, self.att_attention(for_att)

    def _films(self, channels: Tensor, masks: list[Tensor]) -> Sequence[Film]:
        if not self.films:
            return super()._films(channels, masks)
        return self._driven(self.condition, self.films, channels, masks)

    def _driven(
        self, condition: nn.Module, films: nn.ModuleList, channels: Tensor, masks: list[Tensor]
    ) -> Sequence[Film]:
        """Return FiLM layers with the code that `condition` computes from the amplitudes."""
        code, layers = condition(brain_statistics(channels)), iter(films)
        return [
            partial(next(layers), code=code, mask=mask) if is_on else nn.Identity()
            for is_on, mask in zip(self.is_modulated, masks[::-1], strict=True)
        ]

    def _cbf_features(self, x: Tensor, channels: Tensor) -> Tensor:
        if not self.output_modulation:
            return x
        *curves, _ = self.layout.split(channels)
        amplitudes = [part.abs().mean(1, keepdim=True) for part in curves]
        return torch.cat([x, *amplitudes], dim=1)


class DualEncoderSpatialASLNet(Network):
    """U-Net with an encoder for the curves of each labeling, joined at the bottleneck.

    Parameters as for `SpatialASLNet`. Channels other than curves are inputs of every encoder.
    """

    def __init__(
        self, layout: Layout, widths: tuple[int, ...], has_norm: bool = True, dropout: float = 0.0
    ) -> None:
        super().__init__()
        self.stride = 2 ** (len(widths) - 1)
        self.layout = layout
        self.encoders = nn.ModuleList(
            Encoder(n + layout.n_features + 1, widths, has_norm, dropout) for n in layout.curves
        )
        n_encoders = len(layout.curves)
        self.join = ConvPair(n_encoders * widths[-1], widths[-1], has_norm, dropout)
        self.decoder = Decoder(widths, n_encoders, has_norm, dropout)
        self.cbf_head, self.att_head = (nn.Conv2d(widths[0], 2, 1) for _ in range(2))

    def forward(self, channels: Tensor) -> Tensor:
        """(batch, channels, x, y) -> CBF, ATT and their log sds (batch, 4, x, y), float32."""
        masks = mask_pyramid(channels[:, -1:], self.stride)
        *curves, others = self.layout.split(channels)
        inputs = [torch.cat([part, others], dim=1) for part in curves]
        encoded = [e(part, masks) for e, part in zip(self.encoders, inputs, strict=True)]
        x = self.join(torch.cat([deepest for deepest, _ in encoded], dim=1), masks[-1])
        levels = zip(*(skips for _, skips in encoded), strict=True)
        skips = [torch.cat(level, dim=1) for level in levels]
        x = self.decoder(x, skips, masks, [nn.Identity()] * len(skips))
        return _interleaved(self.cbf_head(x), self.att_head(x))


def _condition(layout: Layout) -> nn.Module:
    """Return layers that turn the amplitudes of a slice into a code (batch, CONDITION_WIDTH)."""
    return nn.Sequential(
        nn.Linear(2 * (layout.n_channels - 1), CONDITION_WIDTH),
        nn.ReLU(),
        nn.Linear(CONDITION_WIDTH, CONDITION_WIDTH),
        nn.ReLU(),
    )


def _decode(
    decoder: Decoder, x: Tensor, skips: list[Tensor], masks: list[Tensor], films: Sequence[Film]
) -> Tensor:
    """Decode the deepest features to full resolution, with FiLM at every resolution."""
    deepest, *others = films
    result: Tensor = decoder(deepest(x), list(skips), masks, others)
    return result


def _interleaved(cbf: Tensor, att: Tensor) -> Tensor:
    """Reorder (estimate, log sd, …) of CBF and of ATT to CBF, ATT, log sd of CBF, of ATT, …"""
    return torch.stack([cbf, att], dim=2).flatten(1, 2).float()


def _builder(network: Callable[..., Network]) -> Callable[[Encoding, dict[str, Any]], Network]:
    """Return a function that builds a network from an encoding and the options of its kind."""

    def build(encoding: Encoding, options: dict[str, Any]) -> Network:
        if not isinstance(encoding, RawEncoding):
            raise ValueError("a network of raw curves with another encoding")
        others = {k: v for k, v in options.items() if k != "norm"}
        return network(encoding.layout, has_norm=options["norm"] == "group", **others)

    return build


RAW_NETWORKS = {
    "spatial": _builder(SpatialASLNet),
    "amplitude_aware": _builder(AmplitudeAwareSpatialASLNet),
    "dual_encoder": _builder(DualEncoderSpatialASLNet),
}
