"""AslSeries -> CBF, ATT and tissue T1 of every voxel with standard errors, for the tissue kinetic.

For a given T1 the search of `variable_projection` is exact. It runs for every T1 of a grid. From
the best of them, Gauss-Newton steps on ATT and T1 find the optimum between grid values, with CBF
following in closed form (Golub & Pereyra 2003, doi:10.1088/0266-5611/19/2/201). Rows are numpy,
(slices, n, voxels) for signals and (slices, voxels) for parameters.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from aslkit.core.acquisition import Acquisition
from aslkit.core.backend import FloatArray, IndexArray, away_from_zero
from aslkit.core.constants import T1_TISSUE_BOUNDS_S
from aslkit.core.progress import Progress
from aslkit.core.series_and_maps import AslSeries, FloatImage
from aslkit.fit.curve_table import CurveTable, regular_atts, tabulate
from aslkit.fit.standard_errors import KINK_S, LEAST_SENSITIVITY, STEP_S
from aslkit.fit.variable_projection import solve_tissue
from aslkit.fit.voxel_chunks import by_chunk
from aslkit.kinetics.model import KineticModel, kinks, tissue_curve, tissue_slope

GRID_S = np.linspace(*T1_TISSUE_BOUNDS_S, 13)
N_STARTS = 3  # best T1s of the grid from which the optimum is sought: kinks part the valley
FEWEST_TIMINGS = 4
DERIVATIVE_S = 1e-3  # half the distance of the difference quotient by T1
MOST_STEPS = 40
ROUNDING = 1e-13  # of the data's power: what is less is no improvement
LEAST_DETERMINANT = 1e-12  # over the product of the diagonal
TINY = 1e-200  # keeps 0 / 0 at 0
CERTAIN = 1e12  # information on a T1 that is known


def check_protocol(acquisition: Acquisition) -> None:
    """Refuse an acquisition that cannot tell tissue T1 beside CBF and ATT (ValueError)."""
    if acquisition.kinetic != "tissue":
        raise ValueError("a free tissue T1 goes with the tissue kinetic only")
    sees_t1 = any(t.labeling != "vsasl" for t in acquisition.timings)
    if acquisition.n_timings < FEWEST_TIMINGS or not sees_t1:
        raise ValueError(
            f"a free tissue T1 needs at least {FEWEST_TIMINGS} timings, not all of them VSASL"
        )


def with_t1(model: KineticModel, t1: FloatArray) -> KineticModel:
    """The model with a tissue T1 of its own for every voxel (slices, voxels) [s]."""
    return replace(model, t1_tissue=t1[:, None])


def solve_with_free_t1(
    series: AslSeries, att_bounds_s: tuple[float, float], progress: Progress = iter
) -> list[FloatImage]:
    """Best CBF, ATT, residual sum of squares and tissue T1 of every voxel, each (x, y, z)."""

    def tables(model: KineticModel) -> list[CurveTable]:
        return _tabulated(model, att_bounds_s)

    def fit(cells: list[CurveTable], _: IndexArray, signal: FloatArray) -> list[FloatArray]:
        return _solve(cells, signal, att_bounds_s)

    return by_chunk(series, tables, fit, 4, progress)


def errors_with_free_t1(
    series: AslSeries, att_bounds_s: tuple[float, float], sd: FloatImage, maps: list[FloatImage]
) -> list[FloatImage]:
    """Standard errors of CBF, ATT and tissue T1 (x, y, z) at these three `maps`.

    From the Fisher information, averaged over kinks, plus that of the search ranges (uniform over
    them), as `standard_errors` does for two parameters; or, where larger, from the fits with
    every T1 of the grid, weighted by their likelihood. `sd` is the noise of one volume.
    """
    widths = [high - low for low, high in (att_bounds_s, T1_TISSUE_BOUNDS_S)]

    def tables(model: KineticModel) -> tuple[list[CurveTable], FloatArray]:
        curves = tissue_curve(model, regular_atts(model, att_bounds_s, STEP_S))
        least = LEAST_SENSITIVITY**2 * np.max(np.sum(curves**2, axis=-2))
        return _tabulated(model, att_bounds_s), least

    def errors(
        table: tuple[list[CurveTable], FloatArray], places: IndexArray, signal: FloatArray
    ) -> list[FloatArray]:
        cells, least = table
        rows = (m.reshape(-1)[places][None].astype(np.float64) for m in (*maps, sd))
        cbf, att, t1, noise = rows
        of_att, of_t1 = (noise**2 * 12 / width**2 for width in widths)
        sides = (np.clip(att + s, 0.01, None) for s in (-KINK_S, KINK_S))
        information = np.mean(
            [_information(cells[0].model, cbf, side, t1) for side in sides], axis=0
        )
        free = noise**2 * _inverse_diagonal(information, (least, of_att, of_t1))
        given_t1 = noise**2 * _inverse_diagonal(information, (least, of_att, CERTAIN + 0 * of_t1))
        spread = _spread(cells, signal, np.array([cbf, att, t1]), noise)
        return list(np.sqrt(np.maximum(free, given_t1 + spread)))

    return by_chunk(series, tables, errors, 3)


def _tabulated(model: KineticModel, att_bounds_s: tuple[float, float]) -> list[CurveTable]:
    """The curves of a weighted model for every T1 of the grid."""
    return [tabulate(replace(model, t1_tissue=float(t1)), att_bounds_s) for t1 in GRID_S]


def _solve(
    cells: list[CurveTable], signal: FloatArray, att_bounds_s: tuple[float, float]
) -> list[FloatArray]:
    """CBF, ATT, residual sum of squares and T1 (slices, voxels), from the tables of all T1s."""
    found = [solve_tissue(table, signal) for table in cells]
    order = np.argsort([s.rss for s in found], axis=0)[:N_STARTS]
    atts = np.take_along_axis(np.array([s.att for s in found], dtype=np.float64), order, axis=0)
    fit = _Fit(cells[0].model, signal.astype(np.float64), att_bounds_s)
    ends = [_refined(fit, *start) for start in zip(atts, GRID_S[order], strict=True)]
    best = np.argmin([np.sum(fit.projected(*end)[1] ** 2, axis=-2) for end in ends], axis=0)
    att, t1 = (np.take_along_axis(np.array(v), best[None], 0)[0] for v in zip(*ends, strict=True))
    cbf, residual, _ = fit.projected(att, t1)
    return [cbf, att, np.sum(residual**2, axis=-2), t1]


def _spread(
    cells: list[CurveTable], signal: FloatArray, best: FloatArray, noise: FloatArray
) -> FloatArray:
    """Mean squares (3, slices, voxels) by which CBF, ATT and T1 stray from the best.

    Over the fits with every T1 of the grid, by their likelihood. Where that is narrower than the
    grid, the weights add up to less than 1, and the spread fades.
    """
    model, (cbf, att, t1) = cells[0].model, best
    least = np.sum((signal - cbf[:, None] * tissue_curve(with_t1(model, t1), att)) ** 2, axis=-2)
    total, squares = 0 * t1, 0 * best
    for value, table in zip(GRID_S, cells, strict=True):
        found = solve_tissue(table, signal)
        rise = np.clip(found.rss - least, 0, None) / np.maximum(noise**2, TINY)
        weight = np.exp(-rise / 2)
        strayed = np.array([found.cbf, found.att, value + 0 * t1]) - best
        total, squares = total + weight, squares + weight * strayed**2
    return np.asarray(squares / np.maximum(total, 1))


def _inverse_diagonal(information: FloatArray, known: tuple[FloatArray, ...]) -> FloatArray:
    """Diagonal of the inverse of the information (cc, ca, ct, aa, at, tt) with `known` added."""
    cc, ca, ct, aa, at, tt = information
    cc, aa, tt = (d + k for d, k in zip((cc, aa, tt), known, strict=True))
    minors = aa * tt - at**2, cc * tt - ct**2, cc * aa - ca**2
    determinant = cc * minors[0] - ca * (ca * tt - at * ct) + ct * (ca * at - aa * ct)
    least = LEAST_DETERMINANT * cc * aa * tt + TINY
    return np.clip(minors, 0, None) / np.maximum(determinant, least)


def _information(
    model: KineticModel, cbf: FloatArray, att: FloatArray, t1: FloatArray
) -> FloatArray:
    """Fisher information on CBF, ATT, T1 times the noise variance: upper triangle (6, …)."""
    c = tissue_curve(with_t1(model, t1), att)
    a, t = (cbf[:, None] * d for d in _derivatives(model, att, t1))
    pairs = (c, c), (c, a), (c, t), (a, a), (a, t), (t, t)
    return np.array([np.sum(p * q, axis=-2) for p, q in pairs])


def _derivatives(
    model: KineticModel, att: FloatArray, t1: FloatArray
) -> tuple[FloatArray, FloatArray]:
    """Slope of the curve by ATT and by T1 [per s], each (slices, n, voxels)."""
    ends = (tissue_curve(with_t1(model, t1 + h), att) for h in (-DERIVATIVE_S, DERIVATIVE_S))
    below, above = ends
    return tissue_slope(with_t1(model, t1), att), (above - below) / (2 * DERIVATIVE_S)


@dataclass(frozen=True)
class _Fit:
    """Whitened signal (slices, n, voxels) in float64 and what it is fitted with."""

    model: KineticModel
    signal: FloatArray
    att_bounds_s: tuple[float, float]

    def projected(
        self, att: FloatArray, t1: FloatArray
    ) -> tuple[FloatArray, FloatArray, FloatArray]:
        """Best CBF, what it leaves of the signal, and the curve's direction (of norm 1)."""
        curve = tissue_curve(with_t1(self.model, t1), att)
        norm = np.sqrt(away_from_zero(np.sum(curve**2, axis=-2)))
        unit = curve / norm[:, None]
        match = np.sum(unit * self.signal, axis=-2)
        return match / norm, self.signal - match[:, None] * unit, unit


