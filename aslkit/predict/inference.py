"""AslSeries -> ParameterMaps: least squares, corrected by a trained network inside the mask."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import torch

from aslkit.core.errors import InputError
from aslkit.core.progress import Progress
from aslkit.core.series_and_maps import (
    AslSeries,
    FloatImage,
    MaskImage,
    ParameterMaps,
    as_image,
    as_slices,
    bounding_box,
)
from aslkit.fit.arterial import arterial_given_tissue
from aslkit.fit.least_squares import (
    FitSettings,
    fit_least_squares,
    known_sd,
    quality_flags,
    slice_signal,
)
from aslkit.fit.standard_errors import errors_with_assumed_att
from aslkit.fit.variable_projection import Solution
from aslkit.kinetics.model import KineticModel, delta_m, kinetic_model
from aslkit.nets.device import select_device
from aslkit.nets.model_store import Model
from aslkit.nets.profile_encoding import encode, to_image
from aslkit.nets.raw_encoding import RawEncoding
from aslkit.nets.residual_unet import N_OUTPUTS
from aslkit.predict.direct import direct_maps
from aslkit.predict.passes import Passes, PassSummary, run_passes

SLICES_AT_ONCE = 8  # encoded and corrected together; more takes memory and is no faster
PIXELS_AT_ONCE = 2**21  # where neighbours are seen too, which are seen again with other slices


def predict_maps(
    series: AslSeries,
    model: Model,
    settings: FitSettings = FitSettings(),  # noqa: B008
    device: str = "auto",
    passes: Passes = Passes(),  # noqa: B008
    progress: Progress = iter,
) -> ParameterMaps:
    """CBF, ATT and their standard deviations by the network; least squares outside the mask.

    Where the arterial compartment is on, aBV and aBAT are estimated again, given the network's
    CBF and ATT. Where the network runs several times, its part of the standard deviations is
    there too. `progress` wraps the first slices of groups, as tqdm does. A network that sees the
    curves of its one protocol works without least squares and without arterial compartment.

    Raises
    ------
    ValueError
        When there are too few timings for least squares.
    InputError
        When neither repeats nor residuals tell the noise level, or the model cannot make
        these passes or is for another protocol.
    UnavailableError
        When the device is not there.
    """
    chosen = select_device(device)
    passes.check(model)

    def outputs(encode_slice: Callable[[int], FloatImage], inside: MaskImage) -> PassSummary:
        return _outputs(model, encode_slice, inside, passes, chosen, progress)

    is_several = passes.count(model) > 1
    if isinstance(model.encoding, RawEncoding):
        found = outputs(model.encoding.encode_series(series).__getitem__, series.usable)
        sd = np.sqrt(found.data_variance + found.network_variance)
        maps = direct_maps(series, model.encoding, found.mean, sd, found.confidence, settings)
        units = (model.encoding.cbf_unit[1], model.encoding.att_unit[1])
        return _with_network_part(maps, found, *units) if is_several else maps
    settings = settings.assuming_att(series.acquisition)
    start = fit_base(series, settings)
    base, inside = start.maps, start.inside
    found = outputs(start.encode_slice, inside)
    corrected = _corrected(base, found, inside, settings)
    flags = quality_flags(**corrected, mask=series.mask, settings=settings)
    maps = replace(base, flags=flags, **corrected)
    if is_several:
        maps = _with_network_part(maps, found, base.cbf_std * inside, base.att_std * inside)
    if base.abv is None or base.abat is None:
        return maps
    abv, abat = _arterial(maps, series, start.noise, inside, (base.abv.copy(), base.abat.copy()))
    return replace(maps, abv=abv, abat=abat)


@dataclass(frozen=True)
class BaseFit:
    """The least squares that a network corrects.

    Attributes
    ----------
    series : AslSeries
    noise : array (x, y, z)
        Noise sd of a volume of mean weight.
    maps : ParameterMaps
    inside : bool array (x, y, z)
        Where there is something to correct.
    """

    series: AslSeries
    noise: FloatImage
    maps: ParameterMaps
    inside: MaskImage

    def encode_slice(self, z: int) -> FloatImage:
        """Channels of a slice, (channels, x, y); 0 outside."""
        voxels = self.inside[:, :, z]
        base = self.maps
        kinetics, signal = slice_signal(self.series, self._whole, z, voxels)
        images = (self.noise, base.cbf, base.att, base.cbf_std, base.att_std)
        noise, cbf, att, cbf_se, att_se = (image[:, :, z][voxels][None] for image in images)
        arterial = [i[:, :, z][voxels][None] for i in (base.abv, base.abat) if i is not None]
        residual = signal - delta_m(kinetics, cbf, att, *arterial)
        abv, abat = arterial or (None, None)
        solution = Solution(cbf, att, abv, abat, (residual**2).sum(-2))
        rows = encode(kinetics, signal, solution, (cbf_se, att_se), noise)
        return to_image(np.concatenate([rows, np.ones_like(noise)]), voxels)

    @cached_property
    def _whole(self) -> KineticModel:
        """The model of all slices."""
        return kinetic_model(self.series.acquisition, self.inside.shape[2], np.float32)


def fit_base(series: AslSeries, settings: FitSettings = FitSettings()) -> BaseFit:  # noqa: B008
    """Least squares of a series with the noise level that its network is told.

    Raises
    ------
    ValueError, InputError
        As `predict` does.
    """
    settings = settings.assuming_att(series.acquisition)
    noise = noise_level(series, settings)
    maps = fit_least_squares(replace(series, noise_sd=noise), settings)
    if series.acquisition.n_timings == 1:
        maps = _with_assumed_att(series, maps, noise)
    return BaseFit(series, noise, maps, series.usable & (maps.cbf_std > 0))


def _with_assumed_att(series: AslSeries, maps: ParameterMaps, noise: FloatImage) -> ParameterMaps:
    """The maps of a single timing with standard errors that know ATT to be assumed."""
    model = kinetic_model(series.acquisition, series.mask.shape[2], np.float32)
    errors = errors_with_assumed_att(model, as_slices(maps.cbf), as_slices(noise))
    cbf_std, att_std = (as_image(e, maps.cbf.shape) for e in errors)
    return replace(maps, cbf_std=cbf_std, att_std=att_std)


def noise_level(series: AslSeries, settings: FitSettings) -> FloatImage:
    """Noise sd of a volume of mean weight, (x, y, z): of the repeats, else of the residuals.

    Raises
    ------
    InputError
        When neither tells it.
    """
    sd = known_sd(series, settings)
    if not np.isfinite(sd[series.mask]).any():
        raise InputError(
            "ASL series",
            "noise level",
            found=f"{series.acquisition.n_timings} timings without repeats",
            expected="repeats, or more timings than parameters",
            fix="use asl_fit_ls, or give all repeats",
        )
    return sd


def _outputs(
    model: Model,
    encode_slice: Callable[[int], FloatImage],
    inside: MaskImage,
    passes: Passes,
    device: torch.device,
    progress: Progress,
) -> PassSummary:
    """What all passes say of the whole image, (channels, x, y, z) each; it counts inside.

    Slices are encoded, to (channels, x, y), and seen a few at a time, cut to the brain; with
    them, their neighbours as far as the network reaches.
    """
    model = model.to(device)
    sizes = (2, 2, 2, model.network.n_outputs - N_OUTPUTS)
    images = PassSummary(*(np.zeros((size, *inside.shape), dtype=np.float32) for size in sizes))
    x, y = bounding_box(inside)[:2]
    slices = np.arange(inside.shape[2])[bounding_box(inside)[2]]
    reach = max(member.reach for member in model.members)
    n = max(SLICES_AT_ONCE, reach and PIXELS_AT_ONCE // max(inside[x, y, 0].size, 1))
    for first in progress(range(0, slices.size, n)):
        before = min(first, reach)
        channels = [encode_slice(z)[:, x, y] for z in slices[first - before : first + n + reach]]
        found = run_passes(model, np.stack(channels), passes, device)
        some = slices[first : first + n]
        for image, values in zip(vars(images).values(), vars(found).values(), strict=True):
            image[:, x, y, some] = np.moveaxis(values[before : before + some.size], 0, -1)
    return images


def _with_network_part(
    maps: ParameterMaps,
    found: PassSummary,
    cbf_unit: FloatImage | float,
    att_unit: FloatImage | float,
) -> ParameterMaps:
    """The maps with the part of their standard deviations by which passes differ."""
    cbf_std, att_std = np.sqrt(found.network_variance)
    return replace(maps, cbf_std_network=cbf_unit * cbf_std, att_std_network=att_unit * att_std)


def _corrected(
    base: ParameterMaps, found: PassSummary, inside: MaskImage, settings: FitSettings
) -> dict[str, FloatImage]:
    """CBF, ATT and their standard deviations."""
    maps = {name: getattr(base, name).copy() for name in ("cbf", "att", "cbf_std", "att_std")}
    sd = np.sqrt(found.data_variance + found.network_variance)
    for i, name in enumerate(("cbf", "att")):
        se = getattr(base, f"{name}_std")[inside]
        maps[name][inside] += se * found.mean[i][inside]
        maps[f"{name}_std"][inside] = se * sd[i][inside]
    maps["att"] = np.clip(maps["att"], *settings.att_bounds_s)
    return maps


def _arterial(
    maps: ParameterMaps,
    series: AslSeries,
    sd: FloatImage,
    inside: MaskImage,
    images: tuple[FloatImage, FloatImage],
) -> tuple[FloatImage, FloatImage]:
    """aBV and aBAT that go with the maps' CBF and ATT, put into `images`."""
    whole = kinetic_model(series.acquisition, inside.shape[2], np.float32)
    for z in np.flatnonzero(inside.any(axis=(0, 1))).tolist():
        voxels = inside[:, :, z]
        kinetics, signal = slice_signal(series, whole, z, voxels)
        known = (sd, maps.cbf, maps.att, maps.att_std)
        found = arterial_given_tissue(kinetics, signal, *(i[:, :, z][voxels][None] for i in known))
        for image, values in zip(images, found, strict=True):
            image[:, :, z][voxels] = values[0]
    return images
