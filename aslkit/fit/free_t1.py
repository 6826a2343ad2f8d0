"""AslSeries -> CBF, ATT and T1 of tissue of every voxel, with standard errors.

It needs the kinetic model "tissue". The search of `variable_projection` is exact for a given T1
and runs for every T1 of a grid. From the best grid values, Gauss-Newton steps on ATT and T1 find
the optimum between grid values, with CBF in closed form (Golub & Pereyra 2003,
doi:10.1088/0266-5611/19/2/201). Arrays are numpy: (slices, n, voxels) for signals and
(slices, voxels) for parameters.
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
from aslkit.fit.standard_errors import KINK_S, MIN_SENSITIVITY, STEP_S
from aslkit.fit.variable_projection import solve_tissue
from aslkit.fit.voxel_chunks import by_chunk, values_at
from aslkit.kinetics.model import KineticModel, kinks, tissue_curve, tissue_slope

GRID_S = np.linspace(*T1_TISSUE_BOUNDS_S, 13)
N_STARTS = 3  # best T1s of the grid from which the search starts: kinks create local minima
MIN_TIMINGS = 4
DERIVATIVE_S = 1e-3  # half the step of the difference quotient by T1
MAX_STEPS = 40
ROUNDING = 1e-13  # relative to the power of the data; a smaller improvement is rounding error
MIN_DETERMINANT = 1e-12  # relative to the product of the diagonal
TINY = 1e-200  # avoids division by zero
CERTAIN = 1e12  # information on a T1 that is known


def check_protocol(acquisition: Acquisition) -> None:
    """Check that an acquisition determines T1 of tissue besides CBF and ATT.

    Raises
    ------
    ValueError
        When it does not.
    """
    if acquisition.kinetic != "tissue":
        raise ValueError("a free tissue T1 goes with the tissue kinetic only")
    depends_on_t1 = any(t.labeling != "vsasl" for t in acquisition.timings)
    if acquisition.n_timings < MIN_TIMINGS or not depends_on_t1:
        raise ValueError(
            f"a free tissue T1 needs at least {MIN_TIMINGS} timings, not all of them VSASL"
        )


def with_t1(model: KineticModel, t1: FloatArray) -> KineticModel:
    """Return the model with one T1 of tissue per voxel, (slices, voxels) [s]."""
    return replace(model, t1_tissue=t1[:, None])


def solve_with_free_t1(
    series: AslSeries, att_bounds_s: tuple[float, float], progress: Progress = iter
) -> dict[str, FloatImage]:
    """Estimate `cbf`, `att` and `t1_tissue`, and compute their `rss`, each (x, y, z)."""

    def tables(model: KineticModel) -> list[CurveTable]:
        return _tabulate_grid(model, att_bounds_s)

    def fit(tables: list[CurveTable], _: IndexArray, signal: FloatArray) -> dict[str, FloatArray]:
        return _solve(tables, signal, att_bounds_s)

    return by_chunk(series, ("cbf", "att", "rss", "t1_tissue"), tables, fit, progress)


def errors_with_free_t1(
    series: AslSeries,
    att_bounds_s: tuple[float, float],
    sd: FloatImage,
    maps: dict[str, FloatImage],
) -> dict[str, FloatImage]:
    """Compute standard errors `cbf_std`, `att_std` and `t1_tissue_std`, each (x, y, z).

    The standard errors follow from the Fisher information, averaged over kinks, plus the
    information of uniform priors over the search ranges (as in `standard_errors`). A second
    estimate combines the standard error for a known T1 with the standard deviation over the fits
    with every T1 of the grid, weighted by their likelihood. The larger estimate is returned.

    Parameters
    ----------
    sd : array (x, y, z)
        Noise of one volume of mean weight.
    maps : dict
        `cbf`, `att` and `t1_tissue`.
    """
    att_width, t1_width = (high - low for low, high in (att_bounds_s, T1_TISSUE_BOUNDS_S))

    def tables(model: KineticModel) -> tuple[list[CurveTable], FloatArray]:
        curves = tissue_curve(model, regular_atts(model, att_bounds_s, STEP_S))
        least = MIN_SENSITIVITY**2 * np.max(np.sum(curves**2, axis=-2))
        return _tabulate_grid(model, att_bounds_s), least

    def errors(
        table: tuple[list[CurveTable], FloatArray], places: IndexArray, signal: FloatArray
    ) -> dict[str, FloatArray]:
        grid, least = table
        images = (maps["cbf"], maps["att"], maps["t1_tissue"], sd)
        cbf, att, t1, noise = (values_at(i, places).astype(np.float64) for i in images)
        of_att = noise**2 * 12 / att_width**2  # (1, voxels)
        of_t1 = noise**2 * 12 / t1_width**2  # (1, voxels)
        sides = (np.clip(att + s, 0.01, None) for s in (-KINK_S, KINK_S))
        information = np.mean(  # (6, 1, voxels)
            [_information(grid[0].model, cbf, side, t1) for side in sides], axis=0
        )
        free = noise**2 * _inverse_diagonal(information, (least, of_att, of_t1))
        given_t1 = noise**2 * _inverse_diagonal(information, (least, of_att, CERTAIN + 0 * of_t1))
        variance = _variance_over_grid(grid, signal, np.array([cbf, att, t1]), noise)
        cbf_std, att_std, t1_std = np.sqrt(np.maximum(free, given_t1 + variance))
        return {"cbf_std": cbf_std, "att_std": att_std, "t1_tissue_std": t1_std}

    return by_chunk(series, ("cbf_std", "att_std", "t1_tissue_std"), tables, errors)


def _tabulate_grid(model: KineticModel, att_bounds_s: tuple[float, float]) -> list[CurveTable]:
    """Tabulate the curves of a weighted model for every T1 of the grid."""
    return [tabulate(replace(model, t1_tissue=float(t1)), att_bounds_s) for t1 in GRID_S]


def _solve(
    tables: list[CurveTable], signal: FloatArray, att_bounds_s: tuple[float, float]
) -> dict[str, FloatArray]:
    """Estimate CBF, ATT and T1, (slices, voxels), and compute their residual sum of squares."""
    found = [solve_tissue(table, signal) for table in tables]
    order = np.argsort([s.rss for s in found], axis=0)[:N_STARTS]  # (starts, slices, voxels)
    atts = np.take_along_axis(np.array([s.att for s in found], dtype=np.float64), order, axis=0)
    fit = _Fit(tables[0].model, signal.astype(np.float64), att_bounds_s)
    ends = [_refine(fit, *start) for start in zip(atts, GRID_S[order], strict=True)]
    best = np.argmin([np.sum(fit.project(*end)[1] ** 2, axis=-2) for end in ends], axis=0)
    att, t1 = (np.take_along_axis(np.array(v), best[None], 0)[0] for v in zip(*ends, strict=True))
    cbf, residual, _ = fit.project(att, t1)
    return {"cbf": cbf, "att": att, "rss": np.sum(residual**2, axis=-2), "t1_tissue": t1}


def _variance_over_grid(
    tables: list[CurveTable], signal: FloatArray, best: FloatArray, noise: FloatArray
) -> FloatArray:
    """Return the mean squared deviation of CBF, ATT and T1 from `best`, (3, slices, voxels).

    The mean runs over the fits with every T1 of the grid, weighted by their likelihood. Where the
    likelihood is narrower than the grid, the weights add up to less than 1 and the result goes
    to 0.
    """
    model, (cbf, att, t1) = tables[0].model, best
    residual = signal - cbf[:, None] * tissue_curve(with_t1(model, t1), att)
    least = np.sum(residual**2, axis=-2)  # (slices, voxels)
    total, squares = 0 * t1, 0 * best
    for value, table in zip(GRID_S, tables, strict=True):
        found = solve_tissue(table, signal)
        rise = np.clip(found.rss - least, 0, None) / np.maximum(noise**2, TINY)
        weight = np.exp(-rise / 2)  # (slices, voxels)
        deviation = np.array([found.cbf, found.att, value + 0 * t1]) - best
        total, squares = total + weight, squares + weight * deviation**2
    return np.asarray(squares / np.maximum(total, 1))


def _inverse_diagonal(information: FloatArray, known: tuple[FloatArray, ...]) -> FloatArray:
    """Add `known` to the diagonal of a 3 x 3 matrix; return the diagonal of its inverse (3, …).

    `information` (6, …) holds the upper triangle (cc, ca, ct, aa, at, tt) for CBF, ATT and T1.
    """
    cc, ca, ct, aa, at, tt = information
    cc, aa, tt = (d + k for d, k in zip((cc, aa, tt), known, strict=True))
    minors = aa * tt - at**2, cc * tt - ct**2, cc * aa - ca**2
    determinant = cc * minors[0] - ca * (ca * tt - at * ct) + ct * (ca * at - aa * ct)
    least = MIN_DETERMINANT * cc * aa * tt + TINY
    return np.clip(minors, 0, None) / np.maximum(determinant, least)


def _information(
    model: KineticModel, cbf: FloatArray, att: FloatArray, t1: FloatArray
) -> FloatArray:
    """Return the upper triangle of Fisher information x noise variance: CBF, ATT, T1, (6, …)."""
    c = tissue_curve(with_t1(model, t1), att)  # (slices, n, voxels)
    a, t = (cbf[:, None] * d for d in _derivatives(model, att, t1))  # (slices, n, voxels)
    pairs = (c, c), (c, a), (c, t), (a, a), (a, t), (t, t)
    return np.array([np.sum(p * q, axis=-2) for p, q in pairs])


def _derivatives(
    model: KineticModel, att: FloatArray, t1: FloatArray
) -> tuple[FloatArray, FloatArray]:
    """Return the slopes of the curve by ATT and by T1 [per s], each (slices, n, voxels)."""
    ends = (tissue_curve(with_t1(model, t1 + h), att) for h in (-DERIVATIVE_S, DERIVATIVE_S))
    below, above = ends
    return tissue_slope(with_t1(model, t1), att), (above - below) / (2 * DERIVATIVE_S)


@dataclass(frozen=True)
class _Fit:
    """Weighted signal (slices, n, voxels) in float64, with its model and search range."""

    model: KineticModel
    signal: FloatArray
    att_bounds_s: tuple[float, float]

    def project(
        self, att: FloatArray, t1: FloatArray
    ) -> tuple[FloatArray, FloatArray, FloatArray]:
        """Return the best CBF (slices, voxels), residual and unit curve (slices, n, voxels)."""
        curve = tissue_curve(with_t1(self.model, t1), att)  # (slices, n, voxels)
        norm = np.sqrt(away_from_zero(np.sum(curve**2, axis=-2)))  # (slices, voxels)
        unit = curve / norm[:, None]
        match = np.sum(unit * self.signal, axis=-2)  # (slices, voxels)
        return match / norm, self.signal - match[:, None] * unit, unit


def _refine(fit: _Fit, att: FloatArray, t1: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Improve ATT and T1 (slices, voxels) until no step lowers the residual."""
    att, t1 = att.copy(), t1.copy()
    moving = np.arange(att.shape[-1])
    for _ in range(MAX_STEPS):
        if not moving.size:
            break
        part = replace(fit, signal=fit.signal[..., moving])
        att[:, moving], t1[:, moving], is_better = _improve(part, att[:, moving], t1[:, moving])
        moving = moving[is_better.any(axis=0)]
    return att, t1