def _refined(fit: _Fit, att: FloatArray, t1: FloatArray) -> tuple[FloatArray, FloatArray]:
    """ATT and T1 from which no step lowers the residual any more."""
    att, t1 = att.copy(), t1.copy()
    moving = np.arange(att.shape[-1])
    for _ in range(MOST_STEPS):
        if not moving.size:
            break
        part = replace(fit, signal=fit.signal[..., moving])
        better = _improved(part, att[:, moving], t1[:, moving])
        att[:, moving], t1[:, moving], is_better = better
        moving = moving[is_better.any(axis=0)]
    return att, t1


def _improved(
    fit: _Fit, att: FloatArray, t1: FloatArray
) -> tuple[FloatArray, FloatArray, NDArray[np.bool_]]:
    """ATT and T1 after the best of several steps, and whether it lowers the residual."""
    cbf, residual, unit = fit.projected(att, t1)
    start, margin = np.sum(residual**2, -2), ROUNDING * np.sum(fit.signal**2, -2)
    best_att, best_t1, best = att, t1, start
    slopes = [cbf[:, None] * d for d in _derivatives(fit.model, att, t1)]
    by_att, by_t1 = (d - unit * np.sum(unit * d, axis=-2)[:, None] for d in slopes)
    corners = kinks(fit.model)[..., None]
    nearest = np.argmin(np.abs(corners - att[:, None]), axis=1)[:, None]
    to_kink = np.take_along_axis(corners, nearest, axis=1)[:, 0] - att
    for att_step, t1_step in _steps(by_att, by_t1, residual, to_kink):
        new_att = np.clip(att + att_step, *fit.att_bounds_s)
        new_t1 = np.clip(t1 + t1_step, *T1_TISSUE_BOUNDS_S)
        rss = np.sum(fit.projected(new_att, new_t1)[1] ** 2, axis=-2)
        is_better = rss < best - margin
        best_att, best_t1 = np.where(is_better, (new_att, new_t1), (best_att, best_t1))
        best = np.where(is_better, rss, best)
    return best_att, best_t1, best < start


def _steps(
    by_att: FloatArray, by_t1: FloatArray, residual: FloatArray, to_kink: FloatArray
) -> Iterator[tuple[FloatArray, FloatArray]]:
    """Steps to try, from the signal's slopes: T1 alone, ATT alone, ATT to its kink, both.

    Either alone goes along a kink of the curve and along a bound, and leaves an ATT alone that
    nothing tells.
    """
    a, b, c = (
        np.sum(p * q, axis=-2) for p, q in ((by_att, by_att), (by_att, by_t1), (by_t1, by_t1))
    )
    fall_a, fall_c = (np.sum(slope * residual, axis=-2) for slope in (by_att, by_t1))
    a, c = away_from_zero(a), away_from_zero(c)
    determinant = np.maximum(a * c - b**2, LEAST_DETERMINANT * a * c)
    yield 0 * to_kink, fall_c / c
    yield fall_a / a, 0 * to_kink
    yield to_kink, (fall_c - b * to_kink) / c
    yield (c * fall_a - b * fall_c) / determinant, (a * fall_c - b * fall_a) / determinant
