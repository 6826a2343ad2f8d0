"""One condition, all its phantoms -> what every estimator made of the very same scans."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace

import numpy as np
from numpy.typing import NDArray

from aslkit.core.constants import MIN_CBF
from aslkit.core.progress import Progress
from aslkit.core.series_and_maps import (
    AslSeries,
    FloatImage,
    MaskImage,
    ParameterMaps,
    bounding_box,
)
from aslkit.fit.least_squares import AT_BOUND_S, FitSettings
from aslkit.fit.standard_errors import cramer_rao_sd
from aslkit.simulate.anatomy import Tissue
from aslkit.simulate.lesions import LESION_CLASSES
from aslkit.simulate.phantoms import Phantom
from aslkit.simulate.signal import clean_signal, noise_sd, simulate_series, truth_maps
from aslkit.validate.baselines import (
    SIGMAS_VOXELS,
    baseline_estimators,
    best_sigma,
    combined,
    smoothed_least_squares,
)
from aslkit.validate.design import Condition
from aslkit.validate.estimators import (
    TRUTH,
    EvaluatedEstimator,
    Example,
    Stopwatch,
    select_covering,
)
from aslkit.validate.records import (
    LS,
    SMOOTHED_LS,
    Row,
    Subject,
    confidences_in,
    sds_in_table_units,
    values_in,
    values_in_table_units,
)

PURE = 0.8  # tissue fraction above which a voxel counts as grey or white matter
MIXED = 0.2  # fraction of each above which it counts as boundary between them


@dataclass(frozen=True)
class Trial:
    """One phantom in one condition: its scan, and the maps that were made of it.

    Attributes
    ----------
    noise : array (x, y, z, timings)
        What the simulation added to the signal, air included.
    maps : mapping of estimator to maps
    smoothed : mapping of sigma [voxels] to maps
        By least squares on smoothed signals.
    bounds : mapping of quantity to array (x, y, z)
        Cramér-Rao standard deviations with the true constants, in stored units.
    """

    phantom: Phantom
    noise: FloatImage
    maps: Mapping[str, ParameterMaps]
    smoothed: Mapping[float, ParameterMaps]
    bounds: Mapping[str, FloatImage]


def run_trial(
    phantom: Phantom,
    condition: Condition,
    models: Mapping[str, EvaluatedEstimator],
    stopwatch: Stopwatch,
    progress: Progress = iter,
) -> Trial:
    """Simulate one scan and let every estimator meet it, without the air, which nothing scores.

    `progress` wraps the estimators.
    """
    series, physics = simulated(phantom, condition), condition.physics(phantom)
    noise = series.delta_m - clean_signal(phantom, physics)
    box = bounding_box(phantom.mask)[:2]
    phantom, series = crop_phantom(phantom, box), _without_air(series).cropped(box)
    estimators = baseline_estimators(physics, series.acquisition, condition.track)
    estimators |= select_covering(models, series.acquisition)
    runs = list(estimators.items())
    for sigma in SIGMAS_VOXELS[1:]:
        runs.append((SMOOTHED_LS, smoothed_least_squares(series.acquisition, sigma)))
    found = [stopwatch.run(name, estimator, series) for name, estimator in progress(runs)]
    maps = dict(zip(estimators, found, strict=False))
    smoothed = dict(zip(SIGMAS_VOXELS, [maps[LS], *found[len(maps) :]], strict=True))
    bounds = cramer_rao_sd(truth_maps(phantom), physics.acquisition, noise_sd(condition.snr))
    named = dict(zip(("cbf", "att"), bounds, strict=True))
    return Trial(phantom, noise, maps, smoothed, named)


def with_best_smoothing(
    trials: Sequence[Trial], quantities: Sequence[str]
) -> tuple[list[Trial], list[Row]]:
    """The trials with smoothed least squares among the maps, and the sigmas that it took."""
    truths = [truth_maps(t.phantom) for t in trials]
    insides = [strata(t.phantom)["brain"] for t in trials]
    candidates = [t.smoothed for t in trials]
    sigmas = {q: best_sigma(candidates, truths, insides, q) for q in quantities}
    chosen = [
        replace(t, maps={**t.maps, SMOOTHED_LS: combined(t.smoothed, sigmas)}) for t in trials
    ]
    rows = [
        Row(SMOOTHED_LS, "brain", q, "oracle sigma", "voxels", s, n_subjects=len(trials))
        for q, s in sigmas.items()
    ]
    return chosen, rows


def subject_of(trial: Trial) -> Subject:
    """The scored voxels of a trial."""
    phantom = trial.phantom
    scored = scored_voxels(phantom)
    return Subject(
        name=phantom.name,
        truth=values_in_table_units(truth_maps(phantom), scored),
        strata={name: inside[scored] for name, inside in strata(phantom).items()},
        estimates={name: values_in_table_units(m, scored) for name, m in trial.maps.items()},
        sds={name: sds_in_table_units(m, scored) for name, m in trial.maps.items()},
        is_estimated={name: are_estimated(m, scored) for name, m in trial.maps.items()},
        bounds={q: values_in(b, scored, q) for q, b in trial.bounds.items()},
        confidences={
            name: confidences_in(m, scored)
            for name, m in trial.maps.items()
            if m.cbf_confidence is not None
        },
    )


def example_of(trial: Trial, condition: Condition) -> Example:
    """The maps for pictures, of tissue alone: hundreds of them must fit into memory."""
    title = f"{trial.phantom.name}, {condition.protocol}, SNR {condition.snr:g}, {condition.track}"
    maps = {TRUTH: truth_maps(trial.phantom), **trial.maps}
    pictured = {n: _pictured(m) for n, m in maps.items()}
    return Example(title, condition.columns, pictured, trial.phantom.mask, trial.phantom.lesions)


def n_lesion_classes(trial: Trial) -> int:
    """How many kinds of lesions the brain shows."""
    return len(np.unique(trial.phantom.lesions[trial.phantom.mask])) - 1


def simulated(phantom: Phantom, condition: Condition) -> AslSeries:
    """The noisy scan, which says what is nominal.

    Of a single delay, whose residuals tell no noise, also the noise level, as repeats would.
    """
    series = simulate_series(
        phantom,
        condition.acquisition(phantom),
        condition.snr,
        condition.noise_seed(phantom),
        condition.physics(phantom),
    )
    if condition.has_several_delays:
        return series
    level = np.full(phantom.mask.shape, noise_sd(condition.snr), dtype=np.float32)
    return replace(series, noise_sd=level)


def scored_voxels(phantom: Phantom) -> MaskImage:
    """Brain voxels with perfusion, and all of every lesion."""
    return phantom.mask & ((phantom.cbf > MIN_CBF) | (phantom.lesions > 0))


def strata(phantom: Phantom) -> dict[str, MaskImage]:
    """Where errors are averaged; tissue strata leave lesions out, "brain" has everything."""
    healthy = phantom.mask & (phantom.lesions == 0) & (phantom.cbf > MIN_CBF)
    tissue = {
        "brain": phantom.mask & (phantom.cbf > MIN_CBF),
        "GM": healthy & (phantom.gm > PURE),
        "WM": healthy & (phantom.wm > PURE),
        "boundary": healthy & (np.minimum(phantom.gm, phantom.wm) > MIXED),
    }
    lesions = {n: phantom.mask & (phantom.lesions == i) for i, n in LESION_CLASSES.items() if i}
    return tissue | lesions


def are_estimated(maps: ParameterMaps, scored: MaskImage) -> dict[str, NDArray[np.bool_]]:
    """Whether the estimates at these voxels are finite and, for ATT, off the bounds."""
    cbf, att = maps.cbf[scored], maps.att[scored]
    low, high = FitSettings().att_bounds_s
    is_inside = (att > low + AT_BOUND_S) & (att < high - AT_BOUND_S)
    return {"cbf": np.isfinite(cbf), "att": np.isfinite(att) & is_inside}


def crop_phantom(phantom: Phantom, box: tuple[slice, ...]) -> Phantom:
    """The truth in a box alone, named as before."""
    maps = {f.name: getattr(phantom, f.name)[box] for f in fields(Tissue)}
    return replace(phantom, **maps)


def _without_air(series: AslSeries) -> AslSeries:
    return replace(series, delta_m=np.where(series.mask[..., None], series.delta_m, np.nan))


def _pictured(maps: ParameterMaps) -> ParameterMaps:
    """Without vessels; a standard deviation that is unknown becomes 0, which no picture shows."""
    known = {name: np.nan_to_num(getattr(maps, name)) for name in ("cbf_std", "att_std")}
    return replace(maps, abv=None, abat=None, **known)
