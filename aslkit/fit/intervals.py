"""Least-squares maps -> 95 % intervals of CBF and ATT from the profile of the likelihood.

An interval holds every value for which chi squared of the best fit exceeds the minimum by at most
3.84. It assumes neither a parabola nor symmetry. So it stays valid at a kink of the curve and far
from all delays, where intervals from standard errors are too short.
"""

import numpy as np

from aslkit.core.backend import FloatArray, IndexArray
from aslkit.core.series_and_maps import AslSeries, FloatImage, ParameterMaps
from aslkit.fit.curve_table import CurveTable, tabulate
from aslkit.fit.least_squares import known_sd
from aslkit.fit.settings import FitSettings
from aslkit.fit.voxel_chunks import by_chunk
from aslkit.kinetics.model import arterial_curve, tissue_curve

RISE = 3.841459  # of chi squared: 95 % for one parameter
MIN_EDGES = 3  # an interval with fewer edges of the table inside comes from the standard error
GAUSSIAN = RISE**0.5
ENDS = ("cbf_low", "cbf_high", "att_low", "att_high")


def profile_intervals(
    series: AslSeries, maps: ParameterMaps, settings: FitSettings
) -> dict[str, FloatImage]:
    """Compute `cbf-ci95` and `att-ci95`, each (x, y, z, 2); NaN where there is no estimate.

    Parameters
    ----------
    maps : ParameterMaps
        Least-squares maps of these settings, with free ATT and unbounded CBF. The arterial
        compartment is held at its estimate.
    """
    sd = known_sd(series, settings)

    def intervals(
        table: CurveTable, places: IndexArray, signal: FloatArray
    ) -> dict[str, FloatArray]:
        def values(image: FloatImage) -> FloatArray:
            return image.reshape(-1)[places]  # (voxels,)

        cbf, att, noise = values(maps.cbf), values(maps.att), values(sd)
        tissue = signal[0]  # (n, voxels)
        if maps.abv is not None and maps.abat is not None:
            h = arterial_curve(table.model, values(maps.abat)[None])[0]  # (n, voxels)
            tissue = tissue - values(maps.abv) * h
        residual = tissue - cbf * tissue_curve(table.model, att[None])[0]  # (n, voxels)
        least = np.sum(residual**2, axis=0)  # (voxels,)
        limit = np.sum(tissue**2, axis=0) - least - RISE * noise**2  # (voxels,)
        is_resolved, found = _profile(table, tissue.T @ table.unit[0], limit)
        cbf_width, att_width = GAUSSIAN * values(maps.cbf_std), GAUSSIAN * values(maps.att_std)
        gaussian = cbf - cbf_width, cbf + cbf_width, att - att_width, att + att_width
        return {
            name: np.where(is_resolved, found[name], plain)[None]
            for name, plain in zip(ENDS, gaussian, strict=True)
        }

    ends = by_chunk(series, ENDS, lambda model: tabulate(model, settings.att_bounds_s), intervals)
    att_ends = (np.clip(ends[name], *settings.att_bounds_s) for name in ("att_low", "att_high"))
    return {
        "cbf-ci95": _where_estimated(maps, ends["cbf_low"], ends["cbf_high"]),
        "att-ci95": _where_estimated(maps, *att_ends),
    }


def _profile(
    table: CurveTable, match: FloatArray, limit: FloatArray
) -> tuple[FloatArray, dict[str, FloatArray]]:
    """Whether the table resolves the interval, and the `ENDS` of every voxel, each (voxels,).

    Parameters
    ----------
    match : array (voxels, edges)
        Products of the data with the curves of norm 1.
    limit : array (voxels,)
        Smallest drop of the residual sum of squares inside the interval.
    """
    edges, norms = table.edges[0], table.norms[0]  # (edges,)
    gain = match**2  # (voxels, edges)
    is_in = gain >= limit[:, None]
    half = np.sqrt(np.clip(gain - limit[:, None], 0, None))
    first = is_in.argmax(axis=1)  # (voxels,)
    last = len(edges) - 1 - is_in[:, ::-1].argmax(axis=1)
    ends = {
        "cbf_low": np.where(is_in, (match - half) / norms, np.inf).min(axis=1),
        "cbf_high": np.where(is_in, (match + half) / norms, -np.inf).max(axis=1),
        "att_low": _crossing(edges, gain, limit, first, -1),
        "att_high": _crossing(edges, gain, limit, last, 1),
    }
    return is_in.sum(axis=1) >= MIN_EDGES, ends


def _crossing(
    edges: FloatArray, gain: FloatArray, limit: FloatArray, inside: IndexArray, step: int
) -> FloatArray:
    """Return the ATT (voxels,) at which the gain falls to the limit, up to the next edge."""
    rows = np.arange(len(inside))
    outside = np.clip(inside + step, 0, len(edges) - 1)
    drop = gain[rows, inside] - gain[rows, outside]
    excess = np.clip(gain[rows, inside] - limit, 0, None)
    part = np.divide(excess, drop, out=np.zeros_like(excess), where=drop > 0)
    return np.asarray(edges[inside] + np.clip(part, 0, 1) * (edges[outside] - edges[inside]))


def _where_estimated(maps: ParameterMaps, low: FloatImage, high: FloatImage) -> FloatImage:
    """Return both ends as one image (x, y, z, 2), NaN where there is no estimate."""
    ends = np.stack([low, high], axis=3)
    return np.where((maps.cbf_std > 0)[..., None], ends, np.nan).astype(np.float32)
