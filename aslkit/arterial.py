"""Signals -> CBF, ATT and an arterial compartment (aBV, aBAT) of every voxel, where they earn it.

Like `aslkit.projection`, with two linear parameters and a search over (ATT, aBAT), as a maximum
a posteriori estimate. The compartment stays off unless it lowers chi squared by `EVIDENCE` (a
likelihood ratio test at 5 %), and an exponential prior on aBV keeps it small. A Cauchy prior on
ATT resolves what the data leave open, and hardly pulls on late arrival that they do show.
Arrays are as in `aslkit.projection`; numpy and torch run through the same code.
"""

from collections.abc import Callable

import numpy as np

from aslkit.cells import TYPICAL_ATT_S, positive, regular_atts
from aslkit.physics import arterial_curve, namespace, tissue_curve
from aslkit.projection import ATT_BOUNDS_S, Solution

EVIDENCE = 6.0  # chi squared of two degrees of freedom exceeds it by chance in 5 %
ABV_SCALE = 0.003  # mean of the prior on aBV, a fraction
ATT_PRIOR_S = (1.3, 0.5)  # centre and half width at half maximum (BASIL: Gaussian, 1.3 +- 0.32 s)
ABAT_STEP_S = 0.1
ABAT_GRID_S = np.arange(0.1, 2.05, ABAT_STEP_S)
GRID_STEP_S = 0.1
N_GOLDEN = 9  # shrinks the bracket of two grid steps to about 3 ms
GOLDEN = 0.6180339887498949
TIE_BREAK = 1e-5  # of the gain per second of distance from TYPICAL_ATT_S, where ATT is a plateau


def solve_arterial(model, signal, sd, att_bounds_s=ATT_BOUNDS_S) -> Solution:  # type: ignore[no-untyped-def]
    """Most probable CBF, ATT, aBV and aBAT <= ATT of every voxel (arterial model: Chappell 2010).

    Maximises the likelihood for noise of standard deviation `sd` (slices, voxels) times the
    priors named at the top of this module.
    """
    xp = namespace(signal)
    penalty = sd**2 / ABV_SCALE
    grid = regular_atts(model, att_bounds_s, GRID_STEP_S)
    abats = [a for a in ABAT_GRID_S if a <= att_bounds_s[1]]
    start, abat, is_on = _pair_search(model, signal, sd, penalty, grid, abats)
    h = is_on[..., None, :] * arterial_curve(model, abat)
    hh, hy = positive((h**2).sum(-2)), (h * signal).sum(-2)

    def profile(att):  # type: ignore[no-untyped-def]
        curve = tissue_curve(model, att)
        kk, ky, kh = positive((curve**2).sum(-2)), (curve * signal).sum(-2), (curve * h).sum(-2)
        abv, gain = _arterial_gain(kk, ky, kh, hh, hy, penalty)
        return gain - _att_penalty(att, sd), (ky - abv * kh) / kk, abv

    step = grid[0, 1] - grid[0, 0]
    low, high = (
        xp.clip(start - step, att_bounds_s[0], None),
        xp.clip(start + step, None, att_bounds_s[1]),
    )
    att = _golden(profile, xp.maximum(low, abat), high)
    att = xp.where(profile(att)[0] >= profile(start)[0], att, start)
    _, cbf, abv = profile(att)
    residual = signal - cbf[..., None, :] * tissue_curve(model, att) - abv[..., None, :] * h
    return Solution(cbf, att, abv, abat, (residual**2).sum(-2))


def arterial_given_tissue(model, signal, sd, cbf, att, att_sd):  # type: ignore[no-untyped-def]
    """Most probable (aBV, aBAT <= ATT + its error) of every voxel when CBF and ATT are known."""
    xp = namespace(signal)
    rest = signal - cbf[..., None, :] * tissue_curve(model, att)
    best, abv, abat = 0 * att, 0 * att, 0 * att + ABAT_GRID_S[0]
    for candidate in ABAT_GRID_S:
        h = arterial_curve(model, 0 * att[..., :1] + candidate)
        hh, hy = positive((h**2).sum(-2)), (h * rest).sum(-2)
        volume = xp.clip((hy - sd**2 / ABV_SCALE) / hh, 0, None)
        gain = xp.where(att + att_sd >= candidate, volume**2 * hh, 0 * att)
        abv, abat = (
            xp.where(gain > best, new, old)
            for new, old in ((volume, abv), (0 * att + candidate, abat))
        )
        best = xp.maximum(gain, best)
    return abv, abat


def _pair_search(model, signal, sd, penalty, grid, abats):  # type: ignore[no-untyped-def]
    """Best (ATT, aBAT) of every voxel on the grid, and whether there is evidence of arteries."""
    xp = namespace(signal)
    curves = tissue_curve(model, grid)
    kk = positive((curves**2).sum(-2))[..., None]
    ky = xp.matmul(curves.swapaxes(-1, -2), signal)
    tissue_gain = ky**2 / kk - _att_penalty(grid[..., None], sd[..., None, :])
    index = (tissue_gain * (1 - TIE_BREAK * abs(grid - TYPICAL_ATT_S))[..., None]).argmax(-2)
    best = _at(tissue_gain, index) + EVIDENCE * sd**2
    att, abat = grid[0, index], 0 * best + abats[0]
    is_on = best > best
    for candidate in abats:
        first = int((grid[0] < candidate - 1e-6).sum())
        h = arterial_curve(model, 0 * grid[:, :1] + candidate)
        hh, hy = positive((h**2).sum(-2))[..., None], (h * signal).sum(-2)[..., None, :]
        kh = (curves * h).sum(-2)[..., None]
        rows = slice(first, None)
        _, gain = _arterial_gain(
            kk[:, rows],
            ky[:, rows],
            kh[:, rows],
            hh,
            hy,
            penalty[..., None, :],
            tissue_gain[:, rows],
        )
        index = gain.argmax(-2)
        value = _at(gain, index)
        is_better = value > best
        att = xp.where(is_better, grid[0, first + index], att)
        abat = xp.where(is_better, 0 * abat + candidate, abat)
        is_on = is_on | is_better
        best = xp.where(is_better, value, best)
    return xp.maximum(att, abat), abat, is_on


def _arterial_gain(kk, ky, kh, hh, hy, penalty, tissue_gain=None):  # type: ignore[no-untyped-def]
    """aBV that maximises the penalised gain at given curves, and that gain."""
    xp = namespace(ky)
    d = positive(hh - kh**2 / kk)
    abv = xp.clip((hy - kh / kk * ky - penalty) / d, 0, None)
    return abv, (ky**2 / kk if tissue_gain is None else tissue_gain) + abv**2 * d


def _att_penalty(att, sd):  # type: ignore[no-untyped-def]
    centre, width = ATT_PRIOR_S
    return 2 * sd**2 * namespace(att).log1p(((att - centre) / width) ** 2)


def _golden(profile: Callable, low, high):  # type: ignore[no-untyped-def,type-arg]
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


def _at(values, index):  # type: ignore[no-untyped-def]
    """values (slices, grid, voxels) at index (slices, voxels)."""
    if namespace(values) is np:
        return np.take_along_axis(values, index[:, None], -2)[:, 0]
    return values.gather(-2, index[:, None])[:, 0]
