"""Parts that the page of a scan and that of the group share."""

from collections.abc import Mapping, Sequence

import numpy as np

from aslkit.core.metric_names import coverage_at
from aslkit.report.charts import Panel, Points, draw_panels
from aslkit.report.page import Section
from aslkit.report.scan_tables import HALF, Column, ScanTable, subject_values
from aslkit.report.shared_sections import coverage_panels
from aslkit.report.style import LineStyle, line_styles
from aslkit.validate.agreement_stats import mean_interval
from aslkit.validate.records import AVERAGE, LEVELS, QUANTITIES
from aslkit.validate.split_half import GM_LIKE_CBF, PERFUSED

GLOSSARY = {
    "left-out RMS": "Error of predicting the mean of the repeats that were not used, from 1, 2 "
    "and half of the repeats, in % of M0. It contains the noise of the left-out mean, alike for "
    "all methods. Smaller is better. 'average of the repeats' predicts with their plain mean.",
    "Spearman": "Rank correlation over the mask between the maps from two disjoint halves of the "
    "repeats: how repeatable a map is. 1 is best. Freedom of the model improves left-out RMS and "
    "lowers this, so look at both.",
    "mean CBF": "Over the mask, from one repeat and from all. A method that shifts with "
    "the amount of data is biased by noise.",
    "perfused of LS": "Mean CBF of all repeats over the half of the mask with the larger mean "
    "signal, which no method chose, over that of LS with the same compartments.",
    "GM-like CBF": "Mean from half of the repeats, where LS with the same compartments has CBF "
    f"{GM_LIKE_CBF[0]:g}-{GM_LIKE_CBF[1]:g} and a determined ATT in the other half; "
    "'of LS' is its ratio to that of LS from the same half. Far from 1 means that contrast was "
    "lost to a training mean, or added; where LS is wrong in both halves, it favours LS.",
    "contrast": "Median CBF of the voxels in the upper third of LS CBF over that in the lower "
    "third, sorted by one half of the repeats and measured in the other.",
    "negative": "Share of voxels with CBF below 0.",
}
ORIENTATION = "Axial slices as they are stored, x to the right and y upwards."


def prediction_section(tables: Sequence[ScanTable], styles: Mapping[str, LineStyle]) -> Section:
    """Error of predicting the repeats that were not used, over their number."""
    repeats = sorted({n for t in tables for n in t.n_repeats[:-1]})

    def points(estimator: str) -> Points:
        columns = [Column("", "left-out RMS", "delta_m", PERFUSED, repeats=n) for n in repeats]
        found = [mean_interval(subject_values(tables, estimator, c)) for c in columns]
        return np.array([(n, f.value, f.low, f.high) for n, f in zip(repeats, found, strict=True)])

    shown = [AVERAGE, *styles]
    lines = {e: points(e) for e in shown}
    panel = Panel("Left-out repeats", "repeats used", "error [% of M0]", lines, repeats)
    return Section(
        "Left-out repeats",
        "Error of predicting the mean of the repeats that were not used, over the better-perfused "
        "half of the brain. It cannot fall below the noise of that mean."
        + _BANDS
        * (len(tables) > 1),
        draw_panels([panel], {**line_styles(shown), **styles}, n_columns=1),
    )


def calibration_section(tables: Sequence[ScanTable], styles: Mapping[str, LineStyle]) -> Section:
    """Whether the differences between two halves are as large as the error bars say."""

    def shares(estimator: str, quantity: str) -> list[float]:
        columns = [Column("", coverage_at(v), quantity, repeats=HALF) for v in LEVELS]
        return [mean_interval(subject_values(tables, estimator, c)).value for c in columns]

    panels = coverage_panels(
        {
            f"{shown.heading}, half against half of the repeats": {e: shares(e, q) for e in styles}
            for q, shown in QUANTITIES.items()
        }
    )
    return Section(
        "Can the error bars be trusted?",
        "Share of voxels where the maps from two halves of the repeats differ by no more than "
        "their standard deviations promise. On the thin line they are right; below it they are "
        "too small. Errors that both halves share do not show here.",
        draw_panels(panels, styles, n_columns=2),
    )


_BANDS = " Points are means over subjects, bands their 95 % intervals."
