"""Estimates and truth of some subjects in one condition -> rows of the benchmark's tidy table."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass

import numpy as np
from numpy.typing import NDArray

from aslkit import metrics
from aslkit.images import MaskImage, ParameterMaps
from aslkit.metrics import Values

LEVELS = (0.5, 0.68, 0.8, 0.95)  # nominal central intervals whose coverage is measured
MIN_VOXELS = 20  # a stratum with fewer is left out
LS = "LS"  # the opponent that every estimator is paired with
LS_ARTERIAL = "LS + arterial"
AVERAGE = "average of the repeats"  # in vivo: predicts left-out repeats without any model
BOUND = "Cramér-Rao"  # stands for an efficient voxel-wise estimator in the table

Record = dict[str, str | float]  # one line of a tidy table


@dataclass(frozen=True)
class Quantity:
    """A map as the table shows it: heading, unit, and table units per stored unit."""

    heading: str
    unit: str
    scale: float


@dataclass(frozen=True)
class Subject:
    """What is known and what was estimated about one subject in one condition.

    Attributes
    ----------
    truth : mapping of quantity to array (voxels,)
        In table units (ATT in ms), over the voxels that are scored.
    strata : mapping of name to bool array (voxels,)
    estimates : mapping of estimator to mapping of quantity to array (voxels,)
    sds : the same, the standard deviations that the estimators report.
    bounds : mapping of quantity to array (voxels,)
        Cramér-Rao standard deviation at the true parameters, infinite where undetermined.
    """

    name: str
    truth: Mapping[str, Values]
    strata: Mapping[str, NDArray[np.bool_]]
    estimates: Mapping[str, Mapping[str, Values]]
    sds: Mapping[str, Mapping[str, Values]]
    bounds: Mapping[str, Values]


@dataclass(frozen=True)
class Row:
    """One figure of merit; `low` and `high` bound its 95 % interval over subjects, or are NaN."""

    estimator: str
    stratum: str
    quantity: str
    metric: str
    unit: str
    value: float
    low: float = float("nan")
    high: float = float("nan")
    n_voxels: int = 0
    n_subjects: int = 0


@dataclass(frozen=True)
class Pool:
    """One quantity of one estimator and of LS over one stratum, one array per subject."""

    estimate: Sequence[Values]
    truth: Sequence[Values]
    sd: Sequence[Values]
    ls: Sequence[Values]
    bound: Sequence[Values]

    @property
    def errors(self) -> list[Values]:
        """Estimate minus truth, per subject."""
        return [e - t for e, t in zip(self.estimate, self.truth, strict=True)]

    @property
    def ls_errors(self) -> list[Values]:
        """LS minus truth, per subject."""
        return [e - t for e, t in zip(self.ls, self.truth, strict=True)]


def in_table_units(maps: ParameterMaps, mask: MaskImage) -> dict[str, Values]:
    """Both quantities of the maps at the mask's voxels, float64 and in table units."""
    return {q: values_in(getattr(maps, q), mask, q) for q in QUANTITIES}


def sds_in_table_units(maps: ParameterMaps, mask: MaskImage) -> dict[str, Values]:
    """Their standard deviations, likewise."""
    return {q: values_in(getattr(maps, f"{q}_std"), mask, q) for q in QUANTITIES}


def values_in(image: Values, mask: MaskImage, quantity: str) -> Values:
    """The image at the mask's voxels, float64 and in the quantity's table unit."""
    return image[mask].astype(np.float64) * QUANTITIES[quantity].scale


def score(
    subjects: Sequence[Subject], quantities: Sequence[str], rng: np.random.Generator
) -> Iterator[Row]:
    """Every figure of merit of every estimator, stratum and quantity."""
    for stratum in strata_of(subjects):
        for estimator in subjects[0].estimates:
            for quantity in quantities:
                pool = pool_of(subjects, stratum, estimator, quantity)
                yield from _rows(pool, estimator, stratum, quantity, rng)
            yield from _contrast_rows(subjects, estimator, stratum)
        for quantity in quantities:
            yield _bound_row(pool_of(subjects, stratum, LS, quantity), stratum, quantity)


def records(condition: Mapping[str, str | float], rows: Iterable[Row]) -> list[Record]:
    """Rows as lines of one tidy table, each with the condition that it belongs to."""
    return [{**condition, **asdict(row)} for row in rows]


def lookup(table: Iterable[Record], **where: str | float) -> float:
    """Value of the first line that has these fields; NaN when there is none."""
    found = (r["value"] for r in table if all(r[k] == v for k, v in where.items()))
    return float(next(found, "nan"))


def strata_of(subjects: Sequence[Subject]) -> list[str]:
    """Names of the strata that hold enough voxels to be scored."""
    return [
        name
        for name in subjects[0].strata
        if sum(int(s.strata[name].sum()) for s in subjects) >= MIN_VOXELS
    ]


def pool_of(subjects: Sequence[Subject], stratum: str, estimator: str, quantity: str) -> Pool:
    """The voxels of one stratum of all subjects that have any."""
    chosen = [(s, s.strata[stratum]) for s in subjects if s.strata[stratum].any()]
    return Pool(
        estimate=[s.estimates[estimator][quantity][m] for s, m in chosen],
        truth=[s.truth[quantity][m] for s, m in chosen],
        sd=[s.sds[estimator][quantity][m] for s, m in chosen],
        ls=[s.estimates[LS][quantity][m] for s, m in chosen],
        bound=[s.bounds[quantity][m] for s, m in chosen],
    )


