"""Signals -> CBF, ATT, arterial blood volume (aBV) and arrival time (aBAT) of every voxel.

This is a maximum a posteriori estimate by variable projection, with two linear parameters (CBF and
aBV) and a search over (ATT, aBAT). The arterial compartment is on in voxels where it lowers chi
squared by `EVIDENCE` (a likelihood ratio test at 5 %). An exponential prior keeps aBV small. A
Cauchy prior selects an ATT where the data do not determine it, and has little effect on a late
ATT that the data do determine. Arrays are as in `variable_projection`. The code serves numpy and
torch.
"""

from collections.abc import Callable

import numpy as np

from aslkit.core.backend import Array, array_like, away_from_zero, first_axis_indices, namespace
from aslkit.core.constants import ATT_BOUNDS_S, TYPICAL_ATT_S
from aslkit.fit.curve_table import regular_atts
from aslkit.fit.variable_projection import Solution
from aslkit.kinetics.model import KineticModel, arterial_curve, tissue_curve

EVIDENCE = 6.0  # chi squared with two degrees of freedom exceeds it by chance in 5 %
ABV_SCALE = 0.003  # mean of the prior on aBV [fraction]
ATT_PRIOR_S = (1.3, 0.5)  # centre and half width at half maximum (BASIL: Gaussian, 1.3 +- 0.32 s)
ABAT_STEP_S = 0.1
ABAT_GRID_S = np.arange(0.1, 2.05, ABAT_STEP_S)
GRID_STEP_S = 0.1
SAME_S = 1e-6  # tolerance of comparisons of times
COLLINEAR = 1e-5  # squared sine of the angle below which two curves count as collinear
N_GOLDEN = 9  # steps of golden-section search: two grid steps shrink to about 3 ms
GOLDEN = 0.6180339887498949
TIE_BREAK = 1e-5  # relative loss of gain per second of distance from TYPICAL_ATT_S, on plateaus


