"""Signals and a kinetic model -> the least-squares parameters of every voxel, by projection.

CBF (and the arterial blood volume) enter the signal linearly, so their best values for any ATT
are closed-form (variable projection, Golub & Pereyra 2003, doi:10.1088/0266-5611/19/2/201): what
remains is a search over ATT alone, done on a grid and then by golden section. It finds the global
optimum and needs no starting value. numpy and torch run through the same code.

Arrays are (slices, n, voxels) for signals and (slices, voxels) for parameters; signals have equal
variance across timings (see `whitened`).
"""

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from aslkit.physics import KineticModel, arterial_curve, namespace, tissue_curve, tissue_slope

ATT_BOUNDS_S = (0.1, 4.0)
GRID_STEP_S = 0.05
N_GOLDEN = 9  # shrinks the bracket of two grid steps to about 1 ms
GOLDEN = 0.6180339887498949
TIE_BREAK = 1e-5  # of the gain per second of distance from TYPICAL_ATT_S, where ATT is a plateau
TYPICAL_ATT_S = 1.3
KINK_S = 0.05  # information is averaged over att ± this, because curves have kinks
LEAST_SENSITIVITY = 0.01  # of the best in the search range; bounds the standard error of CBF

# Priors of the arterial fit: an exponential one on aBV lets the compartment switch off voxel by
# voxel, a Gaussian one on ATT (weaker than BASIL's 1.3 +- 0.32 s) resolves what both explain.
ABV_SCALE = 0.003
ATT_PRIOR_S = (1.3, 0.5)
ABAT_GRID_S = np.arange(0.1, 2.05, 0.1)


@dataclass(frozen=True)
class Solution:
    """Least-squares parameters (slices, voxels), as in `ParameterMaps`, and what they leave over.

    `rss` is the residual sum of squares in the units of the (whitened) signal.
    """

    cbf: np.ndarray
    att: np.ndarray
    abv: np.ndarray | None
    abat: np.ndarray | None
    rss: np.ndarray


def whitened(model: KineticModel, signal, weights):  # type: ignore[no-untyped-def]
    """Model and signal scaled by the root of the weights (…, n), so that variances are equal."""
    root = weights[..., None] ** 0.5
    blocks, first = [], 0
    for block in model.blocks:
        last = first + block.plds.shape[-2]
        blocks.append(replace(block, efficiencies=block.efficiencies * root[..., first:last, :]))
        first = last
    return replace(model, blocks=tuple(blocks)), signal * root


def att_grid(model: KineticModel, bounds_s: tuple[float, float], step_s: float):  # type: ignore[no-untyped-def]
    """Arrival times of the search (1, grid), an array of the model's kind."""
    low, high = bounds_s
    n = max(int(round((high - low) / step_s)), 2) + 1
    return _like(np.linspace(low, high, n)[None], model.blocks[0].plds)


def solve_tissue(model, signal, att_bounds_s=ATT_BOUNDS_S, cbf_bounds=None) -> Solution:  # type: ignore[no-untyped-def]
    """Best CBF and ATT of every voxel without arterial compartment."""
    xp = namespace(signal)
    grid = att_grid(model, att_bounds_s, GRID_STEP_S)
    curves = tissue_curve(model, grid)
    norms = _positive((curves**2).sum(-2)) ** 0.5
    raw = xp.matmul((curves / norms[:, None]).swapaxes(-1, -2), signal)
    gain = _bounded_gain(raw, norms[..., None], cbf_bounds)
    best = (gain * (1 - TIE_BREAK * abs(grid - TYPICAL_ATT_S))[..., None]).argmax(-2)

    def profile(att):  # type: ignore[no-untyped-def]
        curve = tissue_curve(model, att)
        kk, ky = _positive((curve**2).sum(-2)), (curve * signal).sum(-2)
        root = kk**0.5
        return _bounded_gain(ky / root, root, cbf_bounds), ky / kk

    start = grid[0, best]
    low, high = att_bounds_s
    step = grid[0, 1] - grid[0, 0]
    att = _golden(profile, xp.clip(start - step, low, None), xp.clip(start + step, None, high))
    att = xp.where(profile(att)[0] >= profile(start)[0], att, start)
    gain, cbf = profile(att)
    if cbf_bounds is not None:
        cbf = xp.clip(cbf, *cbf_bounds)
    return Solution(cbf, att, None, None, _rss(signal, gain))


