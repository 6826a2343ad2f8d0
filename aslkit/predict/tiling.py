"""Slices -> what a function makes of their patches, blended: any matrix, any patch, any overlap.

  ├──── patch ────┤                    Patches start every `step` pixels, and the last one may
  ├─ step ─┼──── patch ────┤           reach beyond the slice: around it is background, 0.
┌┄┄┄┄┄┄┄┄┄┄┄┄┄┄┄┄┄┄┄┄┄┄┄┄┄┄┄┄┄┄┄┄┄┄┄┐  Where they overlap, the centre of a patch may count
┊ ┌─────────────────────────────┐   ┊  more than its edge, which saw less of what lies around.
┊ │ slice                       │   ┊
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from itertools import product

import numpy as np
from numpy.typing import NDArray

from aslkit.core.series_and_maps import FloatImage

Window = NDArray[np.float64]

MARGIN = 16  # pixels of background around every slice; on less, its end shows in the brain
GAUSSIAN_SIGMA = 0.125  # of the patch, as MONAI's sliding window has it


@dataclass(frozen=True)
class Tiling:
    """How slices are cut into patches.

    Attributes
    ----------
    patch : int, optional
        Side of a patch [pixels]; None takes slices whole.
    overlap : float
        Share of its side that a patch has in common with the next, 0 to below 1.
    blend : str
        Weight of a pixel by its place in the patch, a key of `BLENDS`.
    shifts : tuple of int
        The patches are laid once per shift along x and along y [pixels]. Pooling ties pixels
        together in pairs; with two shifts, each to the next as well as to the one before.
    """

    patch: int | None = None
    overlap: float = 0.75
    blend: str = "gaussian"
    shifts: tuple[int, ...] = (0, 1)

    def __post_init__(self) -> None:
        if self.patch is not None and self.patch < 1:
            raise ValueError(f"patches of {self.patch} pixels: expected at least 1")
        if not 0 <= self.overlap < 1:
            raise ValueError(f"overlap {self.overlap:g}: expected 0 to below 1")
        if self.blend not in BLENDS:
            raise ValueError(f"blend {self.blend!r} is not one of {', '.join(BLENDS)}")

    def side(self, size: int, stride: int) -> int:
        """Side of a patch along an axis of a slice: a multiple of `stride`."""
        wanted = size + 2 * MARGIN if self.patch is None else self.patch
        return wanted + -wanted % stride

    def starts(self, size: int, stride: int) -> list[int]:
        """First pixels of the patches along an axis: multiples of `stride`, and shifted."""
        side = self.side(size, stride)
        step = max(int(side * (1 - self.overlap)) // stride, 1) * stride
        n_steps = -(-max(size + 2 * MARGIN - side, 0) // step)
        shifts = self.shifts if stride > 1 else (0,)
        return [i * step + shift for i in range(n_steps + 1) for shift in shifts]


def run_tiled(
    run: Callable[[FloatImage], FloatImage],
    slices: FloatImage,
    tiling: Tiling,
    stride: int,
    batch: int,
    apply: Callable[..., Iterable[FloatImage]] = map,
) -> FloatImage:
    """Apply `run` to patches of slices, `batch` of them at a time, and blend what it returns.

    Parameters
    ----------
    run : function
        Patches (batch, channels, x, y) -> (batch, outputs, x, y); one place of all slices, one
        after another, before the next place.
    slices : array (n, channels, x, y)
        0 in the background.
    stride : int
        Sides and places of the patches are multiples of it, so that the pixels that a network
        pools together are the same in every patch.
    apply : function
        Applies `run` to every batch, as `map` does.

    Returns
    -------
    array (n, outputs, x, y)
    """
    n, _, *shape = slices.shape
    sides = [tiling.side(size, stride) for size in shape]
    starts = [tiling.starts(size, stride) for size in shape]
    ends = [max(s) + side for s, side in zip(starts, sides, strict=True)]
    padding = [(MARGIN, end - size - MARGIN) for size, end in zip(shape, ends, strict=True)]
    padded = np.pad(slices, [(0, 0), (0, 0), *padding])
    places = [
        (i, ..., slice(x, x + sides[0]), slice(y, y + sides[1]))
        for x, y, i in product(*starts, range(n))
    ]
    window = np.outer(*(BLENDS[tiling.blend](side) for side in sides))
    weight, total = np.zeros((n, 1, *ends)), np.zeros(())
    batches = [places[first : first + batch] for first in range(0, len(places), batch)]
    patches = (np.stack([padded[place] for place in some]) for some in batches)
    for some, outputs in zip(batches, apply(run, patches), strict=True):
        total = total if total.ndim else np.zeros((n, outputs.shape[1], *ends))
        for place, output in zip(some, outputs, strict=True):
            total[place] += window * output
            weight[place] += window
    x, y = (slice(MARGIN, MARGIN + size) for size in shape)
    return (total[..., x, y] / weight[..., x, y]).astype(np.float32)


def _hann(side: int) -> Window:
    return np.sin(np.pi * (np.arange(side) + 0.5) / side) ** 2


def _gaussian(side: int) -> Window:
    offsets = np.arange(side) - (side - 1) / 2
    return np.exp(-0.5 * (offsets / (GAUSSIAN_SIGMA * side)) ** 2)


BLENDS: dict[str, Callable[[int], Window]] = {
    "hann": _hann,
    "gaussian": _gaussian,
    "mean": np.ones,
}
