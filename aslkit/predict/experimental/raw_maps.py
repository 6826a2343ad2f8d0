"""AslSeries and a network of raw curves -> ParameterMaps, without least squares in the mask."""

from dataclasses import replace

import numpy as np

from aslkit.core.series_and_maps import AslSeries, ParameterMaps
from aslkit.fit.least_squares import fit_least_squares, quality_flags
from aslkit.fit.settings import FitSettings, choose_settings
from aslkit.nets.encoding_registry import Encoding
from aslkit.nets.experimental.raw_encoding import RawEncoding
from aslkit.predict.passes import PassSummary, RunSlices, add_network_sds


def predict_raw_maps(
    series: AslSeries,
    encoding: Encoding,
    settings: FitSettings,
    run_slices: RunSlices,
    has_several_passes: bool,
) -> ParameterMaps:
    """Estimate CBF and ATT from the raw curves; without arterial compartment.

    Parameters
    ----------
    run_slices : function
        Runs all passes of the model on the encoded slices.
    has_several_passes : bool
        Whether to add the standard deviations between passes.

    Raises
    ------
    InputError
        If the scan has another protocol than the encoding.
    """
    assert isinstance(encoding, RawEncoding)
    found = run_slices(encoding.encode_series(series).__getitem__, series.usable)
    maps = _decode(series, encoding, found, settings)
    if not has_several_passes:
        return maps
    return add_network_sds(maps, found, encoding.cbf_unit[1], encoding.att_unit[1])


def _decode(
    series: AslSeries, encoding: RawEncoding, found: PassSummary, settings: FitSettings
) -> ParameterMaps:
    """Return the maps of the outputs in the mask, and least squares outside it."""
    inside = series.usable
    cbf, att = encoding.from_outputs(*found.mean)
    sd = found.sd
    estimates = {
        "cbf": cbf,
        "att": np.clip(att, *settings.att_bounds_s),
        "cbf_std": encoding.cbf_unit[1] * sd[0],
        "att_std": encoding.att_unit[1] * sd[1],
    }
    bounds = settings.att_bounds_s
    tissue = choose_settings(series.acquisition, "off", att_bounds_s=bounds)
    base = fit_least_squares(series, tissue)
    maps = {
        name: np.where(inside, image, getattr(base, name)).astype(np.float32)
        for name, image in estimates.items()
    }
    flags = quality_flags(**maps, mask=series.mask, settings=settings)
    confidence = inside * found.confidence  # (2 or 0, x, y, z)
    stated = dict(zip(("cbf_confidence", "att_confidence"), confidence, strict=False))
    return replace(base, flags=flags, **maps, **stated)
