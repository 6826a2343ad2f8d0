"""Signals -> CBF, ATT and an arterial compartment (aBV, aBAT) of every voxel, where they earn it.

Like `variable_projection`, with two linear parameters and a search over (ATT, aBAT), as a maximum
a posteriori estimate. The compartment stays off unless it lowers chi squared by `EVIDENCE` (a
likelihood ratio test at 5 %), and an exponential prior on aBV keeps it small. A Cauchy prior on
ATT resolves what the data leave open, and hardly pulls on late arrival that they do show.
Arrays are as in `variable_projection`; numpy and torch run through the same code.
"""

from collections.abc import Callable

import numpy as np

from aslkit.core.backend import Array, array_like, away_from_zero, first_axis_indices, namespace
from aslkit.core.constants import ATT_BOUNDS_S, TYPICAL_ATT_S
from aslkit.fit.curve_table import regular_atts
from aslkit.fit.variable_projection import Solution
from aslkit.kinetics.model import KineticModel, arterial_curve, tissue_curve

EVIDENCE = 6.0  # chi squared of two degrees of freedom exceeds it by chance in 5 %
ABV_SCALE = 0.003  # mean of the prior on aBV, a fraction
ATT_PRIOR_S = (1.3, 0.5)  # centre and half width at half maximum (BASIL: Gaussian, 1.3 +- 0.32 s)
ABAT_STEP_S = 0.1
ABAT_GRID_S = np.arange(0.1, 2.05, ABAT_STEP_S)
GRID_STEP_S = 0.1
SAME_S = 1e-6  # times this close are the same
COLLINEAR = 1e-5  # squared sine of the angle between curves that nothing can tell apart
N_GOLDEN = 9  # shrinks the bracket of two grid steps to about 3 ms
GOLDEN = 0.6180339887498949
TIE_BREAK = 1e-5  # of the gain per second of distance from TYPICAL_ATT_S, where ATT is a plateau


def solve_arterial(
    model: KineticModel, signal: Array, sd: Array, att_bounds_s: tuple[float, float] = ATT_BOUNDS_S
) -> Solution:
    """Most probable CBF, ATT, aBV and aBAT <= ATT of every voxel (arterial model: Chappell 2010).

    Maximises the likelihood for noise of standard deviation `sd` (slices, voxels) times the
    priors named at the top of this module.
    """
    xp = namespace(signal)
    penalty = sd**2 / ABV_SCALE
    grid = regular_atts(model, att_bounds_s, GRID_STEP_S)
    abats = array_like(ABAT_GRID_S[None, att_bounds_s[1] >= ABAT_GRID_S], signal)
    start, abat, is_on = _pair_search(model, signal, sd, penalty, grid, abats)
    h = is_on[..., None, :] * arterial_curve(model, abat)
    hh, hy = away_from_zero((h**2).sum(-2)), (h * signal).sum(-2)

    def profile(att: Array) -> tuple[Array, Array, Array]:
        curve = tissue_curve(model, att)
        kk, ky, kh = (
            away_from_zero((curve**2).sum(-2)),
            (curve * signal).sum(-2),
            (curve * h).sum(-2),
        )
        abv, gain = _arterial_gain(kk, ky, kh, hh, hy, penalty)
        return gain - _att_penalty(att, sd), (ky - abv * kh) / kk, abv

    step = grid[0, 1] - grid[0, 0]
    low = xp.clip(start - step, att_bounds_s[0], None)
    high = xp.clip(start + step, None, att_bounds_s[1])
    att = _golden(profile, xp.maximum(low, abat), high)
    att = xp.where(profile(att)[0] >= profile(start)[0], att, start)
    _, cbf, abv = profile(att)
    residual = signal - cbf[..., None, :] * tissue_curve(model, att) - abv[..., None, :] * h
    return Solution(cbf, att, abv, abat, rss=(residual**2).sum(-2))


def arterial_given_tissue(
    model: KineticModel, signal: Array, sd: Array, cbf: Array, att: Array, att_sd: Array
) -> tuple[Array, Array]:
    """Most probable (aBV, aBAT <= ATT + its error) of every voxel when CBF and ATT are known."""
    xp = namespace(signal)
    rest = signal - cbf[..., None, :] * tissue_curve(model, att)
    best, abv, abat = 0 * att, 0 * att, 0 * att + ABAT_GRID_S[0]
    for candidate in ABAT_GRID_S:
        h = arterial_curve(model, 0 * att[..., :1] + candidate)
        hh, hy = away_from_zero((h**2).sum(-2)), (h * rest).sum(-2)
        volume = xp.clip((hy - sd**2 / ABV_SCALE) / hh, 0, None)
        gain = xp.where(att + att_sd >= candidate, volume**2 * hh, 0 * att)
        abv = xp.where(gain > best, volume, abv)
        abat = xp.where(gain > best, 0 * att + candidate, abat)
        best = xp.maximum(gain, best)
    return abv, abat