def efficiency(pool: Pool) -> float:
    """Mean absolute error over that of an efficient voxel-wise estimator.

    Voxels where the data do not determine the parameter (an infinite bound) are left out.
    """
    error = np.abs(np.concatenate(pool.errors))[np.isfinite(np.concatenate(pool.bound))]
    return float(error.mean()) / efficient_error(pool) if error.size else float("nan")


def efficient_error(pool: Pool) -> float:
    """Mean absolute error of an efficient estimator, 0.8 x the Cramér-Rao sd, where finite."""
    bound = np.concatenate(pool.bound)
    determined = bound[np.isfinite(bound)]
    return metrics.EFFICIENT_ERROR * float(determined.mean()) if determined.size else float("nan")


def win_rate(pool: Pool) -> tuple[Values, Values]:
    """Voxels won against LS (ties count half) and voxels in all, per subject."""
    pairs = zip(pool.errors, pool.ls_errors, strict=True)
    won = np.array([metrics.wins(mine, theirs).sum() for mine, theirs in pairs])
    return won, np.array([len(t) for t in pool.truth], dtype=np.float64)


def _rows(
    pool: Pool, estimator: str, stratum: str, quantity: str, rng: np.random.Generator
) -> Iterator[Row]:
    n_voxels, n_subjects = sum(len(t) for t in pool.truth), len(pool.truth)
    unit = QUANTITIES[quantity].unit
    for metric, is_dimensionless, (value, low, high) in _figures(pool, estimator, rng):
        yield Row(
            estimator=estimator,
            stratum=stratum,
            quantity=quantity,
            metric=metric,
            unit="" if is_dimensionless else unit,
            value=value,
            low=low,
            high=high,
            n_voxels=n_voxels,
            n_subjects=n_subjects,
        )


def _bound_row(pool: Pool, stratum: str, quantity: str) -> Row:
    return Row(
        estimator=BOUND,
        stratum=stratum,
        quantity=quantity,
        metric="MAE",
        unit=QUANTITIES[quantity].unit,
        value=efficient_error(pool),
        n_voxels=int(sum(np.isfinite(b).sum() for b in pool.bound)),
        n_subjects=len(pool.bound),
    )


Interval = tuple[float, float, float]


def _figures(
    pool: Pool, estimator: str, rng: np.random.Generator
) -> Iterator[tuple[str, bool, Interval]]:
    """Name, whether it has no unit, and value with interval of every figure of a pool."""
    estimate, truth = np.concatenate(pool.estimate), np.concatenate(pool.truth)
    counts = np.array([len(t) for t in pool.truth], dtype=np.float64)
    absolute = np.array([np.abs(e).sum() for e in pool.errors])
    for name, function in metrics.ACCURACY.items():
        value = function(estimate, truth)
        limits = metrics.bootstrap_interval(absolute, counts, rng) if name == "MAE" else _NO_LIMITS
        yield name, name in DIMENSIONLESS, (value, *limits)
    yield "MAE / Cramér-Rao", True, (efficiency(pool), *_NO_LIMITS)
    for level in LEVELS:
        share = metrics.coverage(estimate - truth, np.concatenate(pool.sd), level)
        yield f"coverage {100 * level:.0f} %", True, (share, *_NO_LIMITS)
    if estimator != LS:
        rival = np.array([np.abs(e).sum() for e in pool.ls_errors])
        yield "MAE / LS", True, _with_interval(absolute, rival, rng)
        yield "win rate", True, _with_interval(*win_rate(pool), rng)


def _with_interval(numerators: Values, denominators: Values, rng: np.random.Generator) -> Interval:
    low, high = metrics.bootstrap_interval(numerators, denominators, rng)
    total = float(denominators.sum())
    return (float(numerators.sum()) / total if total else float("nan")), low, high


def _contrast_rows(subjects: Sequence[Subject], estimator: str, stratum: str) -> Iterator[Row]:
    """Recovered GM/WM contrast of CBF (1 is perfect), once, with the whole-brain stratum."""
    if stratum != "brain" or not {"GM", "WM"} <= set(strata_of(subjects)):
        return
    gm, wm = (pool_of(subjects, s, estimator, "cbf") for s in ("GM", "WM"))
    found = np.concatenate(gm.estimate).mean() / np.concatenate(wm.estimate).mean()
    true = np.concatenate(gm.truth).mean() / np.concatenate(wm.truth).mean()
    yield Row(
        estimator=estimator,
        stratum="brain",
        quantity="cbf",
        metric="GM/WM contrast recovered",
        unit="",
        value=float(found / true),
        n_voxels=sum(len(t) for t in (*gm.truth, *wm.truth)),
        n_subjects=len(subjects),
    )


_NO_LIMITS = (float("nan"), float("nan"))
DIMENSIONLESS = ("R2", "CCC", "slope")
QUANTITIES = {
    "cbf": Quantity("CBF", "ml/100 g/min", 1.0),
    "att": Quantity("ATT", "ms", 1000.0),
}
