"""AslSeries -> named images, from a function of the signal that runs on chunks of voxels.

Chunks run in parallel on all cores. All slices that are read out at the same time after labeling
share one kinetic model and the tables made from it. A chunk is large enough to make numpy's
overhead small, and small enough to keep memory independent of the size of the image.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
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
    names: Sequence[str],
    tabulate: Callable[[KineticModel], Tables],
    fit: Callable[[Tables, IndexArray, FloatArray], Mapping[str, FloatArray]],
    progress: Progress = iter,
) -> dict[str, FloatImage]:
    """Apply `fit` to all voxels of finite signal; images are 0 elsewhere.

    Parameters
    ----------
    series : AslSeries
    names : sequence of str
        Names of the images to fill.
    tabulate : function
        Makes the tables that `fit` needs from the weighted model of one slice; called once per
        slice timing.
    fit : function
        Takes these tables, the indices of voxels in the flattened image, and their weighted
        signal (1, n, voxels); returns rows (1, voxels) by name.
    progress : function
        Wraps the sequence of chunks, as tqdm does.

    Returns
    -------
    dict of str to array (x, y, z), float32
    """
    shape = series.mask.shape
    signals = series.delta_m.reshape(-1, series.acquisition.n_timings)  # (x*y*z, n)
    root = np.sqrt(series.acquisition.weights).astype(np.float32)  # (n,)
    images = {name: np.zeros(shape, dtype=np.float32) for name in names}

    def run(tables: Tables, places: IndexArray) -> None:
        signal = signals[places] * root  # (voxels, n)
        is_finite = np.isfinite(signal.sum(axis=1))
        if is_finite.any():
            rows = fit(tables, places[is_finite], signal[is_finite].T[None])
            for name, image in images.items():
                image.reshape(-1)[places[is_finite]] = rows[name][0]

    with threadpool_limits(1, "blas"), ThreadPoolExecutor(n_threads()) as pool:
        jobs = [
            pool.submit(run, tables, places)
            for slices, model in _weighted_models(series)
            for tables in (tabulate(model),)
            for places in _chunks(shape, slices)
        ]
        for job in progress(jobs):
            job.result()
    return images


def values_at(image: FloatImage, places: IndexArray) -> FloatArray:
    """Return values of an image at indices of the flattened image, (1, voxels), float32."""
    return image.reshape(-1)[places][None].astype(np.float32)


def _weighted_models(series: AslSeries) -> Iterator[tuple[IndexArray, KineticModel]]:
    """Yield the slices of equal timing, and their weighted model."""
    acquisition, n_slices = series.acquisition, series.mask.shape[2]
    weights, offsets = acquisition.weights.astype(np.float32), acquisition.slice_offsets(n_slices)
    all_slices = kinetic_model(acquisition, n_slices, np.float32)
    for offset in np.unique(offsets):
        slices = np.flatnonzero(offsets == offset)
        model = take_slices(all_slices, slice(slices[0], slices[0] + 1))
        yield slices, weighted(model, weights)


def _chunks(shape: tuple[int, ...], slices: IndexArray) -> Iterator[IndexArray]:
    """Yield the indices in the flattened image (x, y, z) of the voxels of some slices."""
    n_voxels = shape[0] * shape[1] * len(slices)
    for start in range(0, n_voxels, CHUNK_VOXELS):
        count = np.arange(start, min(start + CHUNK_VOXELS, n_voxels))
        yield count // len(slices) * shape[2] + slices[count % len(slices)]
