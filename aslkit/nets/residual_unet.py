"""Encoded slices -> corrections of a least-squares fit, in its standard errors.

                 ┌───────────────────────── skip ─────────────────────────┐
    channels ─ stem ─ block ─ down ─ block ─ … ─ block ─ up ─ block ─ … ─ block ─ head ─ 4 maps

The head also sees the input and starts at zero: an untrained network is least squares.
"""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from copy import deepcopy
from functools import partial
from itertools import islice
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from aslkit.nets.bias_correction import BiasCorrection

# Ends of the names of weights without which a network is as before.
ZERO_AT_START = (".across.weight", "bias.log_scale", "bias.offset")
N_OUTPUTS = 4  # CBF and ATT, log sd of both

Sides = tuple[int, int, int, int]  # pixels around an image: left, right, top, bottom
MapFunction = Callable[
    [Callable[..., Any], Iterable[Any]], Iterable[Any]
]  # applies, as `map` does


class Network(nn.Module):
    """Channels (batch, c, x, y) -> maps (batch, 4, x, y): two estimates, two log sds.

    Where `n_outputs` is 6, two logits follow: of the chance that the estimates are close.

    Sides of the input must be multiples of `stride`. A network whose `reach` is not 0 sees so
    many slices to each side, and takes a second argument: numbers (batch,) that are the same for
    the slices of one stack, which follow one another.
    """

    stride: int
    reach = 0
    n_outputs = N_OUTPUTS

    def to_shift_equivariant(self) -> "Network":
        """The network that moves with the image by single pixels, or itself if there is none."""
        return self

    def forward_stack(self, slices: Iterable[Tensor], each: MapFunction = map) -> Iterable[Tensor]:
        """One stack, slice (1, c, x, y) by slice: what `forward` makes of it, in less memory.

        `each` applies a function to slices, in any order or at once.
        """
        return each(self, slices)


