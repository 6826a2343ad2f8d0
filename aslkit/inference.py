"""AslSeries -> ParameterMaps: least squares, corrected by a trained network inside the mask."""

from dataclasses import replace

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from aslkit.arterial import arterial_given_tissue
from aslkit.direct import direct_maps
from aslkit.encoding import CHANNELS, encode, to_image
from aslkit.errors import InputError, UnavailableError
from aslkit.fitting import (
    FitSettings,
    fit_least_squares,
    quality_flags,
    residual_sd,
    slice_signal,
)
from aslkit.images import AslSeries, FloatImage, MaskImage, ParameterMaps
from aslkit.physics import delta_m, kinetic_model
from aslkit.projection import Solution
from aslkit.raw_encoding import RawEncoding
from aslkit.residual_nets import Network
from aslkit.weights import Model

SLICES_PER_BATCH = 8


def predict(
    series: AslSeries,
    model: Model,
    settings: FitSettings = FitSettings(),  # noqa: B008
    device: str = "auto",
) -> ParameterMaps:
    """CBF, ATT and their standard deviations by the network; least squares outside the mask.

    Where the arterial compartment is on, aBV and aBAT are estimated again, given the network's
    CBF and ATT. A network that sees the curves of its one protocol works without least squares
    and without arterial compartment.

    Raises
    ------
    ValueError
        When there are too few timings for least squares.
    InputError
        When neither repeats nor residuals tell the noise level, or the model is for another
        protocol.
    UnavailableError
        When the device is not there.
    """
    chosen = select_device(device)
    if isinstance(model.encoding, RawEncoding):
        outputs = _correct(model, model.encoding.encode_series(series), chosen)
        return direct_maps(series, model.encoding, outputs[:2], np.exp(outputs[2:]), settings)
    sd = residual_sd(series, settings) if series.noise_sd is None else series.noise_sd
    if not np.isfinite(sd[series.mask]).any():
        raise InputError(
            "ASL series",
            "noise level",
            found=f"{series.acquisition.n_timings} timings without repeats",
            expected="repeats, or more timings than parameters",
            fix="use asl_fit_ls, or give all repeats",
        )
    base = fit_least_squares(replace(series, noise_sd=sd), settings)
    inside = series.mask & np.isfinite(series.delta_m).all(axis=3) & (base.cbf_std > 0)
    outputs = _correct(model, _encoded(series, sd, base, inside), chosen)
    corrected = {name: getattr(base, name).copy() for name in ("cbf", "att", "cbf_std", "att_std")}
    for i, name in enumerate(("cbf", "att")):
        se = getattr(base, f"{name}_std")[inside]
        corrected[name][inside] += se * outputs[i][inside]
        corrected[f"{name}_std"][inside] = se * np.exp(outputs[2 + i][inside])
    corrected["att"] = np.clip(corrected["att"], *settings.att_bounds_s)
    flags = quality_flags(**corrected, mask=series.mask, settings=settings)
    maps = replace(base, flags=flags, **corrected)
    if base.abv is None or base.abat is None:
        return maps
    abv, abat = _arterial(maps, series, sd, inside, (base.abv.copy(), base.abat.copy()))
    return replace(maps, abv=abv, abat=abat)


def check_range(series: AslSeries, model: Model) -> list[str]:
    """What about a series lies outside of what the model was trained for, one sentence each."""
    warnings = []
    acquisition = series.acquisition
    plds = acquisition.effective_plds_s(series.mask.shape[2])
    low, high = model.trained_range("plds_s")
    if plds.min() < low or plds.max() > high:
        warnings.append(
            f"PLDs of {plds.min():.2f}-{plds.max():.2f} s reach outside the {low}-{high} s that "
            f"model {model.name} was trained for"
        )
    fewest, most = model.trained_range("n_timings")
    if not fewest <= acquisition.n_timings <= most:
        warnings.append(
            f"{acquisition.n_timings} timings: model {model.name} was trained for {fewest}-{most}"
        )
    return warnings


def select_device(name: str) -> torch.device:
    """A device by name; "auto" takes CUDA where there is one.

    Raises
    ------
    UnavailableError
        When it is not there.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(name)
        torch.zeros(1, device=device)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise UnavailableError(f"device {name!r} is not available: {reason}") from error
    return device


def _encoded(
    series: AslSeries, sd: FloatImage, base: ParameterMaps, inside: MaskImage
) -> FloatImage:
    """Channels of every slice, (z, channels, x, y); 0 outside."""
    n_slices = inside.shape[2]
    whole = kinetic_model(series.acquisition, n_slices, np.float32)
    channels = np.zeros((n_slices, len(CHANNELS), *inside.shape[:2]), dtype=np.float32)
    for z in np.flatnonzero(inside.any(axis=(0, 1))).tolist():
        voxels = inside[:, :, z]
        kinetics, signal = slice_signal(series, whole, z, voxels)
        images = (sd, base.cbf, base.att, base.cbf_std, base.att_std)
        noise, cbf, att, cbf_se, att_se = (image[:, :, z][voxels][None] for image in images)
        arterial = [i[:, :, z][voxels][None] for i in (base.abv, base.abat) if i is not None]
        residual = signal - delta_m(kinetics, cbf, att, *arterial)
        abv, abat = arterial or (None, None)
        solution = Solution(cbf, att, abv, abat, (residual**2).sum(-2))
        rows = encode(kinetics, signal, solution, (cbf_se, att_se), noise)
        channels[z] = to_image(np.concatenate([rows, np.ones_like(noise)]), voxels)
    return channels


def _correct(model: Model, channels: FloatImage, device: torch.device) -> FloatImage:
    """The network's outputs, (4, x, y, z)."""
    network = model.network.to(device)
    batches = torch.from_numpy(channels).split(SLICES_PER_BATCH)
    with torch.inference_mode():
        outputs = torch.cat([_run_padded(network, b.to(device)).cpu() for b in batches])
    return outputs.permute(1, 2, 3, 0).numpy()


def _run_padded(network: Network, batch: Tensor) -> Tensor:
    """Run on slices whose sides are padded with background to the network's stride."""
    x, y = batch.shape[2:]
    stride = network.stride
    padded = functional.pad(batch, (0, -y % stride, 0, -x % stride))
    outputs: Tensor = network(padded)
    return outputs[:, :, :x, :y]


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
