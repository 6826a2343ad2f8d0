"""Findings on phantoms -> the sections of their report; a section without data is none."""

import numpy as np

from aslkit.core.metric_names import coverage_at
from aslkit.report.charts import Panel, draw_panels
from aslkit.report.page import Section, Table
from aslkit.report.phantom_table import Interval, PhantomTable, Setting
from aslkit.report.shared_sections import (
    DIGITS,
    coverage_panels,
    format_number,
    format_percent,
)
from aslkit.report.style import line_styles
from aslkit.report.win_rates import WinRates, win_rate_matrix
from aslkit.validate.design import MATCHED
from aslkit.validate.metrics import FloatArray
from aslkit.validate.records import BOUND, LEVELS, LS, QUANTITIES
from aslkit.validate.scores import BY_CONFIDENCE

TISSUE = "GM"  # the stratum of error curves and of regression dilution
ERROR_BARS = {
    "coverage 95 %": 2,
    "CRPS": 1,
    "NLL": 2,
    "AUROC of large errors": 2,
    BY_CONFIDENCE: 2,
}
DILUTION = {"bias": 1, "slope": 2, "CCC": 2}
CONTRAST = "GM/WM contrast recovered"


def error_sections(results: PhantomTable) -> list[Section]:
    """Error against SNR, one picture per track."""
    return [
        _error_section(results, track)
        for track in dict.fromkeys(s.track for s in results.main_settings)
    ]


def ls_comparison_sections(results: PhantomTable) -> list[Section]:
    """Ratio to LS and win rate, with intervals, of every protocol."""
    columns = ["protocol", "method"]
    columns += [f"{q.heading} {x}" for q in QUANTITIES.values() for x in ("ratio", "wins")]
    rows = [
        [s.title, e]
        + [
            cell
            for q in QUANTITIES
            for cell in (
                _value_with_interval(results.figure(s, e, q, "MAE / LS")),
                _percent_with_interval(results.figure(s, e, q, "win rate")),
            )
        ]
        for s in results.main_settings
        for e in results.estimators_in(s)
        if e != LS
    ]
    text = (
        f"SNR {results.snr:g}, whole brain. The ratio is the error over that of LS on "
        "the same data, "
        "wins is the share of voxels that are closer to the truth; in brackets 95 % intervals "
        "over subjects. A ratio whose interval reaches 1 is no difference."
    )
    return [Section("Against least squares", text, table=Table(columns, rows, 2))] if rows else []


def strata_sections(results: PhantomTable) -> list[Section]:
    """Errors by tissue and lesion, a table for each quantity."""
    text = (
        f"Mean absolute error at SNR {results.snr:g}. 'brain' is everything, lesions "
        "included; grey "
        "matter (GM), white matter (WM) and their boundary are without lesions."
    )
    return [
        Section(f"Where the errors are: {shown.heading} [{shown.unit}]", text, table=table)
        for q, shown in QUANTITIES.items()
        if (table := _strata_table(results, q)).rows
    ]


def _strata_table(results: PhantomTable, quantity: str) -> Table:
    rows = [
        [s.title, stratum]
        + [
            format_number(results.figure(s, e, quantity, "MAE", stratum)[0], DIGITS[quantity])
            for e in results.estimators
        ]
        for s in results.shown_settings
        for stratum in results.strata(s)
    ]
    return Table(["protocol", "where", *results.estimators], rows, 2)


def reliability_sections(results: PhantomTable) -> list[Section]:
    """Reliability diagrams of the error bars, and how sharp they are."""
    if not results.shown_settings:
        return []
    lines = {
        f"{QUANTITIES[q].heading}, {s.title}": {
            e: [results.figure(s, e, q, coverage_at(level))[0] for level in LEVELS]
            for e in results.estimators_in(s)
        }
        for s in results.shown_settings
        for q in QUANTITIES
    }
    text = (
        f"SNR {results.snr:g}, whole brain: share of voxels whose truth lies within "
        "the interval that "
        "the reported standard deviation promises. On the thin line error bars are right, below "
        "it too small, above it too large. The table adds scores that also reward small ones: "
        "CRPS (unit of the map) and NLL (nats), smaller is better; and the AUROC of telling "
        "large errors by large error bars, or by low confidence, 0.5 by chance and 1 at best."
    )
    picture = draw_panels(coverage_panels(lines), line_styles(results.estimators), n_columns=4)
    scores = _figures_table(results, ERROR_BARS, "brain")
    return [Section("Can the error bars be trusted?", text, picture, scores)]


