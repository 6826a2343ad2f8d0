"""Configuration and random generator -> simulated scans of a batch of subjects, with their truth.

What training data are made of, whatever a network then sees of them. numpy and torch run through
the same code; on a CPU numpy in several processes is faster.
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

STACKED_SHARE = 0.8  # of the draws have several slices per subject, where configured
DISAGREEMENT_SHARE = 0.2  # of the scans whose arterial signal and fitted compartment disagree
UNEVEN_SHARE = 0.5  # of the slices whose noise level varies across the head
MAX_UNEVENNESS = 0.25  # by at most so much (sd of its logarithm)
UNEVEN_MM = 40.0  # over such lengths
CORRELATED_SHARE = 0.6  # of the slices with noise blurred by reconstruction or physiology
CORRELATION_PIXELS = (0.3, 0.8)  # sigma of that blur
MAX_BLUR_SLICES = 0.8  # sigma of the blur of such noise across slices
WIDE_SHARE = 0.2  # at most, of the variance of such noise that whole regions have in common
WIDE_PIXELS = (2.0, 16.0)  # sigma of those regions
SCATTER_SD = 0.3  # at most, relative scatter of the noise level that no estimate of it follows
SCATTER_PIXELS = 1.0  # sigma of its blur
DISPERSION_S = 0.4  # at most, spread of the arrival times inside a voxel that a model ignores
# Medians of the quarters of an exponential spread, centred: another shape than the gamma spread
# of `aslkit.kinetics.dispersion`, with which simulated scans test what was learned from these.
ARRIVALS = (-0.78, -0.45, 0.06, 1.17)
GAIN_ERROR = 0.08  # at most, relative error of each delay's signal (background suppression, M0)
EARLIEST_S, LATEST_S, STEP_S = 0.05, 4.0, 0.01  # arrival times of the tabulated curves


@dataclass(frozen=True)
class TrainingScans:
    """Noisy slices of several subjects under one protocol of `n` timings.

    Attributes
    ----------
    acquisition : Acquisition
        What estimators are told, of one slice.
    signal, clean : array (b, n, x, y)
        ΔM/M0 with and without noise, 0 outside the mask.
    cbf, att : array (b, x, y)
        Truth [ml/100 g/min, s], 0 outside the mask.
    mask : bool array (b, x, y)
    noise_sd : array (b, x, y)
        Standard deviation of the noise of one volume.
    is_matched : bool
        Whether the constants of `acquisition` are those of the signal. Where they are not, the
        best that an estimator can give is what it finds in `clean`.
    is_arterial_fitted : bool
        Whether estimators are to use an arterial compartment.
    depth : int
        So many neighbouring slices, one after another, are of the same subject.
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
        How it is measured (one slice); without it, at random.
    device : str, optional
        Makes torch tensors on this device; without it, numpy arrays.
    """
    depth = (
        1
        if config.slices_per_subject == 1 or rng.random() >= STACKED_SHARE
        else config.slices_per_subject
    )
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
        spread = rng.uniform(0, DISPERSION_S, (b, 1))
        curves = _tabulate(draw_mismatched_model(rng, acquisition, b), planes.x, spread)
    rows = _clean_rows(curves, tissue, subjects, has_arterial)
    if not is_matched:
        gains = rng.uniform(0, GAIN_ERROR, (b, 1)) * rng.standard_normal((b, rows.shape[-1]))
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
    """Whether arteries show, and whether they are fitted: mostly both or neither."""
    has_arterial = bool(rng.random() < config.arterial_fraction)
    is_fitted = has_arterial != (is_matched and rng.random() < DISAGREEMENT_SHARE)
    is_fitted = is_fitted and acquisition.has_arterial_signal
    return (has_arterial if is_matched else is_fitted), is_fitted


@dataclass(frozen=True)
class _Curves:
    """Tissue and arterial signal per CBF and aBV, one row (n,) per arrival time and subject.

    `n_times` rows belong to each subject, or to all of them.
    """

    tissue: FloatArray
    arterial: FloatArray
    n_times: int
    is_shared: bool

    def at(self, table: FloatArray, times: Array, subjects: Array) -> Array:
        """Rows (voxels, n) of a table at arrival times of voxels, linearly between its own."""
        place = namespace(times).clip((times - EARLIEST_S) / STEP_S, 0, self.n_times - 1.01)
        first = as_indices(place)
        part = (place - namespace(place).floor(place))[:, None]
        if not self.is_shared:
            first = first + self.n_times * subjects
        return take_rows(table, first) * (1 - part) + take_rows(table, first + 1) * part


def _tabulate(model: KineticModel, like: Array, spread_s: FloatArray | None = None) -> _Curves:
    """Curves of a model of one or `b` subjects; dispersed arrival averages over time."""
    times = np.arange(EARLIEST_S, LATEST_S + STEP_S / 2, STEP_S)[None]
    shifts = [0.0] if spread_s is None else [spread_s * a for a in ARRIVALS]
    shifted = [np.clip(times + s, EARLIEST_S, None) for s in shifts]

    def rows(curve: Callable[[KineticModel, Array], Array]) -> Array:
        mean = sum(curve(model, t) for t in shifted) / len(shifted)
        table = np.swapaxes(mean, 1, 2)
        return array_like(np.ascontiguousarray(table.reshape(-1, table.shape[-1])), like)

    return _Curves(rows(tissue_curve), rows(arterial_curve), times.size, spread_s is None)


def _clean_rows(curves: _Curves, tissue: Tissue, subjects: Array, has_arterial: bool) -> Array:
    """Signal without noise of the voxels in the mask, (voxels, n): tissues mix their signals."""
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
    """Standard deviation of the noise (b, x, y): of a random SNR, and uneven in some slices."""
    b = len(planes.x) // depth
    low, high = np.log(config.snr_range)
    sd = noise_sd(1.0) / np.exp(rng.uniform(low, high, b))
    spread = rng.uniform(0, MAX_UNEVENNESS, b) * (rng.random(b) < UNEVEN_SHARE)
    across = repeat_first_axis(draw_random_fields(rng, np.full((b, 1), UNEVEN_MM)), depth).at(
        planes
    )[:, 0]
    sd, spread = (
        array_like(repeat_first_axis(v, depth)[:, None, None], across) for v in (sd, spread)
    )
    return sd * namespace(across).exp(spread * across)


def _noise(rng: np.random.Generator, shape: tuple[int, ...], like: Array, depth: int) -> Array:
    """Noise (b, n, x, y) of unit variance on average.

    Often correlated among neighbours and across regions, and uneven, as in vivo.
    """
    n, _, nx, ny = shape
    b = n // depth
    is_correlated, power = draw_spectrum(rng, b, nx, ny)
    spread = (rng.uniform(0, SCATTER_SD, b) * is_correlated)[:, None, None]
    noise = coloured_noise(rng, shape, like, repeat_first_axis(power, depth))
    if depth > 1:
        noise = _blurred_across(noise, rng.uniform(0, MAX_BLUR_SLICES, b) * is_correlated, depth)
    blurred = power_spectrum(np.full(n, SCATTER_PIXELS), nx, ny)
    spread = array_like(repeat_first_axis(spread, depth), like)
    level = coloured_noise(rng, (n, 1, nx, ny), like, blurred)[:, 0]
    return noise * namespace(like).exp(spread * level - spread**2)[:, None]


def _blurred_across(noise: Array, sigma_slices: FloatArray, depth: int) -> Array:
    """Noise of stacks of slices after a Gaussian blur across them, of the same variance."""
    apart = np.subtract.outer(np.arange(depth), np.arange(depth))
    kernels = np.exp(-0.5 * (apart / np.maximum(sigma_slices, 1e-3)[:, None, None]) ** 2)
    kernels /= np.sqrt((kernels**2).sum(axis=2, keepdims=True))
    stacks = noise.reshape(len(sigma_slices), depth, -1)
    return namespace(noise).matmul(array_like(kernels, noise), stacks).reshape(noise.shape)


def draw_spectrum(
    rng: np.random.Generator, b: int, nx: int, ny: int
) -> tuple[NDArray[np.bool_], FloatArray]:
    """Whose noise (b,) is alike in neighbours and regions, and the power spectra of all."""
    is_correlated = rng.random(b) < CORRELATED_SHARE
    near, wide = rng.uniform(*CORRELATION_PIXELS, b) * is_correlated, rng.uniform(*WIDE_PIXELS, b)
    share = (rng.uniform(0, WIDE_SHARE, b) * is_correlated)[:, None, None]
    power = (1 - share) * power_spectrum(near, nx, ny) + share * power_spectrum(wide, nx, ny)
    return is_correlated, power


def power_spectrum(sigma_pixels: FloatArray, nx: int, ny: int) -> FloatArray:
    """Power spectrum (b, nx, ny // 2 + 1) of white noise after a Gaussian blur, mean 1."""

    def along(n: int) -> FloatArray:
        power = np.exp(-((2 * np.pi * sigma_pixels[:, None] * np.fft.fftfreq(n)) ** 2))
        return power / power.mean(axis=1, keepdims=True)

    return along(nx)[:, :, None] * along(ny)[:, None, : ny // 2 + 1]


def coloured_noise(
    rng: np.random.Generator, shape: tuple[int, ...], like: Array, power: FloatArray
) -> Array:
    """Noise (b, n, x, y) of a power spectrum (b, x, y // 2 + 1), for an even number along y."""
    b, n, nx, ny = shape
    gain = np.sqrt(power * nx * ny / 2)
    gain[..., [0, -1]] *= np.sqrt(2)  # of these columns only the real part counts
    white = standard_normal(rng, (b, n, nx, ny // 2 + 1, 2), like)
    spectrum = as_complex(white * array_like(gain[:, None, ..., None], like))
    xp = namespace(like)
    return xp.asarray(xp.fft.irfft2(spectrum), dtype=like.dtype)  # numpy 1 makes it float64
