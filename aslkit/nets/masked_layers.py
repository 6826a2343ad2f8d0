"""Parts of U-Nets that know the brain mask, and feature maps of image-wide statistics.

Features are 0 outside the brain, like the padding around the image, and norms and statistics are
taken over the brain alone: how much air the field of view holds changes nothing.
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

NORM_GROUPS = 8
SMALLEST_VARIANCE = 1e-5
CONDITION_WIDTH = 96  # of the code that image-wide amplitudes are turned into
ATTENTION_PIXELS = 7  # of a side, what the weight of a place depends on
Film = Callable[[Tensor], Tensor]


class _NormedReLU(torch.autograd.Function):
    """The arithmetic of `BrainNorm`, in few passes over the features, forwards and backwards."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, mask: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        """(b, c, x, y), (b, 1, x, y), (c,), (c,) -> (b, c, x, y)."""
        x = x * mask
        count = mask.float().sum((2, 3)).clamp(min=1) * (x.shape[1] // NORM_GROUPS)
        mean = _pooled(x.sum((2, 3), dtype=torch.float32)) / count
        length = torch.linalg.vector_norm(x, dim=(2, 3), dtype=torch.float32)
        variance = (_pooled(length.square()) / count - mean.square()).clamp(min=0)
        mean, inverse = _spread(mean, x), _spread(torch.rsqrt(variance + SMALLEST_VARIANCE), x)
        scale = weight * inverse
        unit = torch.addcmul(_image(bias - scale * mean, x), x, _image(scale, x))
        y = functional.relu(unit) * mask
        ctx.save_for_backward(x, mask, y, weight, mean, inverse, count)
        return y

    @staticmethod
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor | None, ...]:
        """Slopes with respect to features, weight and bias."""
        x, mask, y, weight, mean, inverse, count = ctx.saved_tensors
        slope = torch.ops.aten.threshold_backward(upstream, y, 0)
        to_bias = slope.sum((2, 3)).float()
        to_weight = inverse * ((slope * x).sum((2, 3)).float() - mean * to_bias)
        lost_mean, lost_scale = (
            _spread(_pooled(weight * s) / count, x) for s in (to_bias, to_weight)
        )
        factor = inverse.square() * lost_scale
        result = torch.addcmul(slope * _image(weight * inverse, x), x, _image(-factor, x))
        level = _image(mean * factor - inverse * lost_mean, x)
        return torch.addcmul(result, mask, level), None, to_weight.sum(0), to_bias.sum(0)


def _pooled(values: Tensor) -> Tensor:
    """Sums of (batch, c) over the features of each group."""
    return values.unflatten(1, (NORM_GROUPS, -1)).sum(2)


def _spread(values: Tensor, like: Tensor) -> Tensor:
    """Values of groups, for each of their features."""
    return values.repeat_interleave(like.shape[1] // NORM_GROUPS, 1)


def _image(values: Tensor, like: Tensor) -> Tensor:
    """(batch, c) to broadcast over images of a precision."""
    return values.to(like.dtype)[..., None, None]


class BrainNorm(nn.Module):
    """Group norm with mean and variance over the brain, then ReLU, 0 outside the brain."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))
        self.bias = nn.Parameter(torch.zeros(width))

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        """(b, c, x, y), (b, 1, x, y) -> the positive part of zero mean, unit variance groups."""
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
    """Conv pairs with pooling between them; the deepest features and the skips, finest first."""

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
        """(batch, n_in, x, y) and the mask of every resolution -> deepest features, skips."""
        skips: list[Tensor] = []
        for pair, mask in zip(self.pairs, masks, strict=True):
            x = pair(functional.max_pool2d(x, 2) if skips else x, mask)
            skips.append(x)
        return x, skips[:-1]


class Decoder(nn.Module):
    """Transposed convolutions and conv pairs back up; `n_skips` encoders give their features."""

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
        """Deepest features -> those of full resolution; `films` follow each of the pairs."""
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
    """Features weighted by place, between 0 and 2 (Woo 2018, arXiv:1807.06521).

    The identity before training.
    """

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(2, 1, ATTENTION_PIXELS, padding=ATTENTION_PIXELS // 2)
        nn.init.zeros_(self.conv.weight)
        nn.init.zeros_(self.conv.bias)  # type: ignore[arg-type]

    def forward(self, x: Tensor) -> Tensor:
        """(batch, width, x, y), 0 outside the brain -> the same shape."""
        seen = torch.cat([x.mean(1, keepdim=True), x.amax(1, keepdim=True)], dim=1)
        return x * (2 * torch.sigmoid(self.conv(seen)))


def mask_pyramid(mask: Tensor, stride: int) -> list[Tensor]:
    """The brain at every resolution: a coarse pixel counts if any of its parts does."""
    masks = [mask]
    while stride > 1:
        masks.append(functional.max_pool2d(masks[-1], 2))
        stride //= 2
    return masks


def brain_statistics(channels: Tensor) -> Tensor:
    """Mean and sd over the brain of every channel but the mask, (batch, 2 (channels - 1))."""
    values, mask = channels[:, :-1].float(), channels[:, -1:].float()
    n = mask.sum((2, 3)).clamp(min=1)
    mean = (values * mask).sum((2, 3)) / n
    variance = ((values - mean[..., None, None]).square() * mask).sum((2, 3)) / n
    return torch.cat([mean, (variance + SMALLEST_VARIANCE).sqrt()], dim=1)
