"""Random halves of the repeats of a scan -> prediction of left-out repeats, repeatability.

Maps come from one half of the repeats, and the other half evaluates them.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import chain
from math import comb

import numpy as np

from aslkit.bids.run import Pair
from aslkit.core.metric_names import coverage_at
from aslkit.core.series_and_maps import AslSeries, Flag, MaskImage, ParameterMaps
from aslkit.fit.least_squares import fitted_signal
from aslkit.validate.agreement_stats import agreement
from aslkit.validate.estimators import Estimator, Stopwatch
from aslkit.validate.metrics import coverage, root_mean_square, spearman
from aslkit.validate.records import AVERAGE, LEVELS, QUANTITIES, Record, Row, values_in
from aslkit.validate.scan_estimates import (
    Maps,
    ScanEstimates,
    agreement_rows,
    interval_row,
    scan_records,
    value_row,
)

N_SPLITS = 4  # random splits into halves
CONTRAST = "top / bottom tercile of LS CBF"  # ratio of medians
GM_LIKE_CBF = (40.0, 100.0)  # range [ml/100 g/min]
LS_ON_ALL = "LS on all repeats"
ONE_HALF, OTHER_HALF = "mean of one half", "mean of the other half"  # of the first split


@dataclass(frozen=True)
class Split:
    """Maps and series of `n` repeats, and the series of the left-out repeats."""

    n: int
    maps: Maps
    used: AslSeries
    left_out: AslSeries


def random_halves(n: int, seed: int) -> list[tuple[list[int], list[int]]]:
    """Draw distinct splits of n repeats into halves, at most `N_SPLITS`; none for one repeat."""
    rng, half = np.random.default_rng(seed), n // 2
    n_possible = comb(n, half) * comb(n - half, half) // 2
    found: dict[frozenset[frozenset[int]], tuple[list[int], list[int]]] = {}
    while len(found) < min(N_SPLITS, n_possible):
        order = rng.permutation(n).tolist()
        halves = order[:half], order[half : 2 * half]
        found.setdefault(frozenset(map(frozenset, halves)), halves)
    return list(found.values())


def choose_pairs(
    halves: tuple[list[int], list[int]], is_second: bool, n: int, pairs: Sequence[Pair]
) -> list[Pair]:
    """Return the first n pairs of a timing in one half of the repeats.

    Timings with fewer repeats than others, for example after outlier rejection, are split at
    their own middle, so that both halves contain every timing with two or more pairs.
    """
    first, second = halves
    rest = set(range(len(pairs))).difference(first, second)
    order = [i for i in (*first, *second, *rest) if i < len(pairs)]
    middle = len(order) // 2
    half = order[middle : middle + len(first)] if is_second else order[:middle]
    return [pairs[i] for i in half[:n]]


def split_records(
    scan: ScanEstimates,
    estimators: Mapping[str, Estimator],
    stopwatch: Stopwatch,
    halves: tuple[list[int], list[int]],
    is_first: bool,
) -> list[Record]:
    """Compute all metrics of one split of the repeats.

    These are the prediction of the left-out half from 1, 2 and all repeats of the other half, and
    the agreement of both halves. The means of both halves are reported for the first split only,
    because the splits are not independent.
    """

    half = len(halves[0])

    def part(is_second: bool, n: int) -> AslSeries:
        return scan.series_of(partial(choose_pairs, halves, is_second, n))

    def split(n: int, used: AslSeries, left_out: AslSeries) -> Split:
        maps = {name: stopwatch.run(name, e, used) for name, e in estimators.items()}
        return Split(n, maps, used, left_out)

    other = part(True, half)
    parts = [split(n, part(False, n), other) for n in sorted({1, min(2, half), half})]
    found = [r for p in parts for r in scan_records(scan, p.n, _rows_of_part(scan, p))]
    second_half = split(half, other, parts[-1].used)
    found += scan_records(scan, half, _rows_of_part(scan, second_half))
    one, two = parts[-1].maps, second_half.maps
    tissue = (_rows_of_tissue(scan, *pair) for pair in ((one, two), (two, one)))
    means = _rows_of_means(scan, one, two) if is_first else ()
    return found + scan_records(scan, half, chain(_rows_of_halves(scan, one, two), means, *tissue))


def gm_like(maps: ParameterMaps, mask: MaskImage) -> MaskImage:
    """Return the voxels with a CBF within `GM_LIKE_CBF` and a determined ATT, (x, y, z)."""
    low, high = GM_LIKE_CBF
    return mask & (maps.cbf >= low) & (maps.cbf <= high) & (maps.flags == Flag.OK)


def consistency(scan: ScanEstimates, maps: Maps) -> Iterator[Row]:
    """Compute mean and median CBF, the ratio to least squares, and the share of negative CBF.

    A change of these with the number of repeats indicates bias.
    """
    for name, m in maps.items():
        for region, inside in scan.regions.items():
            cbf, ls = (values_in(x.cbf, inside, "cbf") for x in (m, maps[scan.reference[name]]))
            for metric, unit, value in (
                ("mean", QUANTITIES["cbf"].unit, np.mean(cbf)),
                ("median", QUANTITIES["cbf"].unit, np.median(cbf)),
                ("mean / mean of LS", "", np.mean(cbf) / np.mean(ls)),
                ("share negative", "", np.mean(cbf < 0)),
            ):
                yield value_row(name, region, "cbf", metric, unit, float(value), inside)


def _rows_of_part(scan: ScanEstimates, split: Split) -> Iterator[Row]:
    """Compute the prediction error of left-out repeats [% of M0] and `consistency`.

    The error is the root mean square of predicted - measured ΔM/M0 over a region. Also compare
    the maps with least squares on all repeats.
    """
    signals = {AVERAGE: split.used.delta_m} | {
        name: fitted_signal(m, split.used.acquisition) for name, m in split.maps.items()
    }
    for region, inside in scan.regions.items():
        for name, signal in signals.items():
            error = signal[inside] - split.left_out.delta_m[inside]
            value = 100 * root_mean_square(error)
            yield value_row(name, region, "delta_m", "left-out RMS", "% of M0", value, inside)
    yield from consistency(scan, split.maps)
    for name, maps in split.maps.items():
        all_repeats = scan.maps[scan.reference[name]]
        yield from agreement_rows(scan, name, maps, vars(all_repeats), LS_ON_ALL)


def _rows_of_halves(scan: ScanEstimates, one: Maps, two: Maps) -> Iterator[Row]:
    """Compute the agreement of maps from two disjoint halves, and the coverage of intervals.

    Metrics: Spearman correlation; within-scan sd (root mean square difference / √2, in table
    units) and its ratio to the mean (CoV); ICC(A,1); CCC; share of differences within the nominal
    intervals of the difference.
    """
    for name in one:
        for q, shown in QUANTITIES.items():
            for region, inside in scan.regions.items():
                a, b = (values_in(getattr(m[name], q), inside, q) for m in (one, two))
                sds = [values_in(getattr(m[name], f"{q}_std"), inside, q) for m in (one, two)]
                rank = spearman(a, b)
                yield value_row(name, region, q, "split-half Spearman", "", rank, inside)
                within = root_mean_square(a - b) / np.sqrt(2)
                yield value_row(name, region, q, "within-scan sd", shown.unit, within, inside)
                share = within / float(np.concatenate([a, b]).mean())
                yield value_row(name, region, q, "within-scan CoV", "", share, inside)
                found = agreement(a, b, scan.blocks(inside))
                for figure in ("ICC(A,1)", "CCC"):
                    metric = f"split-half {figure}"
                    yield interval_row(name, region, q, metric, "", found[figure], inside)
                for level in LEVELS:
                    share = coverage(a - b, np.hypot(*sds), level)
                    metric = coverage_at(level)
                    yield value_row(name, region, q, metric, "", share, inside)


def _rows_of_means(scan: ScanEstimates, one: Maps, two: Maps) -> Iterator[Row]:
    """Compute the means of CBF and ATT of both halves, for repeatability over subjects."""
    for metric, maps in ((ONE_HALF, one), (OTHER_HALF, two)):
        for name, m in maps.items():
            for q, shown in QUANTITIES.items():
                value = float(values_in(getattr(m, q), scan.mask, q).mean())
                yield value_row(name, "mask", q, metric, shown.unit, value, scan.mask)


def _rows_of_tissue(scan: ScanEstimates, other_half: Maps, evaluated: Maps) -> Iterator[Row]:
    """Compute means in GM-like voxels and the CBF contrast of `evaluated`.

    Least squares of `other_half` defines the regions. The contrast is the ratio of the
    median CBF in its highest and lowest tercile of CBF.
    """
    for name, maps in evaluated.items():
        reference = scan.reference[name]
        cbf, ls = other_half[reference].cbf, evaluated[reference]
        region = gm_like(other_half[reference], scan.mask)
        for q, shown in QUANTITIES.items() if region.any() else ():
            value, own = (float(values_in(getattr(m, q), region, q).mean()) for m in (maps, ls))
            yield value_row(name, "GM-like", q, "mean", shown.unit, value, region)
            yield value_row(name, "GM-like", q, "mean / mean of LS", "", value / own, region)
        low, high = np.quantile(cbf[scan.mask], [1 / 3, 2 / 3])
        top, bottom = (np.median(maps.cbf[scan.mask & r]) for r in (cbf >= high, cbf <= low))
        yield value_row(name, "mask", "cbf", CONTRAST, "", float(top / bottom), scan.mask)
