"""Signals and tabulated curves -> the least-squares CBF and ATT of every voxel.

The signal is linear in CBF, so the best CBF for any ATT has a closed form (variable projection,
Golub & Pereyra 2003, doi:10.1088/0266-5611/19/2/201). This leaves a search over ATT. One matrix
product compares the data with the curves at all edges of a `CurveTable`. The best cell contains
the global optimum, and the cubic in that cell gives its position. No starting value is needed. The
code serves numpy and torch.

Arrays are (slices, n, voxels) for signals and (slices, voxels) for parameters. Signals have equal
variance across timings (see `weighted`).
"""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import partial

import numpy as np

from aslkit.core.backend import Array, away_from_zero, namespace
from aslkit.fit.curve_table import TURN, Cubic, CurveTable, evaluate_cubic, maximum_of_cubic
from aslkit.kinetics.model import KineticModel, tissue_curve

EXCLUDED = -1e30  # gain of a position that is no candidate


@dataclass(frozen=True)
class Solution:
    """Least-squares parameters (slices, voxels), named as in `ParameterMaps`.

    `rss` is the residual sum of squares of the weighted signal.
    """

    cbf: Array
    att: Array
    abv: Array | None = None
    abat: Array | None = None
    rss: Array = field(kw_only=True)


def weighted(model: KineticModel, weights: Array) -> KineticModel:
    """Return the model of signals times the root of their weights (n,).

    These signals have equal variance across timings.
    """
    root = (weights**0.5)[:, None]  # (n, 1)
    blocks, first = [], 0
    for block in model.blocks:
        last = first + block.plds.shape[-2]
        blocks.append(replace(block, efficiencies=block.efficiencies * root[first:last]))
        first = last
    return replace(model, blocks=tuple(blocks))


