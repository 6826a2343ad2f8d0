"""Results on phantoms -> sections on errors, error bars, win rates and bias.

A section without data is left out.
"""

import numpy as np

from aslkit.core.metric_names import coverage_at
from aslkit.report.charts import Panel, draw_panels
from aslkit.report.page import Section, Table
from aslkit.report.phantom_table import PhantomTable, Setting
from aslkit.report.shared_sections import (
    DIGITS,
    coverage_panels,
    format_number,
    format_percent,
)
from aslkit.report.style import line_styles
from aslkit.report.win_rates import WinRates, win_rate_matrix
from aslkit.validate.agreement_stats import Interval
from aslkit.validate.design import MATCHED
from aslkit.validate.metrics import FloatArray
from aslkit.validate.records import BOUND, LEVELS, LS, QUANTITIES
from aslkit.validate.scores import BY_CONFIDENCE

TISSUE = "GM"  # stratum of the error curves and of the table of bias and slope
ERROR_BAR_DIGITS = {
    "coverage 95 %": 2,
    "CRPS": 1,
    "NLL": 2,
    "AUROC of large errors": 2,
    BY_CONFIDENCE: 2,
}
DILUTION_DIGITS = {"bias": 1, "slope": 2, "CCC": 2}
CONTRAST = "GM/WM contrast recovered"


def error_sections(results: PhantomTable) -> list[Section]:
    """Return the error as a function of SNR, one picture per track."""
    return [
        _error_section(results, track)
        for track in dict.fromkeys(s.track for s in results.main_settings)
    ]


def ls_comparison_sections(results: PhantomTable) -> list[Section]:
    """Return ratios to LS and win rates, with intervals, of every protocol."""
    columns = ["protocol", "method"]
    columns += [f"{q.heading} {x}" for q in QUANTITIES.values() for x in ("ratio", "wins")]
    rows = [
        [s.title, e]
        + [
            cell
            for q in QUANTITIES
            for cell in (
                _value_with_interval(results.score(s, e, q, "MAE / LS")),
                _percent_with_interval(results.score(s, e, q, "win rate")),
            )
        ]
        for s in results.main_settings
        for e in results.estimators_in(s)
        if e != LS
    ]
    text = (
        f"Whole brain, SNR {results.snr:g}. Ratio: error divided by the error of LS on the same "
        "data. Wins: share of voxels that are closer to the truth than LS. Brackets: 95 % "
        "intervals over subjects. If the interval of a ratio contains 1, there is no clear "
        "difference."
    )
    return [Section("Against least squares", text, table=Table(columns, rows, 2))] if rows else []


def strata_sections(results: PhantomTable) -> list[Section]:
    """Return errors by tissue and lesion, one table per quantity."""
    text = (
        f"Mean absolute error at SNR {results.snr:g}. 'brain' includes the lesions. Grey matter "
        "(GM), white matter (WM) and the boundary between them exclude lesions."
    )
    return [
        Section(f"Where the errors are: {q.heading} [{q.unit}]", text, table=table)
        for name, q in QUANTITIES.items()
        if (table := _strata_table(results, name)).rows
    ]


def reliability_sections(results: PhantomTable) -> list[Section]:
    """Return reliability diagrams and scores of the error bars."""
    if not results.shown_settings:
        return []
    lines = {
        f"{QUANTITIES[q].heading}, {s.title}": {
            e: [results.score(s, e, q, coverage_at(level)).value for level in LEVELS]
            for e in results.estimators_in(s)
        }
        for s in results.shown_settings
        for q in QUANTITIES
    }
    text = (
        f"Whole brain, SNR {results.snr:g}. The diagrams show the share of voxels in which the "
        "interval from the reported standard deviation contains the truth. On the thin line the "
        "error bars are correct; below it they are too small, above it too large. In the table, "
        "CRPS (unit of the map) and NLL (nats) are smaller for accurate maps with correct and "
        "narrow error bars. AUROC measures whether large error bars, or a low confidence, "
        "indicate large errors: 0.5 is chance, 1 is perfect."
    )
    picture = draw_panels(coverage_panels(lines), line_styles(results.estimators), n_columns=4)
    scores = _scores_table(results, ERROR_BAR_DIGITS, "brain")
    return [Section("Can the error bars be trusted?", text, picture, scores)]


def win_rate_sections(results: PhantomTable) -> list[Section]:
    """Return win rates of every estimator against every other."""
    matrices = [_win_rates(results, s, q) for s in results.shown_settings for q in QUANTITIES]
    matrices = [m for m in matrices if np.isfinite(m.shares).any()]
    text = (
        f"Whole brain, SNR {results.snr:g}. Each cell shows the share of voxels in which the "
        "method of the row is closer to the truth than the method of the column, with the 95 % "
        "interval over subjects. Purple: the row is better. Orange: the column is better."
    )
    if not matrices:
        return []
    return [Section("Who is closer to the truth?", text, win_rate_matrix(matrices))]


