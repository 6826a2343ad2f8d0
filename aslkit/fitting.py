"""AslSeries -> ParameterMaps by voxel-wise least squares, exact, on all cores.

The search itself is `aslkit.projection`; here are the images around it: slices in parallel,
noise level, standard errors, flags, and the signal that fitted maps predict.
"""

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import gammaincinv

from aslkit.acquisition import Acquisition
from aslkit.images import (
    AslSeries,
    Flag,
    FloatImage,
    MaskImage,
    ParameterMaps,
    as_image,
    as_slices,
)
from aslkit.physics import (
    KineticModel,
    delta_m,
    kinetic_model,
    take_slices,
    tissue_curve,
    tissue_slope,
)
from aslkit.projection import (
    ATT_BOUNDS_S,
    Solution,
    solve_arterial,
    solve_fixed,
    solve_tissue,
    standard_error_of_cbf,
    standard_errors,
    whitened,
)

MACROVASCULAR = ("auto", "on", "off")
N_ARTERIAL = 1  # what aBV >= 0 and aBAT together take from the residuals' degrees of freedom
POOLING_VOXELS = 500.0  # weight of the whole brain in the residual variance of one slice
Voxels = NDArray[np.floating]

AT_BOUND_S = 0.002
UNDETERMINED = np.sqrt(0.5)  # ATT's error over that of the search range alone


@dataclass(frozen=True)
class FitSettings:
    """What is fitted and within which bounds.

    Attributes
    ----------
    att_bounds_s : (low, high)
        Range of the ATT search [s].
    cbf_bounds : (low, high), optional
        Bounds of CBF [ml/100 g/min]; unbounded by default, since noise makes it negative.
    macrovascular : str
        Arterial compartment: "on", "off", or "auto" (see `Acquisition.has_arterial_signal`).
    fixed_att_s : float or array (x, y, z), optional
        Known ATT [s]: only CBF is estimated.
    """

    att_bounds_s: tuple[float, float] = ATT_BOUNDS_S
    cbf_bounds: tuple[float, float] | None = None
    macrovascular: str = "auto"
    fixed_att_s: float | FloatImage | None = None

    def __post_init__(self) -> None:
        low, high = self.att_bounds_s
        if not 0 < low < high:
            raise ValueError(f"ATT bounds {low:g}-{high:g} s must be positive and ascending")
        if self.cbf_bounds is not None and not self.cbf_bounds[0] < self.cbf_bounds[1]:
            raise ValueError("CBF bounds must be ascending")
        if self.macrovascular not in MACROVASCULAR:
            raise ValueError(f"macrovascular must be one of {', '.join(MACROVASCULAR)}")
        if self.macrovascular == "on" and not self._can_be_arterial:
            raise ValueError("the arterial compartment goes with free ATT and free CBF only")

    @property
    def _can_be_arterial(self) -> bool:
        return self.fixed_att_s is None and self.cbf_bounds is None

    def has_arterial(self, acquisition: Acquisition) -> bool:
        """Whether the arterial compartment is fitted to this acquisition."""
        if self.macrovascular == "auto":
            return self._can_be_arterial and acquisition.has_arterial_signal
        return self.macrovascular == "on"


def fit_least_squares(series: AslSeries, settings: FitSettings = FitSettings()) -> ParameterMaps:  # noqa: B008
    """Least-squares CBF and ATT of every voxel with standard errors and flags.

    Without repeats (`series.noise_sd` is None) the noise level is taken from the residuals,
    pooled over the mask slice by slice.

    Raises
    ------
    ValueError
        When a single timing is to determine both CBF and ATT.
    """
    if series.acquisition.n_timings < 2 and settings.fixed_att_s is None:
        raise ValueError("one timing determines CBF alone: give fixed_att_s")
    sd = residual_sd(series, settings) if series.noise_sd is None else series.noise_sd
    has_arterial = settings.has_arterial(series.acquisition)

    def fit(z: int, voxels: MaskImage, model: KineticModel, signal: Voxels) -> list[Voxels]:
        noise = sd[:, :, z][voxels][None].astype(np.float32)
        solution = _solve(series, settings, z, voxels, model, signal, noise)
        if settings.fixed_att_s is not None:
            errors = standard_error_of_cbf(model, solution, noise), np.zeros_like(noise)
        else:
            errors = standard_errors(model, solution, noise, settings.att_bounds_s)
        values = solution.cbf, solution.att, *errors, solution.abv, solution.abat
        return [v for v in values if v is not None]

    cbf, att, cbf_std, att_std, *arterial = _by_slice(series, fit, 6 if has_arterial else 4)
    flags = quality_flags(cbf, att, cbf_std, att_std, series.mask, settings)
    return ParameterMaps(cbf, att, cbf_std, att_std, flags, *arterial)


