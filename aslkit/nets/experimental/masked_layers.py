"""Features and brain mask -> features: layers of U-Nets that are 0 outside the brain.

Norms and statistics are taken over the brain only, so that the amount of air in the field of view
has no effect.
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

NORM_GROUPS = 8
SMALLEST_VARIANCE = 1e-5
CONDITION_WIDTH = 96  # features of the code of the amplitudes of a slice
ATTENTION_PIXELS = 7  # side of the kernel of spatial attention
Film = Callable[[Tensor], Tensor]


class _NormedReLU(torch.autograd.Function):
    """The computation of `BrainNorm`, with few passes over the features in both directions."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, mask: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        """(b, c, x, y), (b, 1, x, y), (c,), (c,) -> (b, c, x, y)."""
        x = x * mask
        count = mask.float().sum((2, 3)).clamp(min=1) * (x.shape[1] // NORM_GROUPS)
        mean = _pooled(x.sum((2, 3), dtype=torch.float32)) / count
        length = torch.linalg.vector_norm(x, dim=(2, 3), dtype=torch.float32)
        variance = (_pooled(length.square()) / count - mean.square()).clamp(min=0)
        mean, inverse = (
            _per_feature(mean, x),
            _per_feature(torch.rsqrt(variance + SMALLEST_VARIANCE), x),
        )
        scale = weight * inverse
        unit = torch.addcmul(_image(bias - scale * mean, x), x, _image(scale, x))
        y = functional.relu(unit) * mask
        ctx.save_for_backward(x, mask, y, weight, mean, inverse, count)
        return y

    @staticmethod
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor | None, ...]:
        """Gradients with respect to features, weight and bias."""
        x, mask, y, weight, mean, inverse, count = ctx.saved_tensors
        slope = torch.ops.aten.threshold_backward(upstream, y, 0)
        to_bias = slope.sum((2, 3)).float()
        to_weight = inverse * ((slope * x).sum((2, 3)).float() - mean * to_bias)
        lost_mean, lost_scale = (
            _per_feature(_pooled(weight * s) / count, x) for s in (to_bias, to_weight)
        )
        factor = inverse.square() * lost_scale
        result = torch.addcmul(slope * _image(weight * inverse, x), x, _image(-factor, x))
        level = _image(mean * factor - inverse * lost_mean, x)
        return torch.addcmul(result, mask, level), None, to_weight.sum(0), to_bias.sum(0)


def _pooled(values: Tensor) -> Tensor:
    """Sum (batch, c) over the features of each group, to (batch, groups)."""
    return values.unflatten(1, (NORM_GROUPS, -1)).sum(2)


def _per_feature(values: Tensor, like: Tensor) -> Tensor:
    """Repeat the values of groups (batch, groups) for each of their features, to (batch, c)."""
    return values.repeat_interleave(like.shape[1] // NORM_GROUPS, 1)


def _image(values: Tensor, like: Tensor) -> Tensor:
    """Shape (batch, c) to broadcast over images, in the precision of `like`."""
    return values.to(like.dtype)[..., None, None]


class BrainNorm(nn.Module):
    """Group norm with mean and variance over the brain, and ReLU; 0 outside the brain."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))
        self.bias = nn.Parameter(torch.zeros(width))

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        """Normalise features (b, c, x, y) in the mask (b, 1, x, y) and apply ReLU."""
        result: Tensor = _NormedReLU.apply(x, mask, self.weight, self.bias)
        return result


class ConvPair(nn.Module):
    """[3 x 3 convolution, norm, ReLU] twice, 0 outside the brain."""

    def __init__(self, n_in: int, width: int, has_norm: bool, dropout: float) -> None:
        super().__init__()
        self.convs = nn.ModuleList(
            [nn.Conv2d(n_in, width, 3, padding=1), nn.Conv2d(width, width, 3, padding=1)]
        )
        self.norms = nn.ModuleList(BrainNorm(width) for _ in range(2 * has_norm))
        self.dropout = nn.Dropout2d(dropout)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        """(batch, n_in, x, y) and mask (batch, 1, x, y) -> (batch, width, x, y)."""
        for i, conv in enumerate(self.convs):
            x = conv(x)
            inside = mask.to(x.dtype)
            x = self.norms[i](x, inside) if self.norms else functional.relu(x) * inside
        return self.dropout(x)


