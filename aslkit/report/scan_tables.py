"""Records of scans -> tables for the page of a scan and the page of the group."""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pandas as pd

from aslkit.quality.thresholds import THRESHOLDS, UNKNOWN
from aslkit.report.page import Table
from aslkit.report.shared_sections import DIGITS, MISSING, format_number, format_percent
from aslkit.validate.agreement_stats import Interval, mean_interval
from aslkit.validate.in_vivo import QUALITY
from aslkit.validate.metrics import FloatArray
from aslkit.validate.records import AVERAGE, QUANTITIES, Record
from aslkit.validate.scan_estimates import AGREEMENT, PERFUSED, REFERENCE, REFERENCE_HELD
from aslkit.validate.split_half import CONTRAST, LS_ON_ALL

MEAN_OVER_SUBJECTS = (
    "Mean over subjects. Brackets: 95 % t intervals, given for three or more subjects."
)
HALF, ALL = "half", "all"  # used repeats of a scan; otherwise a number
KEY = ("n_repeats", "estimator", "metric", "quantity", "stratum")
HEADINGS_WITH_UNIT = {"difference": "bias", "absolute difference": "mean error"}


@dataclass(frozen=True)
class Column:
    """A column of a table: its heading and the key of its score in the records.

    `least` and `most` are the smallest and largest possible values; intervals are clipped to them.
    """

    heading: str
    metric: str
    quantity: str = "cbf"
    stratum: str = "mask"
    repeats: int | str = HALF
    digits: int = 2
    is_share: bool = False
    least: float = -math.inf
    most: float = math.inf

    def cell(self, found: Interval) -> str:
        """Return the value and, if defined, its interval in brackets."""
        form: Callable[[float], str] = (
            format_percent if self.is_share else lambda v: format_number(v, self.digits)
        )
        low, high = max(found.low, self.least), min(found.high, self.most)
        if not (math.isfinite(low) and math.isfinite(high)) or low == high:
            return form(found.value)
        return f"{form(found.value)} [{form(low)}, {form(high)}]"


@dataclass(frozen=True)
class ScanTable:
    """The records of one scan."""

    name: str
    records: Sequence[Record]

    @property
    def estimators(self) -> list[str]:
        """The estimators that have maps, in the order of the records."""
        names = dict.fromkeys(str(r["estimator"]) for r in self.records)
        return [e for e in names if e != AVERAGE]

    @cached_property
    def n_repeats(self) -> list[int]:
        """Numbers of repeats that maps were made from, ascending; the last is all repeats."""
        return sorted({int(r["n_repeats"]) for r in self.records})

    def find(self, estimator: str, column: Column) -> Interval:
        """Return a score with its interval within the scan, NaN if it is not defined."""
        n = column.repeats
        if n == ALL:
            n = self.n_repeats[-1]
        elif n == HALF:
            n = self.n_repeats[-2] if len(self.n_repeats) > 1 else 0
        key = n, estimator, column.metric, column.quantity, column.stratum
        record = self._by_key.get(key)
        if record is None:
            return Interval(math.nan)
        return Interval(*(float(record[end]) for end in ("value", "low", "high")))

    @cached_property
    def _by_key(self) -> dict[tuple[str | float, ...], Record]:
        return {tuple(r[k] for k in KEY): r for r in reversed(self.records)}


def scan_tables(records: Sequence[Record]) -> list[ScanTable]:
    """Return the records as one table per scan."""
    by_scan: dict[str, list[Record]] = {}
    for r in records:
        by_scan.setdefault(str(r["scan"]), []).append(r)
    return [ScanTable(name, own) for name, own in by_scan.items()]


def subject_of(scan: str) -> str:
    """Return the subject of a scan, for example sub-01 of sub-01_ses-2."""
    return scan.partition("_")[0]


def subject_values(tables: Sequence[ScanTable], estimator: str, column: Column) -> FloatArray:
    """Return the score of every subject that has it: the mean of its scans, (subjects,)."""
    values = pd.Series({t.name: t.find(estimator, column).value for t in tables}, dtype=float)
    return values.dropna().groupby(subject_of, sort=False).mean().to_numpy()


def headline_per_scan(tables: Sequence[ScanTable], links: Mapping[str, str]) -> Table:
    """Return the headline of every scan, one row per scan and estimator."""
    rows = [[t.name, *row] for t in tables for row in headline(t).rows]
    headings = [c.heading for c in HEADLINE.values()]
    return Table(["scan", "method", *headings], rows, n_text=2, links=links)


def headline(table: ScanTable) -> Table:
    """Return the main scores of one scan: prediction, repeatability, bias and plausibility."""
    rows = [
        [e, *(c.cell(Interval(table.find(e, c).value)) for c in HEADLINE.values())]
        for e in [AVERAGE, *table.estimators]
    ]
    return Table(["method", *(c.heading for c in HEADLINE.values())], rows)


def scan_table(table: ScanTable, columns: Sequence[Column]) -> Table:
    """Return a row per estimator, with intervals within the scan."""
    rows = [[e, *(c.cell(table.find(e, c)) for c in columns)] for e in table.estimators]
    return Table(["method", *(c.heading for c in columns)], rows)


