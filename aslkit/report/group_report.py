"""Scores of all scans of a data set -> the page of the group."""

from collections.abc import Mapping, Sequence

import numpy as np

from aslkit.quality.thresholds import THRESHOLDS
from aslkit.report.bland_altman import subject_bland_altman
from aslkit.report.invivo_sections import GLOSSARY, calibration_section, prediction_section
from aslkit.report.page import RESULTS_FOOTER, Page, Section, Table, Thumbnail
from aslkit.report.scan_report import FEW_REPEATS_TEXT, LIGHTS_TEXT, REPEATABILITY_TEXT
from aslkit.report.scan_tables import (
    ALL,
    FEW_REPEATS_COLUMNS,
    MEAN_OVER_SUBJECTS,
    Column,
    ScanTable,
    comparison_columns,
    group_headline,
    group_table,
    headline_per_scan,
    limits_table,
    quality_rows,
    reference_columns,
    repeatability_columns,
    scan_tables,
    subject_of,
    subject_values,
    table_by_repeats,
)
from aslkit.report.shared_sections import (
    DIGITS,
    format_count,
    format_number,
    join_names,
    select_pictured,
    speed_section,
)
from aslkit.report.style import LineStyle, line_styles
from aslkit.validate.agreement_stats import (
    MIN_SUBJECTS,
    intraclass_correlation,
    limits_of_agreement,
)
from aslkit.validate.estimators import Benchmark
from aslkit.validate.in_vivo import MEAN
from aslkit.validate.records import AVERAGE, LS, QUANTITIES, is_model
from aslkit.validate.split_half import ONE_HALF, OTHER_HALF


def group_report(
    benchmark: Benchmark,
    facts: Mapping[str, str],
    failed: Mapping[str, str],
    pictures: Mapping[str, bytes],
) -> Page:
    """Return the page of a group of scans, where the truth is not known.

    Parameters
    ----------
    failed : mapping of scan to the reason
    pictures : mapping of scan to a thumbnail of its CBF (PNG)
    """
    tables = scan_tables(benchmark.records)
    estimators = list(dict.fromkeys(e for t in tables for e in t.estimators))
    styles = line_styles(estimators)
    lead = [
        f"This page compares {join_names([*benchmark.models, 'least squares (LS)'])} on "
        f"{format_count(len(tables), 'scan')}. The truth is not known in vivo, so maps from half "
        "of the repeats are tested on the other half. LS on all repeats is noisy itself and "
        "serves for comparison only."
    ]
    has_repeats = [t for t in tables if len(t.n_repeats) > 1]
    sections = _repeat_sections(has_repeats, estimators, styles) if has_repeats else []
    sections += _comparison_sections(tables, estimators, styles)
    links = {t.name: f"{t.name}.html" for t in tables}
    sections += [
        _gallery(pictures, links, has_models=bool(benchmark.models)),
        Section(
            "Every scan",
            "Click on a name for the page of the scan.",
            table=headline_per_scan(tables, links),
        ),
        Section("Quality", LIGHTS_TEXT, table=_quality_table(tables, links)),
        Section("What the lights mean", "", table=limits_table()),
    ]
    if failed:
        rows = [[scan, reason] for scan, reason in failed.items()]
        table = Table(["scan", "reason"], rows, n_text=2)
        sections.append(Section("Scans that failed", "No result includes them.", table=table))
    return Page(
        "Validation in vivo",
        lead,
        group_headline(tables, [AVERAGE, *estimators]),
        GLOSSARY,
        [*sections, speed_section(benchmark)],
        benchmark.self_checks,
        facts,
        RESULTS_FOOTER,
    )


def _gallery(pictures: Mapping[str, bytes], links: Mapping[str, str], has_models: bool) -> Section:
    """Return the middle slice of every scan by least squares and, if any, by a model."""
    shown = [Thumbnail(scan, image, links[scan]) for scan, image in pictures.items()]
    model = " (left) and by the first model that accepts the scan (right)" if has_models else ""
    text = (
        f"CBF of the middle slice by least squares{model}. Black to yellow: 0 to "
        "100 ml/100 g/min. Click on a picture for the page of the scan."
    )
    return Section("A slice of every scan", text, thumbnails=shown)


