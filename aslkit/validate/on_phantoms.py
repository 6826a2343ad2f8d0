"""Phantoms and conditions -> maps by all estimators, compared with the truth, and self-checks."""

from collections.abc import Mapping, Sequence
from itertools import groupby
from operator import itemgetter
from pathlib import Path

from aslkit.core.acquisition import REFERENCE_SIGNAL, Acquisition
from aslkit.core.progress import Progress
from aslkit.core.series_and_maps import voxel_size_mm
from aslkit.simulate.phantoms import Phantom, find_phantoms, load_phantom
from aslkit.simulate.subject_physics import SubjectPhysics
from aslkit.validate.baselines import baseline_estimators, load_networks_for_track
from aslkit.validate.custom_estimators import wrap_estimators
from aslkit.validate.design import BRAINS, FULL, MATCHED, Condition, Design, most_typical_snr
from aslkit.validate.detection import detection_rows
from aslkit.validate.estimators import (
    Benchmark,
    Estimator,
    EvaluatedEstimator,
    Example,
    Stopwatch,
    log_excluded_models,
    select_covering,
)
from aslkit.validate.invariance import (
    fill_deviations,
    fill_rows,
    middle_slices,
    scale_deviations,
    scale_rows,
)
from aslkit.validate.records import LS, Record, records
from aslkit.validate.scores import score
from aslkit.validate.self_checks import (
    SelfCheck,
    check_ls_efficiency,
    check_own_voxels,
    check_requested_snr,
    check_scale_equivariance,
    check_scoring,
    combine_conditions,
)
from aslkit.validate.trials import (
    Trial,
    example_of,
    n_lesion_classes,
    run_trial,
    simulated,
    strata,
    subject_of,
    with_best_smoothing,
)

RecordsAndChecks = tuple[list[Record], list[SelfCheck]]


def validate_phantoms(
    folder: Path,
    models: Sequence[str] = (),
    design: Design = FULL,
    progress: Progress = iter,
    estimators: Mapping[str, Estimator] | None = None,
) -> Benchmark:
    """Compare least squares, models and other estimators with the truth of phantoms.

    Parameters
    ----------
    folder : Path
        Phantoms saved by `asl_sim`; names with the same prefix form a set.
    models : sequence of str
        Names or folders of trained models.
    progress : callable
        Wraps the sequence of steps, and the estimators of each step, for example tqdm.
    estimators : mapping of name to function, optional
        Functions from an `AslSeries` to `ParameterMaps`, evaluated beside the models.

    Raises
    ------
    InputError
        When there is no phantom, a name of `estimators` is taken, or one returns wrong maps.
    UnavailableError
        When a model is unknown.
    """
    sets = phantom_sets(folder)
    first = next(iter(sets))
    networks: dict[str, dict[str, EvaluatedEstimator]] = {
        track: {**load_networks_for_track(track, models, design.mc_dropout)}
        for track in design.tracks
    }
    custom = wrap_estimators(estimators or {}, networks[design.tracks[0]].keys())
    for own in networks.values():
        own |= custom
    stopwatch = Stopwatch()
    table: list[Record] = []
    self_checks: dict[str, list[SelfCheck]] = {}
    examples: list[Example] = []
    left_out: dict[str, set[str]] = {}
    tasks = progress(list(design.tasks(sets)))
    for condition, group in groupby(tasks, key=itemgetter(0)):
        own = networks[condition.track]
        trials = [run_trial(p, condition, own, stopwatch, progress) for _, p in group]
        others = own.keys() - trials[0].maps.keys()
        left_out.setdefault(condition.protocol, set()).update(others)
        trials, sigmas = with_best_smoothing(trials, condition.quantities)
        found, self_checks[condition.title] = _score_condition(condition, trials)
        table += found + records(condition.columns, sigmas)
        if condition.phantoms == first and condition.snr == most_typical_snr(design.snrs):
            examples.append(example_of(max(trials, key=n_lesion_classes), condition))
    for condition in progress(list(design.typical_conditions(first))):
        found, self_checks[f"{condition.title}, invariance"] = _measure_invariance(
            condition, middle_slices(sets[first][0]), networks[condition.track], progress
        )
        table += found
    for protocol, names in left_out.items():
        log_excluded_models(protocol, sorted(names))
    evaluated: dict[str, EvaluatedEstimator] = {}
    if design.n_artefact_scans:
        evaluated |= load_networks_for_track(MATCHED, models)
        evaluated |= custom
    for condition in design.artefact_conditions(first):
        table += _measure_detection(
            condition, sets[first], evaluated, design.n_artefact_scans, progress
        )
    return Benchmark(table, combine_conditions(self_checks), examples, stopwatch.speeds)


