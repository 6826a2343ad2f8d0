"""Estimates over a reference: voxels of one scan, or subjects of a study -> pictures."""

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.figure import Figure

from aslkit.report.style import (
    ACCENT,
    INK,
    LABEL_SIZE,
    PAGE_WIDTH,
    TICK_SIZE,
    Style,
    density,
    tidy,
    to_png,
)
from aslkit.validate.agreement_stats import limits_of_agreement
from aslkit.validate.metrics import FloatArray, concordance
from aslkit.validate.records import QUANTITIES

CENTRAL = 99.5  # percentile of the reference at which the axes end
PANEL_WIDTH = 3.6  # inches, where there is room


def scatter_plots(
    references: Mapping[str, FloatArray],
    estimates: Mapping[str, Mapping[str, FloatArray]],
    reference_name: str,
) -> bytes:
    """Estimate over reference: quantities in rows, estimators in columns, darker is more voxels.

    Parameters
    ----------
    references : mapping of quantity to array (voxels,)
        In the table unit of the quantity.
    estimates : mapping of estimator to mapping of quantity to array (voxels,)
    """
    width = min(PANEL_WIDTH, PAGE_WIDTH / len(estimates))
    size = (width * len(estimates), (0.4 + 0.85 * width) * len(references))
    figure = Figure(figsize=size, layout="constrained")
    grid = figure.subplots(len(references), len(estimates), squeeze=False)
    for axes, (quantity, reference) in zip(grid, references.items(), strict=True):
        shown = QUANTITIES[quantity]
        low, high = np.percentile(reference, [100 - CENTRAL, CENTRAL])
        ends = float(min(low, 0)), float(max(high, low + 1e-6))
        for ax, (name, own) in zip(axes, estimates.items(), strict=True):
            density(ax, reference, own[quantity], (*ends, *ends))
            ax.plot(ends, ends, color=INK, linewidth=0.8)
            text = f"CCC {concordance(own[quantity], reference):.2f}"
            ax.text(0.03, 0.96, text, transform=ax.transAxes, va="top", fontsize=LABEL_SIZE)
            ax.set(title=name, xlabel=f"{shown.heading}, {reference_name} [{shown.unit}]")
            ax.set_aspect("equal")
            tidy(ax)
        axes[0].set_ylabel(f"{shown.heading} [{shown.unit}]")
    return to_png(figure)


def subject_differences(
    means: Mapping[str, tuple[FloatArray, FloatArray]],
    subjects: Sequence[str],
    styles: Mapping[str, Style],
    label: str,
) -> bytes:
    """Bland-Altman plot with a point per subject and a panel per estimator.

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
                color=INK,
                fontsize=TICK_SIZE - 1,
            )
        ax.axhline(0, color=INK, linewidth=0.6)
        ax.axhline(difference.mean(), color=ACCENT, linewidth=1.2)
        for limit in limits_of_agreement(difference):
            ax.axhline(limit.value, color=ACCENT, linestyle="--", linewidth=1.2)
            ax.axhspan(limit.low, limit.high, color=ACCENT, alpha=0.08, linewidth=0)
        ax.margins(x=0.25)
        ax.set(title=name, xlabel=f"mean of both, {label}")
        tidy(ax)
    grid[0].set_ylabel("difference from LS")
    return to_png(figure)
