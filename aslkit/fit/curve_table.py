"""A kinetic model -> its tissue curves on cells of ATT, inside which a cubic replaces them.

    ATT   |----|----|--|-|----|      edges: a regular grid and every kink of the curves
    unit  û0   û1   û2 …             curve over its norm at the edges
    rising / falling                 its slope just inside the lower / upper edge of each cell

Between kinks a curve is an exponential, so a cubic through values and slopes at both edges
(Hermite) is exact to about 1e-6 of it: any product with the data is interpolated instead of
computed again. numpy and torch run through the same code.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TypeAlias

import numpy as np

from aslkit.core.backend import SMALLEST_NORM, Array, array_like, namespace
from aslkit.core.constants import TYPICAL_ATT_S
from aslkit.kinetics.model import KineticModel, TimingBlock, kinks, tissue_curve, tissue_slope

# values at 0 and 1, slopes at 0 and 1
Cubic: TypeAlias = Sequence[Array]

COARSE_S = 0.1  # widest cell
TURN = 0.03  # radians that a unit curve may turn in a cell: keeps the error of the cubic near 1e-6
MOST_PIECES = 16
INSIDE_S = 1e-5  # how far inside a cell the slopes at its edges are taken
EDGE_DECIMALS = 6  # edges are rounded to so many decimals of a second
FLAT = 1e-9  # slope of a unit curve that keeps its shape [per s]


@dataclass(frozen=True)
class CurveTable:
    """Curves of weighted timings (of equal variance) on `j` cells; the first axis are slices.

    Attributes
    ----------
    model : KineticModel
        What is tabulated.
    edges : array (slices, j + 1)
        Arrival times [s], ascending.
    unit : array (slices, n, j + 1)
        Curves of norm 1 at the edges.
    rising, falling : array (slices, n, j)
        Slope of the unit curve at the lower and upper edge, times the width of the cell.
    norms : array (slices, j + 1)
        Norms of the curves.
    norm_rising, norm_falling : array (slices, j)
        Slopes of the norm, as above.
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
    """The curves of a weighted model for arrival times within bounds [s]."""
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
    """A cubic, given by its values at 0 and 1 and its slopes there, at t."""
    start, end, rising, falling = cubic
    change = end - start
    curvature = 3 * change - 2 * rising - falling
    return start + t * (rising + t * (curvature + t * (rising + falling - 2 * change)))


def maximum_of_cubic(cubic: Cubic) -> Array:
    """Where in [0, 1] such a cubic is largest, taken to have one top at most."""
    start, end, rising, falling = cubic
    xp = namespace(start)
    change = end - start
    linear, square = 3 * change - 2 * rising - falling, rising + falling - 2 * change
    root = xp.clip(linear * linear - 3 * square * rising, 0, None) ** 0.5
    top = rising / xp.clip(root - linear, SMALLEST_NORM, None)
    top = xp.where(falling >= 0, 1 + 0 * top, xp.clip(top, 0, 1))
    return xp.where(rising <= 0, 0 * top, top)


def regular_atts(model: KineticModel, bounds_s: tuple[float, float], step_s: float) -> Array:
    """Arrival times about one step apart (1, n) [s], an array of the model's kind."""
    low, high = bounds_s
    n = max(int(round((high - low) / step_s)), 2) + 1
    return array_like(np.linspace(low, high, n)[None], model.blocks[0].plds)


def model_like(model: KineticModel, reference: Array) -> Array:
    """A model whose timings are of the kind, type and device of another array."""
    return _converted(model, lambda array: array_like(array, reference))


def _edges(model: KineticModel, bounds_s: tuple[float, float]) -> Array:
    """Edges of the cells: coarse steps and kinks, without plateaus, divided where curves turn."""
    corners = kinks(model)
    low, high = bounds_s
    xp = namespace(corners)
    n = max(int(np.ceil((high - low) / COARSE_S)), 2) + 1
    steps = xp.linspace(low, high, n, dtype=corners.dtype) + 0 * corners[:, :1]
    edges = _ordered(xp.concatenate([steps, xp.clip(corners, low, high)], axis=-1))
    slope, _ = _unit_slope(model, edges[:, :-1], INSIDE_S)
    edges = _ordered(_without_plateaus(edges, (slope**2).sum(-2) > 0))
    slope, _ = _unit_slope(model, edges[:, :-1], INSIDE_S)
    width = edges[:, 1:] - edges[:, :-1]
    turn = xp.amax((slope**2).sum(-2) ** 0.5 * width, 0)
    pieces = [min(int(np.ceil(float(angle) / TURN)) or 1, MOST_PIECES) for angle in turn]
    inner = [
        edges[:, i : i + 1] + width[:, i : i + 1] * k / n
        for i, n in enumerate(pieces)
        for k in range(n)
    ]
    return _ordered(xp.concatenate([*inner, edges[:, -1:]], axis=-1))


def _ordered(edges: Array) -> Array:
    """Ascending edges of every slice, without those that are double in all of them."""
    xp = namespace(edges)
    edges = xp.round(edges, decimals=EDGE_DECIMALS)
    if xp is np:
        return np.unique(np.sort(edges, -1), axis=-1)
    return xp.unique(edges.sort(-1).values, dim=-1)


def _without_plateaus(edges: Array, turns: Array) -> Array:
    """Where the first or last cells do not change the curve's shape, the typical ATT stands in."""
    xp = namespace(edges)
    before = xp.cumsum(turns, -1) == 0
    after = xp.cumsum(xp.flip(turns, (-1,)), -1)
    after = xp.flip(after == 0, (-1,)) & ~before
    first = xp.amax(xp.where(before, edges[:, 1:], edges[:, :1]), -1)[:, None]
    last = xp.amin(xp.where(after, edges[:, :-1], edges[:, -1:]), -1)[:, None]
    typical = 0 * first + TYPICAL_ATT_S
    start = xp.minimum(xp.maximum(typical, edges[:, :1]), first)
    end = xp.maximum(xp.minimum(typical, edges[:, -1:]), last)
    return xp.clip(edges, start, end)


def _normalised(curves: Array) -> tuple[Array, Array]:
    norms = namespace(curves).clip((curves**2).sum(-2), SMALLEST_NORM**2, None) ** 0.5
    return curves / norms[:, None], norms


def _unit_slope(model: KineticModel, att: Array, shift_s: float) -> tuple[Array, Array]:
    """Slopes of the unit curve (slices, n, atts), 0 where it is flat, and of the norm."""
    unit, norms = _normalised(tissue_curve(model, att + shift_s))
    slope = tissue_slope(model, att + shift_s)
    along = (unit * slope).sum(-2)
    across = (slope - unit * along[:, None]) / norms[:, None]
    return across * ((across**2).sum(-2) > FLAT**2)[:, None], along


def _as_double(model: KineticModel) -> KineticModel:
    def double(array: Array) -> Array:
        return array.astype(np.float64) if isinstance(array, np.ndarray) else array.double()

    return _converted(model, double)


def _converted(model: KineticModel, convert: Callable[[Array], Array]) -> KineticModel:
    """The model with every array of its timings converted."""
    blocks = (
        TimingBlock(b.labeling, *(convert(a) for a in (b.plds, b.label_durations, b.efficiencies)))
        for b in model.blocks
    )
    return replace(model, blocks=tuple(blocks))
