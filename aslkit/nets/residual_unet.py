"""Encoded slices -> corrections of a least-squares fit, in units of its standard errors.

                 ┌───────────────────────── skip ─────────────────────────┐
    channels ─ stem ─ block ─ down ─ block ─ … ─ block ─ up ─ block ─ … ─ block ─ head ─ 4 maps

The head also gets the channels. Its weights are 0 at first, so that an untrained network returns
the least-squares estimates.
"""

from collections import deque
from collections.abc import Iterable, Iterator
from copy import deepcopy
from functools import partial
from itertools import islice
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from aslkit.nets.network import N_OUTPUTS, MapFunction, Network

SMALLEST_MEAN_SQUARE = 1e-4  # of the features of a pixel, added before they are normalised

Padding = tuple[int, int, int, int]  # pixels around an image: left, right, top, bottom


class ResidualBlock(nn.Module):
    """Two convolutions with a skip connection; features are normalised pixel by pixel.

    Parameters
    ----------
    width : int
        Number of features.
    kernel : int
        Side of the kernels [pixels].
    across_slices : bool
        Whether the block also adds 1 x 1 convolutions of the slices above and below.
    """

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
        """Dilate the kernels by `step` pixels, with replication padding."""
        convs = (cast(nn.Conv2d, conv) for conv in (self.first, self.second))
        self.first, self.second = (_dilated(c.weight, c.bias, step, (step,) * 4) for c in convs)

    def forward(self, x: Tensor, is_joined: Tensor | None = None) -> Tensor:
        """Compute the features (batch, width, x, y) of the next layer, of the same shape.

        `is_joined` (batch - 1, 1, 1, 1) is 1 where a slice and the next one are neighbours, else
        0.
        """
        inner, *messages = self._first_half(x)
        if messages and is_joined is not None:
            to_next, to_previous = messages  # (batch, width, x, y) each
            edge = torch.zeros_like(inner[:1])
            from_previous = torch.cat([edge, to_next[:-1] * is_joined])
            from_next = torch.cat([to_previous[1:] * is_joined, edge])
            return self._second_half((x, inner, from_previous, from_next))
        return self._second_half((x, inner))

    def forward_stack(self, slices: Iterable[Tensor], apply: MapFunction) -> Iterable[Tensor]:
        """Compute `forward` for the slices of one stack; each needs the next one as well."""
        slices, again = _tee(slices)
        return apply(self._second_half, _with_neighbours(apply(self._first_half, slices), again))

    def _first_half(self, x: Tensor) -> tuple[Tensor, ...]:
        """Return inner features and, across slices, those added to the next and previous slice."""
        mean_square = x.square().mean(dim=1, keepdim=True)  # (batch, 1, x, y)
        x_unit = x * torch.rsqrt(mean_square + SMALLEST_MEAN_SQUARE)
        messages = () if self.across is None else self.across(x_unit).chunk(2, dim=1)
        return self.first(x_unit), *messages

    def _second_half(self, parts: tuple[Tensor, ...]) -> Tensor:
        """Return the output for the input, the inner features and those from other slices."""
        x, inner, *from_others = parts
        for other in from_others:
            inner = inner + other
        return x + self.second(functional.silu(inner))


def _tee(slices: Iterable[Tensor]) -> tuple[Iterator[Tensor], Iterator[Tensor]]:
    """Return two iterators over slices, of which the second never runs ahead of the first.

    A slice is freed as soon as both have passed it; `itertools.tee` frees 57 at a time.
    """
    waiting: deque[Tensor] = deque()

    def first() -> Iterator[Tensor]:
        for x in slices:
            waiting.append(x)
            yield x

    def second() -> Iterator[Tensor]:
        while waiting:
            yield waiting.popleft()

    return first(), second()


def _with_neighbours(
    halves: Iterable[tuple[Tensor, ...]], slices: Iterable[Tensor]
) -> Iterator[tuple[Tensor, ...]]:
    """Yield the input of `_second_half` of each slice, with the features from its neighbours."""
    held: list[Tensor] = []
    to_next: list[Tensor] = []
    for (inner, *messages), x in zip(halves, slices, strict=True):
        for message in to_next:
            inner += message
        if held:
            yield (*held, *messages[1:])
        held, to_next = [x, inner], messages[:1]
    if held:
        yield (*held,)