def _pair_search(
    model: KineticModel, signal: Array, sd: Array, penalty: Array, grid: Array, abats: Array
) -> tuple[Array, Array, Array]:
    """Best (ATT, aBAT) of every voxel on the grid, and whether there is evidence of arteries.

    Where arteries help, the gain of a pair is that of tissue plus the square of a root,

        across (h·y - penalty) - along (k·y) = (across h - along k)·y - across penalty,

    so that the roots of all voxels are a product of their data with one row per pair.
    """
    xp = namespace(signal)
    k = tissue_curve(model, grid).swapaxes(-1, -2)
    h = arterial_curve(model, abats).swapaxes(-1, -2)
    kk, ky = away_from_zero((k**2).sum(-1)), xp.matmul(k, signal)
    tissue_gain = ky**2 / kk[..., None] - _att_penalty(grid[..., None], sd[..., None, :])
    index = (tissue_gain * (1 - TIE_BREAK * abs(grid - TYPICAL_ATT_S))[..., None]).argmax(-2)
    att, least = grid[0, index], _at(tissue_gain, index) + EVIDENCE * sd**2
    hh = (h**2).sum(-1)[:, None]
    is_early = abats[0] <= grid[0, :, None] + SAME_S
    ratio = xp.matmul(k, h.swapaxes(-1, -2)) / kk[..., None]
    left = hh - ratio**2 * kk[..., None]
    is_open = is_early & (left > COLLINEAR * hh)
    across = xp.where(is_open, away_from_zero(left) ** -0.5, 0 * left)
    along = across * ratio
    rows = across[..., None] * h[:, None] - along[..., None] * k[:, :, None]
    rows = xp.concatenate([rows, -across[..., None]], -1)
    data = xp.concatenate([signal, penalty[:, None]], -2)
    n_early = xp.clip(is_early.sum(-1), 1, None)
    roots = [xp.amax(xp.matmul(rows[:, g, :n], data), -2) for g, n in enumerate(n_early)]
    gain = tissue_gain + xp.clip(xp.stack(roots, -2), 0, None) ** 2
    index = gain.argmax(-2)
    is_on = _at(gain, index) > least
    slices = first_axis_indices(index >= 0).reshape(index.shape)
    a, b = (table[slices, index] for table in (across, along))
    hy = xp.matmul(h, signal).swapaxes(-1, -2)
    root = a * (hy - penalty[..., None]) - b * _at(ky, index)[..., None]
    abat = xp.where(is_on, abats[0, root.argmax(-1)], 0 * att + abats[0, 0])
    att = xp.where(is_on, grid[0, index], att)
    return xp.maximum(att, abat), abat, is_on


def _arterial_gain(
    kk: Array, ky: Array, kh: Array, hh: Array, hy: Array, penalty: Array
) -> tuple[Array, Array]:
    """aBV that maximises the penalised gain at given curves, and that gain."""
    xp = namespace(ky)
    left = hh - kh**2 / kk
    is_open = left > COLLINEAR * hh
    abv = is_open * xp.clip((hy - kh / kk * ky - penalty) / away_from_zero(left), 0, None)
    return abv, ky**2 / kk + abv**2 * left


def _att_penalty(att: Array, sd: Array) -> Array:
    centre, width = ATT_PRIOR_S
    return 2 * sd**2 * namespace(att).log1p(((att - centre) / width) ** 2)


def _golden(
    profile: Callable[[Array], tuple[Array, Array, Array]], low: Array, high: Array
) -> Array:
    """Maximum of the first output of `profile` in [low, high], voxel by voxel."""
    xp = namespace(low)
    left, right = high - GOLDEN * (high - low), low + GOLDEN * (high - low)
    at_left, at_right = profile(left)[0], profile(right)[0]
    for _ in range(N_GOLDEN):
        goes_left = at_left >= at_right
        low, high = xp.where(goes_left, low, left), xp.where(goes_left, right, high)
        new = xp.where(goes_left, high - GOLDEN * (high - low), low + GOLDEN * (high - low))
        at_new = profile(new)[0]
        left, right = xp.where(goes_left, new, right), xp.where(goes_left, left, new)
        at_left, at_right = (
            xp.where(goes_left, at_new, at_right),
            xp.where(goes_left, at_left, at_new),
        )
    return xp.where(at_left >= at_right, left, right)


def _at(values: Array, index: Array) -> Array:
    """values (slices, grid, voxels) at index (slices, voxels)."""
    if namespace(values) is np:
        return np.take_along_axis(values, index[:, None], -2)[:, 0]
    return values.gather(-2, index[:, None])[:, 0]
