"""Motion parameters -> a table and a plot."""

import io
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from aslkit.bids.run import AslRun
from aslkit.core.tables import rows_text
from aslkit.prepare.motion import MOTION_COLUMNS, Parameters, framewise_displacement, in_degrees

DPI = 110


def motion_table(runs: list[AslRun], motion: Mapping[Path, Parameters]) -> str:
    """Return tab-separated text: source, volume (from 0), type, mm, degrees, displacement [mm]."""
    names = ["source", "volume", "volume_type", *MOTION_COLUMNS, "framewise_displacement"]
    rows = []
    for run in runs:
        parameters = motion[run.source]
        numbers = np.column_stack([in_degrees(parameters), framewise_displacement(parameters)])
        for i, (context, row) in enumerate(zip(run.contexts, numbers, strict=True)):
            values = (f"{v:.4f}" if np.isfinite(v) else None for v in row)
            rows.append((run.source.name, i, context, *values))
    return rows_text(names, rows)


def motion_plot(motion: Mapping[Path, Parameters]) -> bytes:
    """Draw a PNG with translations, rotations and framewise displacement, a column per run."""
    figure = Figure(figsize=(8 * len(motion), 7), layout="constrained")
    axes = figure.subplots(3, len(motion), squeeze=False, sharex="col")
    for column, (source, parameters) in zip(axes.T, motion.items(), strict=True):
        moved = np.isfinite(parameters[:, 0])
        shown, volumes = in_degrees(parameters)[moved], np.flatnonzero(moved)
        for row, (label, part) in enumerate((("translation [mm]", 0), ("rotation [°]", 3))):
            for n, axis in enumerate("xyz"):
                column[row].plot(volumes, shown[:, part + n], lw=1, label=axis)
            column[row].set_ylabel(label)
            column[row].legend(ncols=3, loc="upper left", frameon=False)
        column[2].plot(volumes, framewise_displacement(parameters)[moved], "k", lw=1)
        column[2].set(ylabel="framewise\ndisplacement [mm]", xlabel="volume", ylim=(0, None))
        column[0].set_title(source.name, fontsize=9)
    content = io.BytesIO()
    figure.savefig(content, dpi=DPI)
    return content.getvalue()
