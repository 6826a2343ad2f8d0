"""Maps of several estimators -> pictures of slices, as PNG bytes.

Images are shown as they are stored: x to the right, y upwards.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.image import AxesImage
from numpy.typing import NDArray

from aslkit.core.series_and_maps import FloatImage, MaskImage, ParameterMaps, bounding_box
from aslkit.report.style import (
    GRID_COLOUR,
    LABEL_SIZE,
    PAGE_WIDTH,
    TEXT_COLOUR,
    TITLE_SIZE,
    add_colour_bar,
    set_column_titles,
    to_png,
)

TOP_PERCENTILE = 98.0  # of the values of a map, at the upper end of its colour scale
MARGIN = 5  # voxels around the region of a close-up
MIN_WIDTH = 20  # smallest width of a close-up, voxels


@dataclass(frozen=True)
class MapView:
    """How to draw one map: field of ParameterMaps, heading with unit, colour map, scale step.

    The scale ends at most `max_ratio` times above the value that the estimator with the smallest
    range needs, so that outliers of other estimators do not darken the row. An error view shows
    the difference from the truth, on a scale symmetric about 0.
    """

    name: str
    heading: str
    colours: str
    step: float
    max_ratio: float = 1.5
    is_error: bool = False


MAP_VIEWS = (
    MapView("cbf", "CBF\n[ml/100 g/min]", "inferno", 10.0),
    MapView("cbf", "error of CBF\n[ml/100 g/min]", "RdBu_r", 2.0, 2.0, is_error=True),
    MapView("cbf_std", "sd of CBF\n[ml/100 g/min]", "cividis", 2.0, 2.0),
    MapView("att", "ATT [s]", "viridis", 0.5),
    MapView("att", "error of ATT [s]", "RdBu_r", 0.1, 2.0, is_error=True),
    MapView("att_std", "sd of ATT [s]", "cividis", 0.1, 2.0),
)
CLOSE_UP_VIEWS = (MAP_VIEWS[0], MAP_VIEWS[3])


@dataclass(frozen=True)
class Region:
    """A region for a close-up: its name and its mask on the grid of the maps."""

    name: str
    inside: MaskImage


def map_comparison(
    maps: Mapping[str, ParameterMaps],
    mask: MaskImage,
    title: str,
    truth: ParameterMaps | None = None,
) -> bytes:
    """Draw CBF and ATT, their errors and standard deviations (rows) by estimator (columns).

    All columns of a row share one colour scale. Errors need a `truth`, which may be one of the
    maps; its panels of error and standard deviation are left empty.
    """
    slices = middle_slices(mask, 3 if len(maps) < 4 else 2)
    views = [p for p in MAP_VIEWS if truth is not None or not p.is_error]
    images = [[_mosaic(_image(m, p, truth), mask, slices) for m in maps.values()] for p in views]
    height, width = images[0][0].shape
    cell = min(4.2, (PAGE_WIDTH - 1.1) / len(maps))
    size = (cell * len(maps) + 1.1, (cell * height / width + 0.08) * len(views) + 0.7)
    figure = Figure(figsize=size, layout="constrained")
    grid = figure.subplots(len(views), len(maps), squeeze=False)
    for row, view, cells in zip(grid, views, images, strict=True):
        _draw_row(figure, row, view, cells)
    set_column_titles(grid[0], maps)
    figure.suptitle(title, color=TEXT_COLOUR, fontsize=TITLE_SIZE + 1)
    return to_png(figure)


def close_ups(
    maps: Mapping[str, ParameterMaps], mask: MaskImage, regions: Sequence[Region]
) -> bytes:
    """Draw CBF and ATT around each region (pairs of rows) by estimator (columns)."""
    rows = [(region, view) for region in regions for view in CLOSE_UP_VIEWS]
    cell = min(2.0, (PAGE_WIDTH - 1.6) / len(maps))
    size = (cell * len(maps) + 1.6, (cell + 0.08) * len(rows) + 0.4)
    figure = Figure(figsize=size, layout="constrained")
    grid = figure.subplots(len(rows), len(maps), squeeze=False)
    for axes, (region, view) in zip(grid, rows, strict=True):
        box = _box_around(region.inside)
        shown = [np.where(mask, _image(m, view, None), np.nan)[box] for m in maps.values()]
        _draw_row(figure, axes, view, [image.swapaxes(0, 1) for image in shown])
        for ax in axes:
            outline = region.inside[box].swapaxes(0, 1).astype(float)
            ax.contour(outline, levels=[0.5], colors="white", linewidths=0.9)
        axes[0].text(
            -0.06,
            0.5,
            region.name,
            transform=axes[0].transAxes,
            rotation=90,
            ha="right",
            va="center",
            color=TEXT_COLOUR,
            fontsize=LABEL_SIZE,
        )
    set_column_titles(grid[0], maps)
    return to_png(figure)


def _image(maps: ParameterMaps, view: MapView, truth: ParameterMaps | None) -> FloatImage:
    own = np.asarray(getattr(maps, view.name), dtype=np.float32)
    return own - getattr(truth, view.name) if view.is_error else own


def middle_slices(mask: MaskImage, n: int) -> NDArray[np.intp]:
    """Return up to n axial slices, evenly spaced over the middle of the brain."""
    filled = np.flatnonzero(mask.any(axis=(0, 1)))
    inner = filled[len(filled) // 3 : len(filled) - len(filled) // 5]
    chosen = np.linspace(0, len(inner) - 1, min(n, len(inner)))
    return inner[chosen.round().astype(int)]


def _mosaic(image: FloatImage, mask: MaskImage, slices: NDArray[np.intp]) -> FloatImage:
    """Return the slices side by side, cropped to the brain, NaN outside it, (y, slices * x)."""
    shown = np.where(mask, image, np.nan)[bounding_box(mask)[:2]][:, :, slices]
    return np.concatenate(np.moveaxis(shown, 2, 0), axis=0).swapaxes(0, 1)


def _box_around(inside: MaskImage) -> tuple[slice, slice, int]:
    """Return a square around the region, in the slice where the region is largest."""
    z = int(inside.sum(axis=(0, 1)).argmax())
    spans = [np.flatnonzero(inside[:, :, z].any(axis=a)) for a in (1, 0)]
    side = max(MIN_WIDTH, *(int(np.ptp(s)) + 1 + 2 * MARGIN for s in spans))
    box = [_span(int(s[0] + s[-1] + 1) // 2, side, n) for s, n in zip(spans, inside.shape)]  # noqa: B905
    return box[0], box[1], z


def _span(centre: int, width: int, n: int) -> slice:
    """Return `width` voxels around the centre, shifted to lie within the n voxels of the grid."""
    start = max(0, min(centre - width // 2, n - width))
    return slice(start, start + width)


def _draw_row(
    figure: Figure, axes: Sequence[Axes], view: MapView, images: Sequence[FloatImage]
) -> None:
    """Draw one view of all estimators with a common colour bar; skip images that are all 0."""
    top = _scale_end(images, view)
    drawn: AxesImage | None = None
    for ax, image in zip(axes, images, strict=True):
        ax.set_axis_off()
        if np.nanmax(np.abs(image)) > 0:
            low = -top if view.is_error else 0
            drawn = ax.imshow(
                image, origin="lower", cmap=view.colours, vmin=low, vmax=top, interpolation="none"
            )
            if view.is_error:  # zero error is white, so the brain needs an outline
                ax.contour(np.isfinite(image), levels=[0.5], colors=GRID_COLOUR, linewidths=0.8)
    if drawn is not None:
        add_colour_bar(figure, axes, drawn, view.heading, view.is_error)


def _scale_end(images: Sequence[FloatImage], view: MapView) -> float:
    """Return the upper end of the common colour scale of a row, a multiple of the view's step."""
    tops = [
        np.nanpercentile(np.abs(i), TOP_PERCENTILE) for i in images if np.nanmax(np.abs(i)) > 0
    ]
    top = min(max(tops), view.max_ratio * min(tops)) if tops else view.step
    return float(max(np.ceil(top / view.step), 1) * view.step)
