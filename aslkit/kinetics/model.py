"""Kinetic parameters -> ASL signal: the only implementation of every equation.

Leading axes are slices of a scan or patches of a batch; voxels are the last axis. So `att` is
(..., voxels) and a curve of n timings is (..., n, voxels). ΔM is a fraction of the tissue M0,
CBF is in ml/100 g/min, times are in seconds.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import groupby

import numpy as np

from aslkit.core.acquisition import Acquisition, Timing
from aslkit.core.backend import Array, namespace

CBF_PER_ML_G_S = 6000.0  # ml/100 g/min in one ml/g/s
ARTERIAL_EDGE_S = 0.1  # width of the rise and fall of the arterial bolus


@dataclass(frozen=True)
class TimingBlock:
    """Consecutive timings of one labeling type; arrays broadcast against (..., n, voxels).

    Attributes
    ----------
    labeling : str
    plds : array
        Effective PLD, which includes the slice offset; for PASL the inversion time [s].
    label_durations : array
        Label duration; for PASL the bolus duration [s].
    efficiencies : array
        Total labeling efficiency.
    """

    labeling: str
    plds: Array
    label_durations: Array
    efficiencies: Array


@dataclass(frozen=True)
class KineticModel:
    """The timings and constants of a batch of slices.

    Parameters
    ----------
    blocks : tuple of Block
        Signals are concatenated in this order along the timing axis.
    t1_blood, t1_tissue : float or array (..., 1, 1)
        Relaxation times of arterial blood and tissue [s].
    partition : float
        Blood-brain partition coefficient [ml/g].
    kinetic : str
        T1 of the label after arrival: "single" (of blood) or "tissue".
    saturation_recovery : float
        SIB of the VSASL model.
    """

    blocks: tuple[TimingBlock, ...]
    t1_blood: float | Array
    t1_tissue: float | Array
    partition: float
    kinetic: str = "single"
    saturation_recovery: float = 1.0

    @property
    def t1_after_arrival(self) -> float | Array:
        """T1' of the equations [s]."""
        return self.t1_blood if self.kinetic == "single" else self.t1_tissue


def kinetic_model(
    acquisition: Acquisition, n_slices: int = 1, dtype: type = np.float64
) -> KineticModel:
    """Return the model of all slices of an acquisition; its blocks have shape (n_slices, n, 1)."""
    offsets = acquisition.slice_offsets(n_slices)[:, None, None]

    def block(labeling: str, timings: list[Timing]) -> TimingBlock:
        columns = np.array([(t.pld_s, t.label_duration_s, t.efficiency) for t in timings])
        plds, durations, efficiencies = (c[None, :, None].astype(dtype) for c in columns.T)
        return TimingBlock(labeling, (plds + offsets).astype(dtype), durations, efficiencies)

    groups = groupby(acquisition.timings, key=lambda t: t.labeling)
    return KineticModel(
        blocks=tuple(block(labeling, list(timings)) for labeling, timings in groups),
        t1_blood=acquisition.t1_blood_s,
        t1_tissue=acquisition.t1_tissue_s,
        partition=acquisition.partition_ml_per_g,
        kinetic=acquisition.kinetic,
        saturation_recovery=acquisition.saturation_recovery,
    )


def take_slices(model: KineticModel, index: slice) -> KineticModel:
    """Return the model of some of the slices (leading axis)."""
    blocks = tuple(replace(b, plds=b.plds[index]) for b in model.blocks)
    return replace(model, blocks=blocks)


def tissue_curve(model: KineticModel, att: Array) -> Array:
    """Compute ΔM/M0 per unit CBF, (..., voxels) -> (..., n, voxels).

    PCASL/CASL and PASL: general kinetic model (Buxton 1998, doi:10.1002/mrm.1910400308) in the
    form of the white paper (Alsop 2015, doi:10.1002/mrm.25197). VSASL: the single-compartment
    model of joint PCASL + VSASL acquisitions.
    """
    return _concatenate(_CURVES[b.labeling](model, b, att[..., None, :]) for b in model.blocks)


def tissue_slope(model: KineticModel, att: Array) -> Array:
    """Compute the slope of `tissue_curve` by ATT [per s], (..., voxels) -> (..., n, voxels)."""
    return _concatenate(_SLOPES[b.labeling](model, b, att[..., None, :]) for b in model.blocks)


def kinks(model: KineticModel) -> Array:
    """Return the arrival times at which the slope of a tissue curve jumps [s], (slices, 2 n)."""
    ends = [
        b.plds - b.label_durations if b.labeling == "pasl" else b.plds + b.label_durations
        for b in model.blocks
    ]
    times = [*(b.plds for b in model.blocks), *ends]
    return namespace(times[0]).concatenate(times, axis=-2)[..., 0]


def arterial_curve(model: KineticModel, abat: Array) -> Array:
    """Compute ΔM/M0 per unit arterial blood volume, (..., voxels) -> (..., n, voxels).

    The label passes through the arteries of the voxel from aBAT to aBAT + bolus duration (Chappell
    2010, doi:10.1002/mrm.22320), with linear edges of width `ARTERIAL_EDGE_S`. VSASL labels all
    vessels above the cut-off velocity at once and has no arterial signal.
    """
    return _concatenate(_arterial_block(model, b, abat[..., None, :]) for b in model.blocks)