class ResidualBlock(nn.Module):
    """Two convolutions around a shortcut; the norm is per pixel, whatever lies around."""

    def __init__(self, width: int, kernel: int = 3, across_slices: bool = False) -> None:
        super().__init__()
        first, second = (nn.Conv2d(width, width, kernel, padding=kernel // 2) for _ in range(2))
        nn.init.zeros_(second.weight)
        self.first: nn.Module = first
        self.second: nn.Module = second
        self.across = nn.Conv2d(width, 2 * width, 1, bias=False) if across_slices else None
        if self.across is not None:
            nn.init.zeros_(self.across.weight)

    def dilate(self, step: int) -> None:
        """Take the elements of the kernels so many pixels apart; the image goes on as it ends."""
        convs = (cast(nn.Conv2d, conv) for conv in (self.first, self.second))
        self.first, self.second = (_wide(c.weight, c.bias, step, (step,) * 4) for c in convs)

    def forward(self, x: Tensor, is_joined: Tensor | None = None) -> Tensor:
        """(batch, width, x, y) -> the same shape.

        `is_joined` (batch - 1, 1, 1, 1) is 1 where a slice and the next are neighbours, else 0.
        """
        own, *to_others = self._before(x)
        if to_others and is_joined is not None:
            to_next, to_last = to_others
            nothing = torch.zeros_like(own[:1])
            from_last = torch.cat([nothing, to_next[:-1] * is_joined])
            return self._after((x, own, from_last, torch.cat([to_last[1:] * is_joined, nothing])))
        return self._after((x, own))

    def forward_stack(self, slices: Iterable[Tensor], each: MapFunction) -> Iterable[Tensor]:
        """One stack, slice by slice; each is there as soon as the next one has been seen."""
        slices, again = _twice(slices)
        return each(self._after, _met(each(self._before, slices), again))

    def _before(self, x: Tensor) -> tuple[Tensor, ...]:
        """What slices say of themselves, and across also of the next and of the last one."""
        x_unit = x * torch.rsqrt(x.square().mean(dim=1, keepdim=True) + 1e-4)
        across = () if self.across is None else self.across(x_unit).chunk(2, dim=1)
        return self.first(x_unit), *across

    def _after(self, met: tuple[Tensor, ...]) -> Tensor:
        """Slices, and all that was said of them."""
        x, inner, *from_others = met
        for other in from_others:
            inner = inner + other
        return x + self.second(functional.silu(inner))


def _twice(slices: Iterable[Tensor]) -> tuple[Iterator[Tensor], Iterator[Tensor]]:
    """The slices, and again for a reader that comes later; what both have seen is let go.

    (`itertools.tee` lets go of 57 at a time.)
    """
    waiting: deque[Tensor] = deque()

    def first() -> Iterator[Tensor]:
        for x in slices:
            waiting.append(x)
            yield x

    def later() -> Iterator[Tensor]:
        while waiting:
            yield waiting.popleft()

    return first(), later()


def _met(
    said: Iterable[tuple[Tensor, ...]], slices: Iterable[Tensor]
) -> Iterator[tuple[Tensor, ...]]:
    """Every slice of a stack with all that was said of it."""
    held: list[Tensor] = []
    to_next: list[Tensor] = []
    for (own, *to_others), x in zip(said, slices, strict=True):
        for other in to_next:
            own += other
        if held:
            yield (*held, *to_others[1:])
        held, to_next = [x, own], to_others[:1]
    if held:
        yield (*held,)


class PhysicsResidualNet(Network):
    """U-Net of residual blocks.

    Parameters
    ----------
    n_channels : int
    widths : sequence of int
        Feature maps per resolution, finest first; each step down halves the resolution.
    across_slices : bool
        Whether neighbouring slices see each other, in every block.
    bias_correction : bool
        Whether the estimates are scaled and shifted at the end.
    """

    def __init__(
        self,
        n_channels: int,
        widths: tuple[int, ...],
        across_slices: bool = False,
        bias_correction: bool = False,
    ) -> None:
        super().__init__()
        self.stride = 2 ** (len(widths) - 1)
        self.reach = (2 * len(widths) - 1) * across_slices
        self.stem = nn.Conv2d(n_channels, widths[0], 3, padding=1)
        blocks = (
            ResidualBlock(w, across_slices=across_slices) for w in (*widths, *widths[-2::-1])
        )
        self.down_blocks = nn.ModuleList(islice(blocks, len(widths)))
        pairs = list(zip(widths[:-1], widths[1:], strict=True))
        self.downs = nn.ModuleList(nn.Conv2d(a, b, 2, stride=2) for a, b in pairs)
        self.ups = nn.ModuleList(nn.ConvTranspose2d(b, a, 2, stride=2) for a, b in pairs[::-1])
        self.up_blocks = nn.ModuleList(blocks)
        self.head = nn.Conv2d(widths[0] + n_channels, N_OUTPUTS, 1)
        nn.init.zeros_(self.head.weight)
        nn.init.zeros_(self.head.bias)  # type: ignore[arg-type]
        self.bias = BiasCorrection() if bias_correction else None

    def forward(self, channels: Tensor, stack: Tensor | None = None) -> Tensor:
        """(batch, channels, x, y) -> corrections and log sds (batch, 4, x, y), float32."""
        x = self.stem(channels)
        is_joined = None if stack is None else (stack[1:] == stack[:-1]).to(x)[:, None, None, None]
        skips = []
        for block, down in zip(self.down_blocks, self.downs, strict=False):
            skips.append(block(x, is_joined))
            x = down(skips[-1])
        x = self.down_blocks[-1](x, is_joined)
        for up, block in zip(self.ups, self.up_blocks, strict=True):
            x = block(_merged(up, (x, skips.pop())), is_joined)
        return self._maps((x, channels))

    def forward_stack(self, slices: Iterable[Tensor], each: MapFunction = map) -> Iterable[Tensor]:
        """One stack, slice by slice; as many are held as the network reaches."""
        slices, channels = _twice(slices)
        x, skips = each(self.stem, slices), []
        for block, down in zip(self.down_blocks, self.downs, strict=False):
            x, skip = _twice(cast(ResidualBlock, block).forward_stack(x, each))
            skips.append(skip)
            x = each(down, x)
        x = cast(ResidualBlock, self.down_blocks[-1]).forward_stack(x, each)
        for up, block in zip(self.ups, self.up_blocks, strict=True):
            merged = each(partial(_merged, up), zip(x, skips.pop(), strict=True))
            x = cast(ResidualBlock, block).forward_stack(merged, each)
        return each(self._maps, zip(x, channels, strict=True))

    def _maps(self, seen: tuple[Tensor, Tensor]) -> Tensor:
        """Features, and the channels again."""
        outputs = self.head(torch.cat(seen, dim=1)).float()
        return outputs if self.bias is None else self.bias(outputs, seen[1])

    def to_shift_equivariant(self) -> Network:
        """All places that a grid of 2 x 2 pixels can have, averaged on the way back up.

        No resolution is thinned out: kernels grow instead, their elements 1, 2, 4, … pixels
        apart. What one grid would have said of a pixel is still there, beside the others.
        Features go on beyond the image as they end there, which in a margin of background is
        what they would be anyway: 16 pixels of it do for what with zeros 24 did not.
        """
        network = deepcopy(self)
        network.stride = 1
        for blocks in (network.down_blocks, network.up_blocks[::-1]):
            for i, block in enumerate(blocks):
                cast(ResidualBlock, block).dilate(2**i)
        downs = enumerate(network.downs)
        network.downs = nn.ModuleList(_all_places(c, 2**i) for i, c in downs)  # type: ignore[arg-type]
        ups = enumerate(network.ups[::-1])
        network.ups = nn.ModuleList([_mean_of_places(c, 2**i) for i, c in ups][::-1])  # type: ignore[arg-type]
        return network


def _merged(up: nn.Module, pair: tuple[Tensor, Tensor]) -> Tensor:
    """Features from below and those that skipped it."""
    below, skipped = pair
    return cast(Tensor, up(below) + skipped)


def _all_places(down: nn.Conv2d, step: int) -> nn.Module:
    """Cells of 2 x 2 elements, `step` pixels apart, that begin at any pixel."""
    return _wide(down.weight, down.bias, step, (0, step, 0, step))


def _mean_of_places(up: nn.ConvTranspose2d, step: int) -> nn.Module:
    """What the four cells that a pixel belongs to say of it, averaged."""
    weight = nn.Parameter(up.weight.transpose(0, 1).flip(2, 3) / 4)
    return _wide(weight, up.bias, step, (step, 0, step, 0))


def _wide(weight: Tensor, bias: Tensor | None, step: int, padding: Sides) -> nn.Module:
    """A convolution with elements `step` pixels apart, on an image that goes on as it ends."""
    n_out, n_in, side, _ = weight.shape
    conv = nn.Conv2d(n_in, n_out, side, dilation=step, device="meta")
    conv.weight, conv.bias = cast(nn.Parameter, weight), cast(nn.Parameter, bias)
    return nn.Sequential(nn.ReplicationPad2d(padding), conv)


class VoxelwiseNet(Network):
    """The same correction from one voxel alone: what its neighbours add is the difference.

    Parameters
    ----------
    n_channels : int
    widths : sequence of int
        Feature maps of the successive residual blocks.
    """

    def __init__(self, n_channels: int, widths: tuple[int, ...]) -> None:
        super().__init__()
        self.stride = 1
        pairs = zip((n_channels, *widths[:-1]), widths, strict=True)
        layers = [(nn.Conv2d(a, b, 1), ResidualBlock(b, kernel=1)) for a, b in pairs]
        self.body = nn.Sequential(*(part for layer in layers for part in layer))
        self.head = nn.Conv2d(widths[-1] + n_channels, N_OUTPUTS, 1)
        nn.init.zeros_(self.head.weight)
        nn.init.zeros_(self.head.bias)  # type: ignore[arg-type]

    def forward(self, channels: Tensor) -> Tensor:
        """(batch, channels, x, y) -> corrections and log sds (batch, 4, x, y), float32."""
        return self.head(torch.cat([self.body(channels), channels], dim=1)).float()
