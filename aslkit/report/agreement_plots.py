"""Estimates against a reference, and estimators against each other -> pictures."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from aslkit.core.constants import Z_95
from aslkit.report.style import (
    ACCENT,
    FAINT,
    INK,
    LABEL_SIZE,
    PAGE_WIDTH,
    TICK_SIZE,
    TITLE_SIZE,
    density,
    tidy,
    to_png,
)
from aslkit.validate.metrics import FloatArray
from aslkit.validate.records import QUANTITIES

CENTRAL = 99.0  # per cent of differences and of reference values that the axes show
PANEL_WIDTH, PANEL_HEIGHT = 3.6, 2.9  # inches, where there is room


@dataclass(frozen=True)
class Matrix:
    """Shares (0-1) of won voxels, row against column, and the text of each cell."""

    title: str
    names: Sequence[str]
    shares: NDArray[np.floating]
    texts: Sequence[Sequence[str]]


def bland_altman(
    references: Mapping[str, FloatArray],
    estimates: Mapping[str, Mapping[str, FloatArray]],
    reference_name: str,
) -> bytes:
    """Difference from a reference over the reference: quantities in rows, estimators in columns.

    Parameters
    ----------
    references : mapping of quantity to array (voxels,)
        In the table unit of the quantity.
    estimates : mapping of estimator to mapping of quantity to array (voxels,)
    """
    width = min(PANEL_WIDTH, PAGE_WIDTH / len(estimates))
    size = (width * len(estimates), (0.5 + 0.75 * width) * len(references))
    figure = Figure(figsize=size, layout="constrained")
    grid = figure.subplots(
        len(references), len(estimates), sharex="row", sharey="row", squeeze=False
    )
    for axes, (quantity, reference) in zip(grid, references.items(), strict=True):
        shown = QUANTITIES[quantity]
        extent = _extent(reference, [e[quantity] for e in estimates.values()])
        for ax, (name, estimate) in zip(axes, estimates.items(), strict=True):
            _density(ax, reference, estimate[quantity] - reference, extent)
            ax.set(title=name, xlabel=f"{shown.heading}, {reference_name} [{shown.unit}]")
            tidy(ax)
        axes[0].set_ylabel(f"{shown.heading}, estimate - {reference_name}\n[{shown.unit}]")
    return to_png(figure)


def win_matrix(matrices: Sequence[Matrix]) -> bytes:
    """How often the estimator of a row is closer to the truth than that of a column."""
    n = max(len(m.names) for m in matrices)
    n_columns = min(len(matrices), 2)
    n_rows = -(-len(matrices) // n_columns)
    side = min(1.2 + 0.75 * n, PAGE_WIDTH / 2)
    figure = Figure(figsize=(side * n_columns, 0.8 * side * n_rows), layout="constrained")
    axes = list(figure.subplots(n_rows, n_columns, squeeze=False).flat)
    for ax, matrix in zip(axes, matrices, strict=False):
        _cells(ax, matrix)
    for ax in axes[len(matrices) :]:
        ax.set_axis_off()
    return to_png(figure)


def _extent(
    reference: FloatArray, estimates: Sequence[FloatArray]
) -> tuple[float, float, float, float]:
    """Limits of x and, symmetric about 0, of y."""
    spread = np.nanpercentile(np.abs(np.stack(estimates) - reference), CENTRAL) + 1e-6
    low, high = np.nanpercentile(reference, [100 - CENTRAL, CENTRAL])
    return float(low), float(max(high, low + 1e-6)), -float(spread), float(spread)


def _density(
    ax: Axes,
    reference: FloatArray,
    difference: FloatArray,
    extent: tuple[float, float, float, float],
) -> None:
    is_known = np.isfinite(difference)
    reference, difference = reference[is_known], difference[is_known]
    density(ax, reference, difference, extent)
    mean, half_width = float(difference.mean()), Z_95 * float(difference.std())
    for level, style in ((mean, "-"), (mean - half_width, "--"), (mean + half_width, "--")):
        ax.axhline(level, color=ACCENT, linestyle=style, linewidth=1.2)
    ax.axhline(0, color=INK, linewidth=0.6)
    ax.text(
        0.98,
        0.97,
        f"{_digits(mean, sign=True)} ± {_digits(half_width)}",
        transform=ax.transAxes,
        ha="right",
        va="top",
        color=INK,
        fontsize=LABEL_SIZE,
        bbox={"facecolor": "white", "edgecolor": "none", "alpha": 0.8, "pad": 2},
    )


def _digits(value: float, sign: bool = False) -> str:
    """Three significant digits, never as a power of ten."""
    return np.format_float_positional(
        value, precision=3, unique=False, fractional=False, trim="-", sign=sign
    )


def _cells(ax: Axes, matrix: Matrix) -> None:
    ax.imshow(matrix.shares, cmap="PuOr", vmin=0, vmax=1, aspect="auto")
    for row, texts in enumerate(matrix.texts):
        for column, text in enumerate(texts):
            is_dark = abs(matrix.shares[row, column] - 0.5) > 0.27
            colour = "white" if is_dark else INK
            ax.text(column, row, text, ha="center", va="center", color=colour, fontsize=TICK_SIZE)
    places = range(len(matrix.names))
    ax.set_xticks(places, matrix.names, rotation=30, ha="left", rotation_mode="anchor")
    ax.set_yticks(places, matrix.names)
    ax.tick_params(top=True, labeltop=True, bottom=False, labelbottom=False, length=0)
    ax.tick_params(labelsize=TICK_SIZE, labelcolor=INK)
    ax.set_title(matrix.title, color=INK, fontsize=TITLE_SIZE)
    ax.spines[:].set_color(FAINT)
