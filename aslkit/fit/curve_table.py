"""A kinetic model -> its tissue curves, tabulated on cells of ATT.

    ATT   |----|----|--|-|----|      edges: a regular grid and every kink of the curves
    unit  û0   û1   û2 …             curve divided by its norm, at the edges
    rising / falling                 slope just inside the lower / upper edge of each cell

Between kinks a curve is an exponential. A cubic with the values and slopes of the curve at both
edges (Hermite interpolation) has a relative error of about 1e-6. Products of the data with curves
are interpolated in the same way. The code serves numpy and torch.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TypeAlias

import numpy as np

from aslkit.core.backend import SMALLEST_NORM, Array, array_like, namespace
from aslkit.core.constants import TYPICAL_ATT_S
from aslkit.kinetics.model import KineticModel, TimingBlock, kinks, tissue_curve, tissue_slope

# values at 0 and 1, then slopes at 0 and 1
Cubic: TypeAlias = Sequence[Array]

COARSE_S = 0.1  # widest cell
TURN = 0.03  # largest rotation of a unit curve in a cell [rad], for errors of the cubic near 1e-6
MAX_PIECES = 16  # cells between two neighbouring coarse steps or kinks
INSIDE_S = 1e-5  # distance from the edge at which a slope is computed, inside the cell
EDGE_DECIMALS = 6  # of a second, to which edges are rounded
FLAT = 1e-9  # a smaller slope of a unit curve counts as 0 [per s]


@dataclass(frozen=True)
class CurveTable:
    """Curves of a weighted model (timings of equal variance) on `j` cells.

    Attributes
    ----------
    model : KineticModel
        The weighted model.
    edges : array (slices, j + 1)
        Arrival times [s], ascending.
    unit : array (slices, n, j + 1)
        Curves at the edges, divided by their norm.
    rising, falling : array (slices, n, j)
        Slopes of `unit` at the lower and upper edge of each cell, times the width of the cell.
    norms : array (slices, j + 1)
        Norms of the curves at the edges.
    norm_rising, norm_falling : array (slices, j)
        Slopes of `norms` at the lower and upper edge of each cell, times the width of the cell.
    """

    model: KineticModel
    edges: Array
    unit: Array
    rising: Array
    falling: Array
    norms: Array
    norm_rising: Array
    norm_falling: Array


def tabulate(model: KineticModel, bounds_s: tuple[float, float]) -> CurveTable:
    """Tabulate the curves of a weighted model for arrival times within bounds [s]."""
    exact = _as_double(model)
    edges = _edges(exact, bounds_s)
    lower, upper = edges[:, :-1], edges[:, 1:]
    unit, norms = _normalised(tissue_curve(exact, edges))
    rising, norm_rising = _unit_slope(exact, lower, INSIDE_S)
    falling, norm_falling = _unit_slope(exact, upper, -INSIDE_S)
    width = upper - lower
    like = model.blocks[0].plds
    tables = (
        edges,
        unit,
        rising * width[:, None],
        falling * width[:, None],
        norms,
        norm_rising * width,
        norm_falling * width,
    )
    if namespace(unit) is np:
        return CurveTable(model, *(np.ascontiguousarray(t, dtype=like.dtype) for t in tables))
    return CurveTable(model, *(t.to(like.dtype) for t in tables))


def evaluate_cubic(cubic: Cubic, t: Array) -> Array:
    """Evaluate a cubic at `t`."""
    start, end, rising, falling = cubic
    change = end - start
    curvature = 3 * change - 2 * rising - falling
    return start + t * (rising + t * (curvature + t * (rising + falling - 2 * change)))


def maximum_of_cubic(cubic: Cubic) -> Array:
    """Find the position in [0, 1] of the maximum of a cubic that has at most one maximum there."""
    start, end, rising, falling = cubic
    xp = namespace(start)
    change = end - start
    linear, square = 3 * change - 2 * rising - falling, rising + falling - 2 * change
    root = xp.clip(linear * linear - 3 * square * rising, 0, None) ** 0.5
    top = rising / xp.clip(root - linear, SMALLEST_NORM, None)
    top = xp.where(falling >= 0, 1 + 0 * top, xp.clip(top, 0, 1))
    return xp.where(rising <= 0, 0 * top, top)


def regular_atts(model: KineticModel, bounds_s: tuple[float, float], step_s: float) -> Array:
    """Return arrival times about one step apart, (1, n) [s], as numpy or torch like the model."""
    low, high = bounds_s
    n = max(int(round((high - low) / step_s)), 2) + 1
    return array_like(np.linspace(low, high, n)[None], model.blocks[0].plds)


def model_like(model: KineticModel, reference: Array) -> Array:
    """Return the model with timings of the type, dtype and device of another array."""
    return _converted(model, lambda array: array_like(array, reference))


def _edges(model: KineticModel, bounds_s: tuple[float, float]) -> Array:
    """Return the edges (slices, j + 1): coarse steps and kinks, without plateaus, then divided.

    A cell is divided into as many pieces as its unit curve rotates by `TURN`.
    """
    corners = kinks(model)  # (slices, 2 n)
    low, high = bounds_s
    xp = namespace(corners)
    n = max(int(np.ceil((high - low) / COARSE_S)), 2) + 1
    steps = xp.linspace(low, high, n, dtype=corners.dtype) + 0 * corners[:, :1]
    edges = _ordered(xp.concatenate([steps, xp.clip(corners, low, high)], axis=-1))
    slope, _ = _unit_slope(model, edges[:, :-1], INSIDE_S)  # (slices, n, j)
    edges = _ordered(_without_plateaus(edges, (slope**2).sum(-2) > 0))
    slope, _ = _unit_slope(model, edges[:, :-1], INSIDE_S)
    width = edges[:, 1:] - edges[:, :-1]  # (slices, j)
    turn = xp.amax((slope**2).sum(-2) ** 0.5 * width, 0)  # (j,)
    pieces = [min(int(np.ceil(float(angle) / TURN)) or 1, MAX_PIECES) for angle in turn]
    inner = [
        edges[:, i : i + 1] + width[:, i : i + 1] * k / n
        for i, n in enumerate(pieces)
        for k in range(n)
    ]
    return _ordered(xp.concatenate([*inner, edges[:, -1:]], axis=-1))


def _ordered(edges: Array) -> Array:
    """Sort the edges of every slice, and drop edges that occur twice in all slices."""
    xp = namespace(edges)
    edges = xp.round(edges, decimals=EDGE_DECIMALS)
    if xp is np:
        return np.unique(np.sort(edges, -1), axis=-1)
    return xp.unique(edges.sort(-1).values, dim=-1)


def _without_plateaus(edges: Array, turns: Array) -> Array:
    """Replace a plateau at either end of the range by a single edge.

    On a plateau the shape of the curve does not change, so the data do not determine ATT. Of its
    ATTs, the one nearest to `TYPICAL_ATT_S` is kept. `turns` (slices, j) states where the shape of
    the curve changes.
    """
    xp = namespace(edges)
    before = xp.cumsum(turns, -1) == 0  # (slices, j): plateau at the lower end
    after = xp.cumsum(xp.flip(turns, (-1,)), -1)
    after = xp.flip(after == 0, (-1,)) & ~before  # (slices, j): plateau at the upper end
    first = xp.amax(xp.where(before, edges[:, 1:], edges[:, :1]), -1)[:, None]
    last = xp.amin(xp.where(after, edges[:, :-1], edges[:, -1:]), -1)[:, None]
    typical = 0 * first + TYPICAL_ATT_S
    start = xp.minimum(xp.maximum(typical, edges[:, :1]), first)
    end = xp.maximum(xp.minimum(typical, edges[:, -1:]), last)
    return xp.clip(edges, start, end)


def _normalised(curves: Array) -> tuple[Array, Array]:
    """Return the curves of norm 1 (slices, n, atts), and their norms (slices, atts)."""
    norms = namespace(curves).clip((curves**2).sum(-2), SMALLEST_NORM**2, None) ** 0.5
    return curves / norms[:, None], norms


def _unit_slope(model: KineticModel, att: Array, shift_s: float) -> tuple[Array, Array]:
    """Return the slopes of unit curve (slices, n, atts) and norm (slices, atts) at shifted ATTs.

    A slope of the unit curve below `FLAT` is set to 0.
    """
    unit, norms = _normalised(tissue_curve(model, att + shift_s))
    slope = tissue_slope(model, att + shift_s)
    along = (unit * slope).sum(-2)  # (slices, atts)
    across = (slope - unit * along[:, None]) / norms[:, None]  # (slices, n, atts)
    return across * ((across**2).sum(-2) > FLAT**2)[:, None], along


def _as_double(model: KineticModel) -> KineticModel:
    """Convert the timings of a model to float64."""

    def double(array: Array) -> Array:
        return array.astype(np.float64) if isinstance(array, np.ndarray) else array.double()

    return _converted(model, double)


def _converted(model: KineticModel, convert: Callable[[Array], Array]) -> KineticModel:
    """Convert every array of the timings of a model."""
    blocks = (
        TimingBlock(b.labeling, *(convert(a) for a in (b.plds, b.label_durations, b.efficiencies)))
        for b in model.blocks
    )
    return replace(model, blocks=tuple(blocks))
