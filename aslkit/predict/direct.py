"""Outputs of a network that works without least squares -> ParameterMaps."""

from dataclasses import replace

import numpy as np

from aslkit.core.series_and_maps import AslSeries, FloatImage, ParameterMaps
from aslkit.fit.least_squares import FitSettings, fit_least_squares, quality_flags
from aslkit.nets.raw_encoding import RawEncoding


def direct_maps(
    series: AslSeries,
    encoding: RawEncoding,
    mean: FloatImage,
    sd: FloatImage,
    confidence: FloatImage,
    settings: FitSettings,
) -> ParameterMaps:
    """CBF, ATT and their sds where the signal is known; least squares outside the mask.

    Parameters
    ----------
    mean, sd : array (2, x, y, z)
        CBF and ATT in the units of the encoding, and their standard deviations.
    confidence : array (2 or 0, x, y, z)
        Probabilities that they are close; 0 outside the mask.
    """
    inside = series.usable
    cbf, att = encoding.from_outputs(*mean)
    found = {
        "cbf": cbf,
        "att": np.clip(att, *settings.att_bounds_s),
        "cbf_std": encoding.cbf_unit[1] * sd[0],
        "att_std": encoding.att_unit[1] * sd[1],
    }
    base = fit_least_squares(series, replace(settings, macrovascular="off"))
    maps = {
        name: np.where(inside, image, getattr(base, name)).astype(np.float32)
        for name, image in found.items()
    }
    flags = quality_flags(**maps, mask=series.mask, settings=settings)
    stated = dict(zip(("cbf_confidence", "att_confidence"), inside * confidence, strict=False))
    return replace(base, flags=flags, **maps, **stated)