def win_rate_sections(results: PhantomTable) -> list[Section]:
    """Who is closer to the truth how often, every estimator against every other."""
    matrices = [_matrix(results, s, q) for s in results.shown_settings for q in QUANTITIES]
    found = [m for m in matrices if np.isfinite(m.shares).any()]
    text = (
        f"SNR {results.snr:g}, whole brain: share of voxels in which the method of the "
        "row is closer "
        "to the truth than the method of the column, below it the 95 % interval over subjects. "
        "Purple: the row wins; orange: it loses."
    )
    return [Section("Who is closer to the truth?", text, win_rate_matrix(found))] if found else []


def dilution_sections(results: PhantomTable) -> list[Section]:
    """Bias and flattening of contrasts."""
    table = _figures_table(results, DILUTION, TISSUE)
    rows = [
        [*row, format_number(results.figure(s, e, "cbf", CONTRAST)[0], 2)]
        for row, (s, e) in zip(table.rows, _shown_estimators(results), strict=True)
    ]
    text = (
        f"Grey matter at SNR {results.snr:g}. The slope of the estimate on the truth is 1 where "
        "contrasts are kept and smaller where they are flattened (regression dilution); CCC is "
        "Lin's concordance. The last column is the ratio of mean CBF in grey and white matter "
        "over the true ratio."
    )
    table = Table([*table.columns, "GM/WM CBF"], rows, n_text=2)
    return [Section("Bias and flattened contrast", text, table=table)] if rows else []


def _value_with_interval(figure: Interval) -> str:
    """0.73 [0.71-0.75], or without brackets where there is no interval."""
    value, low, high = figure
    return f"{value:.2f} [{low:.2f}-{high:.2f}]" if np.isfinite(low) else format_number(value, 2)


def _percent_with_interval(figure: Interval, between: str = " ") -> str:
    """65 % [63-67], likewise; `between` goes in front of the bracket."""
    value, low, high = figure
    own = format_percent(value)
    return f"{own}{between}[{100 * low:.0f}-{100 * high:.0f}]" if np.isfinite(low) else own


def _error_section(results: PhantomTable, track: str) -> Section:
    own = [s for s in results.main_settings if s.track == track]
    has_bound = any(np.isfinite(results.figure(s, BOUND, "cbf", "MAE", TISSUE)[0]) for s in own)
    names = [BOUND, *results.estimators] if has_bound else results.estimators
    panels = [
        Panel(
            f"{QUANTITIES[q].heading}, {s.protocol}",
            "SNR",
            f"error [{QUANTITIES[q].unit}]",
            {e: results.errors_over_snr(s, e, q, TISSUE) for e in names},
            results.snrs,
            "xy",
        )
        for s in own
        for q in results.quantities(s)
    ]
    knowledge = (
        "Estimators know the physical constants of the simulation."
        if track == MATCHED
        else "Estimators assume nominal constants; every simulated subject has others."
    )
    return Section(
        f"Error against SNR, {track} track",
        f"Mean absolute error in grey matter, both axes logarithmic. {knowledge} Bands are 95 % "
        f"intervals over subjects{'; the dotted line is the Cramér-Rao bound' * has_bound}.",
        draw_panels(panels, line_styles(names), n_columns=4),
    )


def _shown_estimators(results: PhantomTable) -> list[tuple[Setting, str]]:
    return [(s, e) for s in results.shown_settings for e in results.estimators_in(s)]


def _figures_table(results: PhantomTable, metrics: dict[str, int], stratum: str) -> Table:
    """Metrics (with their decimals) of both quantities by shown setting and estimator."""
    known = [
        (q, m)
        for q in QUANTITIES
        for m in metrics
        if any(
            np.isfinite(results.figure(s, e, q, m, stratum)[0])
            for s, e in _shown_estimators(results)
        )
    ]

    def cell(s: Setting, e: str, q: str, m: str) -> str:
        value = results.figure(s, e, q, m, stratum)[0]
        return (
            format_percent(value) if m.startswith("coverage") else format_number(value, metrics[m])
        )

    rows = [
        [s.title, e, *(cell(s, e, q, m) for q, m in known)] for s, e in _shown_estimators(results)
    ]
    headings = [f"{QUANTITIES[q].heading} {m}" for q, m in known]
    return Table(["protocol", "method", *headings], rows, n_text=2)


def _matrix(results: PhantomTable, setting: Setting, quantity: str) -> WinRates:
    names = results.estimators_in(setting)
    figures = [
        [results.figure(setting, row, quantity, f"win rate over {column}") for column in names]
        for row in names
    ]
    texts = [
        ["" if i == j else _percent_with_interval(x, "\n") for j, x in enumerate(row)]
        for i, row in enumerate(figures)
    ]
    shares: FloatArray = np.array([[x[0] for x in row] for row in figures])
    return WinRates(f"{QUANTITIES[quantity].heading}, {setting.title}", names, shares, texts)
