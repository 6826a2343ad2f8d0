"""Scores over SNR, nominal level, repeats or scale -> a picture with line charts."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from numpy.typing import NDArray

from aslkit.report.style import (
    PAGE_WIDTH,
    TEXT_COLOUR,
    LineStyle,
    add_legend,
    set_log_axis,
    style_axes,
    to_png,
)

Points = NDArray[np.floating]  # (points, 4): x, y, and low and high of the 95 % interval or NaN

PANEL_WIDTH, PANEL_HEIGHT = 3.8, 3.0  # inches, if the page has room
LAYOUT = ConstrainedLayoutEngine(w_pad=0.08, h_pad=0.06)  # inches around every panel


@dataclass(frozen=True)
class Panel:
    """Contents of one pair of axes.

    Attributes
    ----------
    lines : mapping of estimator to Points
        Points that are not finite are left out, and so are lines without finite points.
    x_ticks : sequence of float
        Ticks of the x axis.
    logarithmic : str
        Names of the logarithmic axes: "", "x", "y" or "xy".
    ideal : sequence of (x, y)
        Thin line of a perfect estimator; none if empty.
    y_limits : (low, high), optional
    """

    title: str
    xlabel: str
    ylabel: str
    lines: Mapping[str, Points]
    x_ticks: Sequence[float]
    logarithmic: str = ""
    ideal: Sequence[tuple[float, float]] = ()
    y_limits: tuple[float, float] | None = None


def draw_panels(panels: Sequence[Panel], styles: Mapping[str, LineStyle], n_columns: int) -> bytes:
    """Draw the panels row by row with one legend; `styles` covers the estimators of all panels."""
    n_columns = min(n_columns, len(panels))
    n_rows = -(-len(panels) // n_columns)
    width = min(PANEL_WIDTH * n_columns, PAGE_WIDTH)
    height = PANEL_HEIGHT * (0.6 + 0.4 * width / n_columns / PANEL_WIDTH)
    figure = Figure(figsize=(width, height * n_rows + 0.4), layout=LAYOUT)
    axes = list(figure.subplots(n_rows, n_columns, squeeze=False).flat)
    for ax, panel in zip(axes, panels, strict=False):
        _draw(ax, panel, styles)
    for ax in axes[len(panels) :]:
        ax.set_axis_off()
    add_legend(figure, axes, list(styles))
    return to_png(figure)


def _draw(ax: Axes, panel: Panel, styles: Mapping[str, LineStyle]) -> None:
    if panel.ideal:
        ax.plot(*np.transpose(panel.ideal), color=TEXT_COLOUR, linewidth=0.8)
    for name in (n for n in styles if n in panel.lines):
        x, y, low, high = panel.lines[name][np.isfinite(panel.lines[name][:, 1])].T
        if len(x):
            ax.plot(x, y, label=name)[0].set(**styles[name])
            ax.fill_between(
                x, low, high, color=str(styles[name]["color"]), alpha=0.18, linewidth=0
            )
    if panel.y_limits:
        ax.set_ylim(panel.y_limits)
    for axis in panel.logarithmic:
        set_log_axis(ax, axis)
    ax.set_xticks(panel.x_ticks, [f"{t:g}" for t in panel.x_ticks])
    ax.set(title=panel.title, xlabel=panel.xlabel, ylabel=panel.ylabel)
    style_axes(ax)
