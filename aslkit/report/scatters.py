"""Estimates and a reference -> scatter plots of the voxels of a scan."""

from collections.abc import Mapping

import numpy as np
from matplotlib.figure import Figure

from aslkit.report.style import (
    LABEL_SIZE,
    PAGE_WIDTH,
    TEXT_COLOUR,
    draw_density,
    style_axes,
    to_png,
)
from aslkit.validate.metrics import FloatArray, concordance
from aslkit.validate.records import QUANTITIES

TOP_PERCENTILE = 99.5  # of the reference, at the end of the axes
PANEL_WIDTH = 3.6  # inches, if the page has room


def scatter_plots(
    references: Mapping[str, FloatArray],
    estimates: Mapping[str, Mapping[str, FloatArray]],
    reference_name: str,
) -> bytes:
    """Draw the estimates over a reference, voxel by voxel; darker is more voxels.

    Rows are quantities, columns are estimators.

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
        low, high = np.percentile(reference, [100 - TOP_PERCENTILE, TOP_PERCENTILE])
        ends = float(min(low, 0)), float(max(high, low + 1e-6))
        for ax, (name, own) in zip(axes, estimates.items(), strict=True):
            draw_density(ax, reference, own[quantity], (*ends, *ends))
            ax.plot(ends, ends, color=TEXT_COLOUR, linewidth=0.8)
            text = f"CCC {concordance(own[quantity], reference):.2f}"
            ax.text(0.03, 0.96, text, transform=ax.transAxes, va="top", fontsize=LABEL_SIZE)
            ax.set(title=name, xlabel=f"{shown.heading}, {reference_name} [{shown.unit}]")
            ax.set_aspect("equal")
            style_axes(ax)
        axes[0].set_ylabel(f"{shown.heading} [{shown.unit}]")
    return to_png(figure)
