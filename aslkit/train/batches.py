"""Seed and number -> a batch of simulated, fitted and encoded slices, in an endless stream."""

from collections.abc import Callable, Generator, Iterator

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader, IterableDataset, get_worker_info

from aslkit.batch.worker_process import defer_termination
from aslkit.config import AnyProtocolConfig
from aslkit.core.acquisition import Acquisition
from aslkit.core.backend import first_axis_indices, scatter_to_images
from aslkit.core.constants import ATT_BOUNDS_S, TYPICAL_ATT_S
from aslkit.fit.arterial import solve_arterial
from aslkit.fit.curve_table import tabulate
from aslkit.fit.settings import N_ARTERIAL
from aslkit.fit.standard_errors import errors_with_assumed_att, information, standard_errors
from aslkit.fit.variable_projection import Solution, solve_fixed, solve_tissue
from aslkit.kinetics.model import kinetic_model
from aslkit.nets.profile_encoding import encode
from aslkit.simulate.template import atlas
from aslkit.simulate.training_scans import TrainingScans, draw_training_scans

Batch = dict[str, Tensor]
Batches = Generator[Batch, None, None]
Draw = Callable[[np.random.Generator], Batch]
Voxels = NDArray[np.float32]

STREAM_SEED = 9_104  # separates training subjects from those of the phantoms
QUIET = 0.2  # noise level of the fit of noise-free signals, as a fraction of the real one
SIGMA_SCATTER = 0.05  # relative error of a noise level estimated from repeats
REPEATS_FRACTION = 0.5  # of the subjects, with a noise level estimated from repeats
VOXEL_STEP = 4  # every fourth voxel is fitted to estimate the noise level from residuals
FEWEST_TIMINGS = 4  # for targets from a fit with wrong constants; with fewer, the truth
FEWEST_VOXELS = 8  # for a noise level estimated from residuals


class SimulatedStream(IterableDataset[Batch]):
    """Batches first, first + stride, …; batch k does not depend on the number of workers."""

    def __init__(self, draw: Draw, seed: int, first: int, stride: int = 1) -> None:
        self._draw, self._seed, self._first, self._stride = draw, seed, first, stride

    def __iter__(self) -> Iterator[Batch]:
        """Yield the batches of this worker."""
        worker = get_worker_info()
        i, n_workers = (0, 1) if worker is None else (worker.id, worker.num_workers)
        number = self._first + i * self._stride
        while True:
            yield self._draw(np.random.default_rng([STREAM_SEED, self._seed, number]))
            number += n_workers * self._stride


def stream_batches(draw: Draw, seed: int, first: int, n_workers: int, stride: int = 1) -> Batches:
    """Yield batches first, first + stride, … without end, drawn by background processes."""
    source = SimulatedStream(draw, seed, first, stride)
    if n_workers:
        atlas()  # loaded once, before the processes fork
    yield from DataLoader(
        source, batch_size=None, num_workers=n_workers, worker_init_fn=defer_termination
    )


def draw_batch(config: AnyProtocolConfig, rng: np.random.Generator) -> Batch:
    """Draw one batch: `config.protocols_per_step` groups of scans, encoded by `batch_from_scans`.

    With neighbouring slices, the batch also holds `stack` (batch,), the number of the subject.
    """
    groups = [
        _group(config, rng, i * config.patches_per_protocol)
        for i in range(config.protocols_per_step)
    ]
    return {key: torch.cat([s[key] for s in groups]) for key in groups[0]}


def _group(config: AnyProtocolConfig, rng: np.random.Generator, first: int) -> Batch:
    """Draw and encode the scans of one protocol; number their stacks from `first` on."""
    scans = draw_training_scans(config, rng)
    batch = batch_from_scans(scans, rng)
    if config.slices_per_subject > 1:
        batch["stack"] = first + torch.arange(len(scans.mask)) // scans.depth
    return batch