def solve_arterial(model, signal, sd, att_bounds_s=ATT_BOUNDS_S) -> Solution:  # type: ignore[no-untyped-def]
    """Most probable CBF, ATT, aBV and aBAT <= ATT of every voxel (arterial model: Chappell 2010).

    Maximises the likelihood for noise of standard deviation `sd` (slices, voxels) times the
    priors named at the top of this module.
    """
    xp = namespace(signal)
    penalty = sd**2 / ABV_SCALE
    grid = att_grid(model, att_bounds_s, 2 * GRID_STEP_S)
    abats = [a for a in ABAT_GRID_S if a <= att_bounds_s[1]]
    start, abat = _pair_search(model, signal, sd, penalty, grid, abats)
    h = arterial_curve(model, abat)
    hh, hy = _positive((h**2).sum(-2)), (h * signal).sum(-2)

    def profile(att):  # type: ignore[no-untyped-def]
        curve = tissue_curve(model, att)
        kk, ky, kh = _positive((curve**2).sum(-2)), (curve * signal).sum(-2), (curve * h).sum(-2)
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


def solve_fixed(model, signal, att) -> Solution:  # type: ignore[no-untyped-def]
    """Best CBF for a given ATT."""
    curve = tissue_curve(model, att)
    kk, ky = _positive((curve**2).sum(-2)), (curve * signal).sum(-2)
    return Solution(ky / kk, att, None, None, _rss(signal, ky**2 / kk))


def arterial_given_tissue(model, signal, sd, cbf, att, att_sd):  # type: ignore[no-untyped-def]
    """Most probable (aBV, aBAT <= ATT + its error) of every voxel when CBF and ATT are known."""
    xp = namespace(signal)
    rest = signal - cbf[..., None, :] * tissue_curve(model, att)
    best, abv, abat = 0 * att, 0 * att, 0 * att + ABAT_GRID_S[0]
    for candidate in ABAT_GRID_S:
        h = arterial_curve(model, 0 * att[..., :1] + candidate)
        hh, hy = _positive((h**2).sum(-2)), (h * rest).sum(-2)
        volume = xp.clip((hy - sd**2 / ABV_SCALE) / hh, 0, None)
        gain = xp.where(att + att_sd >= candidate, volume**2 * hh, 0 * att)
        abv, abat = (
            xp.where(gain > best, new, old)
            for new, old in ((volume, abv), (0 * att + candidate, abat))
        )
        best = xp.maximum(gain, best)
    return abv, abat


def standard_errors(model, solution: Solution, sd, att_bounds_s=ATT_BOUNDS_S):  # type: ignore[no-untyped-def]
    """Standard errors of CBF and ATT (slices, voxels) for noise of standard deviation `sd`.

    From the Fisher information at the solution, plus the information of the search range itself
    (uniform over `att_bounds_s`), so that the error of an undetermined ATT is finite and large.
    """
    curves = tissue_curve(model, att_grid(model, att_bounds_s, 4 * GRID_STEP_S))
    best = namespace(curves).amax((curves**2).sum(-2), -1)[:, None]
    width = att_bounds_s[1] - att_bounds_s[0]
    cbf_cbf, cbf_att, att_att = (
        (a + b) / 2
        for a, b in zip(
            _information(model, solution, -KINK_S),
            _information(model, solution, KINK_S),
            strict=True,
        )
    )
    variance = sd**2
    cbf_cbf = cbf_cbf + LEAST_SENSITIVITY**2 * best
    att_att = att_att + variance * 12 / width**2
    determinant = cbf_cbf * att_att - cbf_att**2
    return (variance * att_att / determinant) ** 0.5, (variance * cbf_cbf / determinant) ** 0.5


