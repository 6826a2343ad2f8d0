"""Maps of all repeats of a scan -> rows of their agreement with other maps, in regions."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from aslkit.bids.reference_maps import ReferenceMaps
from aslkit.bids.run import AslRun, Pair
from aslkit.core.metric_names import coverage_at
from aslkit.core.series_and_maps import AslSeries, FloatImage, MaskImage, ParameterMaps
from aslkit.prepare.series import select_pairs, series_from_runs
from aslkit.validate.agreement_stats import Blocks, Interval, agreement, assign_blocks
from aslkit.validate.metrics import coverage
from aslkit.validate.records import QUANTITIES, Record, Row, records, values_in

PERFUSED = "better-perfused half"  # half of the mask with the larger mean signal
REFERENCE = "reference"
REFERENCE_HELD = f"{coverage_at(0.95)} of {REFERENCE}"

Maps = Mapping[str, ParameterMaps]


@dataclass(frozen=True)
class ScanEstimates:
    """All repeats of one scan, and their maps by each estimator.

    Attributes
    ----------
    maps : mapping of estimator to maps
    reference : mapping of estimator to estimator
        The least squares with the same compartments.
    mask : bool array (x, y, z)
        Voxels that are evaluated.
    external : ReferenceMaps, optional
        Maps of another program.
    """

    name: str
    runs: tuple[AslRun, ...]
    series: AslSeries
    macrovascular: str
    maps: Maps
    reference: Mapping[str, str]
    mask: MaskImage
    external: ReferenceMaps | None = None

    def series_of(self, choose: Callable[[Sequence[Pair]], Sequence[Pair]]) -> AslSeries:
        """Return the series of the pairs that `choose` returns for the pairs of each timing.

        The brain mask is that of all repeats.
        """
        chosen = [select_pairs(run, choose) for run in self.runs]
        return series_from_runs(chosen, self.series.mask)

    @property
    def regions(self) -> dict[str, MaskImage]:
        """The mask, and the half of it with the larger mean signal, each (x, y, z)."""
        signal = self.series.delta_m.mean(axis=3)
        return {"mask": self.mask, PERFUSED: self.mask & (signal > np.median(signal[self.mask]))}

    def blocks(self, inside: MaskImage) -> Blocks:
        """Return the bootstrap block of each voxel of a region, (voxels,)."""
        return assign_blocks(inside, self.series.voxel_size_mm)


def scan_records(scan: ScanEstimates, n: int, rows: Iterator[Row]) -> list[Record]:
    """Return rows from maps of n repeats as lines of the tidy table of a scan."""
    return records({"scan": scan.name, "n_repeats": n}, rows)


def agreement_rows(
    scan: ScanEstimates,
    name: str,
    maps: ParameterMaps,
    others: Mapping[str, FloatImage | None],
    other_name: str,
) -> Iterator[Row]:
    """Compute the agreement with other maps, where these are finite."""
    for q, shown in QUANTITIES.items():
        image = others.get(q)
        if image is None:
            continue
        inside = scan.mask & np.isfinite(image)
        if not inside.any():
            continue
        own, other = values_in(getattr(maps, q), inside, q), values_in(image, inside, q)
        found = agreement(own, other, scan.blocks(inside))
        for figure, words in AGREEMENT.items():
            unit = "" if figure == "CCC" else shown.unit
            metric = f"{words} {other_name}"
            yield interval_row(name, "mask", q, metric, unit, found[figure], inside)


def reference_rows(scan: ScanEstimates, name: str, maps: ParameterMaps) -> Iterator[Row]:
    """Compute the agreement with maps of another program, and the coverage of 95 % intervals."""
    others = scan.external.images if scan.external else {}
    yield from agreement_rows(scan, name, maps, others, REFERENCE)
    for q, image in others.items():
        inside = scan.mask & np.isfinite(image)
        reference, own, sd = (
            values_in(i, inside, q) for i in (image, getattr(maps, q), getattr(maps, f"{q}_std"))
        )
        if inside.any():
            share = coverage(own - reference, sd, 0.95)
            yield value_row(name, "mask", q, REFERENCE_HELD, "", share, inside)


def interval_row(
    estimator: str,
    region: str,
    quantity: str,
    metric: str,
    unit: str,
    found: Interval,
    inside: MaskImage,
) -> Row:
    """Return one figure of a region with its interval."""
    return Row(
        estimator,
        region,
        quantity,
        metric,
        unit,
        found.value,
        found.low,
        found.high,
        n_voxels=int(inside.sum()),
        n_subjects=1,
    )


def value_row(
    estimator: str,
    region: str,
    quantity: str,
    metric: str,
    unit: str,
    value: float,
    inside: MaskImage,
) -> Row:
    """Return one figure of a region without interval."""
    return interval_row(estimator, region, quantity, metric, unit, Interval(value), inside)


AGREEMENT = {  # statistic of `agreement_stats.agreement`: prefix of its metric
    "difference": "difference from",
    "lower limit": "lower limit of agreement with",
    "upper limit": "upper limit of agreement with",
    "absolute difference": "mean absolute difference from",
    "CCC": "CCC with",
}
