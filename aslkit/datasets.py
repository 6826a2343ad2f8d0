"""Seed and step -> one batch of simulated, fitted and encoded slices; the stream never repeats."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter
from torch import Tensor
from torch.utils.data import DataLoader, IterableDataset, get_worker_info

from aslkit.acquisition import Acquisition
from aslkit.anatomy import Tissue, draw_slice, draw_subject
from aslkit.arterial import solve_arterial
from aslkit.cells import tabulate
from aslkit.config import DataConfig
from aslkit.encoding import encode, to_image
from aslkit.fields import SmoothField
from aslkit.fitting import N_ARTERIAL
from aslkit.images import MaskImage
from aslkit.information import information, standard_errors
from aslkit.physics import kinetic_model
from aslkit.projection import ATT_BOUNDS_S, Solution, solve_tissue
from aslkit.protocols import draw_acquisition, draw_mismatch
from aslkit.simulation import mixed_signal, noise_sd

Batch = dict[str, Tensor]
Draw = Callable[[np.random.Generator], Batch]
Voxels = NDArray[np.float32]

STREAM_SEED = 9_104  # keeps training apart from the reserved subjects of phantoms
DISAGREEMENT_SHARE = 0.2  # of the scans whose arterial signal and fitted compartment disagree
QUIET = 0.2  # of the noise: what the arterial priors may assume of a signal without noise
SIGMA_SCATTER = 0.05  # relative error of a noise level that was estimated from repeats
CORRELATED_SHARE = 0.6  # of the slices with noise blurred by reconstruction or physiology
CORRELATION_PIXELS = (0.3, 0.8)  # sigma of that blur
WIDE_SHARE = 0.2  # at most, of the variance of such noise that whole regions have in common
WIDE_PIXELS = (2.0, 16.0)  # sigma of those regions
UNEVEN_SD = 0.3  # at most, relative scatter of the noise level that no estimate of it follows
UNEVEN_PIXELS = 1.0  # sigma of its blur
DISPERSION_S = 0.4  # at most, spread of the arrival times inside a voxel that a model ignores
ARRIVALS = (-0.78, -0.45, 0.06, 1.17)  # quartiles' means of an exponential spread, centred
GAIN_ERROR = 0.08  # at most, relative error of each delay's signal (background suppression, M0)
EARLIEST_ATT_S = 0.05
SMALLEST_BRAIN = 200  # pixels; slices with less are drawn again


class SimulatedStream(IterableDataset[Batch]):
    """Batches of steps first, first + 1, …; batch k is the same however many workers there are."""

    def __init__(self, draw: Draw, seed: int, first_step: int) -> None:
        self._draw, self._seed, self._first = draw, seed, first_step

    def __iter__(self) -> Iterator[Batch]:
        """Batches that belong to this worker."""
        torch.set_num_threads(1)
        worker = get_worker_info()
        step, stride = (0, 1) if worker is None else (worker.id, worker.num_workers)
        step += self._first
        while True:
            yield self._draw(np.random.default_rng([STREAM_SEED, self._seed, step]))
            step += stride


def stream(draw: Draw, seed: int, first_step: int, n_workers: int) -> Iterator[Batch]:
    """Endless batches that background processes draw."""
    loader = DataLoader(
        SimulatedStream(draw, seed, first_step), batch_size=None, num_workers=n_workers
    )
    return iter(loader)


def draw_batch(config: DataConfig, rng: np.random.Generator) -> Batch:
    """One batch: `channels` (batch, c, x, y), and `base`, `errors`, `truth` (batch, 2, x, y)."""
    groups = [_draw_group(config, rng) for _ in range(config.groups)]
    return {k: torch.from_numpy(np.concatenate([g[k] for g in groups])) for k in groups[0]}


@dataclass(frozen=True)
class _Scan:
    """How the slices of a group come about, and how they are fitted.

    Where `source` differs from `acquisition`, the estimator's constants are wrong, and the best
    it can give is what it would find without noise.
    """

    acquisition: Acquisition
    source: Acquisition
    has_arterial: bool
    is_arterial_fitted: bool


def _draw_group(config: DataConfig, rng: np.random.Generator) -> dict[str, Voxels]:
    """Slices of different subjects under one protocol, (patches, channels, x, y) each."""
    scan = _draw_scan(config, rng)
    slices = [_draw_slice(config, rng) for _ in range(config.patches_per_group)]
    parts = [_encode_slice(s, scan, config, rng) for s in slices]
    return {key: np.stack([p[key] for p in parts]) for key in parts[0]}


def _draw_scan(config: DataConfig, rng: np.random.Generator) -> _Scan:
    acquisition = draw_acquisition(rng)
    has_arterial = bool(rng.random() < config.arterial_share)
    if rng.random() < config.mismatched_share:
        is_fitted = has_arterial and acquisition.has_arterial_signal
        return _Scan(acquisition, draw_mismatch(rng, acquisition), is_fitted, is_fitted)
    is_fitted = has_arterial != (rng.random() < DISAGREEMENT_SHARE)
    is_fitted = is_fitted and acquisition.has_arterial_signal
    return _Scan(acquisition, acquisition, has_arterial, is_fitted)


def _draw_slice(config: DataConfig, rng: np.random.Generator) -> tuple[Tissue, Voxels]:
    """A slice with enough brain, and the noise level across it relative to the patch's."""
    while True:
        points = draw_slice(rng, config.patch)
        tissue = draw_subject(rng).at(points)
        if tissue.mask.sum() >= SMALLEST_BRAIN:
            break
    spread = rng.uniform(0, 0.25) if rng.random() < 0.5 else 0.0
    return tissue, np.exp(spread * SmoothField(rng, 40.0)(points))


