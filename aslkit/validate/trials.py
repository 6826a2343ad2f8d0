"""A phantom in one condition -> its simulated scan, and the maps by each estimator (a trial)."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace

import numpy as np
from numpy.typing import NDArray

from aslkit.core.constants import ATT_BOUNDS_S, MIN_CBF
from aslkit.core.progress import Progress
from aslkit.core.series_and_maps import (
    AslSeries,
    FloatImage,
    MaskImage,
    ParameterMaps,
    bounding_box,
)
from aslkit.fit.least_squares import AT_BOUND_S
from aslkit.fit.standard_errors import cramer_rao_sd
from aslkit.simulate.anatomy import Tissue
from aslkit.simulate.lesions import LESION_CLASSES
from aslkit.simulate.phantoms import Phantom
from aslkit.simulate.signal import clean_signal, noise_sd, simulate_series, truth_maps
from aslkit.validate.baselines import (
    SIGMAS_VOXELS,
    baseline_estimators,
    best_sigma,
    combine_quantities,
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

MIN_TISSUE_FRACTION = 0.8  # of voxels of the strata GM and WM
MIN_BOUNDARY_FRACTION = 0.2  # of GM and of WM, in voxels of the stratum boundary


@dataclass(frozen=True)
class Trial:
    """One phantom in one condition: its scan, and the maps by each estimator.

    Attributes
    ----------
    noise : array (x, y, z, timings)
        Noise of the simulation, also in the background, ΔM/M0.
    maps : mapping of estimator to maps
    smoothed : mapping of sigma [voxels] to maps
        Maps by least squares on smoothed signals.
    bounds : mapping of quantity to array (x, y, z)
        Cramér-Rao standard deviations with the true constants (CBF in ml/100 g/min, ATT in s).
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
    """Simulate one scan and run all estimators on it, without background.

    `progress` wraps the sequence of estimators.
    """
    series, physics = simulated(phantom, condition), condition.physics(phantom)
    noise = series.delta_m - clean_signal(phantom, physics)
    box = bounding_box(phantom.mask)[:2]
    phantom, series = crop_phantom(phantom, box), _without_background(series).cropped(box)
    estimators = baseline_estimators(physics, series.acquisition, condition.track)
    estimators |= select_covering(models, series.acquisition)
    runs = list(estimators.items())
    for sigma in SIGMAS_VOXELS[1:]:
        runs.append((SMOOTHED_LS, smoothed_least_squares(sigma)))
    found = [stopwatch.run(name, estimator, series) for name, estimator in progress(runs)]
    maps = dict(zip(estimators, found, strict=False))
    smoothed = dict(zip(SIGMAS_VOXELS, [maps[LS], *found[len(maps) :]], strict=True))
    bounds = cramer_rao_sd(truth_maps(phantom), physics.acquisition, noise_sd(condition.snr))
    named = dict(zip(("cbf", "att"), bounds, strict=True))
    return Trial(phantom, noise, maps, smoothed, named)


def with_best_smoothing(
    trials: Sequence[Trial], quantities: Sequence[str]
) -> tuple[list[Trial], list[Row]]:
    """Add the best smoothed least squares to the maps, and return its sigmas as rows."""
    truths = [truth_maps(t.phantom) for t in trials]
    brains = [strata(t.phantom)["brain"] for t in trials]
    candidates = [t.smoothed for t in trials]
    sigmas = {q: best_sigma(candidates, truths, brains, q) for q in quantities}
    chosen = [
        replace(t, maps={**t.maps, SMOOTHED_LS: combine_quantities(t.smoothed, sigmas)})
        for t in trials
    ]
    rows = [
        Row(SMOOTHED_LS, "brain", q, "oracle sigma", "voxels", s, n_subjects=len(trials))
        for q, s in sigmas.items()
    ]
    return chosen, rows


def subject_of(trial: Trial) -> Subject:
    """Collect the scored voxels of a trial."""
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
    """Return the maps for pictures, without arterial maps, which would need too much memory."""
    title = f"{trial.phantom.name}, {condition.protocol}, SNR {condition.snr:g}, {condition.track}"
    maps = {TRUTH: truth_maps(trial.phantom), **trial.maps}
    pictured = {n: _for_pictures(m) for n, m in maps.items()}
    return Example(title, condition.columns, pictured, trial.phantom.mask, trial.phantom.lesions)


def n_lesion_classes(trial: Trial) -> int:
    """Count the classes of lesions of a phantom."""
    return len(np.unique(trial.phantom.lesions[trial.phantom.mask])) - 1


def simulated(phantom: Phantom, condition: Condition) -> AslSeries:
    """Simulate a noisy scan with the nominal acquisition.

    A scan of a single delay has no residuals to estimate the noise, so it gets the noise level.
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
    """Return the perfused brain voxels and all voxels of lesions, (x, y, z)."""
    return phantom.mask & ((phantom.cbf > MIN_CBF) | (phantom.lesions > 0))


def strata(phantom: Phantom) -> dict[str, MaskImage]:
    """Return the regions in which errors are averaged; only "brain" includes lesions."""
    healthy = phantom.mask & (phantom.lesions == 0) & (phantom.cbf > MIN_CBF)
    tissue = {
        "brain": phantom.mask & (phantom.cbf > MIN_CBF),
        "GM": healthy & (phantom.gm > MIN_TISSUE_FRACTION),
        "WM": healthy & (phantom.wm > MIN_TISSUE_FRACTION),
        "boundary": healthy & (np.minimum(phantom.gm, phantom.wm) > MIN_BOUNDARY_FRACTION),
    }
    lesions = {n: phantom.mask & (phantom.lesions == i) for i, n in LESION_CLASSES.items() if i}
    return tissue | lesions


def are_estimated(maps: ParameterMaps, scored: MaskImage) -> dict[str, NDArray[np.bool_]]:
    """Return whether estimates are finite and ATT is not at its bounds, (voxels,)."""
    cbf, att = maps.cbf[scored], maps.att[scored]
    low, high = ATT_BOUNDS_S
    is_inside = (att > low + AT_BOUND_S) & (att < high - AT_BOUND_S)
    return {"cbf": np.isfinite(cbf), "att": np.isfinite(att) & is_inside}


def crop_phantom(phantom: Phantom, box: tuple[slice, ...]) -> Phantom:
    """Crop a phantom to a box, with the same name."""
    maps = {f.name: getattr(phantom, f.name)[box] for f in fields(Tissue)}
    return replace(phantom, **maps)


def _without_background(series: AslSeries) -> AslSeries:
    return replace(series, delta_m=np.where(series.mask[..., None], series.delta_m, np.nan))


def _for_pictures(maps: ParameterMaps) -> ParameterMaps:
    """Remove the arterial maps and set unknown standard deviations to 0."""
    known = {name: np.nan_to_num(getattr(maps, name)) for name in ("cbf_std", "att_std")}
    return replace(maps, abv=None, abat=None, **known)
