"""Configuration and random generator -> simulated slices of several subjects, with their truth.

These are the training data of the default model, before least squares and encoding
(`aslkit.train.batches`). The functions make arrays of numpy or of torch; on a CPU, numpy in
several processes is faster.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from aslkit.config import AnyProtocolConfig
from aslkit.core.acquisition import Acquisition
from aslkit.core.backend import (
    Array,
    FloatArray,
    array_like,
    as_complex,
    as_indices,
    first_axis_indices,
    namespace,
    repeat_first_axis,
    scatter_to_images,
    standard_normal,
    take_rows,
)
from aslkit.kinetics.model import KineticModel, arterial_curve, kinetic_model, tissue_curve
from aslkit.simulate.anatomy import Tissue, draw_planes, draw_subjects
from aslkit.simulate.random_fields import Planes, draw_random_fields
from aslkit.simulate.signal import noise_sd
from aslkit.simulate.training_protocols import draw_acquisition, draw_mismatched_model

STACKED_FRACTION = 0.8  # of the draws have several slices per subject, if configured
DISAGREEMENT_FRACTION = 0.2  # of the matched draws: arteries fitted but absent, or the reverse
UNEVEN_FRACTION = 0.5  # of the slices have a noise level that varies across the head
MAX_UNEVENNESS = 0.25  # largest standard deviation of the logarithm of that level
UNEVEN_MM = 40.0  # correlation length of that level
CORRELATED_FRACTION = 0.6  # of the slices have noise correlated by reconstruction or physiology
CORRELATION_PIXELS = (0.3, 0.8)  # range of the sigma of the blur by reconstruction
MAX_BLUR_SLICES = 0.8  # largest sigma of the blur of this noise across slices
MAX_WIDE_VARIANCE = 0.2  # largest fraction of the noise variance that is common to regions
WIDE_PIXELS = (2.0, 16.0)  # range of the sigma of these regions
MAX_SCATTER_SD = 0.3  # largest relative scatter of the noise level from voxel to voxel
SCATTER_PIXELS = 1.0  # sigma of the blur of this scatter
MAX_DISPERSION_S = 0.4  # largest sd of arrival times in a voxel, mismatched draws only
# Medians of the quarters of an exponential distribution of mean 0 and sd 1. It differs from the
# gamma distribution of `aslkit.kinetics.dispersion`, with which trained models are tested.
ARRIVALS = (-0.78, -0.45, 0.06, 1.17)
MAX_GAIN_ERROR = 0.08  # largest sd of the gain of a delay (background suppression, M0)
EARLIEST_S, LATEST_S, STEP_S = 0.05, 4.0, 0.01  # arrival times at which curves are tabulated


@dataclass(frozen=True)
class TrainingScans:
    """Noisy slices of several subjects under one protocol of `n` timings.

    Attributes
    ----------
    acquisition : Acquisition
        The nominal acquisition of one slice, which estimators receive.
    signal, clean : array (b, n, x, y)
        ΔM/M0 with and without noise, 0 outside the mask.
    cbf, att : array (b, x, y)
        Truth [ml/100 g/min, s], 0 outside the mask.
    mask : bool array (b, x, y)
    noise_sd : array (b, x, y)
        Standard deviation of the noise of one volume.
    is_matched : bool
        Whether the signal has the constants of `acquisition`. If not, the best possible estimate
        is the fit of `clean`.
    is_arterial_fitted : bool
        Whether estimators use an arterial compartment.
    depth : int
        Number of consecutive slices that belong to one subject.
    """

    acquisition: Acquisition
    signal: FloatArray
    clean: FloatArray
    cbf: FloatArray
    att: FloatArray
    mask: NDArray[np.bool_]
    noise_sd: FloatArray
    is_matched: bool
    is_arterial_fitted: bool
    depth: int


def draw_training_scans(
    config: AnyProtocolConfig,
    rng: np.random.Generator,
    acquisition: Acquisition | None = None,
    device: str | None = None,
) -> TrainingScans:
    """Draw noisy scans of `config.patches_per_protocol` slices under one protocol.

    Parameters
    ----------
    acquisition : Acquisition, optional
        Nominal acquisition of one slice; None: a random one.
    device : str, optional
        Device of the torch tensors; None: numpy arrays.
    """
    is_single = config.slices_per_subject == 1 or rng.random() >= STACKED_FRACTION
    depth = 1 if is_single else config.slices_per_subject
    b = config.patches_per_protocol // depth
    acquisition = acquisition or draw_acquisition(rng)
    is_matched = bool(rng.random() >= config.mismatched_fraction)
    has_arterial, is_arterial_fitted = _arteries(rng, config, acquisition, is_matched)
    planes = draw_planes(rng, b, config.patch_size, depth).on(device)
    tissue = repeat_first_axis(draw_subjects(rng, b), depth).at(planes)
    subjects = first_axis_indices(tissue.mask) // depth
    if is_matched:
        curves = _tabulate(kinetic_model(acquisition), planes.x)
    else:
        sd_s = rng.uniform(0, MAX_DISPERSION_S, (b, 1))
        curves = _tabulate(draw_mismatched_model(rng, acquisition, b), planes.x, sd_s)
    rows = _clean_rows(curves, tissue, subjects, has_arterial)
    if not is_matched:
        gains = rng.uniform(0, MAX_GAIN_ERROR, (b, 1)) * rng.standard_normal((b, rows.shape[-1]))
        rows = rows * take_rows(array_like(np.exp(gains), rows), subjects)
    clean = scatter_to_images(rows, tissue.mask)
    sd = _noise_level(rng, config, planes, depth) * tissue.mask
    return TrainingScans(
        acquisition=acquisition,
        signal=clean + sd[:, None] * _noise(rng, clean.shape, planes.x, depth),
        clean=clean,
        cbf=tissue.cbf * tissue.mask,
        att=tissue.att * tissue.mask,
        mask=tissue.mask,
        noise_sd=sd,
        is_matched=is_matched,
        is_arterial_fitted=is_arterial_fitted,
        depth=depth,
    )


def _arteries(
    rng: np.random.Generator, config: AnyProtocolConfig, acquisition: Acquisition, is_matched: bool
) -> tuple[bool, bool]:
    """Draw whether arteries have signal and whether they are fitted: mostly both or neither."""
    has_arterial = bool(rng.random() < config.arterial_fraction)
    is_fitted = has_arterial != (is_matched and rng.random() < DISAGREEMENT_FRACTION)
    is_fitted = is_fitted and acquisition.has_arterial_signal
    return (has_arterial if is_matched else is_fitted), is_fitted


@dataclass(frozen=True)
class _Curves:
    """Tabulated signal of tissue (per CBF) and of arteries (per aBV).

    Tables have one row (n,) per arrival time; if not `is_shared`, `n_times` rows per subject.
    """

    tissue: FloatArray
    arterial: FloatArray
    n_times: int
    is_shared: bool

    def at(self, table: FloatArray, times: Array, subjects: Array) -> Array:
        """Interpolate a table linearly at the arrival times of voxels, (voxels, n)."""
        place = namespace(times).clip((times - EARLIEST_S) / STEP_S, 0, self.n_times - 1.01)
        first = as_indices(place)
        part = (place - namespace(place).floor(place))[:, None]
        if not self.is_shared:
            first = first + self.n_times * subjects
        return take_rows(table, first) * (1 - part) + take_rows(table, first + 1) * part


def _tabulate(model: KineticModel, like: Array, sd_s: FloatArray | None = None) -> _Curves:
    """Tabulate the curves of a model of one or `b` subjects, with dispersion of sd `sd_s`."""
    times = np.arange(EARLIEST_S, LATEST_S + STEP_S / 2, STEP_S)[None]
    shifts = [0.0] if sd_s is None else [sd_s * a for a in ARRIVALS]
    shifted = [np.clip(times + s, EARLIEST_S, None) for s in shifts]

    def rows(curve: Callable[[KineticModel, Array], Array]) -> Array:
        mean = sum(curve(model, t) for t in shifted) / len(shifted)
        table = np.swapaxes(mean, 1, 2)
        return array_like(np.ascontiguousarray(table.reshape(-1, table.shape[-1])), like)

    return _Curves(rows(tissue_curve), rows(arterial_curve), times.size, sd_s is None)


def _clean_rows(curves: _Curves, tissue: Tissue, subjects: Array, has_arterial: bool) -> Array:
    """Compute the noise-free ΔM/M0 in the mask, (voxels, n): the sum over tissues."""
    inside = tissue.mask

    def part(amount: Array, table: Array, times: Array) -> Array:
        return amount[inside][:, None] * curves.at(table, times[inside], subjects)

    rows = part(tissue.gm * tissue.cbf_gm, curves.tissue, tissue.att_gm)
    rows = rows + part(tissue.wm * tissue.cbf_wm, curves.tissue, tissue.att_wm)
    if has_arterial:
        rows = rows + part(tissue.abv, curves.arterial, tissue.abat)
    return rows


def _noise_level(
    rng: np.random.Generator, config: AnyProtocolConfig, planes: Planes, depth: int
) -> Array:
    """Draw the standard deviation of the noise, (b, x, y)."""
    b = len(planes.x) // depth
    low, high = np.log(config.snr_range)
    sd = noise_sd(1.0) / np.exp(rng.uniform(low, high, b))
    unevenness = rng.uniform(0, MAX_UNEVENNESS, b) * (rng.random(b) < UNEVEN_FRACTION)
    fields = repeat_first_axis(draw_random_fields(rng, np.full((b, 1), UNEVEN_MM)), depth)
    field = fields.at(planes)[:, 0]
    sd, unevenness = (
        array_like(repeat_first_axis(v, depth)[:, None, None], field) for v in (sd, unevenness)
    )
    return sd * namespace(field).exp(unevenness * field)


def _noise(rng: np.random.Generator, shape: tuple[int, ...], like: Array, depth: int) -> Array:
    """Draw noise (b, n, x, y) of unit mean variance.

    In most slices it is correlated between voxels and has an uneven level, as in vivo.
    """
    n, _, nx, ny = shape
    b = n // depth
    is_correlated, power = draw_spectrum(rng, b, nx, ny)
    scatter = (rng.uniform(0, MAX_SCATTER_SD, b) * is_correlated)[:, None, None]
    noise = coloured_noise(rng, shape, like, repeat_first_axis(power, depth))
    if depth > 1:
        noise = _blur_across_slices(
            noise, rng.uniform(0, MAX_BLUR_SLICES, b) * is_correlated, depth
        )
    blurred = power_spectrum(np.full(n, SCATTER_PIXELS), nx, ny)
    scatter = array_like(repeat_first_axis(scatter, depth), like)
    level = coloured_noise(rng, (n, 1, nx, ny), like, blurred)[:, 0]
    return noise * namespace(like).exp(scatter * level - scatter**2)[:, None]


def _blur_across_slices(noise: Array, sigma_slices: FloatArray, depth: int) -> Array:
    """Blur noise (b, n, x, y) across the slices of each stack; the variance stays the same."""
    apart = np.subtract.outer(np.arange(depth), np.arange(depth))
    kernels = np.exp(-0.5 * (apart / np.maximum(sigma_slices, 1e-3)[:, None, None]) ** 2)
    kernels /= np.sqrt((kernels**2).sum(axis=2, keepdims=True))
    stacks = noise.reshape(len(sigma_slices), depth, -1)
    return namespace(noise).matmul(array_like(kernels, noise), stacks).reshape(noise.shape)


def draw_spectrum(
    rng: np.random.Generator, b: int, nx: int, ny: int
) -> tuple[NDArray[np.bool_], FloatArray]:
    """Draw which slices have correlated noise (b,), and the power spectra (b, x, y // 2 + 1)."""
    is_correlated = rng.random(b) < CORRELATED_FRACTION
    near, wide = rng.uniform(*CORRELATION_PIXELS, b) * is_correlated, rng.uniform(*WIDE_PIXELS, b)
    fraction = (rng.uniform(0, MAX_WIDE_VARIANCE, b) * is_correlated)[:, None, None]
    power = (1 - fraction) * power_spectrum(near, nx, ny) + fraction * power_spectrum(wide, nx, ny)
    return is_correlated, power


def power_spectrum(sigma_pixels: FloatArray, nx: int, ny: int) -> FloatArray:
    """Return the power spectrum (b, nx, ny // 2 + 1) of blurred white noise; its mean is 1."""

    def along(n: int) -> FloatArray:
        power = np.exp(-((2 * np.pi * sigma_pixels[:, None] * np.fft.fftfreq(n)) ** 2))
        return power / power.mean(axis=1, keepdims=True)

    return along(nx)[:, :, None] * along(ny)[:, None, : ny // 2 + 1]


def coloured_noise(
    rng: np.random.Generator, shape: tuple[int, ...], like: Array, power: FloatArray
) -> Array:
    """Draw noise (b, n, x, y) with a power spectrum (b, x, y // 2 + 1); y must be even."""
    b, n, nx, ny = shape
    gain = np.sqrt(power * nx * ny / 2)
    gain[..., [0, -1]] *= np.sqrt(2)  # irfft2 ignores the imaginary part of these columns
    white = standard_normal(rng, (b, n, nx, ny // 2 + 1, 2), like)
    spectrum = as_complex(white * array_like(gain[:, None, ..., None], like))
    xp = namespace(like)
    return xp.asarray(xp.fft.irfft2(spectrum), dtype=like.dtype)  # numpy 1 returns float64
