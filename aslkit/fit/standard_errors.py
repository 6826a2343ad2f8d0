"""A kinetic model and a solution -> standard errors of CBF and ATT, from tabulated information.

The Fisher information depends on ATT alone (and on CBF by a factor), so it is tabulated once per
slice. numpy and torch run through the same code.
"""

from dataclasses import dataclass

import numpy as np

from aslkit.core.acquisition import Acquisition
from aslkit.core.backend import Array, array_like, as_indices, away_from_zero, namespace
from aslkit.core.constants import ASSUMED_ATT_HALF_WIDTH_S, ATT_BOUNDS_S, TYPICAL_ATT_S
from aslkit.core.series_and_maps import FloatImage, ParameterMaps, as_image, as_slices
from aslkit.fit.arterial import ABAT_GRID_S, ABAT_STEP_S
from aslkit.fit.curve_table import regular_atts
from aslkit.fit.variable_projection import Solution, weighted
from aslkit.kinetics.model import (
    KineticModel,
    arterial_curve,
    kinetic_model,
    tissue_curve,
    tissue_slope,
)

STEP_S = 0.02  # of the table
KINK_S = 0.05  # information is averaged over att ± this, because curves have kinks
MIN_SENSITIVITY = 0.01  # of the best in the search range; bounds the standard error of CBF


@dataclass(frozen=True)
class Information:
    """Fisher information times the noise variance, tabulated by ATT, without and with arteries.

    Attributes
    ----------
    low_s, step_s : float
        ATT of the first entry, and the distance of entries.
    entries : array (slices, 3, 1 + aBATs, n)
        For (CBF CBF, CBF ATT, ATT ATT) at a CBF of 1; the first row is for tissue alone, the
        others for an arterial compartment of `ABAT_GRID_S` that is estimated too.
    least : array (slices, 1)
        Added to the information on CBF, which bounds its standard error.
    width_s : float
        Of the search range.
    """

    low_s: float
    step_s: float
    entries: Array
    least: Array
    width_s: float


def information(
    model: KineticModel, att_bounds_s: tuple[float, float] = ATT_BOUNDS_S
) -> Information:
    """Fisher information of a weighted model over the search range."""
    grid = regular_atts(model, att_bounds_s, STEP_S)
    xp = namespace(grid)
    entries = sum(_information(model, xp.clip(grid + s, 0.01, None)) for s in (-KINK_S, KINK_S))
    best = xp.amax((tissue_curve(model, grid) ** 2).sum(-2), -1)[:, None]
    return Information(
        low_s=att_bounds_s[0],
        step_s=float(grid[0, 1] - grid[0, 0]),
        entries=entries / 2,
        least=MIN_SENSITIVITY**2 * best,
        width_s=att_bounds_s[1] - att_bounds_s[0],
    )


def standard_errors(table: Information, solution: Solution, sd: Array) -> tuple[Array, Array]:
    """Standard errors of CBF and ATT (slices, voxels) for noise of standard deviation `sd`.

    From the Fisher information at the solution, plus the information of the search range itself
    (uniform over it), so that the error of an undetermined ATT is finite and large.
    """
    cbf_cbf, cbf_att, att_att = _at_solution(table, solution)
    variance = sd**2
    cbf_cbf = cbf_cbf + table.least
    cbf_att = solution.cbf * cbf_att
    att_att = solution.cbf**2 * att_att + variance * 12 / table.width_s**2
    determinant = cbf_cbf * att_att - cbf_att**2
    return (variance * att_att / determinant) ** 0.5, (variance * cbf_cbf / determinant) ** 0.5


