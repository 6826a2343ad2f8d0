"""Scored voxels of the subjects of one condition -> one row per figure of merit."""

from collections.abc import Callable, Iterator, Sequence
from functools import partial

import numpy as np

from aslkit.core.metric_names import coverage_at
from aslkit.validate import metrics
from aslkit.validate.metrics import FloatArray
from aslkit.validate.records import (
    BOUND,
    LEVELS,
    LS,
    QUANTITIES,
    Pool,
    Row,
    Subject,
    cramer_rao_mae,
    efficiency,
    pool_voxels,
    scored_strata,
    win_rate,
)

ValueAndLimits = tuple[float, float, float]  # value, lower and upper limit of its 95 % interval
Figure = tuple[str, str, ValueAndLimits]  # metric, unit and value


def score(subjects: Sequence[Subject], quantities: Sequence[str], seed: int) -> Iterator[Row]:
    """Compute all figures of merit of all estimators, strata and quantities.

    `seed` is that of the bootstrap of each interval, so intervals do not depend on the other
    estimators.
    """
    for stratum in scored_strata(subjects):
        for estimator in subjects[0].estimates:
            for quantity in quantities:
                pool = pool_voxels(subjects, stratum, estimator, quantity)
                yield from _rows(pool, estimator, stratum, quantity, seed)
        for quantity in quantities:
            yield _bound_row(pool_voxels(subjects, stratum, LS, quantity), stratum, quantity)
    for estimator in subjects[0].estimates:
        yield from _contrast_rows(subjects, estimator)
        for quantity in quantities:
            yield from _pairwise_rows(subjects, estimator, quantity, seed)


def _rows(pool: Pool, estimator: str, stratum: str, quantity: str, seed: int) -> Iterator[Row]:
    figures = [*_accuracy(pool, QUANTITIES[quantity].unit, seed), *_uncertainty(pool, quantity)]
    if estimator != LS:
        figures += _against_ls(pool, seed)
    for metric, unit, value in figures:
        yield _row(pool, estimator, stratum, quantity, metric, unit, value)


def _row(
    pool: Pool,
    estimator: str,
    stratum: str,
    quantity: str,
    metric: str,
    unit: str,
    value: ValueAndLimits,
) -> Row:
    n_voxels, n_subjects = sum(len(t) for t in pool.truth), len(pool.truth)
    return Row(estimator, stratum, quantity, metric, unit, *value, n_voxels, n_subjects)


def _accuracy(pool: Pool, unit: str, seed: int) -> Iterator[Figure]:
    """Compare estimates with the truth and with the Cramér-Rao bound."""
    estimate, truth = np.concatenate(pool.estimate), np.concatenate(pool.truth)
    for name, function in metrics.ACCURACY.items():
        value = _without_interval(function(estimate, truth))
        if name == "MAE":
            counts = np.array([len(t) for t in pool.truth], dtype=np.float64)
            limits = metrics.bootstrap_interval(_absolute(pool.errors), counts, _rng(seed))
            value = (value[0], *limits)
        yield name, "" if name in DIMENSIONLESS else unit, value
    yield "MAE / Cramér-Rao", "", _without_interval(efficiency(pool))


def _uncertainty(pool: Pool, quantity: str) -> Iterator[Figure]:
    """Compare errors with the standard deviations that the estimator reports."""
    error, sd = np.concatenate(pool.errors), np.concatenate(pool.sd)
    units = {"CRPS": QUANTITIES[quantity].unit, "NLL": "nats"}
    for name, function in UNCERTAINTY.items():
        yield name, units.get(name, ""), _without_interval(function(error, sd))
    if pool.confidence:
        distrust = 1 - np.concatenate(pool.confidence)
        yield BY_CONFIDENCE, "", _without_interval(metrics.auroc_of_large_errors(error, distrust))
    yield "share estimated", "", _without_interval(float(np.concatenate(pool.is_estimated).mean()))


def _against_ls(pool: Pool, seed: int) -> Iterator[Figure]:
    errors, reference = _absolute(pool.errors), _absolute(pool.reference_errors)
    yield "MAE / LS", "", _with_interval(errors, reference, seed)
    yield "win rate", "", _with_interval(*win_rate(pool), seed)


def _pairwise_rows(
    subjects: Sequence[Subject], estimator: str, quantity: str, seed: int
) -> Iterator[Row]:
    """Compute the win rate (0-1) over each other estimator, in the whole brain."""
    for reference in subjects[0].estimates:
        if reference != estimator:
            pool = pool_voxels(subjects, "brain", estimator, quantity, reference)
            value = _with_interval(*win_rate(pool), seed)
            yield _row(pool, estimator, "brain", quantity, f"win rate over {reference}", "", value)


def _bound_row(pool: Pool, stratum: str, quantity: str) -> Row:
    return Row(
        estimator=BOUND,
        stratum=stratum,
        quantity=quantity,
        metric="MAE",
        unit=QUANTITIES[quantity].unit,
        value=cramer_rao_mae(pool),
        n_voxels=int(sum(np.isfinite(b).sum() for b in pool.bound)),
        n_subjects=len(pool.bound),
    )


def _contrast_rows(subjects: Sequence[Subject], estimator: str) -> Iterator[Row]:
    """Compute the ratio of GM to WM CBF, divided by the true ratio; 1 is perfect."""
    if not {"GM", "WM"} <= set(scored_strata(subjects)):
        return
    gm, wm = (pool_voxels(subjects, s, estimator, "cbf") for s in ("GM", "WM"))
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


def _absolute(errors: Sequence[FloatArray]) -> FloatArray:
    """Compute the sum of |error| of each subject, (subjects,)."""
    return np.array([np.abs(e).sum() for e in errors])


def _without_interval(value: float) -> ValueAndLimits:
    return value, float("nan"), float("nan")


def _with_interval(numerators: FloatArray, denominators: FloatArray, seed: int) -> ValueAndLimits:
    low, high = metrics.bootstrap_interval(numerators, denominators, _rng(seed))
    total = float(denominators.sum())
    return (float(numerators.sum()) / total if total else float("nan")), low, high


def _rng(seed: int) -> np.random.Generator:
    return np.random.default_rng(seed)


BY_CONFIDENCE = "AUROC of large errors by confidence"
DIMENSIONLESS = ("R2", "CCC", "slope")
UNCERTAINTY: dict[str, Callable[[FloatArray, FloatArray], float]] = {
    **{coverage_at(level): partial(metrics.coverage, level=level) for level in LEVELS},
    "CRPS": metrics.crps,
    "NLL": metrics.negative_log_likelihood,
    "AUROC of large errors": metrics.auroc_of_large_errors,
}
