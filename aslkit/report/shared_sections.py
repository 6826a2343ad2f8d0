"""Parts that the reports share: number formats, what pictures leave out, calibration, speed."""

import math
from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from aslkit.report.charts import Panel, Points
from aslkit.report.page import Section, Table
from aslkit.validate.estimators import Benchmark
from aslkit.validate.records import LEVELS, is_model

DIGITS = {"cbf": 2, "att": 0}  # decimals in printed tables
MISSING = "–"
MAX_PICTURED_MODELS = 4  # whose maps a picture holds: of more, nothing could be seen


def format_number(value: float, digits: int) -> str:
    """With so many decimals, or a dash where it is undefined."""
    return f"{value:.{digits}f}" if np.isfinite(value) else MISSING


def format_percent(share: float) -> str:
    """A share of 1 in whole percent."""
    return f"{100 * share:.0f} %" if np.isfinite(share) else MISSING


def join_names(names: Sequence[str]) -> str:
    """Names as in a sentence."""
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"


def select_pictured(estimators: Sequence[str]) -> tuple[list[str], str]:
    """The estimators that a picture of maps shows, and a sentence about those left out of it."""
    left_out = [e for e in estimators if is_model(e)][MAX_PICTURED_MODELS:]
    shown = [e for e in estimators if e not in left_out]
    if not left_out:
        return shown, ""
    return shown, f" Not pictured, for room: {join_names(left_out)}; the tables have them."


def to_points(pairs: Iterable[tuple[float, float]]) -> Points:
    """x and y as a line without a band."""
    return np.array([(x, y, math.nan, math.nan) for x, y in pairs])


def coverage_panels(lines: Mapping[str, Mapping[str, Sequence[float]]]) -> list[Panel]:
    """Reliability diagrams, alike in their axes.

    Parameters
    ----------
    lines : mapping of title to mapping of estimator to the measured shares (0-1) at `LEVELS`
    """
    nominal = [100 * level for level in LEVELS]
    measured = [100 * m for own in lines.values() for shares in own.values() for m in shares]
    lowest = 5 * np.floor(min([45.0, *(m for m in measured if np.isfinite(m))]) / 5)
    return [
        Panel(
            title,
            "nominal interval [%]",
            "share inside it [%]",
            {e: to_points(zip(nominal, 100 * np.array(m), strict=True)) for e, m in own.items()},
            x_ticks=nominal,
            ideal=[(45, 45), (100, 100)],
            y_limits=(lowest, 101),
        )
        for title, own in lines.items()
    ]


def speed_section(benchmark: Benchmark) -> Section:
    """Wall time and voxels per second of every estimator, and memory where it was measured."""
    columns = ["method", "seconds", "voxels", "voxels / s"]
    rows = [
        [
            s.estimator,
            format_number(s.seconds, 1),
            f"{s.n_voxels:,}",
            f"{s.voxels_per_second:,.0f}",
        ]
        for s in benchmark.speeds
    ]
    peaks = [s.peak_mib for s in benchmark.speeds]
    if np.isfinite(peaks).any():
        columns.append("peak memory of the process so far [MiB]")
        rows = [[*row, format_number(peak, 0)] for row, peak in zip(rows, peaks, strict=True)]
    return Section(
        "Speed and memory",
        "Wall time of estimation alone, on the machine named below.",
        table=Table(columns, rows),
    )
