"""Phantoms x conditions -> estimates by every method against truth, scored and checked."""

from collections.abc import Mapping, Sequence
from itertools import groupby
from operator import itemgetter
from pathlib import Path

from aslkit.core.acquisition import REFERENCE_SIGNAL, Acquisition
from aslkit.core.progress import Progress
from aslkit.core.series_and_maps import voxel_size_mm
from aslkit.simulate.phantoms import Phantom, find_phantoms, load_phantom
from aslkit.simulate.subject_physics import SubjectPhysics
from aslkit.validate.baselines import models_for, opponents
from aslkit.validate.design import BRAINS, FULL, MATCHED, Condition, Design, most_typical
from aslkit.validate.detection import detection_rows
from aslkit.validate.estimators import (
    Benchmark,
    Estimator,
    Example,
    NetworkEstimator,
    Stopwatch,
    tell_left_out,
    that_cover,
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
    Gate,
    combine,
    efficient_ls,
    own_voxels,
    requested_snr,
    scale_equivariance,
    subject_gates,
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

Findings = tuple[list[Record], list[Gate]]


def validate_phantoms(
    folder: Path, models: Sequence[str] = (), design: Design = FULL, progress: Progress = iter
) -> Benchmark:
    """Score least squares in all its forms and models on every phantom of a folder.

    Parameters
    ----------
    folder : Path
        Phantoms as `asl_sim` saves them; those whose names begin alike are scored together.
    models : sequence of str
        Names or folders of trained models.
    progress : callable
        Wraps the sequence of steps, and the estimators of each step, as tqdm does.

    Raises
    ------
    InputError
        When there is no phantom.
    UnavailableError
        When a model is unknown.
    """
    sets = phantom_sets(folder)
    first = next(iter(sets))
    networks = {track: models_for(track, models, design.mc_dropout) for track in design.tracks}
    stopwatch = Stopwatch()
    table: list[Record] = []
    gates: dict[str, list[Gate]] = {}
    examples: list[Example] = []
    left_out: dict[str, set[str]] = {}
    tasks = progress(list(design.tasks(sets)))
    for condition, group in groupby(tasks, key=itemgetter(0)):
        own = networks[condition.track]
        trials = [run_trial(p, condition, own, stopwatch, progress) for _, p in group]
        others = own.keys() - trials[0].maps.keys()
        left_out.setdefault(condition.protocol, set()).update(others)
        trials, sigmas = with_best_smoothing(trials, condition.quantities)
        found, gates[condition.title] = _judged(condition, trials)
        table += found + records(condition.fields, sigmas)
        if condition.phantoms == first and condition.snr == most_typical(design.snrs):
            examples.append(example_of(max(trials, key=n_lesion_classes), condition))
    for condition in progress(list(design.typical(first))):
        found, gates[f"{condition.title}, invariance"] = _invariance(
            condition, middle_slices(sets[first][0]), networks[condition.track], progress
        )
        table += found
    for protocol, names in left_out.items():
        tell_left_out(protocol, sorted(names))
    judged = models_for(MATCHED, models) if design.n_spoilt else {}
    for condition in design.spoilt(first):
        table += _detection(condition, sets[first], judged, design.n_spoilt, progress)
    return Benchmark(table, combine(gates), examples, stopwatch.speeds)


def phantom_sets(folder: Path) -> dict[str, list[Phantom]]:
    """The phantoms of a folder by the first part of their names, brains first.

    Those whose voxels are of another size than the first one's are a set of their own.
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


def _judged(condition: Condition, trials: Sequence[Trial]) -> Findings:
    """All figures of merit of a condition, and whether its gates hold."""
    subjects = [subject_of(t) for t in trials]
    quantities = condition.quantities
    gates = [
        requested_snr(condition.snr, REFERENCE_SIGNAL, [t.noise for t in trials]),
        *subject_gates(subjects, quantities),
        *own_voxels(subjects, quantities, condition.snr),
    ]
    if condition.is_regular:
        gates += efficient_ls(subjects, quantities, condition.snr)
    return records(condition.fields, score(subjects, quantities, condition.seed)), gates


def _invariance(
    condition: Condition,
    phantom: Phantom,
    models: Mapping[str, NetworkEstimator],
    progress: Progress,
) -> Findings:
    """How CBF follows the scale of the signal and the field of view."""
    series, inside = simulated(phantom, condition), strata(phantom)["brain"]
    estimators = opponents(condition.physics(phantom), series.acquisition, condition.track)
    own = that_cover(models, series.acquisition)
    estimators |= own
    scaled = scale_deviations(series, inside, estimators, progress)
    seed = condition.noise_seed(phantom)
    filled = fill_deviations(series, inside, estimators, condition.snr, seed, progress)
    rows = [*scale_rows(scaled), *fill_rows(filled)]
    promised = {name: d for name, d in scaled.items() if name not in own or own[name].scales}
    return records(condition.fields, rows), [scale_equivariance(promised)]


def _detection(
    condition: Condition,
    phantoms: Sequence[Phantom],
    models: Mapping[str, NetworkEstimator],
    n_scans: int,
    progress: Progress,
) -> list[Record]:
    """How well scans with an artefact are told from clean ones."""
    middles = [middle_slices(phantom) for phantom in phantoms]

    def estimators(stated: Acquisition) -> dict[str, Estimator]:
        known = opponents(SubjectPhysics(stated), stated, condition.track)
        return {LS: known[LS], **that_cover(models, stated)}

    rows = detection_rows(
        middles,
        condition.acquisition,
        condition.snr,
        estimators,
        n_scans,
        condition.seed,
        progress,
    )
    return records(condition.fields, rows)
