"""A kinetic model and a solution -> standard errors of CBF and ATT.

They come from the Fisher information, which depends on ATT, and on CBF only by a factor. So it is
tabulated once per slice. The code serves numpy and torch.
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

STEP_S = 0.02  # step of the table
KINK_S = 0.05  # information is the mean of those at ATT ± this, because curves have kinks
MIN_SENSITIVITY = 0.01  # relative to the best of the search range; bounds the error of CBF


@dataclass(frozen=True)
class Information:
    """Fisher information times the noise variance, tabulated by ATT.

    Attributes
    ----------
    low_s, step_s : float
        ATT of the first entry, and distance between entries [s].
    entries : array (slices, 3, 1 + aBATs, n)
        Entries (CBF CBF, CBF ATT, ATT ATT) of the matrix for a CBF of 1. The first row is for
        tissue alone, the others for each aBAT of `ABAT_GRID_S` with aBV estimated too.
    least : array (slices, 1)
        Added to the information on CBF, to bound its standard error.
    width_s : float
        Width of the search range [s].
    """

    low_s: float
    step_s: float
    entries: Array
    least: Array
    width_s: float


def information(
    model: KineticModel, att_bounds_s: tuple[float, float] = ATT_BOUNDS_S
) -> Information:
    """Tabulate the Fisher information of a weighted model over the search range."""
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
    """Compute standard errors of CBF and ATT for noise of standard deviation `sd`.

    All arrays are (slices, voxels). The information of a uniform prior over the search range is
    added to the Fisher information, so the error of an undetermined ATT is large but finite.
    """
    cbf_cbf, cbf_att, att_att = _at_solution(table, solution)
    variance = sd**2
    cbf_cbf = cbf_cbf + table.least
    cbf_att = solution.cbf * cbf_att
    att_att = solution.cbf**2 * att_att + variance * 12 / table.width_s**2
    determinant = cbf_cbf * att_att - cbf_att**2
    return (variance * att_att / determinant) ** 0.5, (variance * cbf_cbf / determinant) ** 0.5


def errors_with_assumed_att(model: KineticModel, cbf: Array, sd: Array) -> tuple[Array, Array]:
    """Compute standard errors of CBF and ATT for a single timing, with an assumed ATT.

    All arrays are (slices, voxels). `cbf` is the estimate for an ATT of `TYPICAL_ATT_S`. ATT is
    assumed to be uniform within `ASSUMED_ATT_HALF_WIDTH_S` of it; the variation of the curve over
    this range adds to the error of CBF.
    """
    shifts = ASSUMED_ATT_HALF_WIDTH_S * np.linspace(-0.95, 0.95, 20)
    atts = TYPICAL_ATT_S + np.array([[0.0, *shifts]])
    curve = tissue_curve(model, array_like(atts, cbf))[:, 0]
    usual = away_from_zero(curve[:, :1])
    variance = ((curve[:, 1:] / usual - 1) ** 2).mean(-1)[:, None]
    cbf_se = ((sd / usual) ** 2 + cbf**2 * variance) ** 0.5
    return cbf_se, 0 * cbf_se + ASSUMED_ATT_HALF_WIDTH_S / 3**0.5


def standard_error_of_cbf(model: KineticModel, solution: Solution, sd: Array) -> Array:
    """Compute the standard error of CBF (slices, voxels) for a known ATT."""
    return sd / away_from_zero((tissue_curve(model, solution.att) ** 2).sum(-2)) ** 0.5


def cramer_rao_sd(
    truth: ParameterMaps, acquisition: Acquisition, noise_sd: float
) -> tuple[FloatImage, FloatImage]:
    """Compute the Cramér-Rao bound: the smallest sd of unbiased CBF and ATT estimates (x, y, z).

    The model is tissue alone. `noise_sd` is the noise of one volume of mean weight. The bound is
    inf where the data do not determine the parameters.
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
    """Compute `Information.entries` at arrival times (slices, n)."""
    xp = namespace(att)
    k, slope = tissue_curve(model, att), tissue_slope(model, att)  # (slices, timings, n)
    tissue = xp.stack([(k * k).sum(-2), (k * slope).sum(-2), (slope * slope).sum(-2)], 1)
    abats = array_like(ABAT_GRID_S[None], att)
    h = arterial_curve(model, abats)  # (slices, timings, aBATs)
    h = (h / away_from_zero((h * h).sum(-2))[:, None] ** 0.5).swapaxes(-1, -2)
    kh, sh = xp.matmul(h, k), xp.matmul(h, slope)  # (slices, aBATs, n)
    shared = xp.stack([kh * kh, kh * sh, sh * sh], 1)  # (slices, 3, aBATs, n)
    return xp.concatenate([tissue[:, :, None], tissue[:, :, None] - shared], -2)


def _at_solution(table: Information, solution: Solution) -> tuple[Array, ...]:
    """Interpolate the entries (CBF CBF, CBF ATT, ATT ATT) at the ATT of the solution.

    Each is (slices, voxels), for a CBF of 1.
    """
    xp = namespace(solution.att)
    n_slices, _, n_rows, n = table.entries.shape
    place = xp.clip((solution.att - table.low_s) / table.step_s, 0, n - 1)
    index = xp.clip(as_indices(place), None, n - 2)
    part = place - index
    if solution.abv is not None:
        row = as_indices((solution.abat - ABAT_GRID_S[0]) / ABAT_STEP_S + 0.5)
        index = index + n * xp.where(solution.abv > 0, 1 + row, 0 * row)
    slices = xp.arange(n_slices)[:, None]
    flat = table.entries.swapaxes(0, 1).reshape(3, -1)  # (3, slices * rows * n)
    first = index + n_rows * n * _to_device_of(index, slices)  # (slices, voxels), into `flat`
    return tuple(e[first] + part * (e[first + 1] - e[first]) for e in flat)


def _to_device_of(reference: Array, array: Array) -> Array:
    """Move an array to the device of another."""
    return array if isinstance(array, np.ndarray) else array.to(reference.device)
