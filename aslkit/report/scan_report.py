"""Maps and scores of one scan -> its page."""

from collections.abc import Mapping, Sequence

import numpy as np

from aslkit.core.series_and_maps import FloatImage, MaskImage
from aslkit.prepare.series import anatomical_image
from aslkit.quality.thresholds import THRESHOLDS
from aslkit.report.bland_altman import bland_altman_plots
from aslkit.report.invivo_sections import (
    GLOSSARY,
    ORIENTATION,
    calibration_section,
    prediction_section,
)
from aslkit.report.methods_text import methods_text, quantification_table
from aslkit.report.overlays import cbf_thumbnail, overlay_picture
from aslkit.report.page import Page, Section, Table
from aslkit.report.scan_tables import (
    FEW_REPEATS_COLUMNS,
    ScanTable,
    comparison_columns,
    headline,
    limits_table,
    quality_rows,
    reference_columns,
    repeatability_columns,
    scan_table,
    table_by_repeats,
)
from aslkit.report.scatters import scatter_plots
from aslkit.report.shared_sections import format_count, join_names, select_pictured, speed_section
from aslkit.report.style import line_styles
from aslkit.validate.in_vivo import ScanResult
from aslkit.validate.records import LS, is_model, values_in
from aslkit.validate.scan_estimates import REFERENCE, ScanEstimates

FEW_REPEATS_TEXT = (
    "Maps from 1, 2 and half of the repeats, compared with least squares on all repeats. This "
    "reference is not the truth. It includes the repeats that are compared, which favours LS."
)
REPEATABILITY_TEXT = (
    "Repeatability, over the brain mask, of the maps from two disjoint halves of the repeats. "
    "sd: standard deviation of a map from one half. CoV: sd divided by the mean. ICC(A,1): "
    "intraclass correlation (absolute agreement), the share of the variance that is due to "
    "differences between voxels; 1 is best."
)
LIGHTS_TEXT = (
    "The lights mark values that deserve a look; no scan is rejected. Limits without a citation "
    "were chosen by this project. A dash: the data do not define the value, for example because "
    "the scan has no repeats."
)
INTERVAL_WITHIN_SCAN = (
    "Brackets: 95 % intervals, from a bootstrap over cubes of 20 mm in the brain."
)


def scan_report(result: ScanResult, facts: Mapping[str, str]) -> Page:
    """Return the page of one scan."""
    scan, benchmark = result.scan, result.benchmark
    table = ScanTable(scan.name, benchmark.records)
    notes = list(dict.fromkeys(n for run in scan.runs for n in run.notes))
    lead = [
        f"This page compares {join_names(list(scan.maps))} on one scan with "
        f"{format_count(table.n_repeats[-1], 'repeat')} and {int(scan.mask.sum()):,} voxels in "
        "the brain mask. The truth is not known.",
        *(f"Note on the data: {note}." for note in notes),
    ]
    has_repeats = len(table.n_repeats) > 1
    sections = [prediction_section([table], line_styles([*scan.maps]))] if has_repeats else []
    sections += [_map_section(scan), *_comparison_sections(scan, table)]
    if has_repeats:
        few = table_by_repeats(
            [(words, scan_table(table, columns)) for words, columns in FEW_REPEATS_COLUMNS]
        )
        sections += [
            Section("From few repeats, against LS on all", FEW_REPEATS_TEXT, table=few),
            Section(
                "Split-half repeatability",
                f"{REPEATABILITY_TEXT} {INTERVAL_WITHIN_SCAN}",
                table=scan_table(table, repeatability_columns()),
            ),
            calibration_section([table], line_styles([*scan.maps])),
        ]
    sections += [
        _quality_section(table),
        Section("What the lights mean", LIGHTS_TEXT, table=limits_table()),
        Section(
            "Quantification",
            "All constants and assumptions of the quantification.",
            table=quantification_table(scan),
        ),
        Section("Text for a methods section", methods_text(scan)),
        speed_section(benchmark),
    ]
    return Page(
        scan.name,
        lead,
        headline(table),
        GLOSSARY,
        sections,
        benchmark.self_checks,
        facts,
        f"All scores of this scan are in {scan.name}.json in this folder.",
    )


