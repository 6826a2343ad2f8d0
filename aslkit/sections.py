"""Parts that the reports share: number formats, map pictures, agreement, calibration, speed."""

import math
from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from aslkit.agreement import bland_altman
from aslkit.benchmark import TRUTH, Benchmark, Example
from aslkit.charts import Panel, Points
from aslkit.images import MaskImage
from aslkit.pictures import map_comparison
from aslkit.report import Section, Table
from aslkit.scoring import LEVELS, QUANTITIES, values_in

DIGITS = {"cbf": 2, "att": 0}  # decimals in printed tables
MISSING = "–"


def number(value: float, digits: int) -> str:
    """With so many decimals, or a dash where it is undefined."""
    return f"{value:.{digits}f}" if np.isfinite(value) else MISSING


def percent(share: float) -> str:
    """A share of 1 in whole percent."""
    return f"{100 * share:.0f} %" if np.isfinite(share) else MISSING


def listed(names: Sequence[str]) -> str:
    """Names as in a sentence."""
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"


def as_points(pairs: Iterable[tuple[float, float]]) -> Points:
    """x and y as a line without a band."""
    return np.array([(x, y, math.nan, math.nan) for x, y in pairs])


def map_section(example: Example, orientation: str) -> Section:
    """Maps of all estimators side by side, with their errors where the truth is known."""
    truth = example.maps.get(TRUTH)
    errors = (
        ""
        if truth is None
        else "Red is too high, blue too low. A good error bar (sd) is large where the error is. "
    )
    return Section(
        f"Maps: {example.title}",
        "All columns of a row share one colour scale. sd is the standard deviation that each "
        f"method reports for itself. {errors}{orientation}",
        map_comparison(example.maps, example.mask, example.title, truth),
    )


def bland_altman_section(example: Example, reference: str, inside: MaskImage) -> Section:
    """Difference of every estimator from a reference (one of them, or the truth)."""
    values = {
        name: {q: values_in(getattr(m, q), inside, q) for q in QUANTITIES}
        for name, m in example.maps.items()
    }
    tilt = (
        "A tilted cloud means that high values are pulled down and low ones up."
        if reference == TRUTH
        else f"{reference} is noisy too, and its noise alone tilts the cloud."
    )
    return Section(
        f"Bland-Altman: difference from {reference}",
        f"{example.title}. Darker: more voxels (logarithmic). The solid line is the mean "
        "difference, the dashed ones are 1.96 standard deviations away and enclose 95 % of "
        f"Gaussian differences; the numbers are both. {tilt}",
        bland_altman(
            values.pop(reference), {n: v for n, v in values.items() if n != reference}, reference
        ),
    )


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
            {e: as_points(zip(nominal, 100 * np.array(m), strict=True)) for e, m in own.items()},
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
        [s.estimator, number(s.seconds, 1), f"{s.n_voxels:,}", f"{s.voxels_per_second:,.0f}"]
        for s in benchmark.speeds
    ]
    peaks = [s.peak_mib for s in benchmark.speeds]
    if np.isfinite(peaks).any():
        columns.append("peak memory of the process so far [MiB]")
        rows = [[*row, number(peak, 0)] for row, peak in zip(rows, peaks, strict=True)]
    return Section(
        "Speed and memory",
        "Wall time of estimation alone, on the machine named below.",
        table=Table(columns, rows),
    )
