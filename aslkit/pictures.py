"""Maps and tables of figures -> pictures, as PNG bytes.

Images are shown as they are stored: x to the right, y upwards.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from io import BytesIO
from itertools import cycle

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from aslkit.images import FloatImage, MaskImage, ParameterMaps
from aslkit.scoring import AVERAGE, BOUND, LS, LS_ARTERIAL, QUANTITIES, Record, lookup

Values = NDArray[np.floating]

DPI = 110
INK = "#22303c"
FAINT = "#d5dbe1"
ACCENT = "#c8452d"
MODEL_COLOURS = (ACCENT, "#2f855a", "#805ad5", "#b7791f")
FIXED_COLOURS = {BOUND: INK, AVERAGE: INK, LS: "#6b7785", LS_ARTERIAL: "#2b6cb0"}
TOP_PERCENTILE = 98.0  # of a map's values: the upper end of its colour scale
N_COMPARED_SLICES = 3


@dataclass(frozen=True)
class Panel:
    """How one map is drawn: field of ParameterMaps, heading with unit, colours, tick step."""

    name: str
    heading: str
    colours: str
    step: float


PANELS = (
    Panel("cbf", "CBF [ml/100 g/min]", "inferno", 10.0),
    Panel("att", "ATT [s]", "viridis", 0.5),
    Panel("cbf_std", "sd of CBF [ml/100 g/min]", "cividis", 2.0),
    Panel("att_std", "sd of ATT [s]", "cividis", 0.1),
)


def map_comparison(maps: Mapping[str, ParameterMaps], mask: MaskImage, title: str) -> bytes:
    """CBF, ATT and their standard deviations (rows) by each estimator or the truth (columns).

    All columns of a row share one colour scale. A map of zeros, as the sd of a truth, is left out.
    """
    slices = _slices(mask, N_COMPARED_SLICES)
    images = [[_mosaic(_image(m, p), mask, slices) for m in maps.values()] for p in PANELS]
    return _image_table(images, PANELS, list(maps), title)


def bland_altman(
    reference: Values, estimates: Mapping[str, Values], quantity: str, reference_name: str
) -> bytes:
    """Difference from a reference over the reference: one density panel per estimator.

    Parameters
    ----------
    reference, estimates : array (voxels,)
        In the table unit of the quantity.
    """
    heading = f"{QUANTITIES[quantity].heading} [{QUANTITIES[quantity].unit}]"
    figure = Figure(figsize=(3.9 * len(estimates), 3.4), layout="constrained")
    axes = figure.subplots(1, len(estimates), sharex=True, sharey=True, squeeze=False)[0]
    spread = np.percentile(np.abs(np.concatenate([e - reference for e in estimates.values()])), 99)
    low, high = np.percentile(reference, [0.5, TOP_PERCENTILE])
    extent = (low, max(high, low + 1e-6), -spread - 1e-6, spread + 1e-6)
    for ax, (name, estimate) in zip(axes, estimates.items(), strict=True):
        difference = estimate - reference
        ax.hexbin(reference, difference, gridsize=45, extent=extent, bins="log", cmap="Blues")
        mean, sd = float(difference.mean()), float(difference.std())
        for level, style in ((mean, "-"), (mean - 1.96 * sd, "--"), (mean + 1.96 * sd, "--")):
            ax.axhline(level, color=ACCENT, linestyle=style, linewidth=1)
        ax.axhline(0, color=INK, linewidth=0.6)
        ax.set_title(f"{name}: {mean:+.3g} ± {1.96 * sd:.3g}", color=INK, fontsize=10)
        ax.set(xlim=extent[:2], ylim=extent[2:], xlabel=f"{reference_name} {heading}")
        _tidy(ax)
    axes[0].set_ylabel(f"estimate - {reference_name}")
    return _png(figure)


def error_against_snr(table: Sequence[Record], estimators: Sequence[str], stratum: str) -> bytes:
    """Mean absolute error of CBF and ATT over SNR, one row of panels per protocol."""
    protocols = list(dict.fromkeys(r["protocol"] for r in table))
    snrs = sorted({float(r["snr"]) for r in table})
    figure = Figure(figsize=(8.6, 3.1 * len(protocols)), layout="constrained")
    grid = figure.subplots(len(protocols), len(QUANTITIES), squeeze=False, sharex=True)
    for row, protocol in zip(grid, protocols, strict=True):
        for ax, (quantity, shown) in zip(row, QUANTITIES.items(), strict=True):
            for name, style in _line_styles([BOUND, *estimators]).items():
                where = {"protocol": protocol, "quantity": quantity, "stratum": stratum}
                found = [lookup(table, estimator=name, metric="MAE", snr=s, **where) for s in snrs]
                ax.plot(snrs, found, label=name)[0].set(**style)
            ax.set(xscale="log", yscale="log", xlabel="SNR", ylabel=f"error [{shown.unit}]")
            ax.set_title(f"{shown.heading} in {stratum}, {protocol}", fontsize=10, color=INK)
            _plain_log_ticks(ax, snrs)
    grid[0][0].legend(frameon=False, fontsize=8)
    return _png(figure)


def calibration(curves: Mapping[str, Mapping[str, Sequence[tuple[float, float]]]]) -> bytes:
    """Measured over nominal coverage: panels by title, lines by estimator, points in shares."""
    figure = Figure(figsize=(3.9 * len(curves), 3.6), layout="constrained")
    axes = figure.subplots(1, len(curves), sharey=True, squeeze=False)[0]
    for ax, (title, lines) in zip(axes, curves.items(), strict=True):
        ax.plot([0, 100], [0, 100], color=INK, linewidth=0.8, linestyle=":")
        for (name, points), style in zip(
            lines.items(), _line_styles(list(lines)).values(), strict=True
        ):
            nominal, measured = 100 * np.array(points).T
            ax.plot(nominal, measured, label=name)[0].set(**style)
        ax.set(xlim=(0, 100), ylim=(0, 100), xlabel="nominal interval [%]")
        ax.set_title(title, fontsize=10, color=INK)
        _tidy(ax)
    axes[0].set_ylabel("inside it [%]")
    axes[0].legend(frameon=False, fontsize=8)
    return _png(figure)


def lines_over_repeats(
    lines: Mapping[str, Sequence[tuple[float, float]]], ylabel: str, title: str
) -> bytes:
    """A figure of merit over the number of repeats, one line per estimator."""
    figure = Figure(figsize=(4.6, 3.4), layout="constrained")
    ax = figure.subplots()
    for (name, points), style in zip(
        lines.items(), _line_styles(list(lines)).values(), strict=True
    ):
        ax.plot(*np.array(points).T, label=name)[0].set(**style)
    ax.set_xticks(sorted({n for points in lines.values() for n, _ in points}))
    ax.set(xlabel="repeats used", ylabel=ylabel)
    ax.set_title(title, fontsize=10, color=INK)
    ax.legend(frameon=False, fontsize=8)
    _tidy(ax)
    return _png(figure)


def _image(maps: ParameterMaps, panel: Panel) -> FloatImage:
    return np.asarray(getattr(maps, panel.name), dtype=np.float32)


def _slices(mask: MaskImage, n: int) -> NDArray[np.intp]:
    """Up to n axial slices, evenly over the middle of the brain."""
    filled = np.flatnonzero(mask.any(axis=(0, 1)))
    inner = filled[len(filled) // 6 : len(filled) - len(filled) // 8]
    chosen = np.linspace(0, len(inner) - 1, min(n, len(inner)))
    return inner[chosen.round().astype(int)]


def _mosaic(image: FloatImage, mask: MaskImage, slices: NDArray[np.intp]) -> FloatImage:
    """The slices side by side, cropped to the brain, NaN outside it; rows are y."""
    x, y = (np.flatnonzero(mask.any(axis=a)) for a in ((1, 2), (0, 2)))
    box = slice(x[0], x[-1] + 1), slice(y[0], y[-1] + 1)
    shown = np.where(mask, image, np.nan)[box][:, :, slices]
    return np.concatenate(np.moveaxis(shown, 2, 0), axis=0).swapaxes(0, 1)


def _image_table(
    images: Sequence[Sequence[FloatImage]],
    panels: Sequence[Panel],
    columns: Sequence[str],
    title: str,
) -> bytes:
    height, width = images[0][0].shape
    cell = min(4.2, 11.0 / len(columns)) if len(columns) > 1 else 11.0
    size = (cell * len(columns) + 1.1, (cell * height / width + 0.25) * len(panels) + 0.6)
    figure = Figure(figsize=size, layout="constrained", facecolor="white")
    grid = figure.subplots(len(panels), len(columns), squeeze=False)
    for row, panel, cells in zip(grid, panels, images, strict=True):
        top = _top(cells, panel.step)
        drawn = None
        for ax, image, column in zip(row, cells, columns, strict=True):
            ax.set_axis_off()
            if panel is panels[0]:
                ax.set_title(column, color=INK, fontsize=11)
            if not np.nanmax(np.abs(image)) > 0:
                ax.text(
                    0.5, 0.5, "zero everywhere", color=FAINT, ha="center", transform=ax.transAxes
                )
                continue
            drawn = ax.imshow(
                image, origin="lower", cmap=panel.colours, vmin=0, vmax=top, interpolation="none"
            )
        if drawn is not None:
            bar = figure.colorbar(drawn, ax=list(row), fraction=0.03, pad=0.01, shrink=0.85)
            bar.set_label(panel.heading, color=INK, fontsize=8)
            bar.ax.tick_params(labelsize=7, colors=INK)
            bar.outline.set_visible(False)
    figure.suptitle(title, color=INK, fontsize=12)
    return _png(figure)


def _top(images: Sequence[FloatImage], step: float) -> float:
    """Upper end of the scale that all images of a row share, a multiple of the step.

    The calmest image counts most, so that one estimator's outliers do not darken the others.
    """
    tops = [np.nanpercentile(i, TOP_PERCENTILE) for i in images if np.nanmax(np.abs(i)) > 0]
    top = min(max(tops), 1.5 * min(tops)) if tops else step
    return float(max(np.ceil(top / step), 1) * step)


def _line_styles(names: Sequence[str]) -> dict[str, dict[str, object]]:
    """Line properties by estimator, alike in all pictures; what is no estimator is dotted."""
    models = [n for n in names if n not in FIXED_COLOURS]
    colours = {**FIXED_COLOURS, **dict(zip(models, cycle(MODEL_COLOURS), strict=False))}
    dotted = {"linestyle": ":", "linewidth": 1.4}
    solid = {"marker": "o", "markersize": 4, "linewidth": 1.6}
    return {
        n: {"color": colours[n], **(dotted if n in (BOUND, AVERAGE) else solid)} for n in names
    }


def _plain_log_ticks(ax: Axes, ticks: Sequence[float]) -> None:
    ax.set_xticks(ticks, [f"{t:g}" for t in ticks])
    ax.minorticks_off()
    low, high = ax.get_ylim()
    nice = [m * 10.0**e for e in range(-3, 5) for m in (1, 2, 5)]
    shown = [v for v in nice if low <= v <= high]
    ax.set_yticks(shown, [f"{v:g}" for v in shown])
    _tidy(ax)


def _tidy(ax: Axes) -> None:
    ax.grid(color=FAINT, linewidth=0.5)
    ax.set_axisbelow(True)
    ax.tick_params(labelsize=8, colors=INK, length=0)
    ax.xaxis.label.set(color=INK, fontsize=9)
    ax.yaxis.label.set(color=INK, fontsize=9)
    for side in ax.spines.values():
        side.set_color(FAINT)


def _png(figure: Figure) -> bytes:
    buffer = BytesIO()
    figure.savefig(buffer, format="png", dpi=DPI, metadata={"Software": None})
    return buffer.getvalue()
