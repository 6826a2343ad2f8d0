"""Phantoms x protocols x SNRs -> estimates by every method against truth, scored and checked.

All estimators see the very same simulated series. The track is the matched one: estimators and
simulator share all constants, and there is no arterial signal.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import groupby, product
from operator import itemgetter
from pathlib import Path
from zlib import crc32

import numpy as np

from aslkit.acquisition import Acquisition
from aslkit.benchmark import (
    TRUTH,
    Benchmark,
    Estimator,
    Example,
    Progress,
    Stopwatch,
    least_squares,
    networks,
)
from aslkit.errors import InputError
from aslkit.fitting import FitSettings, cramer_rao_sd
from aslkit.gates import (
    Gate,
    combine,
    efficient_ls,
    requested_snr,
    scale_equivariance,
    subject_gates,
)
from aslkit.images import AslSeries, FloatImage, MaskImage
from aslkit.lesions import LESION_CLASSES
from aslkit.metrics import ScaleDeviation, Values, scale_deviation
from aslkit.phantoms import Phantom, find_phantoms, load_phantom
from aslkit.scoring import (
    LS,
    Record,
    Row,
    Subject,
    in_table_units,
    records,
    score,
    sds_in_table_units,
    values_in,
)
from aslkit.simulation import (
    PROTOCOLS,
    REFERENCE_SIGNAL,
    clean_signal,
    noise_sd,
    simulate_series,
    truth_maps,
)
from aslkit.subjects import SubjectPhysics

DEFAULT_PROTOCOLS = ("joint6", "pcasl6")
DEFAULT_SNRS = (3.0, 10.0, 30.0)
QUANTITIES = ("cbf", "att")
SCALE_FACTORS = (0.1, 0.3, 3.0, 10.0)
LOWEST_CBF = 5.0  # [ml/100 g/min] of the truth; below it ATT means nothing
PURE = 0.8  # tissue fraction above which a voxel counts as grey or white matter
MIXED = 0.2  # fraction of each above which it counts as boundary between them


@dataclass(frozen=True)
class Condition:
    """One cell of the benchmark: which phantoms, measured how, with how much noise."""

    phantoms: str
    protocol: str
    snr: float
    kinetic: str

    @property
    def fields(self) -> dict[str, str | float]:
        """As columns of the tidy table."""
        own = {"phantoms": self.phantoms, "protocol": self.protocol, "kinetic": self.kinetic}
        return {"track": "matched", **own, "snr": self.snr}

    @property
    def title(self) -> str:
        """For people."""
        return f"{self.phantoms} phantoms, {self.protocol}, SNR {self.snr:g}"

    def acquisition(self, phantom: Phantom) -> Acquisition:
        """All runs of the protocol together, for the slices of a phantom."""
        joint = PROTOCOLS[self.protocol].acquisition(phantom.mask.shape[2])
        return replace(joint, kinetic=self.kinetic)

    def noise_seed(self, phantom: Phantom, seed: int) -> int:
        """Depends on seed, phantom, protocol and SNR alone, not on what else is run."""
        key = f"{seed} {phantom.name} {self.protocol} {self.snr:g}"
        return crc32(key.encode())


@dataclass(frozen=True)
class Trial:
    """One phantom in one condition: the scored voxels, the noise that was added, the maps."""

    subject: Subject
    noise: FloatImage
    example: Example


def validate_phantoms(
    folder: Path,
    models: Sequence[str] = (),
    protocols: Sequence[str] = DEFAULT_PROTOCOLS,
    snrs: Sequence[float] = DEFAULT_SNRS,
    seed: int = 0,
    kinetic: str = "single",
    progress: Progress = iter,
) -> Benchmark:
    """Score least squares and models on every phantom of a folder.

    Parameters
    ----------
    folder : Path
        Phantoms as `asl_sim` saves them; those whose names begin alike are scored together.
    models : sequence of str
        Names or folders of trained models.
    protocols : sequence of str
        Keys of `aslkit.simulation.PROTOCOLS`.
    seed : int
        Of the noise.
    progress : callable
        Wraps the sequence of steps, as tqdm does.

    Raises
    ------
    InputError
        When there is no phantom, or a protocol is unknown.
    UnavailableError
        When a model is unknown.
    """
    _check_protocols(protocols)
    sets = phantom_sets(folder)
    settings = FitSettings(macrovascular="off")
    estimators = {LS: least_squares(settings, "off")} | networks(models, settings)
    stopwatch = Stopwatch()
    conditions = [Condition(*c, kinetic) for c in product(sets, protocols, snrs)]
    tasks = [(c, phantom) for c in conditions for phantom in sets[c.phantoms]]
    table: list[Record] = []
    gates: dict[str, list[Gate]] = {}
    examples: list[Example] = []
    for condition, group in groupby(progress(tasks), key=itemgetter(0)):
        trials = [run_trial(p, condition, estimators, stopwatch, seed) for _, p in group]
        table += _score(condition, [t.subject for t in trials], seed)
        gates[condition.title] = _check(condition, trials)
        examples.append(trials[0].example)
    first = next(iter(sets))
    for protocol in protocols:
        condition = Condition(first, protocol, snrs[len(snrs) // 2], kinetic)
        deviations = scale_deviations(sets[first][0], condition, estimators, seed)
        table += _scale_records(condition, deviations)
        gates[f"{condition.title}, scaled"] = [scale_equivariance(deviations)]
    return Benchmark(table, combine(gates), examples, stopwatch.speeds)


def phantom_sets(folder: Path) -> dict[str, list[Phantom]]:
    """The phantoms of a folder by the first part of their names, brains first."""
    sets: dict[str, list[Phantom]] = {}
    for path in sorted(
        find_phantoms(folder), key=lambda p: (not p.name.startswith("brain"), p.name)
    ):
        phantom = load_phantom(path)
        sets.setdefault(phantom.name.split("-")[0], []).append(phantom)
    return sets


def run_trial(
    phantom: Phantom,
    condition: Condition,
    estimators: Mapping[str, Estimator],
    stopwatch: Stopwatch,
    seed: int,
) -> Trial:
    """Simulate one series and let every estimator meet it."""
    series = _simulated(phantom, condition, seed)
    maps = {name: stopwatch.run(name, e, series) for name, e in estimators.items()}
    truth = truth_maps(phantom)
    scored = scored_voxels(phantom)
    bounds = cramer_rao_sd(truth, series.acquisition, noise_sd(condition.snr))
    subject = Subject(
        name=phantom.name,
        truth=in_table_units(truth, scored),
        strata={name: inside[scored] for name, inside in strata(phantom).items()},
        estimates={name: in_table_units(m, scored) for name, m in maps.items()},
        sds={name: sds_in_table_units(m, scored) for name, m in maps.items()},
        bounds={q: values_in(b, scored, q) for q, b in zip(QUANTITIES, bounds, strict=True)},
    )
    noise = (series.delta_m - clean_signal(phantom, SubjectPhysics(series.acquisition)))[
        phantom.mask
    ]
    title = f"{phantom.name}, {condition.protocol}, SNR {condition.snr:g}"
    example = Example(title, condition.fields, {TRUTH: truth, **maps}, phantom.mask)
    return Trial(subject, noise, example)


def scored_voxels(phantom: Phantom) -> MaskImage:
    """Brain voxels with perfusion, and all of every lesion."""
    return phantom.mask & ((phantom.cbf > LOWEST_CBF) | (phantom.lesions > 0))


def strata(phantom: Phantom) -> dict[str, MaskImage]:
    """Where errors are averaged; tissue strata leave lesions out, "brain" has everything."""
    healthy = phantom.mask & (phantom.lesions == 0) & (phantom.cbf > LOWEST_CBF)
    tissue = {
        "brain": phantom.mask & (phantom.cbf > LOWEST_CBF),
        "GM": healthy & (phantom.gm > PURE),
        "WM": healthy & (phantom.wm > PURE),
        "boundary": healthy & (np.minimum(phantom.gm, phantom.wm) > MIXED),
    }
    lesions = {n: phantom.mask & (phantom.lesions == i) for i, n in LESION_CLASSES.items() if i}
    return tissue | lesions


def scale_deviations(
    phantom: Phantom, condition: Condition, estimators: Mapping[str, Estimator], seed: int
) -> dict[str, list[ScaleDeviation]]:
    """How each estimator's CBF follows a signal and noise scaled together, factor by factor."""
    series = _simulated(phantom, condition, seed)
    inside = strata(phantom)["brain"]
    found: dict[str, list[ScaleDeviation]] = {}
    for name, estimator in estimators.items():
        cbf = _cbf(estimator, series, inside)
        chosen = cbf != 0
        found[name] = [
            scale_deviation(cbf[chosen], _cbf(estimator, _scaled(series, k), inside)[chosen], k)
            for k in SCALE_FACTORS
        ]
    return found