def standard_error_of_cbf(model, solution: Solution, sd):  # type: ignore[no-untyped-def]
    """Standard error of CBF (slices, voxels) when ATT is known."""
    return sd / _positive((tissue_curve(model, solution.att) ** 2).sum(-2)) ** 0.5


def _information(model, solution: Solution, shift_s: float):  # type: ignore[no-untyped-def]
    """Entries (CBF CBF, CBF ATT, ATT ATT) of the Fisher information times the noise variance."""
    xp = namespace(solution.att)
    att = xp.clip(solution.att + shift_s, 0.01, None)
    k, slope = tissue_curve(model, att), solution.cbf[..., None, :] * tissue_slope(model, att)
    entries = [(k * k).sum(-2), (k * slope).sum(-2), (slope * slope).sum(-2)]
    if solution.abv is None:
        return entries
    h = arterial_curve(model, solution.abat)
    hh = _positive((h**2).sum(-2))
    kh, sh = (k * h).sum(-2), (slope * h).sum(-2)
    is_on = solution.abv > 0
    shared = (kh * kh / hh, kh * sh / hh, sh * sh / hh)
    return [xp.where(is_on, e - s, e) for e, s in zip(entries, shared, strict=True)]


def _pair_search(model, signal, sd, penalty, grid, abats):  # type: ignore[no-untyped-def]
    """Best (ATT, aBAT) of every voxel on the grid."""
    xp = namespace(signal)
    curves = tissue_curve(model, grid)
    kk = _positive((curves**2).sum(-2))[..., None]
    ky = xp.matmul(curves.swapaxes(-1, -2), signal)
    tissue_gain = ky**2 / kk - _att_penalty(grid[..., None], sd[..., None, :])
    index = (tissue_gain * (1 - TIE_BREAK * abs(grid - TYPICAL_ATT_S))[..., None]).argmax(-2)
    best = _at(tissue_gain, index)
    att, abat = grid[0, index], 0 * best + abats[0]
    for candidate in abats:
        first = int((grid[0] < candidate - 1e-6).sum())
        h = arterial_curve(model, 0 * grid[:, :1] + candidate)
        hh, hy = _positive((h**2).sum(-2))[..., None], (h * signal).sum(-2)[..., None, :]
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
        best = xp.where(is_better, value, best)
    return xp.maximum(att, abat), abat


def _arterial_gain(kk, ky, kh, hh, hy, penalty, tissue_gain=None):  # type: ignore[no-untyped-def]
    """aBV that maximises the penalised gain at given curves, and that gain."""
    xp = namespace(ky)
    d = _positive(hh - kh**2 / kk)
    abv = xp.clip((hy - kh / kk * ky - penalty) / d, 0, None)
    return abv, (ky**2 / kk if tissue_gain is None else tissue_gain) + abv**2 * d


def _att_penalty(att, sd):  # type: ignore[no-untyped-def]
    mean, spread = ATT_PRIOR_S
    return (sd * (att - mean) / spread) ** 2


def _bounded_gain(raw, norm, cbf_bounds):  # type: ignore[no-untyped-def]
    """Drop of the residual sum of squares for the best CBF within bounds."""
    if cbf_bounds is None:
        return raw**2
    amplitude = namespace(raw).clip(raw, cbf_bounds[0] * norm, cbf_bounds[1] * norm)
    return amplitude * (2 * raw - amplitude)


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


def _rss(signal, gain):  # type: ignore[no-untyped-def]
    return namespace(signal).clip((signal**2).sum(-2) - gain, 0, None)


def _positive(x):  # type: ignore[no-untyped-def]
    """Norms of curves that vanish (ATT beyond all delays), kept off zero."""
    return namespace(x).clip(x, 1e-20, None)


def _at(values, index):  # type: ignore[no-untyped-def]
    """values (slices, grid, voxels) at index (slices, voxels)."""
    if namespace(values) is np:
        return np.take_along_axis(values, index[:, None], -2)[:, 0]
    return values.gather(-2, index[:, None])[:, 0]


def _like(array: np.ndarray, reference):  # type: ignore[no-untyped-def]
    if isinstance(reference, np.ndarray):
        return array.astype(reference.dtype)
    return reference.new_tensor(array)
