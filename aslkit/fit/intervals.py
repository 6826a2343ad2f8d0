"""Least-squares maps -> 95 % intervals of CBF and ATT from the profile of the likelihood.

An interval holds every value that some fit with chi squared within 3.84 of the smallest has. It
needs neither a parabola nor symmetry, so it stays true where ATT sits at a kink of the curve or
far from all delays, where intervals from standard errors are too short.
"""

import numpy as np

from aslkit.core.backend import FloatArray, IndexArray
from aslkit.core.series_and_maps import AslSeries, FloatImage, ParameterMaps
from aslkit.fit.curve_table import CurveTable, tabulate
from aslkit.fit.least_squares import FitSettings, known_sd
from aslkit.fit.voxel_chunks import by_chunk
from aslkit.kinetics.model import arterial_curve, tissue_curve

RISE = 3.841459  # of chi squared: 95 % for one parameter
FEWEST_EDGES = 3  # an interval inside fewer edges of the table is read from the standard error
GAUSSIAN = RISE**0.5


def profile_intervals(
    series: AslSeries, maps: ParameterMaps, settings: FitSettings
) -> dict[str, FloatImage]:
    """Ends of the intervals, `cbf-ci95` and `att-ci95`, each (x, y, z, 2); NaN without estimate.

    Parameters
    ----------
    maps : ParameterMaps
        By least squares with these settings: free ATT, unbounded CBF. The arterial compartment is
        taken as it was found.
    """
    sd = known_sd(series, settings)
    parameters = [maps.cbf, maps.att, maps.cbf_std, maps.att_std, sd]
    if maps.abv is not None and maps.abat is not None:
        parameters += [maps.abv, maps.abat]

    def intervals(cells: CurveTable, places: IndexArray, signal: FloatArray) -> list[FloatArray]:
        cbf, att, cbf_sd, att_sd, noise, *arterial = (p.reshape(-1)[places] for p in parameters)
        tissue = signal[0]
        if arterial:
            abv, abat = arterial
            tissue = tissue - abv * arterial_curve(cells.model, abat[None])[0]
        residual = tissue - cbf * tissue_curve(cells.model, att[None])[0]
        least = np.sum(residual**2, axis=0)
        limit = np.sum(tissue**2, axis=0) - least - RISE * noise**2
        ends = _profile(cells, tissue.T @ cells.unit[0], limit)
        widths = GAUSSIAN * cbf_sd, GAUSSIAN * att_sd
        plain = [v + s * w for v, w in zip((cbf, att), widths, strict=True) for s in (-1, 1)]
        return [np.where(ends[0], p, g)[None] for p, g in zip(ends[1:], plain, strict=True)]

    cbf_low, cbf_high, att_low, att_high = by_chunk(
        series, lambda model: tabulate(model, settings.att_bounds_s), intervals, 4
    )
    return {
        "cbf-ci95": _known(maps, cbf_low, cbf_high),
        "att-ci95": _known(
            maps, *(np.clip(a, *settings.att_bounds_s) for a in (att_low, att_high))
        ),
    }


def _profile(cells: CurveTable, match: FloatArray, limit: FloatArray) -> tuple[FloatArray, ...]:
    """Whether the table resolves it, then lowest and highest CBF and ATT of every voxel.

    `match` (voxels, edges) is that of the data with the unit curves, `limit` the smallest gain
    that belongs to the interval.
    """
    edges, norms = cells.edges[0], cells.norms[0]
    gain = match**2
    is_in = gain >= limit[:, None]
    half = np.sqrt(np.clip(gain - limit[:, None], 0, None))
    low = np.where(is_in, (match - half) / norms, np.inf).min(axis=1)
    high = np.where(is_in, (match + half) / norms, -np.inf).max(axis=1)
    first = is_in.argmax(axis=1)
    last = len(edges) - 1 - is_in[:, ::-1].argmax(axis=1)
    ends = (_crossing(edges, gain, limit, first, -1), _crossing(edges, gain, limit, last, 1))
    return is_in.sum(axis=1) >= FEWEST_EDGES, low, high, *ends


def _crossing(
    edges: FloatArray, gain: FloatArray, limit: FloatArray, inside: IndexArray, step: int
) -> FloatArray:
    """ATT between an edge in the interval and its neighbour outside at which gain is the limit."""
    rows = np.arange(len(inside))
    outside = np.clip(inside + step, 0, len(edges) - 1)
    drop = gain[rows, inside] - gain[rows, outside]
    excess = np.clip(gain[rows, inside] - limit, 0, None)
    part = np.divide(excess, drop, out=np.zeros_like(excess), where=drop > 0)
    return np.asarray(edges[inside] + np.clip(part, 0, 1) * (edges[outside] - edges[inside]))


def _known(maps: ParameterMaps, low: FloatImage, high: FloatImage) -> FloatImage:
    """Both ends as one image (x, y, z, 2), NaN where there is no estimate."""
    ends = np.stack([low, high], axis=3)
    return np.where((maps.cbf_std > 0)[..., None], ends, np.nan).astype(np.float32)