def residual_sd(series: AslSeries, settings: FitSettings = FitSettings()) -> FloatImage:  # noqa: B008
    """Noise sd of one mean-weight volume from the residuals, (x, y, z), constant in a slice.

    NaN when the fit leaves no degree of freedom.
    """
    has_arterial = settings.has_arterial(series.acquisition)
    n_tissue = 2 if settings.fixed_att_s is None else 1
    n_free = series.acquisition.n_timings - n_tissue - (N_ARTERIAL if has_arterial else 0)
    if n_free < 1:
        return np.full(series.mask.shape, np.nan, dtype=np.float32)

    def fit(z: int, voxels: MaskImage, model: KineticModel, signal: Voxels) -> list[Voxels]:
        no_noise = 0 * signal[:, 0]  # switches the arterial priors off, which would need its level
        return [_solve(series, settings, z, voxels, model, signal, no_noise).rss]

    (rss,) = _by_slice(series, fit, 1)
    return pooled_sd(rss, series.mask, n_free)


def pooled_sd(rss: FloatImage, mask: MaskImage, n_free: int) -> FloatImage:
    """Noise sd of every slice from the median residual, drawn towards the whole brain's.

    The median, over that of chi squared with `n_free` degrees of freedom, leaves out the few
    voxels where the model does not hold.
    """
    inside = np.where(mask & np.isfinite(rss), rss, np.nan).reshape(-1, mask.shape[2])
    counts = np.isfinite(inside).sum(axis=0)
    if not counts.any():
        return np.full(rss.shape, np.nan, dtype=np.float32)
    overall = np.nanmedian(inside)
    medians = np.array(
        [np.nanmedian(v) if n else overall for v, n in zip(inside.T, counts, strict=True)]
    )
    pooled = (counts * medians + POOLING_VOXELS * overall) / (counts + POOLING_VOXELS)
    variance = pooled / (2 * gammaincinv(n_free / 2, 0.5))
    return np.broadcast_to(np.sqrt(variance), rss.shape).astype(np.float32)


def quality_flags(
    cbf: FloatImage,
    att: FloatImage,
    cbf_std: FloatImage,
    att_std: FloatImage,
    mask: MaskImage,
    settings: FitSettings,
) -> NDArray[np.uint8]:
    """Flag of every voxel, (x, y, z): values of `Flag`.

    Outside the mask comes before all but missing data, an undetermined ATT (the data tell less
    than the search range does) before one at its bound.
    """
    low, high = settings.att_bounds_s
    flags = np.full(cbf.shape, Flag.OK, dtype=np.uint8)
    if settings.fixed_att_s is None:
        flags[(att <= low + AT_BOUND_S) | (att >= high - AT_BOUND_S)] = Flag.AT_ATT_BOUND
        flags[att_std > UNDETERMINED * (high - low) / np.sqrt(12)] = Flag.ATT_UNDETERMINED
    flags[(cbf_std == 0) | ~np.isfinite(cbf)] = Flag.NOT_FINITE
    flags[~mask & (flags != Flag.NOT_FINITE)] = Flag.OUTSIDE
    return flags


