"""Records of scans -> sections that the page of a scan and the page of the group share."""

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
from aslkit.validate.scan_estimates import PERFUSED
from aslkit.validate.split_half import GM_LIKE_CBF

GLOSSARY = {
    "LS": "Least squares. 'LS + arterial' includes an arterial compartment.",
    "left-out RMS": "Maps from 1, 2 or half of the repeats predict the mean signal of the repeats "
    "that were not used. This is the root mean square (RMS) of the prediction error, in % of M0; "
    "smaller is better. It includes the noise of the left-out mean, which is the same for all "
    "methods. 'average of the repeats' predicts with the mean of the used repeats, without a "
    "model.",
    "Spearman": "Rank correlation, over the brain mask, between the maps from two halves of the "
    "repeats. It measures repeatability; 1 is best. A model with more free parameters has a "
    "smaller left-out RMS but a lower rank correlation, so read both.",
    "mean CBF": "Mean over the brain mask in ml/100 g/min, from one repeat and from all repeats. "
    "A systematic difference between the two means that noise biases the method.",
    "perfused of LS": "Mean CBF in the half of the mask with the larger mean signal, from all "
    "repeats, divided by that of LS with the same compartments.",
    "GM-like CBF": "Mean CBF in ml/100 g/min from one half of the repeats, over voxels where LS "
    f"on the other half finds a CBF of {GM_LIKE_CBF[0]:g}-{GM_LIKE_CBF[1]:g} ml/100 g/min and a "
    "determined ATT. 'of LS' is the ratio to the mean of LS from the same half. A ratio far from "
    "1 means that the method loses or adds contrast, or that LS has the same error in both "
    "halves.",
    "contrast": "Median CBF in the third of the voxels with the highest CBF, divided by that in "
    "the third with the lowest CBF. LS on one half of the repeats sorts the voxels; the other "
    "half is measured.",
    "negative": "Share of voxels with CBF below 0.",
}
ORIENTATION = "Axial slices as stored in the file: x to the right, y upwards."
OVER_SUBJECTS = " Points: means over subjects. Bands: their 95 % intervals."


def prediction_section(tables: Sequence[ScanTable], styles: Mapping[str, LineStyle]) -> Section:
    """Return the prediction error of the left-out repeats over the number of used repeats."""
    repeats = sorted({n for t in tables for n in t.n_repeats[:-1]})

    def points(estimator: str) -> Points:
        columns = [Column("", "left-out RMS", "delta_m", PERFUSED, repeats=n) for n in repeats]
        means = [mean_interval(subject_values(tables, estimator, c)) for c in columns]
        return np.array([(n, m.value, m.low, m.high) for n, m in zip(repeats, means, strict=True)])

    names = [AVERAGE, *styles]
    lines = {e: points(e) for e in names}
    panel = Panel("Left-out repeats", "repeats used", "error [% of M0]", lines, repeats)
    bands = OVER_SUBJECTS if len(tables) > 1 else ""
    return Section(
        "Left-out repeats",
        "Error of predicting the mean signal of the repeats that were not used, over the half of "
        "the brain mask with the larger signal. The error cannot be smaller than the noise of "
        f"that mean.{bands}",
        draw_panels([panel], {**line_styles(names), **styles}, n_columns=1),
    )


def calibration_section(tables: Sequence[ScanTable], styles: Mapping[str, LineStyle]) -> Section:
    """Return how often two halves of the repeats differ by no more than their error bars."""

    def shares(estimator: str, quantity: str) -> list[float]:
        columns = [Column("", coverage_at(v), quantity, repeats=HALF) for v in LEVELS]
        return [mean_interval(subject_values(tables, estimator, c)).value for c in columns]

    panels = coverage_panels(
        {
            f"{q.heading}, half against half of the repeats": {e: shares(e, name) for e in styles}
            for name, q in QUANTITIES.items()
        }
    )
    return Section(
        "Can the error bars be trusted?",
        "Share of voxels in which the maps from two halves of the repeats differ by no more than "
        "their standard deviations allow. On the thin line the error bars are correct; below it "
        "they are too small, above it too large. Errors common to both halves do not appear here.",
        draw_panels(panels, styles, n_columns=2),
    )