class PhysicsResidualNet(Network):
    """U-Net of residual blocks.

    Parameters
    ----------
    n_channels : int
    widths : sequence of int
        Number of features per resolution, finest first; each step down halves the resolution.
    across_slices : bool
        Whether every block also adds features of the slices above and below.
    """

    zero_at_start: tuple[str, ...] = (".across.weight",)

    def __init__(
        self, n_channels: int, widths: tuple[int, ...], across_slices: bool = False
    ) -> None:
        super().__init__()
        self.stride = 2 ** (len(widths) - 1)
        self.reach = (2 * len(widths) - 1) * across_slices
        self.stem = nn.Conv2d(n_channels, widths[0], 3, padding=1)
        all_widths = (*widths, *widths[-2::-1])
        blocks = (ResidualBlock(w, across_slices=across_slices) for w in all_widths)
        self.down_blocks = nn.ModuleList(islice(blocks, len(widths)))
        pairs = list(zip(widths[:-1], widths[1:], strict=True))
        self.downs = nn.ModuleList(nn.Conv2d(a, b, 2, stride=2) for a, b in pairs)
        self.ups = nn.ModuleList(nn.ConvTranspose2d(b, a, 2, stride=2) for a, b in pairs[::-1])
        self.up_blocks = nn.ModuleList(blocks)
        self.head = _zero_head(widths[0] + n_channels)

    def forward(self, channels: Tensor, stack: Tensor | None = None) -> Tensor:
        """(batch, channels, x, y) -> corrections and log sds (batch, 4, x, y), float32."""
        x = self.stem(channels)  # (batch, widths[0], x, y)
        is_joined = None if stack is None else (stack[1:] == stack[:-1]).to(x)[:, None, None, None]
        skips = []
        for block, down in zip(self.down_blocks, self.downs, strict=False):
            skips.append(block(x, is_joined))
            x = down(skips[-1])  # half the resolution
        x = self.down_blocks[-1](x, is_joined)
        for up, block in zip(self.ups, self.up_blocks, strict=True):
            x = block(_up_and_add(up, (x, skips.pop())), is_joined)  # twice the resolution
        return self.outputs((x, channels))

    def forward_stack(
        self, slices: Iterable[Tensor], apply: MapFunction = map
    ) -> Iterable[Tensor]:
        """Compute `forward` for one stack, slice by slice; about `reach` slices are in memory."""
        slices, channels = _tee(slices)
        x, skips = apply(self.stem, slices), []
        for block, down in zip(self.down_blocks, self.downs, strict=False):
            x, skip = _tee(cast(ResidualBlock, block).forward_stack(x, apply))
            skips.append(skip)
            x = apply(down, x)
        x = cast(ResidualBlock, self.down_blocks[-1]).forward_stack(x, apply)
        for up, block in zip(self.ups, self.up_blocks, strict=True):
            added = apply(partial(_up_and_add, up), zip(x, skips.pop(), strict=True))
            x = cast(ResidualBlock, block).forward_stack(added, apply)
        return apply(self.outputs, zip(x, channels, strict=True))

    def outputs(self, parts: tuple[Tensor, Tensor]) -> Tensor:
        """Compute the maps from the last features and the channels."""
        maps: Tensor = self.head(torch.cat(parts, dim=1)).float()
        return maps

    def to_shift_equivariant(self) -> Network:
        """Return a copy without downsampling, an average over all positions of the pooling grid.

        Where this network halves the resolution, the kernels of the copy are dilated by 1, 2, 4,
        … pixels instead. Its maps are the average over the maps for every position of the grid
        of 2 x 2 pixels, averaged at each step up. Images are continued by replication padding:
        with it a margin of 16 pixels of background suffices, with zeros 24 pixels do not.
        """
        network = deepcopy(self)
        network.stride = 1
        for blocks in (network.down_blocks, network.up_blocks[::-1]):
            for i, block in enumerate(blocks):
                cast(ResidualBlock, block).dilate(2**i)
        downs = enumerate(network.downs)
        network.downs = nn.ModuleList(_dense_down(c, 2**i) for i, c in downs)  # type: ignore[arg-type]
        ups = enumerate(network.ups[::-1])
        network.ups = nn.ModuleList([_mean_up(c, 2**i) for i, c in ups][::-1])  # type: ignore[arg-type]
        return network


class VoxelwiseNet(Network):
    """The same correction from single voxels, to measure what neighbouring voxels contribute.

    Parameters
    ----------
    n_channels : int
    widths : sequence of int
        Number of features of the successive residual blocks.
    """

    def __init__(self, n_channels: int, widths: tuple[int, ...]) -> None:
        super().__init__()
        self.stride = 1
        pairs = zip((n_channels, *widths[:-1]), widths, strict=True)
        layers = [(nn.Conv2d(a, b, 1), ResidualBlock(b, kernel=1)) for a, b in pairs]
        self.body = nn.Sequential(*(part for layer in layers for part in layer))
        self.head = _zero_head(widths[-1] + n_channels)

    def forward(self, channels: Tensor) -> Tensor:
        """(batch, channels, x, y) -> corrections and log sds (batch, 4, x, y), float32."""
        return self.head(torch.cat([self.body(channels), channels], dim=1)).float()


def _zero_head(n_features: int) -> nn.Conv2d:
    """Return a 1 x 1 convolution to the output maps, with weights of 0."""
    head = nn.Conv2d(n_features, N_OUTPUTS, 1)
    nn.init.zeros_(head.weight)
    nn.init.zeros_(head.bias)  # type: ignore[arg-type]
    return head


def _up_and_add(up: nn.Module, pair: tuple[Tensor, Tensor]) -> Tensor:
    """Bring features to the next finer resolution and add those of the skip connection."""
    coarse, skip = pair
    return cast(Tensor, up(coarse) + skip)


def _dense_down(down: nn.Conv2d, step: int) -> nn.Module:
    """Return the 2 x 2 convolution, dilated by `step` pixels, at every pixel."""
    return _dilated(down.weight, down.bias, step, (0, step, 0, step))


def _mean_up(up: nn.ConvTranspose2d, step: int) -> nn.Module:
    """Return the mean over the four positions of the 2 x 2 grid that contain a pixel."""
    weight = nn.Parameter(up.weight.transpose(0, 1).flip(2, 3) / 4)
    return _dilated(weight, up.bias, step, (step, 0, step, 0))


def _dilated(weight: Tensor, bias: Tensor | None, step: int, padding: Padding) -> nn.Module:
    """Return a convolution dilated by `step` pixels, with replication padding."""
    n_out, n_in, side, _ = weight.shape
    conv = nn.Conv2d(n_in, n_out, side, dilation=step, device="meta")
    conv.weight, conv.bias = cast(nn.Parameter, weight), cast(nn.Parameter, bias)
    return nn.Sequential(nn.ReplicationPad2d(padding), conv)