def errors_with_assumed_att(model: KineticModel, cbf: Array, sd: Array) -> tuple[Array, Array]:
    """Standard errors of CBF and ATT (slices, voxels) of a single timing, which tells no ATT.

    CBF is that of an ATT of `TYPICAL_ATT_S`; ATT is taken to lie anywhere within
    `ASSUMED_ATT_HALF_WIDTH_S` of it, which adds to the error of CBF what the curve varies there.
    """
    shifts = ASSUMED_ATT_HALF_WIDTH_S * np.linspace(-0.95, 0.95, 20)
    atts = TYPICAL_ATT_S + np.array([[0.0, *shifts]])
    curve = tissue_curve(model, array_like(atts, cbf))[:, 0]
    usual = away_from_zero(curve[:, :1])
    variance = ((curve[:, 1:] / usual - 1) ** 2).mean(-1)[:, None]
    cbf_se = ((sd / usual) ** 2 + cbf**2 * variance) ** 0.5
    return cbf_se, 0 * cbf_se + ASSUMED_ATT_HALF_WIDTH_S / 3**0.5


def standard_error_of_cbf(model: KineticModel, solution: Solution, sd: Array) -> Array:
    """Standard error of CBF (slices, voxels) when ATT is known."""
    return sd / away_from_zero((tissue_curve(model, solution.att) ** 2).sum(-2)) ** 0.5


def cramer_rao_sd(
    truth: ParameterMaps, acquisition: Acquisition, noise_sd: float
) -> tuple[FloatImage, FloatImage]:
    """Smallest sd of unbiased CBF and ATT estimates (x, y, z); inf where undetermined.

    `noise_sd` is that of one volume of mean weight; the model is tissue alone.
    """
    n_slices = truth.cbf.shape[2]
    model = kinetic_model(acquisition, n_slices)
    model = weighted(model, acquisition.weights)
    cbf, att = (as_slices(image).astype(np.float64) for image in (truth.cbf, truth.att))
    curve, slope = tissue_curve(model, att), cbf[:, None] * tissue_slope(model, att)
    a, b, c = ((p * q).sum(-2) for p, q in ((curve, curve), (curve, slope), (slope, slope)))
    determinant = a * c - b * b
    is_determined = determinant > 1e-6 * a * c
    safe = np.where(is_determined, determinant, 1.0)
    sds = (noise_sd * np.sqrt(np.where(is_determined, v / safe, np.inf)) for v in (c, a))
    cbf_sd, att_sd = (as_image(sd, truth.cbf.shape) for sd in sds)
    return cbf_sd, att_sd


def _information(model: KineticModel, att: Array) -> Array:
    """Entries of `Information` at some arrival times (slices, n)."""
    xp = namespace(att)
    k, slope = tissue_curve(model, att), tissue_slope(model, att)
    tissue = xp.stack([(k * k).sum(-2), (k * slope).sum(-2), (slope * slope).sum(-2)], 1)
    abats = array_like(ABAT_GRID_S[None], att)
    h = arterial_curve(model, abats)
    h = (h / away_from_zero((h * h).sum(-2))[:, None] ** 0.5).swapaxes(-1, -2)
    kh, sh = xp.matmul(h, k), xp.matmul(h, slope)
    shared = xp.stack([kh * kh, kh * sh, sh * sh], 1)
    return xp.concatenate([tissue[:, :, None], tissue[:, :, None] - shared], -2)


def _at_solution(table: Information, solution: Solution) -> tuple[Array, ...]:
    """Entries (CBF CBF, CBF ATT, ATT ATT) at the solution's ATT, linearly between the table's."""
    xp = namespace(solution.att)
    n_slices, _, n_rows, n = table.entries.shape
    place = xp.clip((solution.att - table.low_s) / table.step_s, 0, n - 1)
    index = xp.clip(as_indices(place), None, n - 2)
    part = place - index
    if solution.abv is not None:
        row = as_indices((solution.abat - ABAT_GRID_S[0]) / ABAT_STEP_S + 0.5)
        index = index + n * xp.where(solution.abv > 0, 1 + row, 0 * row)
    slices = xp.arange(n_slices)[:, None]
    flat = table.entries.swapaxes(0, 1).reshape(3, -1)
    first = index + n_rows * n * _like_index(slices, index)
    return tuple(e[first] + part * (e[first + 1] - e[first]) for e in flat)


def _like_index(array: Array, reference: Array) -> Array:
    return array if isinstance(array, np.ndarray) else array.to(reference.device)
