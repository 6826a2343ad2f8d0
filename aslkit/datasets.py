"""Seed and step -> one batch of simulated, fitted and encoded slices; the stream never repeats."""

from collections.abc import Iterator

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader, IterableDataset, get_worker_info

from aslkit.acquisition import Acquisition
from aslkit.anatomy import Tissue, draw_slice, draw_subject
from aslkit.config import DataConfig
from aslkit.encoding import encode, to_image
from aslkit.fields import SmoothField
from aslkit.physics import arterial_curve, kinetic_model, tissue_curve
from aslkit.projection import solve_arterial, solve_tissue, standard_errors
from aslkit.protocols import draw_acquisition
from aslkit.simulation import noise_sd

Batch = dict[str, Tensor]
Voxels = NDArray[np.float32]

STREAM_SEED = 9_104  # keeps training apart from the reserved subjects of phantoms
MISMATCH_SHARE = 0.2  # of the slices whose arterial signal and fitted compartment disagree
SIGMA_SCATTER = 0.05  # relative error of a noise level that was estimated from repeats
SMALLEST_BRAIN = 200  # pixels; slices with less are drawn again


class SimulatedStream(IterableDataset[Batch]):
    """Batches of steps first, first + 1, …; batch k is the same however many workers there are."""

    def __init__(self, config: DataConfig, seed: int, first_step: int) -> None:
        self._config, self._seed, self._first = config, seed, first_step

    def __iter__(self) -> Iterator[Batch]:
        """Batches that belong to this worker."""
        torch.set_num_threads(1)
        worker = get_worker_info()
        step, stride = (0, 1) if worker is None else (worker.id, worker.num_workers)
        step += self._first
        while True:
            yield draw_batch(self._config, np.random.default_rng([STREAM_SEED, self._seed, step]))
            step += stride


def stream(config: DataConfig, seed: int, first_step: int, n_workers: int) -> Iterator[Batch]:
    """Endless batches made by background processes."""
    loader = DataLoader(
        SimulatedStream(config, seed, first_step), batch_size=None, num_workers=n_workers
    )
    return iter(loader)


def draw_batch(config: DataConfig, rng: np.random.Generator) -> Batch:
    """One batch: `channels` (batch, c, x, y), and `base`, `errors`, `truth` (batch, 2, x, y)."""
    groups = [_draw_group(config, rng) for _ in range(config.groups)]
    return {k: torch.from_numpy(np.concatenate([g[k] for g in groups])) for k in groups[0]}


def _draw_group(config: DataConfig, rng: np.random.Generator) -> dict[str, Voxels]:
    """Slices of different subjects under one protocol, (patches, channels, x, y) each."""
    acquisition = draw_acquisition(rng)
    has_signal = bool(rng.random() < config.arterial_share)
    is_fitted = has_signal != (rng.random() < MISMATCH_SHARE)
    is_fitted = is_fitted and acquisition.has_arterial_signal
    slices = [_draw_slice(config, rng) for _ in range(config.patches_per_group)]
    parts = [_encode_slice(s, acquisition, has_signal, is_fitted, config, rng) for s in slices]
    return {key: np.stack([p[key] for p in parts]) for key in parts[0]}


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
    drawn: tuple[Tissue, Voxels],
    acquisition: Acquisition,
    has_signal: bool,
    is_fitted: bool,
    config: DataConfig,
    rng: np.random.Generator,
) -> dict[str, Voxels]:
    """Simulate, fit and encode one slice."""
    tissue, relative_sd = drawn
    inside = tissue.mask
    model = kinetic_model(acquisition, 1, np.float32)
    sd = relative_sd[inside][None] * np.float32(noise_sd(_log_uniform(rng, config.snr_range)))
    signal = _clean(model, tissue, has_signal)
    signal = signal + rng.standard_normal(signal.shape, dtype=np.float32) * sd[:, None]
    known_sd = _estimated_sd(rng, sd, model, signal, is_fitted)
    fit = solve_arterial(model, signal, known_sd) if is_fitted else solve_tissue(model, signal)
    errors = standard_errors(model, fit, known_sd)
    rows = encode(model, signal, fit, errors, known_sd)
    mask = inside.reshape(config.patch, config.patch)
    rows = np.concatenate([rows, np.ones_like(sd)])
    pairs = {
        "channels": rows,
        "base": np.concatenate([fit.cbf, fit.att]),
        "errors": np.concatenate(errors),
        "truth": np.stack([tissue.cbf[inside], tissue.att[inside]]),
    }
    return {k: to_image(v.astype(np.float32), mask) for k, v in pairs.items()}


def _clean(model, tissue: Tissue, has_signal: bool) -> Voxels:  # type: ignore[no-untyped-def]
    """Noise-free signal of the voxels in the mask, (1, n, voxels)."""
    inside = tissue.mask

    def row(values: Voxels) -> Voxels:
        return values[inside][None].astype(np.float32)

    signal = row(tissue.gm * tissue.cbf_gm)[:, None] * tissue_curve(model, row(tissue.att_gm))
    signal += row(tissue.wm * tissue.cbf_wm)[:, None] * tissue_curve(model, row(tissue.att_wm))
    if has_signal:
        signal += row(tissue.abv)[:, None] * arterial_curve(model, row(tissue.abat))
    return np.asarray(signal, dtype=np.float32)


def _estimated_sd(  # type: ignore[no-untyped-def]
    rng: np.random.Generator, sd: Voxels, model, signal: Voxels, is_arterial_fitted: bool
) -> Voxels:
    """The noise level as an estimator knows it: from repeats, or pooled from the residuals."""
    if rng.random() < 0.5:
        return np.asarray(sd * np.float32(np.exp(SIGMA_SCATTER * rng.standard_normal())))
    if is_arterial_fitted:
        rss, n_parameters = solve_arterial(model, signal, 0 * sd).rss, 4
    else:
        rss, n_parameters = solve_tissue(model, signal).rss, 2
    return np.full_like(sd, np.sqrt(rss.mean() / (signal.shape[1] - n_parameters)))


def _log_uniform(rng: np.random.Generator, limits: tuple[float, float]) -> float:
    return float(np.exp(rng.uniform(*np.log(limits))))
