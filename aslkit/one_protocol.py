"""Configuration and random generator -> noisy patches of one protocol, physics drawn per patch."""

from dataclasses import dataclass, fields, replace

import numpy as np
from numpy.typing import NDArray

from aslkit.acquisition import Acquisition, Timing, protocol
from aslkit.anatomy import Tissue, draw_slice, draw_subject
from aslkit.config.schema import OneProtocolConfig
from aslkit.physics import KineticModel, kinetic_model
from aslkit.simulation import REFERENCE_SIGNAL, mixed_signal, noise_sd

Values = NDArray[np.floating]

N_PULSES = {"pcasl": 4, "vsasl": 3}  # of background suppression, where physics are drawn
DURATION_SCATTER = 0.1  # at most, of the label duration
PHYSIO_AMPLITUDE = (0.03, 0.15)  # of a sinusoid over the volumes, fractions of the reference
PHYSIO_CYCLES = (0.5, 2.0)  # of it over the series
MOST_DRIFT = 0.03  # linear over the volumes, fraction of the reference
CONTROL_LEVEL = (0.02, 0.2)  # control signal under background suppression, fraction of M0
SMALLEST_BRAIN = 200  # pixels; slices with less are drawn again


@dataclass(frozen=True)
class Patches:
    """Slices of `b` subjects, 0 outside the brain.

    Attributes
    ----------
    signal : array (b, n, x, y)
        ΔM/M0 with noise.
    cbf, att : array (b, x, y)
        Truth [ml/100 g/min, s].
    mask : bool array (b, x, y)
    t1_blood_s : array (b,)
        What estimators are told of the subjects.
    """

    signal: Values
    cbf: Values
    att: Values
    mask: NDArray[np.bool_]
    t1_blood_s: Values


def nominal_timings(config: OneProtocolConfig) -> tuple[Timing, ...]:
    """The protocol as estimators know it, one labeling after the other."""
    pulse = float(np.mean(config.alpha_bs_range)) if config.domain_randomization else 1.0
    runs = []
    for labeling in config.labelings:
        efficiency = getattr(config, f"alpha_{labeling}") * pulse ** N_PULSES[labeling]
        duration = config.label_duration_s if labeling == "pcasl" else 0.0
        runs.append(protocol(labeling, config.plds_s, duration, efficiency))
    return sum(runs, ())


def draw_patches(config: OneProtocolConfig, rng: np.random.Generator) -> Patches:
    """`config.patches` random slices under the protocol."""
    shape = config.patches, -1, config.patch, config.patch
    tissue = _draw_tissue(config, rng)
    model = _draw_model(config, rng)
    clean = mixed_signal(model, tissue, lambda values: values, has_arterial=False)
    mask = tissue.mask.reshape(shape)
    signal = _measured(clean.reshape(shape) * mask, config, rng) * mask
    return Patches(
        signal=signal.astype(np.float32),
        cbf=tissue.cbf.reshape(shape)[:, 0] * mask[:, 0],
        att=tissue.att.reshape(shape)[:, 0] * mask[:, 0],
        mask=mask[:, 0],
        t1_blood_s=np.asarray(model.t1_blood, dtype=np.float32).ravel(),
    )


def _draw_tissue(config: OneProtocolConfig, rng: np.random.Generator) -> Tissue:
    """Tissue of every patch, arrays (b, pixels)."""
    drawn: list[Tissue] = []
    while len(drawn) < config.patches:
        tissue = draw_subject(rng).at(draw_slice(rng, config.patch))
        if tissue.mask.sum() >= SMALLEST_BRAIN:
            drawn.append(tissue)
    return Tissue(
        **{f.name: np.stack([getattr(t, f.name) for t in drawn]) for f in fields(Tissue)}
    )


def _draw_model(config: OneProtocolConfig, rng: np.random.Generator) -> KineticModel:
    """The kinetic model of every patch, arrays (b, n, 1)."""
    nominal = kinetic_model(Acquisition(nominal_timings(config)), 1, np.float32)
    column = config.patches, 1, 1
    if not config.domain_randomization:
        return replace(nominal, t1_blood=np.full(column, config.t1_blood_s, dtype=np.float32))

    def uniform(limits: tuple[float, float]) -> Values:
        return rng.uniform(*limits, column).astype(np.float32)

    duration = uniform((1 - DURATION_SCATTER, 1 + DURATION_SCATTER))
    blocks = []
    for block in nominal.blocks:
        alpha = uniform(getattr(config, f"alpha_{block.labeling}_range"))
        for _ in range(N_PULSES[block.labeling]):
            alpha = alpha * uniform(config.alpha_bs_range)
        efficiencies = alpha + 0 * block.efficiencies
        durations = duration * block.label_durations
        blocks.append(replace(block, efficiencies=efficiencies, label_durations=durations))
    return replace(nominal, blocks=tuple(blocks), t1_blood=uniform(config.t1_blood_range_s))


def _measured(clean: Values, config: OneProtocolConfig, rng: np.random.Generator) -> Values:
    """Control minus label of a clean ΔM/M0 (b, n, x, y), with the noise of the configuration."""
    b, n, *_ = clean.shape
    column = b, 1, 1, 1
    time = np.linspace(0, 1, n)[:, None, None]
    signal = clean
    if "physio" in config.noise_components:
        cycles, phase = rng.uniform(*PHYSIO_CYCLES, column), rng.uniform(0, 1, column)
        amplitude = REFERENCE_SIGNAL * rng.uniform(*PHYSIO_AMPLITUDE, column)
        signal = signal + amplitude * np.sin(2 * np.pi * (cycles * time + phase))
    if "drift" in config.noise_components:
        slope = REFERENCE_SIGNAL * rng.uniform(-MOST_DRIFT, MOST_DRIFT, column)
        signal = signal + slope * (2 * time - 1)
    if "thermal" not in config.noise_components:
        return signal
    sd = noise_sd(1.0) / rng.choice(config.snr_levels, column)
    if config.noise_type == "gaussian":
        return np.asarray(signal + sd * rng.standard_normal(clean.shape))
    level = rng.uniform(*CONTROL_LEVEL, column)
    parts = rng.standard_normal((2, 2, *clean.shape), dtype=np.float32) * sd / np.sqrt(2)
    control, label = (
        np.hypot(image + real, imaginary)
        for image, (real, imaginary) in zip((level, level - signal), parts, strict=True)
    )
    return np.asarray(control - label)
