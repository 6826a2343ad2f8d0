"""Signals and tabulated curves -> the least-squares parameters of every voxel, by projection.

CBF (and the arterial blood volume) enter the signal linearly, so their best values for any ATT
are closed-form (variable projection, Golub & Pereyra 2003, doi:10.1088/0266-5611/19/2/201): what
remains is a search over ATT alone. One matrix product gives the match of the data with the curve
at the edges of all cells (`curve_table`); the best cell holds the global optimum, and the cubic
in it tells where. It needs no starting value. numpy and torch run through the same code.

Arrays are (slices, n, voxels) for signals and (slices, voxels) for parameters; signals have equal
variance across timings (see `weighted`).
"""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import partial

import numpy as np

from aslkit.core.backend import Array, away_from_zero, namespace
from aslkit.fit.curve_table import TURN, Cubic, CurveTable, evaluate_cubic, maximum_of_cubic
from aslkit.kinetics.model import KineticModel, tissue_curve

TRIED = -1e30  # gain of a place that is out of the running


@dataclass(frozen=True)
class Solution:
    """Least-squares parameters (slices, voxels), as in `ParameterMaps`, and what they leave over.

    `rss` is the residual sum of squares in the units of the (weighted) signal.
    """

    cbf: Array
    att: Array
    abv: Array | None = None
    abat: Array | None = None
    rss: Array = field(kw_only=True)


def weighted(model: KineticModel, weights: Array) -> KineticModel:
    """The model of signals times the root of their weights (n,), which have equal variance."""
    root = (weights**0.5)[:, None]
    blocks, first = [], 0
    for block in model.blocks:
        last = first + block.plds.shape[-2]
        blocks.append(replace(block, efficiencies=block.efficiencies * root[first:last]))
        first = last
    return replace(model, blocks=tuple(blocks))


def solve_tissue(
    cells: CurveTable, signal: Array, cbf_bounds: tuple[float, float] | None = None
) -> Solution:
    """Best CBF and ATT of every voxel without arterial compartment."""
    matches = _matches(cells, signal)
    power = (signal * signal).sum(-2).reshape(-1)
    if cbf_bounds is None:
        cbf, att, gain = _search(matches, matches.unit * matches.unit, power, _top_in)
    else:
        gains = _bounded_gains(matches, cbf_bounds)
        cbf, att, gain = _search(matches, gains, power, partial(_bounded_top_in, cbf_bounds))
    rss = namespace(signal).clip(power - gain, 0, None)
    shape = signal.shape[0], signal.shape[-1]
    return Solution(cbf.reshape(shape), att.reshape(shape), rss=rss.reshape(shape))


def solve_fixed(
    model: KineticModel,
    signal: Array,
    att: Array,
    cbf_bounds: tuple[float, float] | None = None,
) -> Solution:
    """Find the best CBF of every voxel for a given ATT (slices, voxels)."""
    xp = namespace(signal)
    curve = tissue_curve(model, att)  # (slices, n, voxels)
    kk, ky = away_from_zero((curve**2).sum(-2)), (curve * signal).sum(-2)  # (slices, voxels)
    yy = (signal**2).sum(-2)  # (slices, voxels)
    if cbf_bounds is None:
        return Solution(ky / kk, att, rss=xp.clip(yy - ky**2 / kk, 0, None))
    cbf = xp.clip(ky / kk, *cbf_bounds)
    return Solution(cbf, att, rss=xp.clip(yy - cbf * (2 * ky - cbf * kk), 0, None))


@dataclass(frozen=True)
class _Matches:
    """Products of the data with the tabulated curves, one row per voxel of all slices.

    `rows` numbers the voxels, `slices` their slices; the rest is named as in `Cells`.
    """

    cells: CurveTable
    rows: Array
    slices: Array
    unit: Array
    rising: Array
    falling: Array

    def match(self, rows: Array, cell: Array) -> Cubic:
        """The match with the unit curve in a cell of every row, as a cubic."""
        ends = self.unit[rows, cell], self.unit[rows, cell + 1]
        return *ends, self.rising[rows, cell], self.falling[rows, cell]

    def norm(self, rows: Array, cell: Array) -> Cubic:
        """The norm of the curve in a cell of every row, as a cubic."""
        c, s = self.cells, self.slices[rows]
        ends = c.norms[s, cell], c.norms[s, cell + 1]
        return *ends, c.norm_rising[s, cell], c.norm_falling[s, cell]

    def att(self, rows: Array, cell: Array, t: Array) -> Array:
        """Arrival time at a place (0-1) in a cell of every row."""
        edges, s = self.cells.edges, self.slices[rows]
        return edges[s, cell] + t * (edges[s, cell + 1] - edges[s, cell])


