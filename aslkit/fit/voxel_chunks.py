"""AslSeries -> images, a function of the signal applied to chunks of voxels on all cores.

Slices that are read out at the same time after labeling share one model, and with it the tables
that depend on the model alone; chunks are large enough for numpy's overhead to be small beside
the work, and small enough for memory not to grow with the image.
"""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import numpy as np
from threadpoolctl import threadpool_limits

from aslkit.core.backend import FloatArray, IndexArray
from aslkit.core.progress import Progress
from aslkit.core.series_and_maps import AslSeries, FloatImage
from aslkit.core.threads import n_threads
from aslkit.fit.variable_projection import weighted
from aslkit.kinetics.model import KineticModel, kinetic_model, take_slices

CHUNK_VOXELS = 8192

Tables = TypeVar("Tables")


def by_chunk(
    series: AslSeries,
    tabulate: Callable[[KineticModel], Tables],
    fit: Callable[[Tables, IndexArray, FloatArray], list[FloatArray]],
    n_images: int,
    progress: Progress = iter,
) -> list[FloatImage]:
    """Apply `fit` to all voxels of finite signal; 0 elsewhere.

    Parameters
    ----------
    series : AslSeries
        The signals.
    tabulate : function
        Makes what `fit` needs of a weighted model of one slice; called once per slice timing.
    fit : function
        Gets that, the voxels' places in a flattened image, and their weighted signal
        (1, n, voxels); returns `n_images` rows (1, voxels).
    progress : function
        Wraps the sequence of chunks, as tqdm does.

    Returns
    -------
    list of array (x, y, z)
    """
    shape = series.mask.shape
    signals = series.delta_m.reshape(-1, series.acquisition.n_timings)
    root = np.sqrt(series.acquisition.weights).astype(np.float32)
    images = [np.zeros(shape, dtype=np.float32) for _ in range(n_images)]

    def run(tables: Tables, places: IndexArray) -> None:
        signal = signals[places] * root
        is_finite = np.isfinite(signal.sum(axis=1))
        if is_finite.any():
            found = fit(tables, places[is_finite], signal[is_finite].T[None])
            for image, values in zip(images, found, strict=True):
                image.reshape(-1)[places[is_finite]] = values[0]

    with threadpool_limits(1, "blas"), ThreadPoolExecutor(n_threads()) as pool:
        jobs = [
            pool.submit(run, tables, places)
            for slices, model in _models(series)
            for tables in (tabulate(model),)
            for places in _places(shape, slices)
        ]
        for job in progress(jobs):
            job.result()
    return images


def _models(series: AslSeries) -> Iterator[tuple[IndexArray, KineticModel]]:
    """The slices of equal timing, and their weighted model."""
    acquisition, n_slices = series.acquisition, series.mask.shape[2]
    weights, offsets = acquisition.weights.astype(np.float32), acquisition.slice_offsets(n_slices)
    whole = kinetic_model(acquisition, n_slices, np.float32)
    for offset in np.unique(offsets):
        slices = np.flatnonzero(offsets == offset)
        model = take_slices(whole, slice(slices[0], slices[0] + 1))
        yield slices, weighted(model, weights)


def _places(shape: tuple[int, ...], slices: IndexArray) -> Iterator[IndexArray]:
    """Places in a flattened image (x, y, z) of the voxels of some slices, chunk by chunk."""
    n_voxels = shape[0] * shape[1] * len(slices)
    for start in range(0, n_voxels, CHUNK_VOXELS):
        count = np.arange(start, min(start + CHUNK_VOXELS, n_voxels))
        yield count // len(slices) * shape[2] + slices[count % len(slices)]
