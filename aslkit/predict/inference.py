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
    fit_with_noise_level,
    known_sd,
    quality_flags,
    slice_signal,
)
from aslkit.fit.settings import FitSettings, choose_settings
from aslkit.fit.standard_errors import errors_with_assumed_att
from aslkit.fit.variable_projection import Solution
from aslkit.kinetics.model import KineticModel, delta_m, kinetic_model
from aslkit.nets.device import select_device
from aslkit.nets.model_store import Model
from aslkit.nets.network import N_OUTPUTS
from aslkit.nets.profile_encoding import encode, to_image
from aslkit.predict.experimental.raw_maps import predict_raw_maps
from aslkit.predict.passes import Passes, PassSummary, RunSlices, add_network_sds, run_passes

SLICES_AT_ONCE = 8  # encoded and corrected together; more need memory and are not faster
PIXELS_AT_ONCE = 2**21  # of networks across slices, which encode the slices at the ends twice


def predict_maps(
    series: AslSeries,
    model: Model,
    settings: FitSettings | None = None,
    device: str = "auto",
    passes: Passes = Passes(),  # noqa: B008
    progress: Progress = iter,
    base: "BaseFit | None" = None,
) -> ParameterMaps:
    """Estimate CBF, ATT and their standard deviations with a network, in the mask.

    Outside the mask the maps are those of least squares. With the arterial compartment, aBV and
    aBAT are estimated again for the CBF and ATT of the network. With several passes, the maps
    also hold the standard deviations between passes. A network of raw curves uses neither least
    squares in the mask nor the arterial compartment.

    Parameters
    ----------
    series : AslSeries
    model : Model
    settings : FitSettings, optional
        Of the least squares that the network corrects; by default from `choose_settings`.
    device : str
        "auto", "cpu", "cuda", "cuda:1" or "mps".
    passes : Passes
        Members, MC dropout, mirrored views and patches.
    progress : function
        Wraps the iterator over groups of slices, like tqdm.
    base : BaseFit, optional
        Result of `fit_base` for the same series and settings, if it exists already.

    Raises
    ------
    ValueError
        If there are too few timings for least squares.
    InputError
        If neither repeats nor residuals determine the noise level, if the model cannot run these
        passes, or if it was trained for another protocol.
    UnavailableError
        If the device is not available.
    """
    chosen = select_device(device)
    passes.check(model)
    has_several_passes = passes.count(model) > 1
    if settings is None:
        settings = choose_settings(series.acquisition)

    def run_slices(encode_slice: Callable[[int], FloatImage], inside: MaskImage) -> PassSummary:
        return _run_slices(model, encode_slice, inside, passes, chosen, progress)

    if not model.corrects_least_squares:
        return predict_raw_maps(series, model.encoding, settings, run_slices, has_several_passes)
    start = base or fit_base(series, settings)
    return _correct_least_squares(start, settings, run_slices, has_several_passes)


def _correct_least_squares(
    start: "BaseFit", settings: FitSettings, run_slices: RunSlices, has_several_passes: bool
) -> ParameterMaps:
    """Return the least-squares maps with the corrections of a network."""
    series, base, inside = start.series, start.maps, start.inside
    found = run_slices(start.encode_slice, inside)
    corrected = _corrected(base, found, inside, settings)
    flags = quality_flags(**corrected, mask=series.mask, settings=settings)
    maps = replace(base, flags=flags, **corrected)
    if has_several_passes:
        maps = add_network_sds(maps, found, base.cbf_std * inside, base.att_std * inside)
    if base.abv is None or base.abat is None:
        return maps
    abv, abat = _arterial(maps, series, start.noise, inside, (base.abv.copy(), base.abat.copy()))
    return replace(maps, abv=abv, abat=abat)


@dataclass(frozen=True)
class BaseFit:
    """The least-squares fit that a network corrects.

    Attributes
    ----------
    series : AslSeries
    noise : array (x, y, z)
        Noise sd of a volume of mean weight, ΔM/M0.
    maps : ParameterMaps
    inside : bool array (x, y, z)
        Voxels that are corrected: usable, with a known standard error.
    """

    series: AslSeries
    noise: FloatImage
    maps: ParameterMaps
    inside: MaskImage

    def encode_slice(self, z: int) -> FloatImage:
        """Compute the channels of slice z, (channels, x, y); 0 outside."""
        voxels = self.inside[:, :, z]
        base = self.maps
        kinetics, signal = slice_signal(self.series, self._model, z, voxels)
        images = (self.noise, base.cbf, base.att, base.cbf_std, base.att_std)
        noise, cbf, att, cbf_se, att_se = (image[:, :, z][voxels][None] for image in images)
        arterial = [i[:, :, z][voxels][None] for i in (base.abv, base.abat) if i is not None]
        residual = signal - delta_m(kinetics, cbf, att, *arterial)
        abv, abat = arterial or (None, None)
        solution = Solution(cbf, att, abv, abat, rss=(residual**2).sum(-2))  # (1, voxels) each
        rows = encode(kinetics, signal, solution, (cbf_se, att_se), noise)
        return to_image(np.concatenate([rows, np.ones_like(noise)]), voxels)

    @cached_property
    def _model(self) -> KineticModel:
        """Return the kinetic model of all slices."""
        return kinetic_model(self.series.acquisition, self.inside.shape[2], np.float32)