def _improve(
    fit: _Fit, att: FloatArray, t1: FloatArray
) -> tuple[FloatArray, FloatArray, NDArray[np.bool_]]:
    """Return ATT and T1 after the best of several steps, and whether it lowers the residual."""
    cbf, residual, unit = fit.project(att, t1)
    start, margin = np.sum(residual**2, -2), ROUNDING * np.sum(fit.signal**2, -2)
    best_att, best_t1, best = att, t1, start
    slopes = [
        cbf[:, None] * d for d in _derivatives(fit.model, att, t1)
    ]  # 2 x (slices, n, voxels)
    by_att, by_t1 = (d - unit * np.sum(unit * d, axis=-2)[:, None] for d in slopes)
    corners = kinks(fit.model)[..., None]  # (slices, 2 n, 1)
    nearest = np.argmin(np.abs(corners - att[:, None]), axis=1)[:, None]  # (slices, 1, voxels)
    to_kink = np.take_along_axis(corners, nearest, axis=1)[:, 0] - att  # (slices, voxels)
    for att_step, t1_step in _steps(by_att, by_t1, residual, to_kink):
        new_att = np.clip(att + att_step, *fit.att_bounds_s)
        new_t1 = np.clip(t1 + t1_step, *T1_TISSUE_BOUNDS_S)
        rss = np.sum(fit.project(new_att, new_t1)[1] ** 2, axis=-2)
        is_better = rss < best - margin
        best_att, best_t1 = np.where(is_better, (new_att, new_t1), (best_att, best_t1))
        best = np.where(is_better, rss, best)
    return best_att, best_t1, best < start


def _steps(
    by_att: FloatArray, by_t1: FloatArray, residual: FloatArray, to_kink: FloatArray
) -> Iterator[tuple[FloatArray, FloatArray]]:
    """Yield steps of (ATT, T1) to try: T1 alone, ATT alone, ATT to its kink, and both.

    A step of T1 alone is possible if ATT is at a kink or a bound, or if the data do not determine
    ATT. `by_att` and `by_t1` (slices, n, voxels) are the
    slopes of the signal, orthogonal to the curve.
    """
    pairs = (by_att, by_att), (by_att, by_t1), (by_t1, by_t1)
    a, b, c = (np.sum(p * q, axis=-2) for p, q in pairs)  # (slices, voxels)
    fall_a, fall_c = (np.sum(slope * residual, axis=-2) for slope in (by_att, by_t1))
    a, c = away_from_zero(a), away_from_zero(c)
    determinant = np.maximum(a * c - b**2, MIN_DETERMINANT * a * c)
    yield 0 * to_kink, fall_c / c
    yield fall_a / a, 0 * to_kink
    yield to_kink, (fall_c - b * to_kink) / c
    yield (c * fall_a - b * fall_c) / determinant, (a * fall_c - b * fall_a) / determinant
