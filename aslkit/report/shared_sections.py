"""Parts that all pages share: number formats, pictured models, calibration, speed."""

import math
from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from aslkit.report.charts import Panel, Points
from aslkit.report.page import Section, Table
from aslkit.validate.estimators import Benchmark
from aslkit.validate.records import LEVELS, is_model

DIGITS = {"cbf": 2, "att": 0}  # decimals in printed tables
MISSING = "–"
MAX_PICTURED_MODELS = 4  # maps of more models would be too small to read


def format_number(value: float, digits: int) -> str:
    """Return the number with `digits` decimals, without "-0", or a dash if it is not finite."""
    return f"{value:z.{digits}f}" if np.isfinite(value) else MISSING


def format_percent(share: float) -> str:
    """Return a share (0-1) in whole percent, or a dash if it is not finite."""
    return f"{100 * share:z.0f} %" if np.isfinite(share) else MISSING


def format_count(n: int, noun: str) -> str:
    """Return, for example, "1 repeat" or "8 repeats"."""
    return f"{n:,} {noun}{'s' * (n != 1)}"


def join_names(names: Sequence[str]) -> str:
    """Join names with commas and "and"."""
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"


def select_pictured(estimators: Sequence[str]) -> tuple[list[str], str]:
    """Return the estimators that a picture of maps shows, and a note on those left out."""
    left_out = [e for e in estimators if is_model(e)][MAX_PICTURED_MODELS:]
    shown = [e for e in estimators if e not in left_out]
    if not left_out:
        return shown, ""
    return shown, f" Not shown for lack of space: {join_names(left_out)}. The tables include them."


def to_points(pairs: Iterable[tuple[float, float]]) -> Points:
    """Return pairs (x, y) as a line without intervals, (points, 4)."""
    return np.array([(x, y, math.nan, math.nan) for x, y in pairs])


def coverage_panels(lines: Mapping[str, Mapping[str, Sequence[float]]]) -> list[Panel]:
    """Return the panels of reliability diagrams, with common axes.

    Parameters
    ----------
    lines : mapping of title to mapping of estimator to measured shares
        Shares (0-1) of values inside the nominal intervals of `LEVELS`.
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
    """Return wall time, voxels per second and, if measured, peak memory of every estimator."""
    columns = ["method", "time [s]", "voxels", "voxels / s"]
    rows = [
        [
            s.estimator,
            format_number(s.seconds, 1),
            f"{s.n_voxels:,}",
            f"{s.voxels_per_second:,.0f}",
        ]
        for s in benchmark.speeds
    ]
    text = "Wall time of the estimation only, on the machine named at the end of this page."
    peaks = [s.peak_mib for s in benchmark.speeds]
    if np.isfinite(peaks).any():
        text += " Peak memory: largest memory of the whole process when the method had finished."
        columns.append("peak memory [MiB]")
        rows = [[*row, format_number(peak, 0)] for row, peak in zip(rows, peaks, strict=True)]
    return Section(
        "Speed and memory",
        text,
        table=Table(columns, rows),
    )
