"""Win rates of every estimator against every other -> pictures of matrices."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from aslkit.report.style import (
    GRID_COLOUR,
    PAGE_WIDTH,
    TEXT_COLOUR,
    TICK_SIZE,
    TITLE_SIZE,
    to_png,
)


@dataclass(frozen=True)
class WinRates:
    """Win rates of one setting and quantity.

    Attributes
    ----------
    title : str
    names : sequence of str
        Estimators, for rows and columns.
    shares : array (estimators, estimators)
        Share of voxels (0-1) in which the row is closer to the truth than the column.
    texts : sequence of sequence of str
        Text of each cell.
    """

    title: str
    names: Sequence[str]
    shares: NDArray[np.floating]
    texts: Sequence[Sequence[str]]


def win_rate_matrix(matrices: Sequence[WinRates]) -> bytes:
    """Draw the matrices side by side, two per row."""
    n = max(len(m.names) for m in matrices)
    n_columns = min(len(matrices), 2)
    n_rows = -(-len(matrices) // n_columns)
    side = min(1.2 + 0.75 * n, PAGE_WIDTH / 2)
    figure = Figure(figsize=(side * n_columns, 0.8 * side * n_rows), layout="constrained")
    axes = list(figure.subplots(n_rows, n_columns, squeeze=False).flat)
    for ax, matrix in zip(axes, matrices, strict=False):
        _draw_matrix(ax, matrix)
    for ax in axes[len(matrices) :]:
        ax.set_axis_off()
    return to_png(figure)


def _draw_matrix(ax: Axes, matrix: WinRates) -> None:
    ax.imshow(matrix.shares, cmap="PuOr", vmin=0, vmax=1, aspect="auto")
    for row, texts in enumerate(matrix.texts):
        for column, text in enumerate(texts):
            is_dark = abs(matrix.shares[row, column] - 0.5) > 0.27
            colour = "white" if is_dark else TEXT_COLOUR
            ax.text(column, row, text, ha="center", va="center", color=colour, fontsize=TICK_SIZE)
    places = range(len(matrix.names))
    ax.set_xticks(places, matrix.names, rotation=30, ha="left", rotation_mode="anchor")
    ax.set_yticks(places, matrix.names)
    ax.tick_params(top=True, labeltop=True, bottom=False, labelbottom=False, length=0)
    ax.tick_params(labelsize=TICK_SIZE, labelcolor=TEXT_COLOUR)
    ax.set_title(matrix.title, color=TEXT_COLOUR, fontsize=TITLE_SIZE)
    ax.spines[:].set_color(GRID_COLOUR)
