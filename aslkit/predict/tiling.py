"""Slices and a function of patches -> its blended results, for any matrix, patch and overlap.

  ├──── patch ────┤                    Patches start every `step` pixels. The last one may
  ├─ step ─┼──── patch ────┤           extend beyond the slice into background, 0.
┌┄┄┄┄┄┄┄┄┄┄┄┄┄┄┄┄┄┄┄┄┄┄┄┄┄┄┄┄┄┄┄┄┄┄┄┐  Where patches overlap, the centre of a patch can have a
┊ ┌─────────────────────────────┐   ┊  larger weight than its edge, which has fewer neighbours.
┊ │ slice                       │   ┊
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from itertools import product

import numpy as np
from numpy.typing import NDArray

from aslkit.core.series_and_maps import FloatImage

Window = NDArray[np.float64]

MARGIN = 16  # pixels of background around every slice; with fewer, its edge changes the maps
GAUSSIAN_SIGMA = 0.125  # fraction of the patch, as in the sliding window of MONAI


@dataclass(frozen=True)
class Tiling:
    """How slices are cut into patches.

    Attributes
    ----------
    patch : int, optional
        Side of a patch [pixels]; None: whole slices.
    overlap : float
        Fraction of the side that neighbouring patches share, 0 to below 1.
    blend : str
        Weights of the pixels of a patch, a key of `BLENDS`.
    shifts : tuple of int
        All patches are repeated for each shift along x and along y [pixels]. Pooling joins
        pixels in pairs; with two shifts each pixel is joined with both of its neighbours.
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
        """Return the side of a patch along an axis of a slice, a multiple of `stride`."""
        wanted = size + 2 * MARGIN if self.patch is None else self.patch
        return wanted + -wanted % stride

    def starts(self, size: int, stride: int) -> list[int]:
        """Return the first pixels of the patches along an axis: multiples of `stride`, shifted."""
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
    """Apply `run` to the patches of slices, `batch` at a time, and blend the results.

    Parameters
    ----------
    run : function
        Patches (batch, channels, x, y) -> (batch, outputs, x, y). The patches of one place
        follow one another, slice by slice, before those of the next place.
    slices : array (n, channels, x, y)
        0 in the background.
    stride : int
        Sides and places of the patches are multiples of it, so that a network pools the same
        pixels in every patch.
    apply : function
        Applies `run` to every batch, like `map`.

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
    patches = (np.stack([padded[place] for place in group]) for group in batches)
    for batch_places, outputs in zip(batches, apply(run, patches), strict=True):
        total = total if total.ndim else np.zeros((n, outputs.shape[1], *ends))
        for place, output in zip(batch_places, outputs, strict=True):
            total[place] += window * output
            weight[place] += window
    x, y = (slice(MARGIN, MARGIN + size) for size in shape)
    return (total[..., x, y] / weight[..., x, y]).astype(np.float32)


def _hann(side: int) -> Window:
    """Return a Hann window."""
    return np.sin(np.pi * (np.arange(side) + 0.5) / side) ** 2


def _gaussian(side: int) -> Window:
    """Return a Gaussian window."""
    offsets = np.arange(side) - (side - 1) / 2
    return np.exp(-0.5 * (offsets / (GAUSSIAN_SIGMA * side)) ** 2)


BLENDS: dict[str, Callable[[int], Window]] = {
    "hann": _hann,
    "gaussian": _gaussian,
    "mean": np.ones,
}
