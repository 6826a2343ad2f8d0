"""What a benchmark on real scans found -> its report in plain words."""

from collections.abc import Mapping, Sequence

from aslkit.benchmark import Benchmark, Example
from aslkit.charts import Panel, draw_panels
from aslkit.drawing import line_styles
from aslkit.invivo import CONTRAST, GM_LIKE_CBF, PERFUSED
from aslkit.report import Report, Section, Table
from aslkit.scoring import AVERAGE, LEVELS, LS, LS_ARTERIAL, QUANTITIES, Record, lookup
from aslkit.sections import (
    as_points,
    bland_altman_section,
    coverage_panels,
    listed,
    map_section,
    number,
    percent,
    speed_section,
)

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


def invivo_report(benchmark: Benchmark, facts: Mapping[str, str]) -> Report:
    """Report of a run on real scans, where the truth is unknown."""
    lead = [
        f"{listed([*benchmark.models, 'least squares (LS)'])} on real scans. There is no truth: "
        "half of the repeats estimate and the other half judge. LS on all repeats is noisy "
        "itself and serves for comparison only.",
    ]
    sections = []
    for example in benchmark.examples:
        own = [r for r in benchmark.records if r["scan"] == example.condition["scan"]]
        sections += [map_section(example, ORIENTATION), *_scan_sections(example, own)]
    return Report(
        "Validation in vivo",
        lead,
        invivo_headline(benchmark),
        GLOSSARY,
        [*sections, speed_section(benchmark)],
        benchmark.gates,
        facts,
    )


def invivo_headline(benchmark: Benchmark) -> Table:
    """Per scan and estimator: prediction, repeatability, consistency, and plausibility."""
    columns = ["scan", "method", "left-out RMS 1", "2", "half", "Spearman CBF", "ATT"]
    columns += [
        "mean CBF 1 repeat",
        "all",
        "perfused of LS",
        "GM-like CBF",
        "of LS",
        "contrast",
        "negative",
    ]
    rows = [
        _scan_row([r for r in benchmark.records if r["scan"] == scan], str(scan), estimator)
        for scan in dict.fromkeys(r["scan"] for r in benchmark.records)
        for estimator in [AVERAGE, *(s.estimator for s in benchmark.speeds)]
    ]
    return Table(columns, rows, n_text=2)


def _scan_row(table: Sequence[Record], scan: str, estimator: str) -> list[str]:
    repeats = sorted({int(r["n_repeats"]) for r in table})
    n_all, half = repeats[-1], repeats[-2] if len(repeats) > 1 else 0

    def value(n: int, metric: str, quantity: str = "cbf", stratum: str = "mask") -> float:
        keys: dict[str, str | float] = {
            "n_repeats": n,
            "metric": metric,
            "quantity": quantity,
            "stratum": stratum,
        }
        return lookup(table, estimator=estimator, **keys)

    gm_like = value(half, "mean", stratum="GM-like")
    return [
        scan,
        estimator,
        *(number(value(n, "left-out RMS", "delta_m"), 3) for n in (1, 2, half)),
        number(value(half, "split-half Spearman"), 2),
        number(value(half, "split-half Spearman", "att"), 2),
        number(value(1, "mean"), 1),
        number(value(n_all, "mean"), 1),
        number(value(n_all, "mean / mean of LS", stratum=PERFUSED), 2),
        number(gm_like, 1),
        number(value(half, "mean / mean of LS", stratum="GM-like"), 2),
        number(value(half, CONTRAST), 1),
        percent(value(n_all, "share negative")),
    ]


def _scan_sections(example: Example, table: Sequence[Record]) -> list[Section]:
    """Agreement with LS, left-out repeats and error bars of one scan."""
    models = [e for e in example.maps if e not in (LS, LS_ARTERIAL)]
    reference = LS_ARTERIAL if LS_ARTERIAL in example.maps else LS
    found = [bland_altman_section(example, reference, example.mask)] if models else []
    repeats = sorted({int(r["n_repeats"]) for r in table})[:-1]
    if not repeats:
        return found
    return [*found, _left_out_section(table, repeats), _calibration_section(table, repeats[-1])]


def _left_out_section(table: Sequence[Record], repeats: Sequence[int]) -> Section:
    estimators = list(
        dict.fromkeys(str(r["estimator"]) for r in table if r["metric"] == "left-out RMS")
    )
    where = {"metric": "left-out RMS", "stratum": "better-perfused half"}
    lines = {
        e: as_points([(n, lookup(table, estimator=e, n_repeats=n, **where)) for n in repeats])
        for e in estimators
    }
    panel = Panel("Left-out repeats", "repeats used", "error [% of M0]", lines, repeats)
    return Section(
        "Left-out repeats",
        "Error of predicting the mean of the repeats that were not used, over the better-perfused "
        "half of the brain. It cannot fall below the noise of that mean.",
        draw_panels([panel], line_styles(estimators), n_columns=1),
    )


def _calibration_section(table: Sequence[Record], half: int) -> Section:
    estimators = list(
        dict.fromkeys(str(r["estimator"]) for r in table if r["estimator"] != AVERAGE)
    )

    def shares(estimator: str, quantity: str) -> list[float]:
        where = {"estimator": estimator, "quantity": quantity, "stratum": "mask"}
        return [lookup(table, metric=f"coverage {100 * v:.0f} %", **where) for v in LEVELS]

    panels = coverage_panels(
        {
            f"{shown.heading}, {half} against {half} repeats": {
                e: shares(e, q) for e in estimators
            }
            for q, shown in QUANTITIES.items()
        }
    )
    return Section(
        "Can the error bars be trusted?",
        "Share of voxels where the maps from two halves of the repeats differ by no more than "
        "their standard deviations promise. On the thin line they are right; below it they are "
        "too small. Errors that both halves share do not show here.",
        draw_panels(panels, line_styles(estimators), n_columns=2),
    )
