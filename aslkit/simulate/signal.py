"""Phantom and acquisition -> AslSeries with thermal noise of a stated SNR."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from aslkit.core.acquisition import REFERENCE_SIGNAL, Acquisition, Timing, protocol
from aslkit.core.backend import FloatArray
from aslkit.core.series_and_maps import AslSeries, FloatImage, MaskImage, ParameterMaps
from aslkit.kinetics.dispersion import dispersed
from aslkit.kinetics.model import (
    KineticModel,
    arterial_curve,
    kinetic_model,
    take_slices,
    tissue_curve,
)
from aslkit.simulate.anatomy import Tissue
from aslkit.simulate.phantoms import Phantom
from aslkit.simulate.subject_physics import SubjectPhysics

SIX_PLDS_S = (0.5, 1.0, 1.5, 2.0, 2.5, 3.0)


@dataclass(frozen=True)
class Protocol:
    """The timings of every run of an examination, and the time between slices [s]; 0 for 3D."""

    runs: tuple[tuple[Timing, ...], ...]
    slice_duration_s: float = 0.0

    def acquisitions(self, n_slices: int) -> tuple[Acquisition, ...]:
        """Return one acquisition per run."""
        return tuple(Acquisition(timings, self._offsets(n_slices)) for timings in self.runs)

    def acquisition(self, n_slices: int) -> Acquisition:
        """Return all runs as one joint acquisition."""
        return Acquisition(sum(self.runs, ()), self._offsets(n_slices))

    def _offsets(self, n_slices: int) -> tuple[float, ...]:
        if not self.slice_duration_s:
            return (0.0,)
        return tuple(self.slice_duration_s * z for z in range(n_slices))


def noise_sd(snr: float) -> float:
    """Return the standard deviation of the noise of one averaged ΔM/M0 volume."""
    return REFERENCE_SIGNAL / snr


def mixed_signal(
    model: KineticModel,
    tissue: Tissue,
    rows: Callable[[FloatArray], FloatArray],
    has_arterial: bool,
    dispersion_s: float | FloatArray = 0.0,
) -> FloatArray:
    """Compute the noise-free ΔM/M0 (..., n, voxels): the sum over GM, WM and arteries.

    Parameters
    ----------
    rows : callable
        Converts an array of `tissue` to (..., voxels), of numpy or torch.
    has_arterial : bool
        Whether to add the signal of arteries.
    dispersion_s : float or array (..., 1)
        Standard deviation of the transit times inside a voxel [s].
    """

    def curve_at(curve: Callable[..., FloatArray], att: FloatArray) -> FloatArray:
        if isinstance(dispersion_s, float) and not dispersion_s:
            return curve(model, att)
        return dispersed(curve, model, att, dispersion_s)

    gm, wm = (
        (rows(fraction) * rows(cbf))[..., None, :] * curve_at(tissue_curve, rows(att))
        for fraction, cbf, att in (
            (tissue.gm, tissue.cbf_gm, tissue.att_gm),
            (tissue.wm, tissue.cbf_wm, tissue.att_wm),
        )
    )
    if not has_arterial:
        return gm + wm
    return gm + wm + rows(tissue.abv)[..., None, :] * curve_at(arterial_curve, rows(tissue.abat))


def clean_signal(phantom: Phantom, physics: SubjectPhysics) -> FloatImage:
    """Compute the noise-free ΔM/M0 of a phantom, (x, y, z, n); 0 outside its mask."""
    model = kinetic_model(physics.acquisition, phantom.mask.shape[2], np.float32)
    signal = np.zeros((*phantom.mask.shape, physics.acquisition.n_timings), dtype=np.float32)
    for z, inside in enumerate(np.moveaxis(phantom.mask, 2, 0)):

        def rows(values: FloatArray, z: int = z, inside: MaskImage = inside) -> FloatArray:
            return values[:, :, z][inside][None]

        of_z = take_slices(model, slice(z, z + 1))
        mixed = mixed_signal(of_z, phantom, rows, physics.has_arterial, physics.dispersion_s)
        signal[:, :, z][inside] = mixed[0].T
    return signal


def simulate_series(
    phantom: Phantom,
    acquisition: Acquisition,
    snr: float,
    seed: int,
    physics: SubjectPhysics | None = None,
) -> AslSeries:
    """Simulate a noisy scan of a phantom; `snr` is that of a ΔM volume of mean weight.

    `acquisition` holds the nominal constants, which the series states. `physics` holds the true
    ones, which determine the signal; the default is the nominal ones.
    """
    clean = clean_signal(phantom, physics or SubjectPhysics(acquisition))
    rng = np.random.default_rng(seed)
    sd = noise_sd(snr) / np.sqrt(acquisition.weights)
    noise = rng.standard_normal(clean.shape, dtype=np.float32) * sd.astype(np.float32)
    return AslSeries(clean + noise, acquisition, phantom.mask, phantom.affine)


def truth_maps(phantom: Phantom) -> ParameterMaps:
    """Return the true CBF, ATT, aBV and aBAT of a phantom as parameter maps."""
    nothing = np.zeros(phantom.mask.shape, dtype=np.float32)
    return ParameterMaps(
        cbf=phantom.cbf,
        att=np.where(phantom.mask, phantom.att, 0).astype(np.float32),
        cbf_std=nothing,
        att_std=nothing,
        flags=nothing.astype(np.uint8),
        abv=phantom.abv,
        abat=phantom.abat,
    )


PROTOCOLS = {
    "joint6": Protocol((protocol("pcasl", SIX_PLDS_S, 1.8), protocol("vsasl", SIX_PLDS_S, 0.0))),
    "joint5": Protocol(
        (protocol("pcasl", SIX_PLDS_S[:5], 1.8), protocol("vsasl", SIX_PLDS_S[:5], 0.0))
    ),
    "pcasl6": Protocol((protocol("pcasl", SIX_PLDS_S, 1.8),)),
    "pcasl6-2d": Protocol((protocol("pcasl", (0.25, 0.5, 0.75, 1.0, 1.25, 1.5), 1.4),), 0.0452),
    "pcasl5": Protocol((protocol("pcasl", (0.2, 0.7, 1.2, 1.7, 2.2), 1.5),)),
    "pcasl-varied": Protocol(
        (protocol("pcasl", (0.3, 0.6, 1.0, 1.4, 1.9, 2.4), (1.0, 1.2, 1.5, 1.8, 2.2, 2.6)),)
    ),
    "pasl8": Protocol((protocol("pasl", (0.4, 0.7, 1.0, 1.3, 1.6, 1.9, 2.2, 2.5), 0.7),)),
    "vsasl6": Protocol((protocol("vsasl", SIX_PLDS_S, 0.0),)),
    "pcasl1": Protocol((protocol("pcasl", (1.8,), 1.8),)),
}
