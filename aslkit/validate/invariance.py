"""A scan, scaled or in another field of view -> how far CBF departs from what it should be."""

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
N_SLICES = 12  # through the middle of the brain; more only take longer
PADDED_AREAS = (2.0, 4.0)  # of the field of view, over the one scanned


@dataclass(frozen=True)
class FillDeviation:
    """How CBF changes when the same brain fills another share of the field of view.

    Attributes
    ----------
    share : float
        Of the voxels that are brain.
    mean, p95 : float
        Relative change of the mean, and 95th percentile of |change| over the voxels.
    """

    share: float
    mean: float
    p95: float


def middle_slices(phantom: Phantom) -> Phantom:
    """The phantom's middle slices alone."""
    top, bottom = np.flatnonzero(phantom.mask.any(axis=(0, 1)))[[0, -1]]
    first = max((top + bottom + 1 - N_SLICES) // 2, 0)
    return crop_phantom(phantom, (slice(None), slice(None), slice(first, first + N_SLICES)))


def scale_deviations(
    series: AslSeries,
    inside: MaskImage,
    estimators: Mapping[str, Estimator],
    progress: Progress = iter,
) -> dict[str, list[ScaleDeviation]]:
    """How each estimator's CBF follows a signal and noise scaled together, factor by factor.

    `progress` wraps the estimators, here as below.
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
    """What fields of view around the brain, its box up to four times the area, do to CBF.

    Inside the brain the scans are the same; new air holds noise.
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
    """Slope and worst deviation of every factor, and the whole range's ratio (100 is right)."""
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
    """Change of CBF by the brain's share of the field of view."""
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
    """The scan cropped, in-plane, to the brain."""
    box = bounding_box(series.mask)[:2]
    return series.cropped(box), inside[box]


def _padded(
    series: AslSeries, inside: MaskImage, area: float, snr: float, rng: np.random.Generator
) -> tuple[AslSeries, MaskImage]:
    """The scan in a field of view of so many times the area, the brain in its middle."""
    margins = [(round(n * (area**0.5 - 1) / 2),) * 2 for n in inside.shape[:2]]
    mask, scored = (np.pad(m, [*margins, (0, 0)]) for m in (series.mask, inside))
    shape = (*mask.shape, series.acquisition.n_timings)
    delta_m = rng.standard_normal(shape, dtype=np.float32) * np.float32(noise_sd(snr))
    delta_m[mask] = series.delta_m[series.mask]
    sd = series.noise_sd
    noise = None if sd is None else np.pad(sd, [*margins, (0, 0)], mode="edge")
    return replace(series, delta_m=delta_m, mask=mask, noise_sd=noise), scored
