"""Parts that the reports share: number formats, map pictures, agreement, calibration, speed."""

from collections.abc import Iterable, Sequence

import numpy as np

from aslkit import pictures
from aslkit.benchmark import TRUTH, Benchmark, Example
from aslkit.images import MaskImage
from aslkit.report import Section, Table
from aslkit.scoring import LEVELS, QUANTITIES, Record, lookup, values_in

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


def map_sections(examples: Iterable[Example]) -> list[Section]:
    """Maps of all estimators side by side, one section per example."""
    return [
        Section(
            f"Maps: {e.title}",
            "All columns of a row share one colour scale. The lower rows are the standard "
            "deviations that each method reports for itself.",
            pictures.map_comparison(e.maps, e.mask, e.title),
        )
        for e in examples
    ]


def bland_altman_section(
    example: Example, reference: str, quantity: str, inside: MaskImage
) -> Section:
    """Difference of every estimator from a reference (one of them, or the truth)."""
    values = {
        n: values_in(getattr(m, quantity), inside, quantity) for n, m in example.maps.items()
    }
    others = {n: v for n, v in values.items() if n != reference}
    tilt = (
        "A tilted cloud means that high values are pulled down and low ones up."
        if reference == TRUTH
        else f"{reference} is noisy too, and its noise alone tilts the cloud."
    )
    return Section(
        f"{QUANTITIES[quantity].heading}: difference from {reference}",
        f"{example.title}. Each panel shows how often a difference occurs (darker: more often, "
        "logarithmic). The solid red line is the mean difference, the dashed ones enclose 95 % "
        f"of Gaussian differences; the titles give both. {tilt}",
        pictures.bland_altman(values[reference], others, quantity, reference),
    )


def coverage_curve(table: Sequence[Record], **where: str | float) -> list[tuple[float, float]]:
    """Nominal and measured shares, from the lines of the table that have these fields."""
    return [
        (level, lookup(table, metric=f"coverage {100 * level:.0f} %", **where)) for level in LEVELS
    ]


def speed_section(benchmark: Benchmark) -> Section:
    """Wall time and voxels per second of every estimator."""
    rows = [
        [s.estimator, number(s.seconds, 1), f"{s.n_voxels:,}", f"{s.voxels_per_second:,.0f}"]
        for s in benchmark.speeds
    ]
    return Section(
        "Speed",
        "Wall time of estimation alone, over all voxels of the field of view, on the machine "
        "named below.",
        table=Table(["method", "seconds", "voxels", "voxels / s"], rows),
    )
