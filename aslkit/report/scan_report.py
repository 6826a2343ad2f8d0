"""One scan's maps and figures -> its page: prediction, maps, agreement, quality, and methods."""

from collections.abc import Mapping, Sequence

import numpy as np

from aslkit.core.series_and_maps import FloatImage, MaskImage
from aslkit.prepare.series import anatomical_image
from aslkit.quality.thresholds import LIMITS
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
from aslkit.report.shared_sections import join_names, select_pictured, speed_section
from aslkit.report.style import line_styles
from aslkit.validate.in_vivo import ScanResult
from aslkit.validate.records import LS, is_model, values_in
from aslkit.validate.split_half import REFERENCE, ScanEstimates

FEW_REPEATS_TEXT = (
    "Maps from 1, 2 and half of the repeats against least squares on all of them, which is no "
    "truth. It shares its noise with least squares on some of the same repeats, and so favours it."
)
REPEATABILITY_TEXT = (
    "Agreement of the maps from two disjoint halves of the repeats over the mask. sd is that of a "
    "map from one half; CoV is sd over mean; ICC(A,1) is the share of the variance between voxels "
    "that repeats, in absolute terms."
)
LIGHTS_TEXT = (
    "Lights point at figures to look at; nothing is rejected. Limits without a source are those "
    "of this project. A dash: the data do not define the figure, as without repeats."
)
INTERVAL_WITHIN_SCAN = (
    "In brackets: 95 % interval, from drawing blocks of 20 mm of the brain again."
)


def scan_report(result: ScanResult, facts: Mapping[str, str]) -> Page:
    """The page of one scan."""
    scan, benchmark = result.scan, result.benchmark
    table = ScanTable(scan.name, benchmark.records)
    notes = list(dict.fromkeys(n for run in scan.runs for n in run.notes))
    lead = [
        f"{join_names(list(scan.maps))} on one scan, without knowing the truth: "
        f"{table.n_repeats[-1]} repeats, {int(scan.mask.sum())} voxels.",
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
            "Every constant behind the numbers.",
            table=quantification_table(scan),
        ),
        Section("Methods, to paste", methods_text(scan)),
        speed_section(benchmark),
    ]
    return Page(scan.name, lead, headline(table), GLOSSARY, sections, benchmark.self_checks, facts)


def scan_thumbnail(result: ScanResult) -> bytes:
    """PNG of the CBF of the slice in the middle of the brain: least squares, the first model."""
    scan = result.scan
    z = int(np.median(np.nonzero(scan.mask)[2]))
    names = [LS, *result.benchmark.models][:2]
    return cbf_thumbnail([scan.maps[n].cbf[..., z] for n in names], scan.mask[..., z])


def _map_section(scan: ScanEstimates) -> Section:
    head = anatomical_image(scan.runs[0])
    shown, left_out = select_pictured(list(scan.maps))
    return Section(
        "Maps",
        "On the M0 image (or the mean control). The colour scales are fixed, so that pages of "
        "different scans compare; the differences are from LS with the same compartments. sd is "
        f"the standard deviation that each method reports for itself. {ORIENTATION}{left_out}",
        overlay_picture(_columns(scan, shown), head, scan.mask),
    )


def _columns(scan: ScanEstimates, estimators: Sequence[str]) -> dict[str, dict[str, FloatImage]]:
    """Images by method, and those of the reference."""
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
    """Against least squares and against the reference: numbers, scatter and Bland-Altman."""
    models = [e for e in scan.maps if is_model(e)]
    found: list[Section] = []
    if models:
        own = scan.reference[models[0]]
        images = {q: getattr(scan.maps[own], q) for q in ("cbf", "att")}
        found += _pictures(scan, models, images, own)
        others = scan_table(table, comparison_columns(LS))
        rows = [row for row in others.rows if row[0] in models]
        text = (
            "Least squares is noisy too, so its noise alone tilts the clouds. "
            f"{INTERVAL_WITHIN_SCAN}"
        )
        shown = Table(others.columns, rows)
        found.append(Section(f"Numbers: difference from {own}", text, table=shown))
    if scan.external is not None:
        found += _pictures(scan, list(scan.maps), scan.external.images, REFERENCE)
        files = " and ".join(str(path) for path in scan.external.files)
        text = f"{files}, where the map of CBF is not 0. {INTERVAL_WITHIN_SCAN}"
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
            f"Darker: more voxels (logarithmic). On the thin line both agree.{left_out}",
            scatter_plots(references, estimates, name),
        ),
        Section(
            f"Bland-Altman: difference from {name}",
            "The solid line is the mean difference, the dashed ones are 1.96 standard deviations "
            f"away; the numbers are both.{left_out}",
            bland_altman_plots(references, estimates, name),
        ),
    ]


def _quality_section(table: ScanTable) -> Section:
    """A line per figure, a column per method."""
    found = dict(quality_rows(table))
    labels = [limit.label for limit in LIMITS.values()]
    rows = [[label, *cells] for label, cells in zip(labels, zip(*found.values()), strict=True)]  # noqa: B905
    return Section(
        "Quality",
        "Figures of this scan, as in quality.tsv of asl_fit_ls, with their traffic lights.",
        table=Table(["figure", *found], rows),
    )