def _repeat_sections(
    tables: Sequence[ScanTable], estimators: Sequence[str], styles: Mapping[str, LineStyle]
) -> list[Section]:
    few = table_by_repeats(
        [
            (words, group_table(tables, estimators, columns))
            for words, columns in FEW_REPEATS_COLUMNS
        ]
    )
    found = [
        prediction_section(tables, styles),
        Section(
            "From few repeats, against LS on all",
            f"{FEW_REPEATS_TEXT} {MEAN_OVER_SUBJECTS}",
            table=few,
        ),
        Section(
            "Split-half repeatability of voxels",
            f"{REPEATABILITY_TEXT} {MEAN_OVER_SUBJECTS}",
            table=group_table(tables, estimators, repeatability_columns()),
        ),
    ]
    means = _repeated_means(tables, estimators)
    if means.rows:
        found.append(
            Section(
                "Split-half repeatability of subjects",
                "Repeatability of the mean over the brain mask, from two halves of the repeats. "
                "sd: within-subject standard deviation. CoV: sd divided by the mean. ICC(A,1): "
                "share of the variance that is due to differences between subjects, with its 95 % "
                "interval (F); it is low if the subjects hardly differ.",
                table=means,
            )
        )
    return [*found, calibration_section(tables, styles)]


def _repeated_means(tables: Sequence[ScanTable], estimators: Sequence[str]) -> Table:
    """Return sd, CoV and ICC(A,1) of mean CBF and ATT; without rows for too few subjects."""
    rows = []
    for e in estimators:
        cells = [e]
        for q in QUANTITIES:
            one, two = (
                subject_values(tables, e, Column("", m, q)) for m in (ONE_HALF, OTHER_HALF)
            )
            if one.size < MIN_SUBJECTS:
                break
            sd = float(np.sqrt(np.mean((one - two) ** 2) / 2))
            icc = Column("", "").cell(intraclass_correlation(one, two))
            cells += [f"{sd:.2f}", f"{100 * sd / float(np.mean([one, two])):.1f} %", icc]
        else:
            rows.append(cells)
    columns = [f"{shown.heading} sd [{shown.unit}]" for shown in QUANTITIES.values()]
    headings = [h for c in columns for h in (c, "CoV", "ICC(A,1)")]
    return Table(["method", *headings], rows)


def _comparison_sections(
    tables: Sequence[ScanTable], estimators: Sequence[str], styles: Mapping[str, LineStyle]
) -> list[Section]:
    """Compare with least squares and with reference maps, by voxels and by subjects."""
    models = [e for e in estimators if is_model(e)]
    found = []
    voxels = (
        "Scores over the voxels of each subject; the limits of agreement have the unit of the "
        f"bias. {MEAN_OVER_SUBJECTS}"
    )
    if models:
        table = group_table(tables, models, comparison_columns(LS))
        text = f"Differences are from LS with the same compartments as the model. {voxels}"
        found.append(Section("Against LS", text, table=table))
    if any(subject_values(tables, e, reference_columns()[0]).size for e in estimators):
        table = group_table(tables, estimators, reference_columns())
        found.append(Section("Against the reference", voxels, table=table))
    for q, shown in QUANTITIES.items():
        means = _means_against_ls(tables, models, q)
        if means and all(own.size >= MIN_SUBJECTS for own, _ in means.values()):
            names = list(dict.fromkeys(subject_of(t.name) for t in tables))
            drawn, left_out = select_pictured(list(means))
            label = f"{shown.heading} [{shown.unit}]"
            picture = subject_bland_altman({e: means[e] for e in drawn}, names, styles, label)
            text = (
                f"Mean {shown.heading} over the brain mask; each point is a subject. Solid line: "
                "mean difference from LS. Dashed lines: limits of agreement, with their 95 % "
                f"intervals (shaded). {_limits_in_words(means, q)}{left_out}"
            )
            found.append(Section(f"Bland-Altman of subjects: {shown.heading}", text, picture))
    return found


def _limits_in_words(means: Mapping[str, tuple[np.ndarray, np.ndarray]], quantity: str) -> str:
    digits = DIGITS[quantity] and 1
    parts = []
    for e, (own, reference) in means.items():
        low, high = limits_of_agreement(own - reference)
        mean = float(np.mean(own - reference))
        numbers = [format_number(v, digits) for v in (mean, low.value, high.value)]
        parts.append("{}: mean difference {}, limits of agreement {} to {}".format(e, *numbers))
    return f"{'; '.join(parts)} ({QUANTITIES[quantity].unit})."


def _means_against_ls(
    tables: Sequence[ScanTable], models: Sequence[str], quantity: str
) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Return the means of every subject by a model, and by LS with the same compartments."""
    mean = Column("", MEAN, quantity, repeats=ALL)
    apart = Column("", "difference from LS", quantity, repeats=ALL)
    found = {}
    for e in models:
        own = subject_values(tables, e, mean)
        found[e] = own, own - subject_values(tables, e, apart)
    return found


def _quality_table(tables: Sequence[ScanTable], links: Mapping[str, str]) -> Table:
    labels = [t.label for t in THRESHOLDS.values()]
    rows = [[t.name, e, *cells] for t in tables for e, cells in quality_rows(t)]
    return Table(["scan", "method", *labels], rows, n_text=2, links=links)