def batch_from_scans(scans: TrainingScans, rng: np.random.Generator) -> Batch:
    """Return inputs and targets of the physics-residual network for scans in numpy arrays.

    Returns
    -------
    dict
        `channels` (b, c, x, y), and `base`, `errors`, `truth` (b, 2, x, y): CBF and ATT of least
        squares, their standard errors, and the target.
    """
    fit = _Fit(scans.acquisition, scans.is_arterial_fitted)
    signal, clean = (_rows(images, scans.mask) for images in (scans.signal, scans.clean))
    truth = np.stack([scans.cbf[scans.mask], scans.att[scans.mask]])
    sd = _known_sd(scans, fit, signal, rng)
    found = fit(signal, sd)
    errors = fit.errors(found, sd)
    if not scans.is_matched and scans.acquisition.n_timings >= FEWEST_TIMINGS:
        best = fit(clean, QUIET * sd)
        truth = np.concatenate([best.cbf, best.att])
    rows = {
        "channels": np.concatenate(
            [encode(fit.model, signal, found, errors, sd), np.ones_like(sd)]
        ),
        "base": np.concatenate([found.cbf, found.att]),
        "errors": np.concatenate(errors),
        "truth": truth,
    }
    return {k: torch.from_numpy(_images(v, scans.mask)) for k, v in rows.items()}


class _Fit:
    """Least squares of signals (1, n, voxels) with noise sds (1, voxels)."""

    def __init__(self, acquisition: Acquisition, has_arterial: bool) -> None:
        self.model, self.has_arterial = kinetic_model(acquisition, 1, np.float32), has_arterial
        self._is_single = acquisition.n_timings == 1
        is_plain = not (has_arterial or self._is_single)
        self._table = tabulate(self.model, ATT_BOUNDS_S) if is_plain else None

    def __call__(self, signal: Voxels, sd: Voxels) -> Solution:
        if self._is_single:
            return solve_fixed(self.model, signal, np.full_like(sd, TYPICAL_ATT_S))
        if self._table is None:
            return solve_arterial(self.model, signal, sd)
        return solve_tissue(self._table, signal)

    def errors(self, found: Solution, sd: Voxels) -> tuple[Voxels, Voxels]:
        """Standard errors of CBF and ATT, (1, voxels) each."""
        if self._is_single:
            return errors_with_assumed_att(self.model, found.cbf, sd)
        return standard_errors(information(self.model), found, sd)


def _known_sd(scans: TrainingScans, fit: _Fit, signal: Voxels, rng: np.random.Generator) -> Voxels:
    """Return the noise level (1, voxels) that an estimator has, from repeats or residuals."""
    b = len(scans.mask) // scans.depth
    subjects = first_axis_indices(scans.mask) // scans.depth
    n_free = scans.acquisition.n_timings - 2 - (N_ARTERIAL if fit.has_arterial else 0)
    has_repeats = (rng.random(b) < REPEATS_FRACTION) | (n_free < 1)
    scatter = np.exp(SIGMA_SCATTER * rng.standard_normal(b))
    sd = scatter[subjects] * scans.noise_sd[scans.mask]  # (voxels,)
    some = np.flatnonzero(~has_repeats[subjects])[::VOXEL_STEP]
    if some.size:
        rss = fit(signal[..., some], np.zeros((1, some.size), np.float32)).rss[0]
        counts = np.bincount(subjects[some], minlength=b)
        pooled = np.sqrt(np.bincount(subjects[some], rss, b) / np.maximum(counts, 1) / n_free)
        has_repeats |= counts < FEWEST_VOXELS
        sd = np.where(has_repeats[subjects], sd, pooled[subjects])
    return sd[None].astype(np.float32)


def _rows(images: Voxels, mask: NDArray[np.bool_]) -> Voxels:
    """Return the signals (1, n, voxels in the mask) of images (b, n, x, y)."""
    return np.ascontiguousarray(np.moveaxis(images, 1, -1)[mask].swapaxes(0, 1))[None]


def _images(rows: Voxels, mask: NDArray[np.bool_]) -> Voxels:
    """Put rows (c, voxels in the mask) into images (b, c, x, y), 0 outside the mask."""
    return scatter_to_images(np.ascontiguousarray(rows.swapaxes(0, 1), dtype=np.float32), mask)
