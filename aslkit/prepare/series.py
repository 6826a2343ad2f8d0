"""Runs as read -> one calibrated `AslSeries`: differences, averages, M0, brain mask, noise."""

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from aslkit.bids.nifti import is_same_grid
from aslkit.bids.run import AslRun, Pair, difference, timing_groups, timings
from aslkit.core.acquisition import Acquisition
from aslkit.core.errors import InputError
from aslkit.core.series_and_maps import AslSeries, FloatImage, MaskImage
from aslkit.prepare.noise import finite_mean, noise_from_repeats, smooth_volumes

LOWEST_M0 = 0.25  # lowest M0 as a fraction of the mean M0 in the brain; no tissue has less
MASK_SIGMA_MM = 2.0  # smoothing before the threshold
MASK_OPENING_MM = 5.0  # radius that separates scalp and eyes from the brain
HISTOGRAM_BINS = 256


def series_from_runs(
    runs: Sequence[AslRun], mask: MaskImage | None = None, smoothing_sigma_mm: float = 0.0
) -> AslSeries:
    """Average the repeats of every timing, divide by M0, and join the runs.

    Parameters
    ----------
    runs : sequence of AslRun
        The runs of one acquisition, on one grid.
    mask : bool array (x, y, z), optional
        Brain mask; computed from M0 (or the mean control image) by default.
    smoothing_sigma_mm : float
        In-plane Gaussian smoothing of every difference image.

    Returns
    -------
    AslSeries
        Timings in the order (run, label duration, PLD).

    Raises
    ------
    InputError
        When the runs differ in grid or slice timing.
    """
    _check_joinable(runs)
    first = runs[0]
    size = first.voxel_size_mm
    brain = run_brain_mask(first) if mask is None else mask
    groups = calibrated_repeats(runs, brain)
    if smoothing_sigma_mm:
        everywhere = np.ones(brain.shape, dtype=bool)
        groups = [smooth_volumes(g, everywhere, smoothing_sigma_mm, size) for g in groups]
    acquisition = joined_acquisition(runs)
    return AslSeries(
        delta_m=np.stack([finite_mean(g) for g in groups], axis=3),
        acquisition=acquisition,
        mask=brain,
        affine=first.affine,
        noise_sd=noise_from_repeats(
            groups, [t.n_averages for t in acquisition.timings], brain, size
        ),
        m0=_equilibrium(first, brain),
    )


def calibrated_repeats(runs: Sequence[AslRun], brain: MaskImage) -> list[FloatImage]:
    """Return ΔM/M0 of every repeat, an array (x, y, z, repeats) per timing of the joined runs."""
    return [
        np.stack([difference(run, pair) for pair in pairs], axis=3)
        / _equilibrium(run, brain)[..., None]
        for run in runs
        for pairs in timing_groups(run).values()
    ]


def joined_acquisition(runs: Sequence[AslRun]) -> Acquisition:
    """Return the joint acquisition of all runs, with the constants of the first run."""
    constants = runs[0].overrides
    return Acquisition(
        timings=tuple(t for run in runs for t in timings(run)),
        slice_offsets_s=runs[0].slice_offsets_s,
        t1_blood_s=constants.t1_blood_s,
        t1_tissue_s=constants.t1_tissue_s,
        partition_ml_per_g=constants.partition_ml_per_g,
        kinetic=constants.kinetic,
        has_crusher=all(run.has_crusher for run in runs if run.labeling != "vsasl"),
    )


def repeat_counts(run: AslRun) -> list[int]:
    """Return the number of repeats of every timing."""
    return [len(pairs) for pairs in timing_groups(run).values()]


def select_pairs(run: AslRun, choose: Callable[[Sequence[Pair]], Sequence[Pair]]) -> AslRun:
    """Return the run with the pairs that `choose` returns for the pairs of each timing."""
    groups = timing_groups(run).values()
    kept = sorted(i for pairs in groups for pair in choose(pairs) for i in pair.indices)
    return replace(
        run,
        volumes=run.volumes[..., kept],
        contexts=tuple(run.contexts[i] for i in kept),
        plds_s=run.plds_s[kept],
        label_durations_s=run.label_durations_s[kept],
    )


