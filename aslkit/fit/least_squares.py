"""AslSeries -> ParameterMaps by voxel-wise least squares, exact, on all cores.

The search itself is `variable_projection` (with arteries `arterial`, with a free tissue T1
`free_t1`); here are the images around it: chunks of voxels in parallel, noise level,
standard errors, flags, and the signal that fitted maps predict.
"""

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy.special import gammaincinv

from aslkit.core.acquisition import Acquisition
from aslkit.core.backend import FloatArray, IndexArray
from aslkit.core.constants import ATT_BOUNDS_S, TYPICAL_ATT_S
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
from aslkit.fit.standard_errors import (
    Information,
    information,
    standard_error_of_cbf,
    standard_errors,
)
from aslkit.fit.variable_projection import Solution, solve_fixed, solve_tissue, weighted
from aslkit.fit.voxel_chunks import by_chunk
from aslkit.kinetics.model import (
    KineticModel,
    delta_m,
    kinetic_model,
    take_slices,
)

MACROVASCULAR = ("auto", "on", "off")
N_ARTERIAL = 1  # what aBV >= 0 and aBAT together take from the residuals' degrees of freedom
POOLING_VOXELS = 500.0  # weight of the whole brain in the residual variance of one slice

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
    is_t1_free : bool
        Whether tissue T1 is estimated too (see `free_t1`).
    """

    att_bounds_s: tuple[float, float] = ATT_BOUNDS_S
    cbf_bounds: tuple[float, float] | None = None
    macrovascular: str = "auto"
    fixed_att_s: float | FloatImage | None = None
    is_t1_free: bool = False

    def __post_init__(self) -> None:
        low, high = self.att_bounds_s
        if not 0 < low < high:
            raise ValueError(f"ATT bounds {low:g}-{high:g} s must be positive and ascending")
        if self.cbf_bounds is not None and not self.cbf_bounds[0] < self.cbf_bounds[1]:
            raise ValueError("CBF bounds must be ascending")
        if self.macrovascular not in MACROVASCULAR:
            raise ValueError(f"macrovascular must be one of {', '.join(MACROVASCULAR)}")
        if self.is_t1_free and not self._is_plain:
            raise ValueError("a free tissue T1 goes with free ATT and free CBF only")
        if self.macrovascular == "on" and not self._can_be_arterial:
            raise ValueError(
                "the arterial compartment goes with free ATT and free CBF only, and a known T1"
            )

    @property
    def _is_plain(self) -> bool:
        return self.fixed_att_s is None and self.cbf_bounds is None

    @property
    def _can_be_arterial(self) -> bool:
        return self._is_plain and not self.is_t1_free

    def has_arterial(self, acquisition: Acquisition) -> bool:
        """Whether the arterial compartment is fitted to this acquisition."""
        if self.macrovascular == "auto":
            return self._can_be_arterial and acquisition.has_arterial_signal
        return self.macrovascular == "on"

    def assuming_att(self, acquisition: Acquisition) -> "FitSettings":
        """With ATT held at its usual value where a single timing cannot tell it."""
        is_told = acquisition.n_timings > 1 or self.fixed_att_s is not None
        return self if is_told else replace(self, fixed_att_s=TYPICAL_ATT_S)

    def n_free(self, acquisition: Acquisition) -> int:
        """Degrees of freedom that the fit leaves to the residuals."""
        n_tissue = 2 if self.fixed_att_s is None else 1
        n_arterial = N_ARTERIAL if self.has_arterial(acquisition) else 0
        return acquisition.n_timings - n_tissue - n_arterial - self.is_t1_free


def fit_least_squares(
    series: AslSeries,
    settings: FitSettings = FitSettings(),  # noqa: B008
    progress: Progress = iter,
) -> ParameterMaps:
    """Least-squares CBF and ATT of every voxel with standard errors and flags.

    Without repeats (`series.noise_sd` is None) the noise level is taken from the residuals,
    pooled over the mask slice by slice. `progress` wraps the chunks of work, as tqdm does.

    Raises
    ------
    ValueError
        When the timings are too few for what is free, or the kinetic has no tissue T1.
    """
    if settings.is_t1_free:
        check_protocol(series.acquisition)
    if series.acquisition.n_timings < 2 and settings.fixed_att_s is None:
        raise ValueError("one timing determines CBF alone: give fixed_att_s")
    sd = series.noise_sd
    if sd is None and settings.has_arterial(series.acquisition):
        sd = residual_sd(series, settings)
    cbf, att, rss, *others = _solve_all(series, settings, sd, progress)
    if sd is None:
        sd = pooled_sd(rss, series.mask, settings.n_free(series.acquisition))
    cbf_std, att_std, *t1_std = _errors_of_all(series, settings, sd, [cbf, att, *others])
    flags = quality_flags(cbf, att, cbf_std, att_std, series.mask, settings)
    if settings.is_t1_free:
        return ParameterMaps(cbf, att, cbf_std, att_std, flags, None, None, *others, *t1_std)
    return ParameterMaps(cbf, att, cbf_std, att_std, flags, *others)


def known_sd(series: AslSeries, settings: FitSettings) -> FloatImage:
    """Noise sd of one mean-weight volume, (x, y, z): of the repeats, else of the residuals."""
    return residual_sd(series, settings) if series.noise_sd is None else series.noise_sd


def residual_sd(series: AslSeries, settings: FitSettings = FitSettings()) -> FloatImage:  # noqa: B008
    """Noise sd of one mean-weight volume from the residuals, (x, y, z), constant in a slice.

    NaN when the fit leaves no degree of freedom.
    """
    no_noise = np.zeros(series.mask.shape, dtype=np.float32)  # switches the arterial priors off
    _, _, rss, *_ = _solve_all(series, settings, no_noise)
    return pooled_sd(rss, series.mask, settings.n_free(series.acquisition))


def pooled_sd(rss: FloatImage, mask: MaskImage, n_free: int) -> FloatImage:
    """Noise sd of every slice from the median residual, drawn towards the whole brain's.

    The median, over that of chi squared with `n_free` degrees of freedom, leaves out the few
    voxels where the model does not hold. NaN without a degree of freedom.
    """
    if n_free < 1:
        return np.full(rss.shape, np.nan, dtype=np.float32)
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
    if maps.t1_tissue is not None:
        t1 = np.where(maps.t1_tissue > 0, maps.t1_tissue, np.float32(acquisition.t1_tissue_s))
        model = with_t1(model, as_slices(t1))
    extra = () if maps.abv is None or maps.abat is None else (maps.abv, maps.abat)
    rows = [as_slices(image) for image in (maps.cbf, maps.att, *extra)]
    return as_image(delta_m(model, *rows), maps.cbf.shape)


def slice_signal(
    series: AslSeries, whole: KineticModel, z: int, voxels: MaskImage
) -> tuple[KineticModel, FloatArray]:
    """Whitened model and signal (1, n, voxels) of some voxels (x, y) of a slice.

    `whole` is the model of all slices.
    """
    weights = series.acquisition.weights.astype(np.float32)
    signal = np.ascontiguousarray((series.delta_m[:, :, z][voxels] * weights**0.5).T)[None]
    return weighted(take_slices(whole, slice(z, z + 1)), weights), signal


def _solve_all(
    series: AslSeries, settings: FitSettings, sd: FloatImage | None, progress: Progress = iter
) -> list[FloatImage]:
    """CBF, ATT, residual sum of squares and, where fitted, aBV and aBAT or tissue T1.

    Only the arterial compartment needs `sd`.
    """
    if settings.is_t1_free:
        return solve_with_free_t1(series, settings.att_bounds_s, progress)
    has_arterial = settings.has_arterial(series.acquisition)

    def tables(model: KineticModel) -> KineticModel | CurveTable:
        is_plain = settings.fixed_att_s is None and not has_arterial
        return tabulate(model, settings.att_bounds_s) if is_plain else model

    def fit(
        model: KineticModel | CurveTable, places: IndexArray, signal: FloatArray
    ) -> list[FloatArray]:
        if isinstance(model, CurveTable):
            found = solve_tissue(model, signal, settings.cbf_bounds)
        elif has_arterial:
            found = solve_arterial(model, signal, _rows(sd, places), settings.att_bounds_s)
        else:
            known = np.broadcast_to(np.float32(settings.fixed_att_s), series.mask.shape)
            found = solve_fixed(model, signal, _rows(known, places))
        values = found.cbf, found.att, found.rss, found.abv, found.abat
        return [v for v in values if v is not None]

    return by_chunk(series, tables, fit, 5 if has_arterial else 3, progress)


def _errors_of_all(
    series: AslSeries, settings: FitSettings, sd: FloatImage, maps: list[FloatImage]
) -> list[FloatImage]:
    """Standard errors of CBF, ATT and, where free, T1; `maps` are `_solve_all`'s without rss."""
    if settings.is_t1_free:
        return errors_with_free_t1(series, settings.att_bounds_s, sd, maps)

    def tables(model: KineticModel) -> KineticModel | Information:
        is_free = settings.fixed_att_s is None
        return information(model, settings.att_bounds_s) if is_free else model

    def errors(
        table: KineticModel | Information, places: IndexArray, _: FloatArray
    ) -> list[FloatArray]:
        noise = _rows(sd, places)
        cbf, att, *arterial = (_rows(m, places) for m in maps)
        abv, abat = arterial or (None, None)
        solution = Solution(cbf, att, abv, abat, 0 * cbf)
        if isinstance(table, Information):
            return list(standard_errors(table, solution, noise))
        return [standard_error_of_cbf(table, solution, noise), 0 * noise]

    return by_chunk(series, tables, errors, 2)


def _rows(image: FloatImage | None, places: IndexArray) -> FloatArray:
    """Values of an image at places in it when flattened, (1, voxels)."""
    if image is None:
        raise ValueError("the arterial compartment needs the noise level")
    return image.reshape(-1)[places][None].astype(np.float32)