def phantom_sets(folder: Path) -> dict[str, list[Phantom]]:
    """Load the phantoms of a folder, by the first part of their names, brains first.

    Phantoms with another voxel size than the first form a separate set.
    """
    sets: dict[str, list[Phantom]] = {}
    for path in sorted(
        find_phantoms(folder), key=lambda p: (not p.name.startswith(BRAINS), p.name)
    ):
        phantom = load_phantom(path)
        kind, size = phantom.name.split("-")[0], _voxel_size_mm(phantom)
        if size != _voxel_size_mm(sets.get(kind, [phantom])[0]):
            kind = f"{kind} {size:g} mm"
        sets.setdefault(kind, []).append(phantom)
    return sets


def _voxel_size_mm(phantom: Phantom) -> float:
    return round(voxel_size_mm(phantom.affine)[0], 3)


def _score_condition(condition: Condition, trials: Sequence[Trial]) -> RecordsAndChecks:
    """Compute all figures of merit of a condition, and run its self-checks."""
    subjects = [subject_of(t) for t in trials]
    quantities = condition.quantities
    self_checks = [
        check_requested_snr(condition.snr, REFERENCE_SIGNAL, [t.noise for t in trials]),
        *check_scoring(subjects, quantities),
        *check_own_voxels(subjects, quantities, condition.snr),
    ]
    if condition.expects_efficient_ls:
        self_checks += check_ls_efficiency(subjects, quantities, condition.snr)
    return records(condition.columns, score(subjects, quantities, condition.seed)), self_checks


def _measure_invariance(
    condition: Condition,
    phantom: Phantom,
    models: Mapping[str, EvaluatedEstimator],
    progress: Progress,
) -> RecordsAndChecks:
    """Measure how CBF depends on the scale of the signal and on the field of view."""
    series, inside = simulated(phantom, condition), strata(phantom)["brain"]
    estimators = baseline_estimators(
        condition.physics(phantom), series.acquisition, condition.track
    )
    own = select_covering(models, series.acquisition)
    estimators |= own
    scaled = scale_deviations(series, inside, estimators, progress)
    seed = condition.noise_seed(phantom)
    filled = fill_deviations(series, inside, estimators, condition.snr, seed, progress)
    rows = [*scale_rows(scaled), *fill_rows(filled)]
    promised = {
        name: d for name, d in scaled.items() if name not in own or own[name].is_scale_equivariant
    }
    return records(condition.columns, rows), [check_scale_equivariance(promised)]


def _measure_detection(
    condition: Condition,
    phantoms: Sequence[Phantom],
    models: Mapping[str, EvaluatedEstimator],
    n_scans: int,
    progress: Progress,
) -> list[Record]:
    """Measure how well scans with an artefact are detected."""
    slabs = [middle_slices(phantom) for phantom in phantoms]

    def estimators(stated: Acquisition) -> dict[str, Estimator]:
        known = baseline_estimators(SubjectPhysics(stated), stated, condition.track)
        return {LS: known[LS], **select_covering(models, stated)}

    rows = detection_rows(
        slabs,
        condition.acquisition,
        condition.snr,
        estimators,
        n_scans,
        condition.seed,
        progress,
    )
    return records(condition.columns, rows)