def solve_tissue(
    table: CurveTable, signal: Array, cbf_bounds: tuple[float, float] | None = None
) -> Solution:
    """Find the best CBF and ATT of every voxel, without arterial compartment."""
    matches = _match(table, signal)
    power = (signal * signal).sum(-2).reshape(-1)  # (rows,)
    if cbf_bounds is None:
        gains = matches.unit * matches.unit  # (rows, edges)
        cbf, att, gain = _search(matches, gains, power, _maximum_in_cell)
    else:
        gains = _bounded_gains(matches, cbf_bounds)
        maximum = partial(_bounded_maximum_in_cell, cbf_bounds)
        cbf, att, gain = _search(matches, gains, power, maximum)
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

    Attributes
    ----------
    table : CurveTable
    rows : int array (rows,)
        0, 1, 2, …
    slices : int array (rows,)
        Slice of every row.
    unit : array (rows, j + 1)
        Products with the unit curves at the edges.
    rising, falling : array (rows, j)
        Products with their slopes at the lower and upper edges of the cells.
    """

    table: CurveTable
    rows: Array
    slices: Array
    unit: Array
    rising: Array
    falling: Array

    def match(self, rows: Array, cell: Array) -> Cubic:
        """Return the product with the unit curve in one cell per row, as a cubic."""
        ends = self.unit[rows, cell], self.unit[rows, cell + 1]
        return *ends, self.rising[rows, cell], self.falling[rows, cell]

    def norm(self, rows: Array, cell: Array) -> Cubic:
        """Return the norm of the curve in one cell per row, as a cubic."""
        t, s = self.table, self.slices[rows]
        ends = t.norms[s, cell], t.norms[s, cell + 1]
        return *ends, t.norm_rising[s, cell], t.norm_falling[s, cell]

    def att(self, rows: Array, cell: Array, t: Array) -> Array:
        """Return the ATT [s] at the relative position `t` (0-1) in one cell per row."""
        edges, s = self.table.edges, self.slices[rows]
        return edges[s, cell] + t * (edges[s, cell + 1] - edges[s, cell])


def _match(table: CurveTable, signal: Array) -> _Matches:
    """Multiply the data with the tabulated curves."""
    xp = namespace(signal)
    n_slices, _, n_voxels = signal.shape
    data = signal.swapaxes(-1, -2)  # (slices, voxels, n)
    curves = table.unit, table.rising, table.falling
    products = (xp.matmul(data, c).reshape(-1, c.shape[-1]) for c in curves)
    rows = xp.arange(n_slices * n_voxels)
    if xp is not np:
        rows = rows.to(signal.device)
    return _Matches(table, rows, rows // n_voxels, *products)


def _bounded_gains(m: _Matches, cbf_bounds: tuple[float, float]) -> Array:
    """Drop of the residual sum of squares at all edges (rows, edges), for CBF within bounds."""
    norms = m.table.norms[m.slices]  # (rows, edges)
    amplitude = namespace(norms).clip(m.unit, cbf_bounds[0] * norms, cbf_bounds[1] * norms)
    return amplitude * (2 * m.unit - amplitude)


def _search(
    m: _Matches,
    gains: Array,
    power: Array,
    maximum_in_cell: Callable[..., tuple[Array, Array, Array]],
) -> tuple[Array, Array, Array]:
    """Return CBF, ATT and gain (rows,) at the global maximum of the gain.

    A gain is the drop of the residual sum of squares. `gains` (rows, edges) holds it at the edges.
    Within a cell, the gain exceeds that at the edges by less than the margin, `TURN`² times the
    power of the data. So the search covers the cells beside the best edge, and then the cells
    beside every other edge with a gain within the margin of the best.
    """
    xp = namespace(gains)
    margin = TURN**2 * power  # (rows,)
    last = gains.shape[-1] - 1
    best = xp.zeros_like(power) - 1, xp.zeros_like(power) - 1, xp.zeros_like(power) - 1
    rows, places, edge = m.rows, m.rows, gains.argmax(-1)
    while len(rows):
        for cell in (xp.clip(edge - 1, 0, None), xp.clip(edge, None, last - 1)):
            _keep_better(best, rows, maximum_in_cell(m, rows, cell))
        for beside in (-1, 0, 1):
            gains[places, xp.clip(edge + beside, 0, last)] = EXCLUDED
        edge = gains.argmax(-1)
        is_close = gains[places, edge] > best[-1][rows] - margin[rows]
        rows, edge, gains = rows[is_close], edge[is_close], gains[is_close]
        places = m.rows[: len(rows)]
    return best


def _maximum_in_cell(m: _Matches, rows: Array, cell: Array) -> tuple[Array, Array, Array]:
    """Return CBF, ATT and gain at the maximum of the squared match in one cell per row."""
    match = m.match(rows, cell)
    sign = namespace(cell).where(match[0] + match[1] < 0, -1, 1)
    t = maximum_of_cubic([sign * c for c in match])
    value = evaluate_cubic(match, t)
    return value / evaluate_cubic(m.norm(rows, cell), t), m.att(rows, cell, t), value * value


def _gain_at(cbf: float, match: Array, norm: Array) -> Array:
    """Drop of the residual sum of squares at a given CBF."""
    return cbf * norm * (2 * match - cbf * norm)


def _gain_slope_at(
    cbf: float, match: Array, norm: Array, match_slope: Array, norm_slope: Array
) -> Array:
    """Return the slope of `_gain_at` along the cell."""
    return 2 * cbf * (match_slope * norm + (match - cbf * norm) * norm_slope)


def _bounded_maximum_in_cell(
    cbf_bounds: tuple[float, float], m: _Matches, rows: Array, cell: Array
) -> tuple[Array, Array, Array]:
    """Return the same as `_maximum_in_cell` for CBF within bounds."""
    cbf, att, gain = _maximum_in_cell(m, rows, cell)
    low, high = cbf_bounds
    xp = namespace(gain)
    best = cbf, att, xp.where((cbf >= low) & (cbf <= high), gain, EXCLUDED)
    match, norm = m.match(rows, cell), m.norm(rows, cell)
    places = m.rows[: len(rows)]
    for bound in cbf_bounds:
        cubic = (
            *(_gain_at(bound, match[i], norm[i]) for i in (0, 1)),
            *(_gain_slope_at(bound, match[i], norm[i], match[i + 2], norm[i + 2]) for i in (0, 1)),
        )
        t = maximum_of_cubic(cubic)
        found = 0 * cbf + bound, m.att(rows, cell, t), evaluate_cubic(cubic, t)
        _keep_better(best, places, found)
    return best


def _keep_better(
    best: tuple[Array, Array, Array], rows: Array, other: tuple[Array, Array, Array]
) -> None:
    """Overwrite (CBF, ATT, gain) in `best` at `rows` where the other gain is larger."""
    is_better = other[-1] > best[-1][rows]
    for values, new in zip(best, other, strict=True):
        values[rows[is_better]] = new[is_better]