def _simulated(phantom: Phantom, condition: Condition, seed: int) -> AslSeries:
    noise_seed = condition.noise_seed(phantom, seed)
    return simulate_series(phantom, condition.acquisition(phantom), condition.snr, noise_seed)


def _scaled(series: AslSeries, factor: float) -> AslSeries:
    return replace(series, delta_m=series.delta_m * np.float32(factor))


def _cbf(estimator: Estimator, series: AslSeries, inside: MaskImage) -> Values:
    return estimator(series).cbf[inside].astype(np.float64)


def _score(condition: Condition, subjects: Sequence[Subject], seed: int) -> list[Record]:
    rows = score(subjects, QUANTITIES, np.random.default_rng(seed))
    return records(condition.fields, rows)


def _check(condition: Condition, trials: Sequence[Trial]) -> list[Gate]:
    subjects = [t.subject for t in trials]
    return [
        requested_snr(condition.snr, REFERENCE_SIGNAL, [t.noise for t in trials]),
        *subject_gates(subjects, QUANTITIES),
        *efficient_ls(subjects, QUANTITIES, condition.snr),
    ]


def _scale_records(
    condition: Condition, deviations: Mapping[str, Sequence[ScaleDeviation]]
) -> list[Record]:
    """Slope and worst deviation of every factor, as lines of the tidy table."""
    rows = [
        Row(name, "brain", "cbf", f"scale x{k:g} {figure}", "", value, n_subjects=1)
        for name, found in deviations.items()
        for k, d in zip(SCALE_FACTORS, found, strict=True)
        for figure, value in (("slope", d.slope), ("deviation 95th percentile", d.p95))
    ]
    return records(condition.fields, rows)


def _check_protocols(protocols: Sequence[str]) -> None:
    known = [name for name, p in PROTOCOLS.items() if p.acquisition(1).n_timings > 1]
    unknown = [name for name in protocols if name not in known]
    if unknown:
        raise InputError(
            "--protocol",
            "",
            found=unknown[0],
            expected=f"one of {', '.join(known)}",
            fix="name a protocol of several delays",
        )