def dilution_sections(results: PhantomTable) -> list[Section]:
    """Return bias, slope and contrast in grey matter."""
    table = _scores_table(results, DILUTION_DIGITS, TISSUE)
    rows = [
        [*row, format_number(results.score(s, e, "cbf", CONTRAST).value, 2)]
        for row, (s, e) in zip(table.rows, _shown_estimators(results), strict=True)
    ]
    text = (
        f"Grey matter, SNR {results.snr:g}. Bias: mean of estimate minus truth, CBF in "
        "ml/100 g/min, ATT in ms. Slope of the estimate on the truth: 1 if contrasts are "
        "preserved, smaller if they are flattened (regression dilution). CCC: Lin's concordance "
        "correlation coefficient. Last column: ratio of the mean CBF in grey and white matter, "
        "divided by the true ratio."
    )
    table = Table([*table.columns, "GM/WM CBF"], rows, n_text=2)
    return [Section("Bias and flattened contrast", text, table=table)] if rows else []


def _error_section(results: PhantomTable, track: str) -> Section:
    settings = [s for s in results.main_settings if s.track == track]
    has_bound = any(
        np.isfinite(results.score(s, BOUND, "cbf", "MAE", TISSUE).value) for s in settings
    )
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
        for s in settings
        for q in results.quantities(s)
    ]
    constants = (
        "The estimators use the physical constants of the simulation."
        if track == MATCHED
        else "The estimators assume nominal constants; every simulated subject has its own."
    )
    bound = " The dotted line is the Cramér-Rao bound." if has_bound else ""
    return Section(
        f"Error against SNR, {track} track",
        f"Mean absolute error in grey matter; both axes are logarithmic. {constants} Bands: 95 % "
        f"intervals over subjects.{bound}",
        draw_panels(panels, line_styles(names), n_columns=4),
    )


def _strata_table(results: PhantomTable, quantity: str) -> Table:
    rows = [
        [s.title, stratum]
        + [
            format_number(results.score(s, e, quantity, "MAE", stratum).value, DIGITS[quantity])
            for e in results.estimators
        ]
        for s in results.shown_settings
        for stratum in results.strata(s)
    ]
    return Table(["protocol", "where", *results.estimators], rows, 2)


def _scores_table(results: PhantomTable, digits: dict[str, int], stratum: str) -> Table:
    """Return the metrics in `digits` (decimals by metric) by shown setting and estimator."""
    shown = _shown_estimators(results)
    measured = [
        (q, m)
        for q in QUANTITIES
        for m in digits
        if any(np.isfinite(results.score(s, e, q, m, stratum).value) for s, e in shown)
    ]

    def cell(s: Setting, e: str, q: str, m: str) -> str:
        value = results.score(s, e, q, m, stratum).value
        if m.startswith("coverage"):
            return format_percent(value)
        return format_number(value, digits[m])

    rows = [[s.title, e, *(cell(s, e, q, m) for q, m in measured)] for s, e in shown]
    headings = [f"{QUANTITIES[q].heading} {m}" for q, m in measured]
    return Table(["protocol", "method", *headings], rows, n_text=2)


def _shown_estimators(results: PhantomTable) -> list[tuple[Setting, str]]:
    return [(s, e) for s in results.shown_settings for e in results.estimators_in(s)]


def _win_rates(results: PhantomTable, setting: Setting, quantity: str) -> WinRates:
    names = results.estimators_in(setting)
    scores = [
        [results.score(setting, row, quantity, f"win rate over {column}") for column in names]
        for row in names
    ]
    texts = [
        ["" if i == j else _percent_with_interval(s, "\n") for j, s in enumerate(row)]
        for i, row in enumerate(scores)
    ]
    shares: FloatArray = np.array([[s.value for s in row] for row in scores])
    return WinRates(f"{QUANTITIES[quantity].heading}, {setting.title}", names, shares, texts)


def _value_with_interval(score: Interval) -> str:
    """Return, for example, "0.73 [0.71-0.75]", or the value alone without an interval."""
    value = format_number(score.value, 2)
    return f"{value} [{score.low:.2f}-{score.high:.2f}]" if np.isfinite(score.low) else value


def _percent_with_interval(score: Interval, separator: str = " ") -> str:
    """Return, for example, "65 % [63-67]", or the value alone without an interval."""
    value = format_percent(score.value)
    if not np.isfinite(score.low):
        return value
    return f"{value}{separator}[{100 * score.low:.0f}-{100 * score.high:.0f}]"