class Encoder(nn.Module):
    """Pairs of convolutions with pooling between them."""

    def __init__(
        self,
        n_in: int,
        widths: tuple[int, ...],
        has_norm: bool,
        dropout: float,
        is_first_normed: bool = True,
    ) -> None:
        super().__init__()
        sizes = zip((n_in, *widths[:-1]), widths, strict=True)
        self.pairs = nn.ModuleList(
            ConvPair(a, b, has_norm and (i > 0 or is_first_normed), dropout)
            for i, (a, b) in enumerate(sizes)
        )

    def forward(self, x: Tensor, masks: list[Tensor]) -> tuple[Tensor, list[Tensor]]:
        """(batch, n_in, x, y) and the masks -> deepest features and skips, finest first."""
        skips: list[Tensor] = []
        for pair, mask in zip(self.pairs, masks, strict=True):
            x = pair(functional.max_pool2d(x, 2) if skips else x, mask)
            skips.append(x)
        return x, skips[:-1]


class Decoder(nn.Module):
    """Transposed convolutions and pairs of convolutions, with the skips of `n_skips` encoders."""

    def __init__(
        self, widths: tuple[int, ...], n_skips: int, has_norm: bool, dropout: float
    ) -> None:
        super().__init__()
        steps = list(zip(widths[:-1], widths[1:], strict=True))[::-1]
        self.ups = nn.ModuleList(nn.ConvTranspose2d(b, a, 2, stride=2) for a, b in steps)
        self.pairs = nn.ModuleList(
            ConvPair((1 + n_skips) * a, a, has_norm, dropout) for a, _ in steps
        )

    def forward(
        self, x: Tensor, skips: list[Tensor], masks: list[Tensor], films: Sequence[Film]
    ) -> Tensor:
        """Decode the deepest features to full resolution; each of `films` follows a pair."""
        for up, pair, film in zip(self.ups, self.pairs, films, strict=True):
            mask, skip = masks[len(skips) - 1], skips.pop()
            x = up(x)
            x = film(pair(torch.cat([x * mask.to(x.dtype), skip], dim=1), mask))
        return x


class FiLM(nn.Module):
    """Features scaled and shifted by a code of the image (Perez 2018, arXiv:1709.07871).

    The identity before training.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.linear = nn.Linear(CONDITION_WIDTH, 2 * width)
        nn.init.zeros_(self.linear.weight)
        nn.init.zeros_(self.linear.bias)

    def forward(self, x: Tensor, code: Tensor, mask: Tensor) -> Tensor:
        """(batch, width, x, y), code (batch, CONDITION_WIDTH) and mask -> the same shape."""
        scale, shift = self.linear(code)[..., None, None].chunk(2, dim=1)
        return torch.addcmul(shift, x, 1 + scale) * mask


class SpatialAttention(nn.Module):
    """Features times a weight per pixel, between 0 and 2 (Woo 2018, arXiv:1807.06521).

    The identity before training.
    """

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(2, 1, ATTENTION_PIXELS, padding=ATTENTION_PIXELS // 2)
        nn.init.zeros_(self.conv.weight)
        nn.init.zeros_(self.conv.bias)  # type: ignore[arg-type]

    def forward(self, x: Tensor) -> Tensor:
        """(batch, width, x, y), 0 outside the brain -> the same shape."""
        summary = torch.cat([x.mean(1, keepdim=True), x.amax(1, keepdim=True)], dim=1)
        return x * (2 * torch.sigmoid(self.conv(summary)))


def mask_pyramid(mask: Tensor, stride: int) -> list[Tensor]:
    """Return the mask at every resolution; a coarse pixel is 1 if any of its pixels is."""
    masks = [mask]
    while stride > 1:
        masks.append(functional.max_pool2d(masks[-1], 2))
        stride //= 2
    return masks


def brain_statistics(channels: Tensor) -> Tensor:
    """Return mean and sd over the brain of all channels but the mask, (batch, 2 (c - 1))."""
    values, mask = channels[:, :-1].float(), channels[:, -1:].float()
    n = mask.sum((2, 3)).clamp(min=1)
    mean = (values * mask).sum((2, 3)) / n
    variance = ((values - mean[..., None, None]).square() * mask).sum((2, 3)) / n
    return torch.cat([mean, (variance + SMALLEST_VARIANCE).sqrt()], dim=1)
