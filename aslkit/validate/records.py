"""Maps and truth of subjects -> values of the scored voxels, and lines of a tidy table."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from aslkit.core.series_and_maps import MaskImage, ParameterMaps
from aslkit.validate import metrics
from aslkit.validate.metrics import FloatArray

LEVELS = (0.5, 0.68, 0.8, 0.95)  # nominal central intervals whose coverage is measured
MIN_VOXELS = 20  # strata with fewer voxels are left out
LS = "LS"  # the reference estimator: every estimator is compared with it
LS_ARTERIAL = "LS + arterial"
LS_ORACLE = "LS oracle"  # with the true constants of every subject
SMOOTHED_LS = "smoothed LS"  # with the sigma that is closest to the truth
AVERAGE = "average of the repeats"  # in vivo: prediction of left-out repeats without a model
BOUND = "Cramér-Rao"  # expected error of an efficient voxel-wise estimator

BASELINES = (LS, LS_ARTERIAL, LS_ORACLE, SMOOTHED_LS, AVERAGE, BOUND)  # of every benchmark

Record = dict[str, str | float]  # one line of a tidy table


@dataclass(frozen=True)
class Quantity:
    """Heading and unit of a map in tables; stored values times `scale` have this unit."""

    heading: str
    unit: str
    scale: float


@dataclass(frozen=True)
class Subject:
    """Truth and estimates of the scored voxels of one subject in one condition.

    All values are in table units (CBF in ml/100 g/min, ATT in ms).

    Attributes
    ----------
    truth : mapping of quantity to array (voxels,)
    strata : mapping of name to bool array (voxels,)
    estimates : mapping of estimator to mapping of quantity to array (voxels,)
    sds : mapping of estimator to mapping of quantity to array (voxels,)
        Standard deviations that the estimators report.
    is_estimated : mapping of estimator to mapping of quantity to bool array (voxels,)
        Whether the estimate is finite and not at its bounds.
    bounds : mapping of quantity to array (voxels,)
        Cramér-Rao standard deviation at the true parameters, infinite where the data do not
        determine the parameter.
    confidences : mapping of estimator to mapping of quantity to array (voxels,)
        Probability (0-1) that the estimate is close to the truth, of estimators that state it.
    """

    name: str
    truth: Mapping[str, FloatArray]
    strata: Mapping[str, NDArray[np.bool_]]
    estimates: Mapping[str, Mapping[str, FloatArray]]
    sds: Mapping[str, Mapping[str, FloatArray]]
    is_estimated: Mapping[str, Mapping[str, NDArray[np.bool_]]]
    bounds: Mapping[str, FloatArray]
    confidences: Mapping[str, Mapping[str, FloatArray]] = field(default_factory=dict)


@dataclass(frozen=True)
class Row:
    """One figure of merit; `low` and `high` are its 95 % interval, or NaN."""

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
    """One quantity of an estimator and of a reference estimator in one stratum.

    Each field has one array (voxels,) per subject; `confidence` is empty if the estimator does
    not state it.
    """

    estimate: Sequence[FloatArray]
    truth: Sequence[FloatArray]
    sd: Sequence[FloatArray]
    is_estimated: Sequence[NDArray[np.bool_]]
    reference: Sequence[FloatArray]
    bound: Sequence[FloatArray]
    confidence: Sequence[FloatArray]

    @property
    def errors(self) -> list[FloatArray]:
        """Estimate minus truth, one array (voxels,) per subject."""
        return [e - t for e, t in zip(self.estimate, self.truth, strict=True)]

    @property
    def reference_errors(self) -> list[FloatArray]:
        """Reference estimate minus truth, one array (voxels,) per subject."""
        return [e - t for e, t in zip(self.reference, self.truth, strict=True)]


def is_model(estimator: str) -> bool:
    """Return whether an estimator is neither a baseline nor the Cramér-Rao bound."""
    return estimator not in BASELINES


def values_in_table_units(maps: ParameterMaps, mask: MaskImage) -> dict[str, FloatArray]:
    """Return CBF and ATT at the voxels of the mask, (voxels,), float64, in table units."""
    return {q: values_in(getattr(maps, q), mask, q) for q in QUANTITIES}


def sds_in_table_units(maps: ParameterMaps, mask: MaskImage) -> dict[str, FloatArray]:
    """Return the standard deviations of CBF and ATT in the mask, (voxels,), in table units."""
    return {q: values_in(getattr(maps, f"{q}_std"), mask, q) for q in QUANTITIES}


def confidences_in(maps: ParameterMaps, mask: MaskImage) -> dict[str, FloatArray]:
    """Return the probabilities that CBF and ATT are close to the truth, (voxels,)."""
    return {q: getattr(maps, f"{q}_confidence")[mask] for q in QUANTITIES}


def values_in(image: FloatArray, mask: MaskImage, quantity: str) -> FloatArray:
    """Return an image at the voxels of the mask, (voxels,), float64, in table units."""
    return image[mask].astype(np.float64) * QUANTITIES[quantity].scale


def records(condition: Mapping[str, str | float], rows: Iterable[Row]) -> list[Record]:
    """Return rows as lines of the tidy table, with the condition added to each."""
    return [{**condition, **asdict(row)} for row in rows]


def to_frame(table: Sequence[Record]) -> pd.DataFrame:
    """Return the tidy table as a DataFrame, one column per key; see `Benchmark.table`."""
    return pd.DataFrame.from_records(table)


def to_records(frame: pd.DataFrame) -> list[Record]:
    """Return the lines of the tidy table, with Python numbers and strings."""
    return [{str(k): v for k, v in line.items()} for line in frame.to_dict("records")]


def scored_strata(subjects: Sequence[Subject]) -> list[str]:
    """Return the names of the strata with at least `MIN_VOXELS` voxels over all subjects."""
    return [
        name
        for name in subjects[0].strata
        if sum(int(s.strata[name].sum()) for s in subjects) >= MIN_VOXELS
    ]


def pool_voxels(
    subjects: Sequence[Subject], stratum: str, estimator: str, quantity: str, reference: str = LS
) -> Pool:
    """Collect the voxels of one stratum from all subjects that have any."""
    chosen = [(s, s.strata[stratum]) for s in subjects if s.strata[stratum].any()]
    return Pool(
        estimate=[s.estimates[estimator][quantity][m] for s, m in chosen],
        truth=[s.truth[quantity][m] for s, m in chosen],
        sd=[s.sds[estimator][quantity][m] for s, m in chosen],
        is_estimated=[s.is_estimated[estimator][quantity][m] for s, m in chosen],
        reference=[s.estimates[reference][quantity][m] for s, m in chosen],
        bound=[s.bounds[quantity][m] for s, m in chosen],
        confidence=[
            s.confidences[estimator][quantity][m] for s, m in chosen if estimator in s.confidences
        ],
    )


def efficiency(pool: Pool) -> float:
    """Compute the mean absolute error divided by `cramer_rao_mae`, without unit.

    Voxels with an infinite Cramér-Rao bound are left out.
    """
    error = np.abs(np.concatenate(pool.errors))[np.isfinite(np.concatenate(pool.bound))]
    return float(error.mean()) / cramer_rao_mae(pool) if error.size else float("nan")


def cramer_rao_mae(pool: Pool) -> float:
    """Compute the mean absolute error of an efficient estimator, in table units.

    It is 0.8 times the mean Cramér-Rao standard deviation of the voxels where it is finite.
    """
    bound = np.concatenate(pool.bound)
    determined = bound[np.isfinite(bound)]
    return metrics.EFFICIENT_ERROR * float(determined.mean()) if determined.size else float("nan")


def win_rate(pool: Pool) -> tuple[FloatArray, FloatArray]:
    """Count the voxels with a smaller error than the reference, and all voxels, (subjects,).

    Ties count half.
    """
    pairs = zip(pool.errors, pool.reference_errors, strict=True)
    won = np.array([metrics.wins(error, reference).sum() for error, reference in pairs])
    return won, np.array([len(t) for t in pool.truth], dtype=np.float64)


QUANTITIES = {
    "cbf": Quantity("CBF", "ml/100 g/min", 1.0),
    "att": Quantity("ATT", "ms", 1000.0),
}