def fit_base(series: AslSeries, settings: FitSettings | None = None) -> BaseFit:
    """Fit a series by least squares, with the noise level that the network gets.

    Raises
    ------
    ValueError, InputError
        As in `predict_maps`.
    """
    found = fit_with_noise_level(series, settings)
    maps, noise = found.maps, _check_noise(series, found.noise_sd)
    if series.acquisition.n_timings == 1:
        maps = _with_assumed_att(series, maps, noise)
    return BaseFit(series, noise, maps, series.usable & (maps.cbf_std > 0))


def _with_assumed_att(series: AslSeries, maps: ParameterMaps, noise: FloatImage) -> ParameterMaps:
    """Return the maps of a single timing with the standard errors of an assumed ATT."""
    model = kinetic_model(series.acquisition, series.mask.shape[2], np.float32)
    errors = errors_with_assumed_att(model, as_slices(maps.cbf), as_slices(noise))
    cbf_std, att_std = (as_image(e, maps.cbf.shape) for e in errors)
    return replace(maps, cbf_std=cbf_std, att_std=att_std)


def noise_level(series: AslSeries, settings: FitSettings) -> FloatImage:
    """Return the noise sd of a volume of mean weight, (x, y, z), ΔM/M0.

    It is measured in the repeats, without repeats in the residuals.

    Raises
    ------
    InputError
        If there are neither repeats nor more timings than parameters.
    """
    return _check_noise(series, known_sd(series, settings))


def _check_noise(series: AslSeries, sd: FloatImage) -> FloatImage:
    """Return the noise sd, (x, y, z); InputError where it is unknown."""
    if not np.isfinite(sd[series.mask]).any():
        raise InputError(
            "ASL series",
            "noise level",
            found=f"{series.acquisition.n_timings} timings without repeats",
            expected="repeats, or more timings than parameters",
            fix="use asl_fit_ls, or give all repeats",
        )
    return sd


def _run_slices(
    model: Model,
    encode_slice: Callable[[int], FloatImage],
    inside: MaskImage,
    passes: Passes,
    device: torch.device,
    progress: Progress,
) -> PassSummary:
    """Run all passes on all slices, some at a time; arrays (channels, x, y, z) in the image.

    Slices are encoded, to (channels, x, y), and cropped to the brain. The network also gets
    the slices above and below each group, as far as its `reach`.
    """
    model = model.to(device)
    sizes = (2, 2, 2, model.network.n_outputs - N_OUTPUTS)
    images = PassSummary(*(np.zeros((size, *inside.shape), dtype=np.float32) for size in sizes))
    x, y = bounding_box(inside)[:2]
    slices = np.arange(inside.shape[2])[bounding_box(inside)[2]]
    reach = max(member.reach for member in model.members)
    n = max(SLICES_AT_ONCE, reach and PIXELS_AT_ONCE // max(inside[x, y, 0].size, 1))
    for first in progress(range(0, slices.size, n)):
        n_before = min(first, reach)
        group = slices[first - n_before : first + n + reach]
        channels = np.stack([encode_slice(z)[:, x, y] for z in group])  # (slices, channels, x, y)
        found = run_passes(model, channels, passes, device)
        own = slices[first : first + n]
        for image, values in zip(vars(images).values(), vars(found).values(), strict=True):
            image[:, x, y, own] = np.moveaxis(values[n_before : n_before + own.size], 0, -1)
    return images


def _corrected(
    base: ParameterMaps, found: PassSummary, inside: MaskImage, settings: FitSettings
) -> dict[str, FloatImage]:
    """Return CBF, ATT and their standard deviations, corrected inside."""
    maps = {name: getattr(base, name).copy() for name in ("cbf", "att", "cbf_std", "att_std")}
    sd = found.sd  # (2, x, y, z), in standard errors
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
    """Fit aBV and aBAT for the CBF and ATT of the maps, and write them into `images`."""
    model = kinetic_model(series.acquisition, inside.shape[2], np.float32)
    for z in np.flatnonzero(inside.any(axis=(0, 1))).tolist():
        voxels = inside[:, :, z]
        kinetics, signal = slice_signal(series, model, z, voxels)
        known = (sd, maps.cbf, maps.att, maps.att_std)
        found = arterial_given_tissue(kinetics, signal, *(i[:, :, z][voxels][None] for i in known))
        for image, values in zip(images, found, strict=True):
            image[:, :, z][voxels] = values[0]
    return images
