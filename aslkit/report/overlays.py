"""Maps of a scan -> pictures with fixed colour scales: on the head, or one slice alone."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.image import AxesImage

from aslkit.core.series_and_maps import FloatImage, MaskImage
from aslkit.report.map_pictures import middle_slices
from aslkit.report.style import PAGE_WIDTH, add_colour_bar, set_column_titles, to_png

MARGIN = 3  # voxels around the brain
THUMBNAIL_GAP = 2  # voxels around each slice
THUMBNAIL_HEIGHT = 1.6  # inches
HEAD_TOP_PERCENTILE = 99.0  # of the head image, shown as white

Images = Mapping[str, FloatImage]  # by name of Overlay; other names are left out


@dataclass(frozen=True)
class Overlay:
    """One row of a picture: name of the image, heading with unit, colour map, ends of scale."""

    name: str
    heading: str
    colours: str
    low: float
    high: float


OVERLAYS = (
    Overlay("cbf", "CBF\n[ml/100 g/min]", "inferno", 0, 100),
    Overlay("cbf difference", "CBF - LS\n[ml/100 g/min]", "RdBu_r", -40, 40),
    Overlay("cbf_std", "sd of CBF\n[ml/100 g/min]", "cividis", 0, 30),
    Overlay("att", "ATT [s]", "viridis", 0, 3),
    Overlay("att difference", "ATT - LS [s]", "RdBu_r", -1, 1),
    Overlay("att_std", "sd of ATT [s]", "cividis", 0, 1),
)


def overlay_picture(columns: Mapping[str, Images], head: FloatImage, mask: MaskImage) -> bytes:
    """Draw slices of the images (rows of `OVERLAYS`) by method (columns) within the mask."""
    slices = middle_slices(mask, 3 if len(columns) < 3 else 2)
    spans = [np.flatnonzero(mask.any(axis=a)) for a in ((1, 2), (0, 2))]
    box = tuple(slice(max(s[0] - MARGIN, 0), s[-1] + 1 + MARGIN) for s in spans)

    def montage(image: FloatImage) -> FloatImage:
        shown = np.moveaxis(image[box][:, :, slices], 2, 0)
        return np.concatenate(list(shown), axis=0).swapaxes(0, 1)

    grey = montage(head)
    top = float(np.nanpercentile(head[mask], HEAD_TOP_PERCENTILE))
    rows = [o for o in OVERLAYS if any(o.name in images for images in columns.values())]
    cell = min(4.2, (PAGE_WIDTH - 1.1) / len(columns))
    height = (cell * grey.shape[0] / grey.shape[1] + 0.08) * len(rows) + 0.5
    figure = Figure(figsize=(cell * len(columns) + 1.1, height), layout="constrained")
    grid = figure.subplots(len(rows), len(columns), squeeze=False)
    for axes, overlay in zip(grid, rows, strict=True):
        for ax, images in zip(axes, columns.values(), strict=True):
            ax.set_axis_off()
            if overlay.name in images:
                ax.imshow(grey, origin="lower", cmap="gray", vmin=0, vmax=top)
                shown = montage(np.where(mask, images[overlay.name], np.nan))
                drawn = _draw(ax, shown, overlay)
        add_colour_bar(figure, axes, drawn, overlay.heading, overlay.low < 0)
    set_column_titles(grid[0], columns)
    return to_png(figure)


def cbf_thumbnail(images: Sequence[FloatImage], mask: MaskImage) -> bytes:
    """Draw one slice (x, y) of CBF by each method, side by side within the mask, on black."""
    box = tuple(slice(s[0], s[-1] + 1) for s in map(np.flatnonzero, (mask.any(1), mask.any(0))))
    shown = [np.pad(np.where(mask, image, 0)[box], THUMBNAIL_GAP) for image in images]
    joint = np.concatenate(shown, axis=0).swapaxes(0, 1)
    size = (THUMBNAIL_HEIGHT * joint.shape[1] / joint.shape[0], THUMBNAIL_HEIGHT)
    figure = Figure(figsize=size)
    ax = figure.add_axes((0, 0, 1, 1))
    ax.set_axis_off()
    _draw(ax, joint, OVERLAYS[0])
    return to_png(figure)


def _draw(ax: Axes, image: FloatImage, overlay: Overlay) -> AxesImage:
    return ax.imshow(
        image,
        origin="lower",
        cmap=overlay.colours,
        vmin=overlay.low,
        vmax=overlay.high,
        interpolation="none",
    )
