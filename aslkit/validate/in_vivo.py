"""One in-vivo scan -> metrics without truth: left-out repeats, repeatability, consistency.

Maps come from one half of the repeats, and the other half evaluates them. Least squares on all
repeats is not a truth: it only defines regions and is shown for comparison.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from aslkit.bids.reference_maps import read_reference
from aslkit.core.errors import InputError
from aslkit.core.series_and_maps import AslSeries, MaskImage
from aslkit.fit.settings import Arterial, FreeAtt, choose_settings
from aslkit.prepare.outliers import PairScore
from aslkit.prepare.pipeline import Prepared
from aslkit.prepare.series import repeat_counts
from aslkit.quality.figures import quality_figures
from aslkit.quality.thresholds import THRESHOLDS, rated_figures
from aslkit.validate.agreement_stats import Interval
from aslkit.validate.custom_estimators import wrap_estimators
from aslkit.validate.estimators import (
    Benchmark,
    Estimator,
    Stopwatch,
    least_squares,
    load_networks,
    log_excluded_models,
    select_covering,
)
from aslkit.validate.records import (
    LS,
    LS_ARTERIAL,
    QUANTITIES,
    Record,
    Row,
    is_model,
    to_frame,
    to_records,
    values_in,
)
from aslkit.validate.scan_estimates import (
    Maps,
    ScanEstimates,
    agreement_rows,
    interval_row,
    reference_rows,
    scan_records,
)
from aslkit.validate.split_half import consistency, random_halves, split_records

QUALITY = "quality"  # stratum of the quality figures with thresholds
MEAN = "mean over the mask"
FIGURE = ("n_repeats", "estimator", "stratum", "quantity", "metric")  # columns that name a figure
ENDS = ("value", "low", "high")


@dataclass(frozen=True)
class ScanResult:
    """Maps of a scan, and the results of its validation."""

    scan: ScanEstimates
    benchmark: Benchmark


def validate_run(
    prepared: Prepared,
    models: Sequence[str] = (),
    macrovascular: str = "auto",
    seed: int = 0,
    name: str = "scan",
    reference: Path | None = None,
    estimators: Mapping[str, Estimator] | None = None,
) -> ScanResult:
    """Evaluate least squares, models and other estimators on one scan without truth.

    Parameters
    ----------
    prepared : Prepared
        The scan, from `aslkit.prepare.pipeline.prepare_runs`.
    models : sequence of str
        Names or folders of trained models.
    macrovascular : str
        Arterial compartment of the models: "on", "off" or "auto". Least squares runs with and
        without it.
    seed : int
        Seed of the random splits of the repeats.
    reference : Path, optional
        Folder with maps of another program (see `aslkit.bids.reference_maps`).
    estimators : mapping of name to function, optional
        Functions from an `AslSeries` to `ParameterMaps`, evaluated beside the models.

    Raises
    ------
    InputError
        When the scan has a single delay or no matching reference map, a name of `estimators` is
        taken, or one returns wrong maps.
    UnavailableError
        When a model is unknown.
    """
    runs, series = prepared.runs, prepared.series
    if series.acquisition.n_timings < 2:
        raise InputError(
            runs[0].source,
            "PostLabelingDelay",
            found="one delay",
            expected="at least two, to estimate CBF and ATT",
            fix="leave this scan out",
        )
    external = (
        read_reference(reference, name, series.mask.shape, series.affine) if reference else None
    )
    compared = _estimators(series, models, macrovascular, estimators or {})
    stopwatch = Stopwatch()
    maps = {name: stopwatch.run(name, e, series) for name, e in compared.items()}
    usable = _usable(series, maps)
    own = _references(maps, series, macrovascular)
    scan = ScanEstimates(name, tuple(runs), series, macrovascular, maps, own, usable, external)
    counts = [n for run in runs for n in repeat_counts(run)]
    table = scan_records(scan, max(counts), _rows_of_all(scan, _outlier_percent(prepared.scores)))
    for i, drawn in enumerate(random_halves(max(counts), seed) if min(counts) > 1 else ()):
        table += split_records(scan, compared, stopwatch, drawn, is_first=i == 0)
    return ScanResult(scan, Benchmark(_average_splits(table), [], [], stopwatch.speeds))


def _estimators(
    series: AslSeries,
    models: Sequence[str],
    macrovascular: str,
    custom: Mapping[str, Estimator],
) -> dict[str, Estimator]:
    found = {LS: least_squares("off")}
    if series.acquisition.has_arterial_signal or macrovascular == "on":
        found[LS_ARTERIAL] = least_squares("on")
    own = load_networks(models, macrovascular)
    fitting = select_covering(own, series.acquisition)
    log_excluded_models("this scan", sorted(own.keys() - fitting.keys()))
    return found | fitting | wrap_estimators(custom, own.keys())


def _references(maps: Maps, series: AslSeries, macrovascular: str) -> dict[str, str]:
    """Return the least squares with the same compartments as each estimator."""
    own = LS_ARTERIAL if choose_settings(series.acquisition, macrovascular).has_arterial else LS
    return {e: own if is_model(e) else e for e in maps}


def _usable(series: AslSeries, maps: Maps) -> MaskImage:
    """Return the voxels of the mask with finite signal and estimates, (x, y, z)."""
    finite = series.usable
    for m in maps.values():
        finite = finite & np.isfinite(m.cbf) & np.isfinite(m.att)
    return finite


def _outlier_percent(scores: Sequence[PairScore]) -> float | None:
    """Return the percentage of rejected pairs; None if no pair has a score."""
    is_rejected = [s.is_rejected for s in scores if np.isfinite(s.z)]
    return 100 * float(np.mean(is_rejected)) if is_rejected else None


def _rows_of_all(scan: ScanEstimates, outlier_percent: float | None) -> Iterator[Row]:
    """Compare all maps with least squares and reference maps, and compute quality figures."""
    for name, maps in scan.maps.items():
        ls = scan.maps[scan.reference[name]]
        yield from agreement_rows(scan, name, maps, vars(ls), LS)
        for q, shown in QUANTITIES.items():
            found = Interval(float(values_in(getattr(maps, q), scan.mask, q).mean()))
            yield interval_row(name, "mask", q, MEAN, shown.unit, found, scan.mask)
        yield from reference_rows(scan, name, maps)
    yield from consistency(scan, scan.maps)
    yield from _quality_rows(scan, outlier_percent)


def _quality_rows(scan: ScanEstimates, outlier_percent: float | None) -> Iterator[Row]:
    """Compute the quality figures that have thresholds."""
    for name, maps in scan.maps.items():
        settings = FreeAtt() if maps.abv is None else Arterial()
        figures = quality_figures(scan.series, maps, settings)
        for figure, value in rated_figures(figures, scan.series, outlier_percent).items():
            found = Interval(float("nan") if value is None else value)
            label = THRESHOLDS[figure].label
            yield interval_row(name, QUALITY, "cbf", label, "", found, scan.series.mask)


def _average_splits(table: Sequence[Record]) -> list[Record]:
    """Average the lines of one figure that come from different splits of the repeats."""
    frame = to_frame(table)
    groups = frame.groupby(list(FIGURE), sort=False)
    means = groups[list(ENDS)].agg(lambda column: column.mean(skipna=False))
    averaged = groups.first().assign(**dict(means.items())).reset_index()
    return to_records(averaged[list(frame)])
