"""AslSeries and ParameterMaps -> maps of how well the model fits the data."""

from collections.abc import Iterator

import numpy as np
from scipy.special import gammaincc

from aslkit.core.series_and_maps import AslSeries, Flag, FloatImage, ParameterMaps
from aslkit.fit.least_squares import fitted_signal, known_sd
from aslkit.fit.settings import FitSettings

HALF_WIDTH = 1.959964  # of a Gaussian 95 % interval, in standard deviations


def reduced_chi2(
    series: AslSeries, maps: ParameterMaps, noise_sd: FloatImage, n_free: int
) -> FloatImage:
    """Return squared residuals / (noise variance x degrees of freedom), (x, y, z).

    NaN without an estimate or noise level. The expected value is 1 for a correct model.

    Parameters
    ----------
    noise_sd : array (x, y, z)
        Standard deviation of one ΔM/M0 volume of mean weight.
    n_free : int
        Degrees of freedom, at least 1.
    """
    residual = series.delta_m - fitted_signal(maps, series.acquisition)
    rss = (residual**2 @ series.acquisition.weights.astype(np.float32)).astype(np.float32)
    is_known = (maps.flags != Flag.NOT_FINITE) & (noise_sd > 0)
    nothing = np.full(rss.shape, np.nan, dtype=np.float32)
    return np.divide(rss, noise_sd**2 * np.float32(n_free), out=nothing, where=is_known)


def adequacy(chi2: FloatImage, n_free: int) -> FloatImage:
    """Return the probability of an equal or larger chi2 under the model, (x, y, z)."""
    return np.asarray(gammaincc(n_free / 2, chi2 * (n_free / 2)), dtype=np.float32)


def diagnostic_maps(
    series: AslSeries, maps: ParameterMaps, settings: FitSettings
) -> dict[str, FloatImage]:
    """Return the diagnostic maps that can be computed, by kind.

    `chi2` and `adequacy` (x, y, z), `cbf-ci95` and `att-ci95` (x, y, z, 2), `pld` (x, y, z, n).
    """
    images: dict[str, FloatImage] = {}
    n_free = settings.degrees_of_freedom(series.acquisition)
    if n_free > 0:
        sd = known_sd(series, settings)
        images["chi2"] = reduced_chi2(series, maps, sd, n_free)
        if series.noise_sd is not None:
            images["adequacy"] = adequacy(images["chi2"], n_free)
    images["cbf-ci95"] = _interval(maps, maps.cbf, maps.cbf_std)
    if settings.is_att_free:
        att = _interval(maps, maps.att, maps.att_std)
        images["att-ci95"] = np.clip(att, *settings.att_bounds_s)
    plds = series.acquisition.effective_plds_s(series.mask.shape[2]).astype(np.float32)
    images["pld"] = np.broadcast_to(plds, (*series.mask.shape, plds.shape[1]))
    return images


def missing_diagnostics(series: AslSeries, settings: FitSettings) -> Iterator[str]:
    """Return the reasons for missing diagnostic maps, one sentence each."""
    if settings.degrees_of_freedom(series.acquisition) < 1:
        yield "no chi2 and adequacy maps: there are no more timings than fitted parameters"
    elif series.noise_sd is None:
        yield (
            "no adequacy map: without repeats the noise level is that of the residuals, and chi2 "
            "is relative to the typical misfit of its slice"
        )
    if not settings.is_att_free:
        yield "no att-ci95 map: ATT is not estimated"


def _interval(maps: ParameterMaps, value: FloatImage, sd: FloatImage) -> FloatImage:
    """Return the limits of the 95 % interval, (x, y, z, 2); NaN without an estimate."""
    half = np.where(maps.flags == Flag.NOT_FINITE, np.nan, HALF_WIDTH * sd)
    return np.stack([value - half, value + half], axis=3).astype(np.float32)