def anatomical_image(run: AslRun) -> FloatImage:
    """Return an image of the head: M0, else the mean control, else the mean difference."""
    if isinstance(run.calibration.m0, np.ndarray):
        return run.calibration.m0
    controls = [i for i, c in enumerate(run.contexts) if c == "control"]
    if controls:
        return run.volumes[..., controls].mean(axis=3)
    deltams = [i for i, c in enumerate(run.contexts) if c == "deltam"]
    return np.abs(run.volumes[..., deltams].mean(axis=3))


def run_brain_mask(run: AslRun) -> MaskImage:
    """Return the brain mask of a run."""
    return brain_mask(anatomical_image(run), run.voxel_size_mm)


def brain_mask(image: FloatImage, voxel_size_mm: Sequence[float]) -> MaskImage:
    """Return the brain mask: Otsu's threshold, opening, largest component, holes filled."""
    size = np.asarray(voxel_size_mm)
    finite = np.nan_to_num(image, nan=0.0, posinf=0.0, neginf=0.0)
    smooth = ndimage.gaussian_filter(finite, MASK_SIGMA_MM / size)
    bright = smooth > _otsu_threshold(smooth)
    core = _largest(_opened(bright, size))
    filled = np.stack([ndimage.binary_fill_holes(s) for s in np.moveaxis(core, 2, 0)], axis=2)
    return filled if filled.any() else bright


def _check_joinable(runs: Sequence[AslRun]) -> None:
    first = runs[0]
    for run in runs[1:]:
        if run.volumes.shape[:3] != first.volumes.shape[:3] or not is_same_grid(
            run.affine, first.affine
        ):
            raise InputError(
                run.source,
                "image grid",
                found=f"another grid than that of {first.source.name}",
                expected="runs of a joint acquisition on one grid",
                fix="resample one of them, or process them separately",
            )
        if run.slice_offsets_s != first.slice_offsets_s:
            raise InputError(
                run.source,
                "SliceTiming",
                found=f"another timing than that of {first.source.name}",
                expected="runs of a joint acquisition with equal slice timing",
                fix="process them separately",
            )


def _equilibrium(run: AslRun, brain: MaskImage) -> FloatImage:
    """Return M0 of every voxel, at least `LOWEST_M0`; NaN where it was not measured."""
    m0 = np.broadcast_to(np.float32(run.calibration.equilibrium), brain.shape)
    is_measured = np.isfinite(m0) & (m0 > 0)
    inside = m0[brain & is_measured]
    lowest = LOWEST_M0 * float(inside.mean()) if inside.size else 0.0
    return np.where(is_measured, np.maximum(m0, lowest), np.nan).astype(np.float32)


def _otsu_threshold(image: FloatImage) -> float:
    """Return the threshold that best separates two classes (doi:10.1109/TSMC.1979.4310076)."""
    top = np.percentile(image, 99.5)  # a few bright voxels would stretch the histogram
    values = image.astype(np.float64)  # float32 cannot resolve a nearly flat image
    counts, edges = np.histogram(values, HISTOGRAM_BINS, (values.min(), float(top)))
    centres = (edges[:-1] + edges[1:]) / 2
    below, above = np.cumsum(counts), counts.sum() - np.cumsum(counts)
    sum_below = np.cumsum(counts * centres)
    with np.errstate(divide="ignore", invalid="ignore"):
        means_apart = sum_below / below - (sum_below[-1] - sum_below) / above
        between = np.nan_to_num(below * above * means_apart**2)
    return float(centres[between.argmax()])


def _opened(mask: MaskImage, size_mm: NDArray[np.floating]) -> MaskImage:
    """Remove parts of the mask that are thinner than the opening radius in-plane."""
    radius = np.maximum(np.round(MASK_OPENING_MM / size_mm[:2]), 1).astype(int)
    x, y = np.ogrid[-radius[0] : radius[0] + 1, -radius[1] : radius[1] + 1]
    ball = ((x / radius[0]) ** 2 + (y / radius[1]) ** 2 <= 1)[..., None]
    return ndimage.binary_opening(mask, ball)


def _largest(mask: MaskImage) -> MaskImage:
    labels, n = ndimage.label(mask)
    return labels == 1 + np.bincount(labels.ravel())[1:].argmax() if n else mask