def delta_m(
    model: KineticModel,
    cbf: Array,
    att: Array,
    abv: Array | None = None,
    abat: Array | None = None,
) -> Array:
    """Compute ΔM/M0 of tissue plus, if given, the arterial compartment, (..., n, voxels)."""
    signal = cbf[..., None, :] * tissue_curve(model, att)
    if abv is not None:
        signal = signal + abv[..., None, :] * arterial_curve(model, abat)
    return signal


def _scale(model: KineticModel, block: TimingBlock) -> Array:
    """Return 2α/λ per unit of CBF."""
    return 2 * block.efficiencies / (model.partition * CBF_PER_ML_G_S)


def _pcasl_parts(model: KineticModel, block: TimingBlock, a: Array) -> tuple[Array, Array, Array]:
    """Return the arrived duration u of the bolus, time since its end arrived, and the decay."""
    xp = namespace(a)
    tau = block.label_durations
    since = block.plds - a  # time since the end of the bolus arrived; negative before that
    u = xp.clip(since + tau, 0 * tau, tau)
    decay = xp.exp(-a / model.t1_blood - xp.clip(since, 0, None) / model.t1_after_arrival)
    return u, since, decay * _scale(model, block)


def _pcasl_curve(model: KineticModel, block: TimingBlock, a: Array) -> Array:
    xp = namespace(a)
    u, _, decay = _pcasl_parts(model, block, a)
    t1 = model.t1_after_arrival
    return -t1 * decay * xp.expm1(-u / t1)


def _pcasl_slope(model: KineticModel, block: TimingBlock, a: Array) -> Array:
    xp = namespace(a)
    u, since, decay = _pcasl_parts(model, block, a)
    t1 = model.t1_after_arrival
    curve = -t1 * decay * xp.expm1(-u / t1)
    is_arriving = (u > 0) & (since < 0)
    rate = xp.where(since > 0, 1 / t1, 0 * since) - 1 / model.t1_blood
    return curve * rate - xp.where(is_arriving, decay * xp.exp(-u / t1), 0 * decay)


def _pasl_parts(
    model: KineticModel, block: TimingBlock, a: Array
) -> tuple[Array, Array, Array, Array]:
    """Return the arrived duration u of the bolus, time since its head arrived, k and decay."""
    xp = namespace(a)
    since = block.plds - a
    u = xp.minimum(xp.clip(since, 0, None), block.label_durations + 0 * since)
    k = 1 / model.t1_after_arrival - 1 / model.t1_blood
    decay = xp.exp(-block.plds / model.t1_after_arrival + k * a) * _scale(model, block)
    return u, since, k, decay


def _pasl_curve(model: KineticModel, block: TimingBlock, a: Array) -> Array:
    u, _, k, decay = _pasl_parts(model, block, a)
    return decay * _expm1_ratio(k, u)


def _pasl_slope(model: KineticModel, block: TimingBlock, a: Array) -> Array:
    xp = namespace(a)
    u, since, k, decay = _pasl_parts(model, block, a)
    is_arriving = (since > 0) & (since < block.label_durations)
    passed = decay * k * _expm1_ratio(k, u)
    return xp.where(is_arriving, -decay, passed)


def _expm1_ratio(k: Array, u: Array) -> Array:
    """Return (exp(k u) - 1) / k, continued to u at k = 0."""
    xp = namespace(u)
    if isinstance(k, float):
        return xp.expm1(k * u) / k if k else u
    safe = xp.where(k == 0, 1.0, k)
    return xp.where(k == 0, u, xp.expm1(safe * u) / safe)


def _vsasl_curve(model: KineticModel, block: TimingBlock, a: Array) -> Array:
    xp = namespace(a)
    return _vsasl_scale(model, block) * xp.minimum(a, block.plds + 0 * a)


def _vsasl_slope(model: KineticModel, block: TimingBlock, a: Array) -> Array:
    xp = namespace(a)
    return xp.where(a < block.plds, _vsasl_scale(model, block) + 0 * a, 0 * a)


def _vsasl_scale(model: KineticModel, block: TimingBlock) -> Array:
    xp = namespace(block.plds)
    decay = xp.exp(-block.plds / model.t1_blood)
    return model.saturation_recovery * _scale(model, block) * decay


def _arterial_block(model: KineticModel, block: TimingBlock, a: Array) -> Array:
    xp = namespace(a)
    if block.labeling == "vsasl":
        return 0 * (block.plds + a)
    is_pulsed = block.labeling == "pasl"
    since = block.plds - a  # since the head (PASL) or the tail (PCASL) of the bolus passed
    head = since if is_pulsed else since + block.label_durations
    tail = since - block.label_durations if is_pulsed else since
    inside = _edge(head) - _edge(tail)
    transit = block.plds + 0 * a if is_pulsed else a
    decay = xp.exp(-transit / model.t1_blood)
    return 2 * block.efficiencies / model.partition * decay * inside


def _edge(time_s: Array) -> Array:
    """Return a linear rise from 0 to 1 around time 0."""
    return namespace(time_s).clip(time_s / ARTERIAL_EDGE_S + 0.5, 0, 1)


def _concatenate(curves: Iterator[Array]) -> Array:
    """Join the curves of all blocks along the timing axis."""
    parts = list(curves)
    return parts[0] if len(parts) == 1 else namespace(parts[0]).concatenate(parts, axis=-2)


_CURVES = {
    "pcasl": _pcasl_curve,
    "casl": _pcasl_curve,
    "pasl": _pasl_curve,
    "vsasl": _vsasl_curve,
}
_SLOPES = {
    "pcasl": _pcasl_slope,
    "casl": _pcasl_slope,
    "pasl": _pasl_slope,
    "vsasl": _vsasl_slope,
}