def _encode_slice(
    drawn: tuple[Tissue, Voxels], scan: _Scan, config: DataConfig, rng: np.random.Generator
) -> dict[str, Voxels]:
    """Simulate, fit and encode one slice."""
    tissue, relative_sd = drawn
    inside = tissue.mask
    model = kinetic_model(scan.acquisition, 1, np.float32)
    sd = relative_sd[inside][None] * np.float32(noise_sd(_log_uniform(rng, config.snr_range)))
    clean = _clean_signal(rng, scan, tissue)
    mask = inside.reshape(config.patch, config.patch)
    signal = clean + _noise(rng, mask, clean.shape[1]) * sd[:, None]
    known_sd = _estimated_sd(rng, sd, model, signal, scan.is_arterial_fitted)
    fit = _fit(model, signal, known_sd, scan.is_arterial_fitted)
    errors = standard_errors(information(model), fit, known_sd)
    truth = np.stack([tissue.cbf[inside], tissue.att[inside]])
    if scan.source != scan.acquisition:
        best = _fit(model, clean, QUIET * known_sd, scan.is_arterial_fitted)
        truth = np.concatenate([best.cbf, best.att])
    rows = {
        "channels": np.concatenate(
            [encode(model, signal, fit, errors, known_sd), np.ones_like(sd)]
        ),
        "base": np.concatenate([fit.cbf, fit.att]),
        "errors": np.concatenate(errors),
        "truth": truth,
    }
    return {k: to_image(v.astype(np.float32), mask) for k, v in rows.items()}


def _clean_signal(rng: np.random.Generator, scan: _Scan, tissue: Tissue) -> Voxels:
    """Signal without noise (1, n, voxels); where constants are wrong, more of the model is."""
    source = kinetic_model(scan.source, 1, np.float32)
    parts = [tissue]
    if scan.source != scan.acquisition:
        spread = rng.uniform(0, DISPERSION_S)
        parts = [_arriving(tissue, np.float32(spread * a)) for a in ARRIVALS]
    clean = sum(
        mixed_signal(source, p, lambda values: values[tissue.mask][None], scan.has_arterial)
        for p in parts
    )
    if scan.source != scan.acquisition:
        gains = rng.uniform(0, GAIN_ERROR) * rng.standard_normal((1, scan.source.n_timings, 1))
        clean = clean * np.exp(gains)
    return np.asarray(clean / len(parts), dtype=np.float32)


def _arriving(tissue: Tissue, later_s: np.float32) -> Tissue:
    """The tissue with all arrival times shifted."""
    times = ("att_gm", "att_wm", "abat")
    moved = {t: np.clip(getattr(tissue, t) + later_s, EARLIEST_ATT_S, None) for t in times}
    return replace(tissue, **moved)


def _noise(rng: np.random.Generator, mask: MaskImage, n: int) -> Voxels:
    """Noise of the voxels in the mask, (1, n, voxels), of unit variance on average.

    Often correlated among neighbours and across regions, and uneven, as in vivo.
    """
    noise = rng.standard_normal((n, *mask.shape), dtype=np.float32)
    if rng.random() < CORRELATED_SHARE:
        near, wide = rng.uniform(*CORRELATION_PIXELS), rng.uniform(*WIDE_PIXELS)
        share, spread = rng.uniform(0, WIDE_SHARE), rng.uniform(0, UNEVEN_SD)
        noise = np.sqrt(1 - share) * _blurred(noise, near)
        regions = _blurred(rng.standard_normal((n, *mask.shape), dtype=np.float32), wide)
        level = spread * _blurred(
            rng.standard_normal((1, *mask.shape), dtype=np.float32), UNEVEN_PIXELS
        )
        noise = (noise + np.sqrt(share) * regions) * np.exp(level - spread**2)
    return np.asarray(noise[None, :, mask], dtype=np.float32)


def _blurred(noise: Voxels, sigma: float) -> Voxels:
    """Gaussian blur in-plane, rescaled to unit variance."""
    blurred = gaussian_filter(noise, (0, sigma, sigma), mode="wrap")
    return np.asarray(blurred / blurred.std())


def _fit(model, signal: Voxels, sd: Voxels, has_arterial: bool) -> Solution:  # type: ignore[no-untyped-def]
    if has_arterial:
        return solve_arterial(model, signal, sd)
    return solve_tissue(tabulate(model, ATT_BOUNDS_S), signal)


def _estimated_sd(  # type: ignore[no-untyped-def]
    rng: np.random.Generator, sd: Voxels, model, signal: Voxels, is_arterial_fitted: bool
) -> Voxels:
    """The noise level as an estimator knows it: from repeats, or pooled from the residuals."""
    if rng.random() < 0.5:
        return np.asarray(sd * np.float32(np.exp(SIGMA_SCATTER * rng.standard_normal())))
    rss = _fit(model, signal, 0 * sd, is_arterial_fitted).rss
    n_parameters = 2 + (N_ARTERIAL if is_arterial_fitted else 0)
    return np.full_like(sd, np.sqrt(rss.mean() / (signal.shape[1] - n_parameters)))


def _log_uniform(rng: np.random.Generator, limits: tuple[float, float]) -> float:
    return float(np.exp(rng.uniform(*np.log(limits))))