def scan_thumbnail(result: ScanResult) -> bytes:
    """Return a PNG of CBF in the middle slice by least squares and, if any, the first model."""
    scan = result.scan
    z = int(np.median(np.nonzero(scan.mask)[2]))
    names = [LS, *result.benchmark.models][:2]
    return cbf_thumbnail([scan.maps[n].cbf[..., z] for n in names], scan.mask[..., z])


def _map_section(scan: ScanEstimates) -> Section:
    head = anatomical_image(scan.runs[0])
    shown, left_out = select_pictured(list(scan.maps))
    return Section(
        "Maps",
        "Maps on the M0 image or, without one, on the mean control image. The colour scales are "
        "the same for all scans. Differences are from LS with the same compartments. sd: standard "
        f"deviation that the method reports. {ORIENTATION}{left_out}",
        overlay_picture(_columns(scan, shown), head, scan.mask),
    )


def _columns(scan: ScanEstimates, estimators: Sequence[str]) -> dict[str, dict[str, FloatImage]]:
    """Return the images by method, and those of the reference maps if there are any."""
    names = ("cbf", "att", "cbf_std", "att_std")
    columns = {}
    for e in estimators:
        maps = scan.maps[e]
        columns[e] = {name: getattr(maps, name) for name in names}
        if scan.reference[e] != e:
            ls = scan.maps[scan.reference[e]]
            columns[e]["cbf difference"] = maps.cbf - ls.cbf
            columns[e]["att difference"] = maps.att - ls.att
    if scan.external is not None:
        columns[REFERENCE] = dict(scan.external.images)
    return columns


def _comparison_sections(scan: ScanEstimates, table: ScanTable) -> list[Section]:
    """Compare with least squares and with reference maps: plots and numbers."""
    models = [e for e in scan.maps if is_model(e)]
    found: list[Section] = []
    if models:
        own = scan.reference[models[0]]
        images = {q: getattr(scan.maps[own], q) for q in ("cbf", "att")}
        found += _pictures(scan, models, images, own)
        others = scan_table(table, comparison_columns(LS))
        rows = [row for row in others.rows if row[0] in models]
        text = (
            "Least squares is noisy itself, which tilts the clouds in the plots above. The limits "
            "of agreement have the unit of the bias. "
            f"{INTERVAL_WITHIN_SCAN}"
        )
        shown = Table(others.columns, rows)
        found.append(Section(f"Numbers: difference from {own}", text, table=shown))
    if scan.external is not None:
        found += _pictures(scan, list(scan.maps), scan.external.images, REFERENCE)
        files = " and ".join(str(path) for path in scan.external.files)
        text = (
            f"Reference: {files}. Voxels with a reference CBF of 0 are left out. "
            f"{INTERVAL_WITHIN_SCAN}"
        )
        numbers = scan_table(table, reference_columns())
        found.append(Section("Numbers: difference from the reference", text, table=numbers))
    return found


def _pictures(
    scan: ScanEstimates, estimators: Sequence[str], images: Mapping[str, FloatImage], name: str
) -> list[Section]:
    shown, left_out = select_pictured(estimators)
    inside: MaskImage = scan.mask & np.all([np.isfinite(i) for i in images.values()], axis=0)
    references = {q: values_in(image, inside, q) for q, image in images.items()}
    estimates = {
        e: {q: values_in(getattr(scan.maps[e], q), inside, q) for q in images} for e in shown
    }
    return [
        Section(
            f"Scatter: against {name}",
            "Colour: number of voxels, darker is more (logarithmic). Thin line: equal values."
            f"{left_out}",
            scatter_plots(references, estimates, name),
        ),
        Section(
            f"Bland-Altman: difference from {name}",
            "Solid line: mean difference. Dashed lines: limits of agreement, 1.96 standard "
            "deviations above and below the mean. Numbers: mean ± 1.96 standard deviations."
            f"{left_out}",
            bland_altman_plots(references, estimates, name),
        ),
    ]


def _quality_section(table: ScanTable) -> Section:
    """Return the quality figures, a row per figure and a column per method."""
    found = dict(quality_rows(table))
    labels = [t.label for t in THRESHOLDS.values()]
    rows = [[label, *cells] for label, cells in zip(labels, zip(*found.values()), strict=True)]  # noqa: B905
    return Section(
        "Quality",
        "Quality figures of this scan, as in quality.tsv of asl_fit_ls, with traffic lights.",
        table=Table(["measure", *found], rows),
    )
