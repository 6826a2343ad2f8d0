"""Estimates and a reference -> Bland-Altman plots of the voxels of a scan or of subjects."""

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from aslkit.core.constants import Z_95
from aslkit.report.style import (
    HIGHLIGHT_COLOUR,
    LABEL_SIZE,
    PAGE_WIDTH,
    TEXT_COLOUR,
    TICK_SIZE,
    LineStyle,
    draw_density,
    style_axes,
    to_png,
)
from aslkit.validate.agreement_stats import limits_of_agreement
from aslkit.validate.metrics import FloatArray
from aslkit.validate.records import QUANTITIES

CENTRAL_PERCENT = 99.0  # percentage of differences and of reference values within the axes
PANEL_WIDTH = 3.6  # inches, if the page has room


def bland_altman_plots(
    references: Mapping[str, FloatArray],
    estimates: Mapping[str, Mapping[str, FloatArray]],
    reference_name: str,
) -> bytes:
    """Draw the differences from a reference over the reference, voxel by voxel.

    Rows are quantities, columns are estimators.

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
            style_axes(ax)
        axes[0].set_ylabel(f"{shown.heading}, estimate - {reference_name}\n[{shown.unit}]")
    return to_png(figure)


def subject_bland_altman(
    means: Mapping[str, tuple[FloatArray, FloatArray]],
    subjects: Sequence[str],
    styles: Mapping[str, LineStyle],
    label: str,
) -> bytes:
    """Draw Bland-Altman plots with a point per subject and a panel per estimator.

    Parameters
    ----------
    means : mapping of estimator to (estimate, reference), arrays (subjects,)
    """
    width = min(PANEL_WIDTH, PAGE_WIDTH / len(means))
    figure = Figure(figsize=(width * len(means), 0.5 + 0.8 * width), layout="constrained")
    grid = figure.subplots(1, len(means), sharey=True, squeeze=False)[0]
    for ax, (name, (own, reference)) in zip(grid, means.items(), strict=True):
        centre, difference = (own + reference) / 2, own - reference
        ax.plot(centre, difference, label=name)[0].set(**{**styles[name], "linestyle": ""})
        for x, y, subject in zip(centre, difference, subjects, strict=True):
            ax.annotate(
                subject,
                (x, y),
                xytext=(4, 3),
                textcoords="offset points",
                color=TEXT_COLOUR,
                fontsize=TICK_SIZE - 1,
            )
        ax.axhline(0, color=TEXT_COLOUR, linewidth=0.6)
        ax.axhline(difference.mean(), color=HIGHLIGHT_COLOUR, linewidth=1.2)
        for limit in limits_of_agreement(difference):
            ax.axhline(limit.value, color=HIGHLIGHT_COLOUR, linestyle="--", linewidth=1.2)
            ax.axhspan(limit.low, limit.high, color=HIGHLIGHT_COLOUR, alpha=0.08, linewidth=0)
        ax.margins(x=0.25)
        ax.set(title=name, xlabel=f"mean of method and LS, {label}")
        style_axes(ax)
    grid[0].set_ylabel("difference from LS")
    return to_png(figure)


def _extent(
    reference: FloatArray, estimates: Sequence[FloatArray]
) -> tuple[float, float, float, float]:
    """Return the limits of x and y; those of y are symmetric about 0."""
    spread = np.nanpercentile(np.abs(np.stack(estimates) - reference), CENTRAL_PERCENT) + 1e-6
    low, high = np.nanpercentile(reference, [100 - CENTRAL_PERCENT, CENTRAL_PERCENT])
    return float(low), float(max(high, low + 1e-6)), -float(spread), float(spread)


def _density(
    ax: Axes,
    reference: FloatArray,
    difference: FloatArray,
    extent: tuple[float, float, float, float],
) -> None:
    is_known = np.isfinite(difference)
    reference, difference = reference[is_known], difference[is_known]
    draw_density(ax, reference, difference, extent)
    mean, half_width = float(difference.mean()), Z_95 * float(difference.std())
    for level, style in ((mean, "-"), (mean - half_width, "--"), (mean + half_width, "--")):
        ax.axhline(level, color=HIGHLIGHT_COLOUR, linestyle=style, linewidth=1.2)
    ax.axhline(0, color=TEXT_COLOUR, linewidth=0.6)
    ax.text(
        0.98,
        0.97,
        f"{_format_digits(mean, sign=True)} ± {_format_digits(half_width)}",
        transform=ax.transAxes,
        ha="right",
        va="top",
        color=TEXT_COLOUR,
        fontsize=LABEL_SIZE,
        bbox={"facecolor": "white", "edgecolor": "none", "alpha": 0.8, "pad": 2},
    )


def _format_digits(value: float, sign: bool = False) -> str:
    """Return the value with three significant digits, without an exponent."""
    return np.format_float_positional(
        value, precision=3, unique=False, fractional=False, trim="-", sign=sign
    )
