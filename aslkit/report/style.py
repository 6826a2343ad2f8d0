"""Figures -> PNG bytes with common colours, line styles and axes.

The line colours are those of Okabe and Ito, which are safe for colour-blind readers; markers
differ too.
"""

from collections.abc import Iterable, Sequence
from io import BytesIO
from itertools import cycle

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.image import AxesImage
from matplotlib.ticker import FixedLocator, NullLocator

from aslkit.validate.metrics import FloatArray
from aslkit.validate.records import (
    AVERAGE,
    BOUND,
    LS,
    LS_ARTERIAL,
    LS_ORACLE,
    SMOOTHED_LS,
    is_model,
)

PIXELS_PER_INCH = 144  # 1.5 pixels per CSS pixel at the size in inches of the figure
PAGE_WIDTH = 11.5  # inches
TEXT_COLOUR = "#22303c"
GRID_COLOUR = "#d5dbe1"
HIGHLIGHT_COLOUR = "#d55e00"
TITLE_SIZE, LABEL_SIZE, TICK_SIZE = 10, 9, 8

LineStyle = dict[str, object]  # properties of a matplotlib line

_DOTTED_LINE: LineStyle = {"color": TEXT_COLOUR, "linestyle": ":", "linewidth": 1.5, "marker": ""}
_BASELINE_STYLES: dict[str, LineStyle] = {
    BOUND: _DOTTED_LINE,
    AVERAGE: _DOTTED_LINE,
    LS: {"color": "#6b7785", "marker": "o"},
    SMOOTHED_LS: {"color": "#56b4e9", "marker": "s"},
    LS_ARTERIAL: {"color": "#0072b2", "marker": "D"},
    LS_ORACLE: {"color": "#6b7785", "linestyle": "--", "marker": "o", "markerfacecolor": "white"},
}
_MODEL_LINES = ("-", "--", "-.", ":")  # the next one each time the model styles are used up
_MODEL_STYLES: tuple[LineStyle, ...] = (
    {"color": HIGHLIGHT_COLOUR, "marker": "^"},
    {"color": "#009e73", "marker": "v"},
    {"color": "#cc79a7", "marker": "P"},
    {"color": "#e69f00", "marker": "X"},
)


def line_styles(estimators: Sequence[str]) -> dict[str, LineStyle]:
    """Return line properties by estimator.

    Baselines have fixed styles. Models get theirs by their order in the list, so use the same
    list for all figures of a page.
    """
    models = [e for e in estimators if is_model(e)]
    model_styles = (
        {**style, "linestyle": line} for line in cycle(_MODEL_LINES) for style in _MODEL_STYLES
    )
    styles = {**_BASELINE_STYLES, **dict(zip(models, model_styles, strict=False))}
    return {e: {"linewidth": 1.6, "markersize": 4.5, **styles[e]} for e in estimators}


def style_axes(ax: Axes) -> None:
    """Set the colours and sizes of frame, grid and text."""
    ax.grid(color=GRID_COLOUR, linewidth=0.5)
    ax.set_axisbelow(True)
    ax.tick_params(labelsize=TICK_SIZE, colors=TEXT_COLOUR, length=0)
    ax.title.set(color=TEXT_COLOUR, fontsize=TITLE_SIZE)
    ax.xaxis.label.set(color=TEXT_COLOUR, fontsize=LABEL_SIZE)
    ax.yaxis.label.set(color=TEXT_COLOUR, fontsize=LABEL_SIZE)
    for side in ax.spines.values():
        side.set_color(GRID_COLOUR)


def set_log_axis(ax: Axes, axis: str) -> None:
    """Make the axis "x" or "y" logarithmic, with plain numbers at 1, 2 and 5, or at decades only.

    Limits that contain fewer than two ticks are moved outwards to the next ticks.
    """
    ax.set(**{f"{axis}scale": "log"})
    low, high = ax.get_xlim() if axis == "x" else ax.get_ylim()
    factors = (1, 2, 5) if high / low < 500 else (1,)
    ticks = [f * 10.0**e for e in range(-9, 7) for f in factors]
    if sum(low <= t <= high for t in ticks) < 2:
        low, high = max(t for t in ticks if t <= low), min(t for t in ticks if t >= high)
        ax.set(**{f"{axis}lim": (low, high)})
    shown = [t for t in ticks if low <= t <= high]
    of_axis = ax.xaxis if axis == "x" else ax.yaxis
    of_axis.set_major_locator(FixedLocator(shown))
    of_axis.set_minor_locator(NullLocator())
    of_axis.set_ticklabels([np.format_float_positional(t, trim="-") for t in shown])


def add_legend(figure: Figure, axes: Sequence[Axes], names: Sequence[str]) -> None:
    """Add one legend above all axes, in the order of the names."""
    handles = {str(line.get_label()): line for ax in axes for line in ax.get_lines()}
    found = [n for n in names if n in handles]
    columns = max(1, min(len(found), int(figure.get_figwidth() / 1.5)))
    figure.legend(
        [handles[n] for n in found],
        found,
        loc="outside upper center",
        ncols=columns,
        frameon=False,
        fontsize=LABEL_SIZE,
        labelcolor=TEXT_COLOUR,
    )


def set_column_titles(axes: Sequence[Axes], names: Iterable[str]) -> None:
    """Set a title for each of the axes."""
    for ax, name in zip(axes, names, strict=True):
        ax.set_title(name, color=TEXT_COLOUR, fontsize=TITLE_SIZE)


def add_colour_bar(
    figure: Figure, axes: Sequence[Axes], drawn: AxesImage, heading: str, is_signed: bool
) -> None:
    """Add a colour bar beside all axes that share the colour scale of `drawn`."""
    ends = "both" if is_signed else "max"
    bar = figure.colorbar(drawn, ax=list(axes), fraction=0.03, pad=0.01, shrink=0.85, extend=ends)
    bar.set_label(heading, color=TEXT_COLOUR, fontsize=TICK_SIZE)
    bar.ax.tick_params(labelsize=TICK_SIZE - 1, colors=TEXT_COLOUR)
    bar.outline.set_visible(False)


def draw_density(
    ax: Axes, x: FloatArray, y: FloatArray, extent: tuple[float, float, float, float]
) -> None:
    """Draw the density of voxels, darker is more (logarithmic), and set the limits of the axes."""
    ax.hexbin(x, y, gridsize=45, extent=extent, bins="log", cmap="Blues", linewidths=0.1)
    ax.set(xlim=extent[:2], ylim=extent[2:])


def to_png(figure: Figure) -> bytes:
    """Return the figure as a PNG file."""
    buffer = BytesIO()
    figure.savefig(
        buffer, format="png", dpi=PIXELS_PER_INCH, facecolor="white", metadata={"Software": None}
    )
    return buffer.getvalue()