def _matches(cells: CurveTable, signal: Array) -> _Matches:
    xp = namespace(signal)
    n_slices, _, n_voxels = signal.shape
    data = signal.swapaxes(-1, -2)
    tables = cells.unit, cells.rising, cells.falling
    products = (xp.matmul(data, t).reshape(-1, t.shape[-1]) for t in tables)
    rows = xp.arange(n_slices * n_voxels)
    if xp is not np:
        rows = rows.to(signal.device)
    return _Matches(cells, rows, rows // n_voxels, *products)


def _bounded_gains(m: _Matches, cbf_bounds: tuple[float, float]) -> Array:
    """Drop of the residual sum of squares at all edges for the best CBF within bounds."""
    norms = m.cells.norms[m.slices]
    amplitude = namespace(norms).clip(m.unit, cbf_bounds[0] * norms, cbf_bounds[1] * norms)
    return amplitude * (2 * m.unit - amplitude)


def _search(
    m: _Matches, gains: Array, power: Array, top_in: Callable[..., tuple[Array, Array, Array]]
) -> tuple[Array, Array, Array]:
    """CBF, ATT and gain at the highest top, from the gains at all edges (rows, edges).

    A cell hides less than `TURN`² of the data's power above its edges. So beside the best
    edge, all others count that come that close and are no neighbours of one tried before.
    """
    xp = namespace(gains)
    margin = TURN**2 * power
    last = gains.shape[-1] - 1
    best = tuple(xp.zeros_like(power) - 1 for _ in range(3))
    rows, places, node = m.rows, m.rows, gains.argmax(-1)
    while len(rows):
        for cell in (xp.clip(node - 1, 0, None), xp.clip(node, None, last - 1)):
            _improve(best, rows, top_in(m, rows, cell))
        for beside in (-1, 0, 1):
            gains[places, xp.clip(node + beside, 0, last)] = TRIED
        node = gains.argmax(-1)
        is_close = gains[places, node] > best[-1][rows] - margin[rows]
        rows, node, gains = rows[is_close], node[is_close], gains[is_close]
        places = m.rows[: len(rows)]
    return best


def _top_in(m: _Matches, rows: Array, cell: Array) -> tuple[Array, Array, Array]:
    """CBF, ATT and gain at the top of the squared match in a cell of every row."""
    cubic = m.match(rows, cell)
    sign = namespace(cell).where(cubic[0] + cubic[1] < 0, -1, 1)
    t = maximum_of_cubic([sign * c for c in cubic])
    match = evaluate_cubic(cubic, t)
    return match / evaluate_cubic(m.norm(rows, cell), t), m.att(rows, cell, t), match * match


def _gain_at(cbf: Array, match: Array, norm: Array) -> Array:
    """Drop of the residual sum of squares at a given CBF."""
    return cbf * norm * (2 * match - cbf * norm)


def _gain_slope_at(
    cbf: Array, match: Array, norm: Array, match_slope: Array, norm_slope: Array
) -> Array:
    return 2 * cbf * (match_slope * norm + (match - cbf * norm) * norm_slope)


def _bounded_top_in(
    cbf_bounds: tuple[float, float], m: _Matches, rows: Array, cell: Array
) -> tuple[Array, Array, Array]:
    """The same where CBF must lie within bounds: a top inside them, or the best at either."""
    cbf, att, gain = _top_in(m, rows, cell)
    low, high = cbf_bounds
    xp = namespace(gain)
    best = cbf, att, xp.where((cbf >= low) & (cbf <= high), gain, TRIED)
    match, norm = m.match(rows, cell), m.norm(rows, cell)
    places = m.rows[: len(rows)]
    for bound in cbf_bounds:
        cubic = (
            *(_gain_at(bound, match[i], norm[i]) for i in (0, 1)),
            *(_gain_slope_at(bound, match[i], norm[i], match[i + 2], norm[i + 2]) for i in (0, 1)),
        )
        t = maximum_of_cubic(cubic)
        _improve(best, places, (0 * cbf + bound, m.att(rows, cell, t), evaluate_cubic(cubic, t)))
    return best


def _improve(
    best: tuple[Array, Array, Array], rows: Array, other: tuple[Array, Array, Array]
) -> None:
    """Put another (…, gain) into the best where its gain is larger; `rows` are its places."""
    is_better = other[-1] > best[-1][rows]
    for values, new in zip(best, other, strict=True):
        values[rows[is_better]] = new[is_better]
