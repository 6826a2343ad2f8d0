"""One in-vivo scan -> measures that need no truth: left-out repeats, repeatability, consistency.

Half of the repeats estimate and the other half judge. Least squares on all repeats is no truth; it
serves only to choose regions and to show differences, always with the same compartments.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain

import numpy as np

from aslkit.benchmark import (
    Benchmark,
    Estimator,
    Example,
    Progress,
    Stopwatch,
    least_squares,
    networks,
)
from aslkit.errors import InputError
from aslkit.fitting import FitSettings, fitted_signal
from aslkit.images import AslSeries, Flag, MaskImage, ParameterMaps
from aslkit.metrics import bias, coverage, root_mean_square, spearman
from aslkit.preprocess import n_repeats, select_repeats, series_from_runs
from aslkit.runs import AslRun
from aslkit.scoring import (
    AVERAGE,
    LEVELS,
    LS,
    LS_ARTERIAL,
    QUANTITIES,
    Record,
    Row,
    records,
    values_in,
)

N_SPLITS = 4  # random halves
CONTRAST = "top / bottom tercile of LS CBF"  # ratio of medians
GM_LIKE_CBF = (40.0, 100.0)  # by least squares on all repeats [ml/100 g/min]
PERFUSED = "better-perfused half"  # of the mask, by the mean signal of all repeats
AGREEMENT = 1.96  # limits of agreement in standard deviations

Maps = Mapping[str, ParameterMaps]


@dataclass(frozen=True)
class Scan:
    """All repeats of one scan: series, maps by every estimator, and the voxels that count."""

    name: str
    runs: tuple[AslRun, ...]
    series: AslSeries
    maps: Maps
    reference: Mapping[str, str]
    mask: MaskImage

    def part(self, repeats: Sequence[int]) -> AslSeries:
        """The series of some repeats, with the brain mask of all."""
        chosen = [select_repeats(run, repeats) for run in self.runs]
        return series_from_runs(chosen, self.series.mask)

    @property
    def regions(self) -> dict[str, MaskImage]:
        """The mask, and its half with the larger mean signal of all repeats."""
        signal = self.series.delta_m.mean(axis=3)
        return {"mask": self.mask, PERFUSED: self.mask & (signal > np.median(signal[self.mask]))}


@dataclass(frozen=True)
class Split:
    """Maps from one random part of the repeats, and the mean of those left out."""

    n: int
    maps: Maps
    used: AslSeries
    left_out: AslSeries


def validate_run(
    runs: Sequence[AslRun],
    mask: MaskImage | None = None,
    models: Sequence[str] = (),
    settings: FitSettings = FitSettings(),  # noqa: B008
    seed: int = 0,
    name: str = "scan",
    progress: Progress = iter,
) -> Benchmark:
    """Judge least squares and models on one scan without knowing the truth.

    Parameters
    ----------
    runs : sequence of AslRun
        The runs of one acquisition.
    mask : bool array (x, y, z), optional
        Brain mask; computed when not given.
    models : sequence of str
        Names or folders of trained models.
    settings : FitSettings
        Of the models; least squares runs with and without the arterial compartment.
    seed : int
        Of the random splits of the repeats.

    Raises
    ------
    InputError
        When the scan has a single delay.
    UnavailableError
        When a model is unknown.
    """
    series = series_from_runs(runs, mask)
    if series.acquisition.n_timings < 2:
        raise InputError(
            runs[0].source,
            "PostLabelingDelay",
            found="one delay",
            expected="at least two, to estimate CBF and ATT",
            fix="leave this scan out",
        )
    estimators = _estimators(series, models, settings)
    stopwatch = Stopwatch()
    maps = {e: stopwatch.run(e, estimators[e], series) for e in progress(list(estimators))}
    scan = Scan(
        name, tuple(runs), series, maps, _references(maps, series, settings), _usable(series, maps)
    )
    n_all = min(n_repeats(run) for run in runs)
    table = _records(scan, n_all, _rows_of_all(scan))
    for drawn in progress(_halves(n_all, seed)):
        table += _split_records(scan, estimators, stopwatch, *drawn)
    example = Example(f"{name}, all {n_all} repeats", {"scan": name}, maps, scan.mask)
    return Benchmark(_averaged(table), [], [example], stopwatch.speeds)


def gm_like(maps: ParameterMaps, mask: MaskImage) -> MaskImage:
    """Voxels whose CBF is that of grey matter and whose ATT is determined."""
    low, high = GM_LIKE_CBF
    return mask & (maps.cbf >= low) & (maps.cbf <= high) & (maps.flags == Flag.OK)


def _estimators(
    series: AslSeries, models: Sequence[str], settings: FitSettings
) -> dict[str, Estimator]:
    found = {LS: least_squares(settings, "off")}
    if series.acquisition.has_arterial_signal or settings.has_arterial(series.acquisition):
        found[LS_ARTERIAL] = least_squares(settings, "on")
    return found | networks(models, settings)


def _references(maps: Maps, series: AslSeries, settings: FitSettings) -> dict[str, str]:
    """The least squares with the same compartments, by estimator."""
    own = LS_ARTERIAL if settings.has_arterial(series.acquisition) else LS
    return {e: e if e in (LS, LS_ARTERIAL) else own for e in maps}


def _usable(series: AslSeries, maps: Maps) -> MaskImage:
    """Voxels of the mask where the signal and every estimate are finite."""
    finite = series.mask & np.isfinite(series.delta_m).all(axis=3)
    for m in maps.values():
        finite = finite & np.isfinite(m.cbf) & np.isfinite(m.att)
    return finite


def _halves(n: int, seed: int) -> list[tuple[list[int], list[int]]]:
    """Random disjoint halves of n repeats; none for a single repeat."""
    rng = np.random.default_rng(seed)
    orders = [rng.permutation(n).tolist() for _ in range(N_SPLITS if n > 1 else 0)]
    return [(order[: n // 2], order[n // 2 : 2 * (n // 2)]) for order in orders]


def _split_records(
    scan: Scan,
    estimators: Mapping[str, Estimator],
    stopwatch: Stopwatch,
    first: list[int],
    second: list[int],
) -> list[Record]:
    """Left-out signal from 1, 2 and half of the repeats, and the agreement of both halves."""

    def split(used: list[int], left_out: AslSeries) -> Split:
        series = scan.part(used)
        maps = {name: stopwatch.run(name, e, series) for name, e in estimators.items()}
        return Split(len(used), maps, series, left_out)

    half = len(first)
    other = scan.part(second)
    parts = [split(first[:n], other) for n in sorted({1, min(2, half), half})]
    found = [r for p in parts for r in _records(scan, p.n, _rows_of_part(scan, p))]
    mirrored = split(second, parts[-1].used)
    found += _records(scan, half, _rows_of_part(scan, mirrored))
    one, two = parts[-1].maps, mirrored.maps
    tissue = (_rows_of_tissue(scan, *pair) for pair in ((one, two), (two, one)))
    return found + _records(scan, half, chain(_rows_of_halves(scan, one, two), *tissue))


def _rows_of_part(scan: Scan, split: Split) -> Iterator[Row]:
    """Prediction of the left-out repeats, mean CBF, and share of negative CBF."""
    signals = {AVERAGE: split.used.delta_m} | {
        name: fitted_signal(m, split.used.acquisition) for name, m in split.maps.items()
    }
    for region, inside in scan.regions.items():
        for name, signal in signals.items():
            error = signal[inside] - split.left_out.delta_m[inside]
            value = 100 * root_mean_square(error)
            yield _row(name, region, "delta_m", "left-out RMS", "% of M0", value, inside)
    yield from _consistency(scan, split.maps)


def _rows_of_halves(scan: Scan, one: Maps, two: Maps) -> Iterator[Row]:
    """Agreement of the estimates from two disjoint halves, and what the sds promised."""
    for name in one:
        for q, shown in QUANTITIES.items():
            for region, inside in scan.regions.items():
                a, b = (values_in(getattr(m[name], q), inside, q) for m in (one, two))
                sds = [values_in(getattr(m[name], f"{q}_std"), inside, q) for m in (one, two)]
                rank = spearman(a, b)
                yield _row(name, region, q, "split-half Spearman", "", rank, inside)
                within = root_mean_square(a - b) / np.sqrt(2)
                yield _row(name, region, q, "within-scan sd", shown.unit, within, inside)
                for level in LEVELS:
                    share = coverage(a - b, np.hypot(*sds), level)
                    metric = f"coverage {100 * level:.0f} %"
                    yield _row(name, region, q, metric, "", share, inside)


def _rows_of_tissue(scan: Scan, chooser: Maps, judged: Maps) -> Iterator[Row]:
    """GM-like means and contrast, where LS of other repeats than the judged ones says so."""
    for name, maps in judged.items():
        reference = scan.reference[name]
        cbf, ls = chooser[reference].cbf, judged[reference]
        region = gm_like(chooser[reference], scan.mask)
        for q, shown in QUANTITIES.items() if region.any() else ():
            value, own = (float(values_in(getattr(m, q), region, q).mean()) for m in (maps, ls))
            yield _row(name, "GM-like", q, "mean", shown.unit, value, region)
            yield _row(name, "GM-like", q, "mean / mean of LS", "", value / own, region)
        low, high = np.quantile(cbf[scan.mask], [1 / 3, 2 / 3])
        top, bottom = (np.median(maps.cbf[scan.mask & r]) for r in (cbf >= high, cbf <= low))
        yield _row(name, "mask", "cbf", CONTRAST, "", float(top / bottom), scan.mask)


def _rows_of_all(scan: Scan) -> Iterator[Row]:
    """Difference from least squares with the same compartments."""
    for name, maps in scan.maps.items():
        ls = scan.maps[scan.reference[name]]
        for q, shown in QUANTITIES.items():
            mine, theirs = (values_in(getattr(m, q), scan.mask, q) for m in (maps, ls))
            limit = AGREEMENT * float(np.std(mine - theirs))
            mean = bias(mine, theirs)
            for metric, value in (
                ("difference from LS", mean),
                ("lower limit of agreement with LS", mean - limit),
                ("upper limit of agreement with LS", mean + limit),
            ):
                yield _row(name, "mask", q, metric, shown.unit, value, scan.mask)
    yield from _consistency(scan, scan.maps)


def _consistency(scan: Scan, maps: Maps) -> Iterator[Row]:
    """Figures whose drift with the number of repeats tells bias from noise."""
    for name, m in maps.items():
        for region, inside in scan.regions.items():
            cbf, ls = (values_in(x.cbf, inside, "cbf") for x in (m, maps[scan.reference[name]]))
            for metric, unit, value in (
                ("mean", QUANTITIES["cbf"].unit, np.mean(cbf)),
                ("median", QUANTITIES["cbf"].unit, np.median(cbf)),
                ("mean / mean of LS", "", np.mean(cbf) / np.mean(ls)),
                ("share negative", "", np.mean(cbf < 0)),
            ):
                yield _row(name, region, "cbf", metric, unit, float(value), inside)


def _row(
    estimator: str,
    region: str,
    quantity: str,
    metric: str,
    unit: str,
    value: float,
    inside: MaskImage,
) -> Row:
    return Row(
        estimator, region, quantity, metric, unit, value, n_voxels=int(inside.sum()), n_subjects=1
    )


def _records(scan: Scan, n: int, rows: Iterator[Row]) -> list[Record]:
    return records({"scan": scan.name, "n_repeats": n}, rows)


def _averaged(table: Sequence[Record]) -> list[Record]:
    """Lines that differ in their value only, from different splits, as one line of the mean."""
    groups: dict[tuple[str | float, ...], list[Record]] = {}
    for r in table:
        key = r["n_repeats"], r["estimator"], r["stratum"], r["quantity"], r["metric"]
        groups.setdefault(key, []).append(r)
    return [
        {**same[0], "value": float(np.mean([float(r["value"]) for r in same]))}
        for same in groups.values()
    ]