def solve_arterial(
    model: KineticModel, signal: Array, sd: Array, att_bounds_s: tuple[float, float] = ATT_BOUNDS_S
) -> Solution:
    """Find the most probable CBF, ATT, aBV and aBAT <= ATT of every voxel.

    It maximises the likelihood for noise of standard deviation `sd` (slices, voxels), times the
    priors of this module. Arterial model: Chappell 2010, doi:10.1002/mrm.22320.
    """
    xp = namespace(signal)
    penalty = sd**2 / ABV_SCALE  # (slices, voxels)
    grid = regular_atts(model, att_bounds_s, GRID_STEP_S)
    abats = array_like(ABAT_GRID_S[None, att_bounds_s[1] >= ABAT_GRID_S], signal)
    start, abat, is_on = _pair_search(model, signal, sd, penalty, grid, abats)
    h = is_on[..., None, :] * arterial_curve(model, abat)  # (slices, n, voxels)
    hh, hy = away_from_zero((h**2).sum(-2)), (h * signal).sum(-2)  # (slices, voxels)

    def profile(att: Array) -> tuple[Array, Array, Array]:
        """Return the penalised gain, CBF and aBV (slices, voxels) at an ATT."""
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
    """Find the most probable aBV and aBAT of every voxel for known CBF and ATT (slices, voxels).

    aBAT is at most ATT plus its standard error `att_sd`.
    """
    xp = namespace(signal)
    rest = signal - cbf[..., None, :] * tissue_curve(model, att)  # (slices, n, voxels)
    best, abv, abat = 0 * att, 0 * att, 0 * att + ABAT_GRID_S[0]
    for candidate in ABAT_GRID_S:
        h = arterial_curve(model, 0 * att[..., :1] + candidate)  # (slices, n, 1)
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
    """Find the best (ATT, aBAT) of every voxel on the grid, and where the compartment is on.

    The gain is the decrease of the residual sum of squares, minus penalties. For a pair of the
    grid, k is the tissue curve and h the arterial curve, and y is the signal. With the scalars
    `along` and `across` that remove the part of h parallel to k, the gain of a pair is the gain of
    tissue alone plus the square of the root

        across (h·y - penalty) - along (k·y) = (across h - along k)·y - across penalty,

    so the roots of all voxels are the product of the data with one row per pair. In the comments
    below, s stands for slices, g for the ATTs and b for the aBATs of the grid, v for voxels.
    """
    xp = namespace(signal)
    k = tissue_curve(model, grid).swapaxes(-1, -2)  # (s, g, n)
    h = arterial_curve(model, abats).swapaxes(-1, -2)  # (s, b, n)
    kk, ky = away_from_zero((k**2).sum(-1)), xp.matmul(k, signal)  # (s, g), (s, g, v)
    # tissue_gain: (s, g, v)
    tissue_gain = ky**2 / kk[..., None] - _att_penalty(grid[..., None], sd[..., None, :])
    index = (tissue_gain * (1 - TIE_BREAK * abs(grid - TYPICAL_ATT_S))[..., None]).argmax(-2)
    att, least = grid[0, index], _at(tissue_gain, index) + EVIDENCE * sd**2  # (s, v)
    hh = (h**2).sum(-1)[:, None]  # (s, 1, b)
    is_early = abats[0] <= grid[0, :, None] + SAME_S  # (g, b): aBAT <= ATT
    ratio = xp.matmul(k, h.swapaxes(-1, -2)) / kk[..., None]  # (s, g, b)
    left = hh - ratio**2 * kk[..., None]  # (s, g, b): squared norm of h orthogonal to k
    is_open = is_early & (left > COLLINEAR * hh)
    across = xp.where(is_open, away_from_zero(left) ** -0.5, 0 * left)
    along = across * ratio
    rows = across[..., None] * h[:, None] - along[..., None] * k[:, :, None]
    rows = xp.concatenate([rows, -across[..., None]], -1)  # (s, g, b, n + 1)
    data = xp.concatenate([signal, penalty[:, None]], -2)  # (s, n + 1, v)
    n_early = xp.clip(is_early.sum(-1), 1, None)  # (g,)
    roots = [xp.amax(xp.matmul(rows[:, g, :n], data), -2) for g, n in enumerate(n_early)]
    gain = tissue_gain + xp.clip(xp.stack(roots, -2), 0, None) ** 2  # (s, g, v)
    index = gain.argmax(-2)  # (s, v)
    is_on = _at(gain, index) > least
    slices = first_axis_indices(index >= 0).reshape(index.shape)
    a, b = across[slices, index], along[slices, index]  # (s, v, b)
    hy = xp.matmul(h, signal).swapaxes(-1, -2)  # (s, v, b)
    root = a * (hy - penalty[..., None]) - b * _at(ky, index)[..., None]
    abat = xp.where(is_on, abats[0, root.argmax(-1)], 0 * att + abats[0, 0])
    att = xp.where(is_on, grid[0, index], att)
    return xp.maximum(att, abat), abat, is_on


def _arterial_gain(
    kk: Array, ky: Array, kh: Array, hh: Array, hy: Array, penalty: Array
) -> tuple[Array, Array]:
    """Return the aBV of the largest penalised gain, and this gain, (slices, voxels)."""
    xp = namespace(ky)
    left = hh - kh**2 / kk
    is_open = left > COLLINEAR * hh
    abv = is_open * xp.clip((hy - kh / kk * ky - penalty) / away_from_zero(left), 0, None)
    return abv, ky**2 / kk + abv**2 * left


def _att_penalty(att: Array, sd: Array) -> Array:
    """Return the loss of gain by the Cauchy prior on ATT."""
    centre, width = ATT_PRIOR_S
    return 2 * sd**2 * namespace(att).log1p(((att - centre) / width) ** 2)


def _golden(
    profile: Callable[[Array], tuple[Array, Array, Array]], low: Array, high: Array
) -> Array:
    """Find the maximum of the first output of `profile` in [low, high], voxel by voxel."""
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
    """Take values (slices, grid, voxels) at grid indices (slices, voxels)."""
    if namespace(values) is np:
        return np.take_along_axis(values, index[:, None], -2)[:, 0]
    return values.gather(-2, index[:, None])[:, 0]
