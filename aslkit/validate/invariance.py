"""A scan with scaled signal or another field of view -> deviation of CBF from its ideal value."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from aslkit.core.progress import Progress
from aslkit.core.series_and_maps import AslSeries, MaskImage, bounding_box
from aslkit.simulate.phantoms import Phantom
from aslkit.simulate.signal import noise_sd
from aslkit.validate.estimators import Estimator
from aslkit.validate.metrics import FloatArray, ScaleDeviation, scale_deviation
from aslkit.validate.records import Row
from aslkit.validate.trials import crop_phantom

SCALE_FACTORS = (0.1, 0.3, 3.0, 10.0)
N_SLICES = 12  # in the middle of the brain
PADDED_AREAS = (2.0, 4.0)  # area of the padded field of view / original area


@dataclass(frozen=True)
class FillDeviation:
    """Change of CBF when the same brain is in another field of view, without unit.

    Attributes
    ----------
    share : float
        Share of brain voxels in the field of view (0-1).
    mean : float
        Relative change of the mean CBF.
    p95 : float
        95th percentile over voxels of the absolute relative change.
    """

    share: float
    mean: float
    p95: float


def middle_slices(phantom: Phantom) -> Phantom:
    """Return the `N_SLICES` slices in the middle of the brain."""
    top, bottom = np.flatnonzero(phantom.mask.any(axis=(0, 1)))[[0, -1]]
    first = max((top + bottom + 1 - N_SLICES) // 2, 0)
    return crop_phantom(phantom, (slice(None), slice(None), slice(first, first + N_SLICES)))


def scale_deviations(
    series: AslSeries,
    inside: MaskImage,
    estimators: Mapping[str, Estimator],
    progress: Progress = iter,
) -> dict[str, list[ScaleDeviation]]:
    """Compare CBF of scaled series with scaled CBF, for each estimator and factor.

    `progress` wraps the sequence of estimators.
    """
    found: dict[str, list[ScaleDeviation]] = {}
    for name, estimator in progress(list(estimators.items())):
        cbf = _cbf(estimator, series, inside)
        chosen = cbf != 0
        found[name] = [
            scale_deviation(cbf[chosen], _cbf(estimator, series.scaled(k), inside)[chosen], k)
            for k in SCALE_FACTORS
        ]
    return found


def fill_deviations(
    series: AslSeries,
    inside: MaskImage,
    estimators: Mapping[str, Estimator],
    snr: float,
    seed: int,
    progress: Progress = iter,
) -> dict[str, list[FillDeviation]]:
    """Compare CBF of the same brain in fields of view of several sizes, for each estimator.

    The sizes are the bounding box of the brain and `PADDED_AREAS`. Padding contains noise.
    `progress` wraps the sequence of estimators.
    """
    rng = np.random.default_rng(seed)
    scans = [
        _in_box(series, inside),
        *(_padded(series, inside, a, snr, rng) for a in PADDED_AREAS),
    ]
    found: dict[str, list[FillDeviation]] = {}
    for name, estimator in progress(list(estimators.items())):
        cbf = _cbf(estimator, series, inside)
        chosen = cbf != 0
        found[name] = [
            _fill_deviation(other, where, estimator, cbf, chosen) for other, where in scans
        ]
    return found


def scale_rows(deviations: Mapping[str, Sequence[ScaleDeviation]]) -> list[Row]:
    """Return slope and deviation of each factor, and the ratio of mean CBF over the range.

    The ratio is that of the largest to the smallest factor; 100 is perfect.
    """
    rows = [
        _row(name, f"scale x{k:g} {figure}", value)
        for name, found in deviations.items()
        for k, d in zip(SCALE_FACTORS, found, strict=True)
        for figure, value in (("slope", d.slope), ("deviation 95th percentile", d.p95))
    ]
    low, high = SCALE_FACTORS[0], SCALE_FACTORS[-1]
    ratios = [
        _row(
            name,
            f"scale {low:g} to {high:g} ratio",
            high / low * (1 + d[-1].mean) / (1 + d[0].mean),
        )
        for name, d in deviations.items()
    ]
    return rows + ratios


def fill_rows(deviations: Mapping[str, Sequence[FillDeviation]]) -> list[Row]:
    """Return the change of CBF, by the share of the brain in the field of view."""
    return [
        _row(name, f"FOV fill {d.share:.0%} {figure}", value)
        for name, found in deviations.items()
        for d in found
        for figure, value in (("deviation", d.p95), ("mean change", d.mean))
    ]


def _row(estimator: str, metric: str, value: float) -> Row:
    return Row(estimator, "brain", "cbf", metric, "", value, n_subjects=1)


def _cbf(estimator: Estimator, series: AslSeries, inside: MaskImage) -> FloatArray:
    return estimator(series).cbf[inside].astype(np.float64)


def _fill_deviation(
    series: AslSeries, inside: MaskImage, estimator: Estimator, cbf: FloatArray, chosen: MaskImage
) -> FillDeviation:
    change = _cbf(estimator, series, inside)[chosen] - cbf[chosen]
    return FillDeviation(
        share=float(series.mask.mean()),
        mean=float(change.mean() / cbf[chosen].mean()),
        p95=float(np.percentile(np.abs(change / cbf[chosen]), 95)),
    )


def _in_box(series: AslSeries, inside: MaskImage) -> tuple[AslSeries, MaskImage]:
    """Crop a scan in-plane to the bounding box of the brain."""
    box = bounding_box(series.mask)[:2]
    return series.cropped(box), inside[box]


def _padded(
    series: AslSeries, inside: MaskImage, area: float, snr: float, rng: np.random.Generator
) -> tuple[AslSeries, MaskImage]:
    """Pad a scan in-plane with noise to `area` times its area."""
    margins = [(round(n * (area**0.5 - 1) / 2),) * 2 for n in inside.shape[:2]]
    mask, scored = (np.pad(m, [*margins, (0, 0)]) for m in (series.mask, inside))
    shape = (*mask.shape, series.acquisition.n_timings)
    delta_m = rng.standard_normal(shape, dtype=np.float32) * np.float32(noise_sd(snr))
    delta_m[mask] = series.delta_m[series.mask]
    sd = series.noise_sd
    noise = None if sd is None else np.pad(sd, [*margins, (0, 0)], mode="edge")
    return replace(series, delta_m=delta_m, mask=mask, noise_sd=noise), scored
