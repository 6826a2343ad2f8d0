"""AslSeries -> ParameterMaps by exact voxel-wise least squares, on all cores.

`settings` states what is estimated. `variable_projection` searches for CBF and ATT, `arterial` for
the arterial compartment too, `free_t1` for T1 of tissue too. This module adds the noise level,
standard errors and flags, and computes the signal that maps predict.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import gammaincinv

from aslkit.core.acquisition import Acquisition
from aslkit.core.backend import FloatArray, IndexArray
from aslkit.core.progress import Progress
from aslkit.core.series_and_maps import (
    AslSeries,
    Flag,
    FloatImage,
    MaskImage,
    ParameterMaps,
    as_image,
    as_slices,
)
from aslkit.fit.arterial import solve_arterial
from aslkit.fit.curve_table import CurveTable, tabulate
from aslkit.fit.free_t1 import check_protocol, errors_with_free_t1, solve_with_free_t1, with_t1
from aslkit.fit.settings import Arterial, FitSettings, FixedAtt, FreeAtt, FreeT1, choose_settings
from aslkit.fit.standard_errors import (
    Information,
    information,
    standard_error_of_cbf,
    standard_errors,
)
from aslkit.fit.variable_projection import Solution, solve_fixed, solve_tissue, weighted
from aslkit.fit.voxel_chunks import by_chunk, values_at
from aslkit.kinetics.model import KineticModel, delta_m, kinetic_model, take_slices

POOLING_VOXELS = 500.0  # weight of the whole brain in the residual variance of one slice
AT_BOUND_S = 0.002  # an ATT this close to a bound is flagged
UNDETERMINED = np.sqrt(0.5)  # standard error of ATT relative to that of the search range alone


@dataclass(frozen=True)
class LeastSquaresFit:
    """Maps, and the noise level that their standard errors assume.

    Attributes
    ----------
    maps : ParameterMaps
    noise_sd : array (x, y, z)
        Standard deviation of one volume of mean weight; NaN where it is unknown.
    """

    maps: ParameterMaps
    noise_sd: FloatImage


def fit_least_squares(
    series: AslSeries, settings: FitSettings | None = None, progress: Progress = iter
) -> ParameterMaps:
    """Estimate the parameters of every voxel, with standard errors and flags.

    Parameters
    ----------
    series : AslSeries
        Without repeats (`noise_sd` is None), the noise level comes from the residuals in the
        mask, pooled slice by slice.
    settings : FitSettings, optional
        What is estimated; by default what `choose_settings` selects.
    progress : function
        Wraps the sequence of chunks, as tqdm does.

    Raises
    ------
    ValueError
        When the timings are too few for the parameters, or T1 of tissue is free and the kinetic
        model has none.
    """
    return fit_with_noise_level(series, settings, progress).maps


def fit_with_noise_level(
    series: AslSeries, settings: FitSettings | None = None, progress: Progress = iter
) -> LeastSquaresFit:
    """Estimate the parameters of every voxel and, without repeats, the noise level.

    Parameters and errors are those of `fit_least_squares`.
    """
    if settings is None:
        settings = choose_settings(series.acquisition)
    if isinstance(settings, FreeT1):
        check_protocol(series.acquisition)
    if series.acquisition.n_timings < 2 and settings.is_att_free:
        raise ValueError("one timing does not determine ATT: use FixedAtt")
    sd = series.noise_sd
    if sd is None and isinstance(settings, Arterial):
        sd = residual_sd(series, settings)
    estimates = _solve(series, settings, sd, progress)
    rss = estimates.pop("rss")
    if sd is None:
        sd = pooled_sd(rss, series.mask, settings.degrees_of_freedom(series.acquisition))
    errors = _standard_errors(series, settings, sd, estimates)
    flags = quality_flags(
        estimates["cbf"],
        estimates["att"],
        errors["cbf_std"],
        errors["att_std"],
        series.mask,
        settings,
    )
    return LeastSquaresFit(ParameterMaps(**estimates, **errors, flags=flags), sd)


def known_sd(series: AslSeries, settings: FitSettings) -> FloatImage:
    """Return the noise sd of one mean-weight volume, (x, y, z), from repeats or residuals."""
    return residual_sd(series, settings) if series.noise_sd is None else series.noise_sd


def residual_sd(series: AslSeries, settings: FitSettings) -> FloatImage:
    """Estimate the noise sd of one mean-weight volume from the residuals, (x, y, z).

    It is constant in a slice, and NaN when the fit leaves no degree of freedom.
    """
    no_noise = np.zeros(series.mask.shape, dtype=np.float32)  # switches the arterial priors off
    rss = _solve(series, settings, no_noise)["rss"]
    return pooled_sd(rss, series.mask, settings.degrees_of_freedom(series.acquisition))


def pooled_sd(rss: FloatImage, mask: MaskImage, degrees_of_freedom: int) -> FloatImage:
    """Estimate the noise sd of every slice, (x, y, z), from the median residual sum of squares.

    The median of a slice is averaged with that of the whole brain. Dividing by the median of chi
    squared makes it an estimate of the variance that ignores the few voxels where the model does
    not hold. NaN without a degree of freedom.
    """
    if degrees_of_freedom < 1:
        return np.full(rss.shape, np.nan, dtype=np.float32)
    n_slices = mask.shape[2]
    inside = np.where(mask & np.isfinite(rss), rss, np.nan).reshape(-1, n_slices)  # (x*y, z)
    counts = np.isfinite(inside).sum(axis=0)  # (z,)
    if not counts.any():
        return np.full(rss.shape, np.nan, dtype=np.float32)
    brain = np.nanmedian(inside)
    medians = np.array(  # (z,)
        [np.nanmedian(v) if n else brain for v, n in zip(inside.T, counts, strict=True)]
    )
    pooled = (counts * medians + POOLING_VOXELS * brain) / (counts + POOLING_VOXELS)  # (z,)
    median_chi2 = 2 * gammaincinv(degrees_of_freedom / 2, 0.5)
    return np.broadcast_to(np.sqrt(pooled / median_chi2), rss.shape).astype(np.float32)


def quality_flags(
    cbf: FloatImage,
    att: FloatImage,
    cbf_std: FloatImage,
    att_std: FloatImage,
    mask: MaskImage,
    settings: FitSettings,
) -> NDArray[np.uint8]:
    """Return the flag of every voxel, (x, y, z): values of `Flag`.

    A voxel with several properties gets the flag that comes first in this order: not finite,
    outside the mask, ATT undetermined, ATT at a bound.
    """
    low, high = settings.att_bounds_s
    flags = np.full(cbf.shape, Flag.OK, dtype=np.uint8)
    if settings.is_att_free:
        flags[(att <= low + AT_BOUND_S) | (att >= high - AT_BOUND_S)] = Flag.AT_ATT_BOUND
        flags[att_std > UNDETERMINED * (high - low) / np.sqrt(12)] = Flag.ATT_UNDETERMINED
    flags[(cbf_std == 0) | ~np.isfinite(cbf)] = Flag.NOT_FINITE
    flags[~mask & (flags != Flag.NOT_FINITE)] = Flag.OUTSIDE
    return flags


def fitted_signal(maps: ParameterMaps, acquisition: Acquisition) -> FloatImage:
    """Compute ΔM/M0 that the maps predict for an acquisition, (x, y, z, n), a fraction."""
    model = kinetic_model(acquisition, maps.cbf.shape[2], np.float32)
    if maps.t1_tissue is not None:
        t1 = np.where(maps.t1_tissue > 0, maps.t1_tissue, np.float32(acquisition.t1_tissue_s))
        model = with_t1(model, as_slices(t1))
    cbf, att = as_slices(maps.cbf), as_slices(maps.att)
    if maps.abv is None or maps.abat is None:
        signal = delta_m(model, cbf, att)
    else:
        signal = delta_m(model, cbf, att, as_slices(maps.abv), as_slices(maps.abat))
    return as_image(signal, maps.cbf.shape)


def slice_signal(
    series: AslSeries, all_slices: KineticModel, z: int, voxels: MaskImage
) -> tuple[KineticModel, FloatArray]:
    """Return the weighted model of slice `z` and the weighted signal of some of its voxels.

    Parameters
    ----------
    all_slices : KineticModel
        Model of all slices of the series.
    voxels : bool array (x, y)

    Returns
    -------
    model : KineticModel
    signal : array (1, n, voxels)
    """
    weights = series.acquisition.weights.astype(np.float32)
    signal = np.ascontiguousarray((series.delta_m[:, :, z][voxels] * weights**0.5).T)[None]
    return weighted(take_slices(all_slices, slice(z, z + 1)), weights), signal


def _solve(
    series: AslSeries, settings: FitSettings, sd: FloatImage | None, progress: Progress = iter
) -> dict[str, FloatImage]:
    """Estimate all parameters: maps by their name in `ParameterMaps`, and `rss`, each (x, y, z).

    `rss` is the residual sum of squares. Only the arterial compartment needs `sd`.
    """
    if isinstance(settings, FreeT1):
        return solve_with_free_t1(series, settings.att_bounds_s, progress)
    arterial = ("abv", "abat") if settings.has_arterial else ()

    def tables(model: KineticModel) -> KineticModel | CurveTable:
        return tabulate(model, settings.att_bounds_s) if isinstance(settings, FreeAtt) else model

    def fit(
        table: KineticModel | CurveTable, places: IndexArray, signal: FloatArray
    ) -> dict[str, FloatArray]:
        return vars(_solve_chunk(series, settings, table, signal, places, sd))

    return by_chunk(series, ("cbf", "att", "rss", *arterial), tables, fit, progress)


def _solve_chunk(
    series: AslSeries,
    settings: FitSettings,
    table: KineticModel | CurveTable,
    signal: FloatArray,
    places: IndexArray,
    sd: FloatImage | None,
) -> Solution:
    """Estimate the parameters of the voxels at some places of the flattened image."""
    if isinstance(table, CurveTable):
        assert isinstance(settings, FreeAtt)
        return solve_tissue(table, signal, settings.cbf_bounds)
    if isinstance(settings, FixedAtt):
        att = np.broadcast_to(np.float32(settings.att_s), series.mask.shape)
        return solve_fixed(table, signal, values_at(att, places), settings.cbf_bounds)
    assert sd is not None
    return solve_arterial(table, signal, values_at(sd, places), settings.att_bounds_s)


def _standard_errors(
    series: AslSeries, settings: FitSettings, sd: FloatImage, maps: dict[str, FloatImage]
) -> dict[str, FloatImage]:
    """Compute standard errors, (x, y, z), by their name in `ParameterMaps`."""
    if isinstance(settings, FreeT1):
        return errors_with_free_t1(series, settings.att_bounds_s, sd, maps)

    def tables(model: KineticModel) -> KineticModel | Information:
        return information(model, settings.att_bounds_s) if settings.is_att_free else model

    def errors(
        table: KineticModel | Information, places: IndexArray, _: FloatArray
    ) -> dict[str, FloatArray]:
        noise = values_at(sd, places)
        parameters = {name: values_at(image, places) for name, image in maps.items()}
        solution = Solution(**parameters, rss=0 * noise)
        if isinstance(table, Information):
            cbf_std, att_std = standard_errors(table, solution, noise)
        else:
            cbf_std, att_std = standard_error_of_cbf(table, solution, noise), 0 * noise
        return {"cbf_std": cbf_std, "att_std": att_std}

    return by_chunk(series, ("cbf_std", "att_std"), tables, errors)