def fitted_signal(maps: ParameterMaps, acquisition: Acquisition) -> FloatImage:
    """ΔM/M0 that the maps predict for an acquisition, (x, y, z, n), a fraction."""
    n_slices = maps.cbf.shape[2]
    model = kinetic_model(acquisition, n_slices, np.float32)
    extra = () if maps.abv is None or maps.abat is None else (maps.abv, maps.abat)
    rows = [as_slices(image) for image in (maps.cbf, maps.att, *extra)]
    return as_image(delta_m(model, *rows), maps.cbf.shape)


def cramer_rao_sd(
    truth: ParameterMaps, acquisition: Acquisition, noise_sd: float
) -> tuple[FloatImage, FloatImage]:
    """Smallest sd of unbiased CBF and ATT estimates (x, y, z); inf where undetermined.

    `noise_sd` is that of one volume of mean weight; the model is tissue alone.
    """
    n_slices = truth.cbf.shape[2]
    model = kinetic_model(acquisition, n_slices)
    nothing = np.zeros((n_slices, acquisition.n_timings, 1))
    model, _ = whitened(model, nothing, acquisition.weights)
    cbf, att = (as_slices(image).astype(np.float64) for image in (truth.cbf, truth.att))
    curve, slope = tissue_curve(model, att), cbf[:, None] * tissue_slope(model, att)
    a, b, c = ((p * q).sum(-2) for p, q in ((curve, curve), (curve, slope), (slope, slope)))
    determinant = a * c - b * b
    is_determined = determinant > 1e-6 * a * c
    safe = np.where(is_determined, determinant, 1.0)
    sds = (noise_sd * np.sqrt(np.where(is_determined, v / safe, np.inf)) for v in (c, a))
    cbf_sd, att_sd = (as_image(sd, truth.cbf.shape) for sd in sds)
    return cbf_sd, att_sd


def _by_slice(
    series: AslSeries,
    fit: Callable[[int, MaskImage, KineticModel, Voxels], list[Voxels]],
    n_images: int,
) -> list[FloatImage]:
    """Apply `fit` to the finite voxels of every slice, in parallel; 0 elsewhere."""
    shape = series.delta_m.shape[:3]
    images = [np.zeros(shape, dtype=np.float32) for _ in range(n_images)]
    whole = kinetic_model(series.acquisition, shape[2], np.float32)

    def run(z: int) -> None:
        voxels = np.asarray(np.isfinite(series.delta_m[:, :, z]).all(axis=-1))
        if not voxels.any():
            return
        model, signal = slice_signal(series, whole, z, voxels)
        for image, values in zip(images, fit(z, voxels, model, signal), strict=True):
            image[:, :, z][voxels] = values[0]

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        list(pool.map(run, range(shape[2])))
    return images


def slice_signal(
    series: AslSeries, whole: KineticModel, z: int, voxels: MaskImage
) -> tuple[KineticModel, Voxels]:
    """Whitened model and signal (1, n, voxels) of some voxels (x, y) of a slice.

    `whole` is the model of all slices.
    """
    signal = np.ascontiguousarray(series.delta_m[:, :, z][voxels].T)[None]
    weights = series.acquisition.weights.astype(np.float32)
    return whitened(take_slices(whole, slice(z, z + 1)), signal, weights)


def _solve(
    series: AslSeries,
    settings: FitSettings,
    z: int,
    voxels: MaskImage,
    model: KineticModel,
    signal: Voxels,
    noise: Voxels,
) -> Solution:
    """The solution that the settings ask for."""
    if settings.fixed_att_s is not None:
        return solve_fixed(model, signal, _known_att(settings, series, z)[voxels][None])
    if settings.has_arterial(series.acquisition):
        return solve_arterial(model, signal, noise, settings.att_bounds_s)
    return solve_tissue(model, signal, settings.att_bounds_s, settings.cbf_bounds)


def _known_att(settings: FitSettings, series: AslSeries, z: int) -> FloatImage:
    """The given ATT of one slice (x, y)."""
    given = np.broadcast_to(np.float32(settings.fixed_att_s), series.mask.shape)
    return np.asarray(given[:, :, z], dtype=np.float32)