def group_headline(tables: Sequence[ScanTable], estimators: Sequence[str]) -> Table:
    """Return the headline over subjects, a row per score and a column per estimator."""
    rows = [
        [name, *(c.cell(mean_interval(subject_values(tables, e, c))) for e in estimators)]
        for name, c in HEADLINE.items()
    ]
    return Table(["measure", *estimators], rows, caption=MEAN_OVER_SUBJECTS)


def group_table(
    tables: Sequence[ScanTable], estimators: Sequence[str], columns: Sequence[Column]
) -> Table:
    """Return a row per estimator with means over subjects and their t intervals."""
    rows = [
        [e, *(c.cell(mean_interval(subject_values(tables, e, c))) for c in columns)]
        for e in estimators
    ]
    return Table(["method", *(c.heading for c in columns)], rows)


def quality_rows(table: ScanTable) -> Iterator[tuple[str, list[str]]]:
    """Yield each estimator with the values and lights of all figures in `THRESHOLDS`."""
    for e in table.estimators:
        cells = []
        for thresholds in THRESHOLDS.values():
            value = table.find(e, Column("", thresholds.label, stratum=QUALITY, repeats=ALL)).value
            verdict = thresholds.rating(value if np.isfinite(value) else None)
            shown = (
                MISSING
                if verdict == UNKNOWN
                else f"{verdict} {format_number(value, thresholds.digits)}"
            )
            cells.append(shown)
        yield e, cells


def limits_table() -> Table:
    """Return the limits of all traffic lights and their meaning."""
    rows = [[t.label, *t.range_texts, t.meaning] for t in THRESHOLDS.values()]
    return Table(["measure", "● good", "▲ check", "what it means"], rows, n_text=4)


def comparison_columns(
    name: str,
    repeats: int | str = ALL,
    figures: Sequence[str] = tuple(AGREEMENT),
) -> list[Column]:
    """Return columns of bias, limits of agreement, mean error and CCC against other maps."""
    return [
        Column(
            f"{shown.heading} {HEADINGS_WITH_UNIT.get(figure, figure)}"
            + f" [{shown.unit}]" * (figure in HEADINGS_WITH_UNIT),
            f"{AGREEMENT[figure]} {name}",
            q,
            repeats=repeats,
            digits=2 if figure == "CCC" else DIGITS[q] and 1,
            most=1 if figure == "CCC" else math.inf,
        )
        for q, shown in QUANTITIES.items()
        for figure in figures
    ]


def reference_columns() -> list[Column]:
    """Return columns of differences from reference maps and coverage of the reference."""
    held = [
        Column(f"{shown.heading} in 95 % interval", REFERENCE_HELD, q, repeats=ALL, is_share=True)
        for q, shown in QUANTITIES.items()
    ]
    return comparison_columns(REFERENCE) + held


def table_by_repeats(parts: Sequence[tuple[str, Table]]) -> Table:
    """Combine tables from different numbers of repeats, sorted by method."""
    rows = [[row[0], words, *row[1:]] for words, part in parts for row in part.rows]
    methods = [row[0] for row in parts[0][1].rows]
    rows.sort(key=lambda row: methods.index(row[0]))
    columns = parts[0][1].columns
    return Table([columns[0], "repeats", *columns[1:]], rows, n_text=2)


def repeatability_columns() -> list[Column]:
    """Return columns of repeatability between two halves of the repeats."""
    return [
        column
        for q, shown in QUANTITIES.items()
        for column in (
            Column(f"{shown.heading} sd [{shown.unit}]", "within-scan sd", q, digits=1, least=0),
            Column("CoV", "within-scan CoV", q, is_share=True, least=0),
            Column("ICC(A,1)", "split-half ICC(A,1)", q, most=1),
            Column("Spearman", "split-half Spearman", q, most=1),
        )
    ]


FEW_REPEATS_COLUMNS = tuple(
    (str(n), comparison_columns(LS_ON_ALL, n, ("difference", "CCC"))) for n in (1, 2, HALF)
)
HEADLINE = {  # by the name of the row on the page of the group
    "left-out RMS, 1 repeat [% of M0]": Column(
        "left-out RMS 1", "left-out RMS", "delta_m", repeats=1, digits=3, least=0
    ),
    "left-out RMS, 2 repeats [% of M0]": Column(
        "2", "left-out RMS", "delta_m", repeats=2, digits=3, least=0
    ),
    "left-out RMS, half of them [% of M0]": Column(
        "half", "left-out RMS", "delta_m", digits=3, least=0
    ),
    "Spearman CBF": Column("Spearman CBF", "split-half Spearman", most=1),
    "Spearman ATT": Column("ATT", "split-half Spearman", "att", most=1),
    "mean CBF, 1 repeat [ml/100 g/min]": Column("mean CBF 1 repeat", "mean", repeats=1, digits=1),
    "mean CBF, all repeats [ml/100 g/min]": Column("all", "mean", repeats=ALL, digits=1),
    "perfused of LS": Column("perfused of LS", "mean / mean of LS", stratum=PERFUSED, repeats=ALL),
    "GM-like CBF [ml/100 g/min]": Column("GM-like CBF", "mean", stratum="GM-like", digits=1),
    "GM-like CBF of LS": Column("of LS", "mean / mean of LS", stratum="GM-like"),
    "contrast": Column("contrast", CONTRAST, digits=1),
    "negative": Column("negative", "share negative", repeats=ALL, is_share=True, least=0),
}
