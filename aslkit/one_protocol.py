"""Configuration and random generator -> noisy patches of one protocol, physics drawn per patch."""

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from aslkit.acquisition import Acquisition, Timing, protocol
from aslkit.anatomy import draw_planes, draw_subjects
from aslkit.artefacts import drift, physiological, with_thermal_noise
from aslkit.config.schema import OneProtocolConfig
from aslkit.physics import KineticModel, kinetic_model
from aslkit.simulation import REFERENCE_SIGNAL, mixed_signal, noise_sd

Values = NDArray[np.floating]

N_PULSES = {"pcasl": 4, "vsasl": 3}  # of background suppression, where physics are drawn
DURATION_SCATTER = 0.1  # at most, of the label duration
CONTROL_LEVEL = (0.02, 0.2)  # control signal under background suppression, fraction of M0


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
    planes = draw_planes(rng, config.patches, config.patch)
    tissue = draw_subjects(rng, config.patches).at(planes)
    model = _draw_model(config, rng)
    mask = tissue.mask[:, None]
    rows = mixed_signal(model, tissue, lambda v: v.reshape(len(v), -1), has_arterial=False)
    clean = rows.reshape(*rows.shape[:2], *tissue.mask.shape[1:]) * mask
    signal = _measured(clean, config, rng) * mask
    return Patches(
        signal=signal.astype(np.float32),
        cbf=(tissue.cbf * tissue.mask).astype(np.float32),
        att=(tissue.att * tissue.mask).astype(np.float32),
        mask=tissue.mask,
        t1_blood_s=np.asarray(model.t1_blood, dtype=np.float32).ravel(),
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
    signal = clean
    for name, draw in (("physio", physiological), ("drift", drift)):
        if name in config.noise_components:
            course = np.stack([draw(rng, n) for _ in range(b)])[..., None, None]
            signal = signal + REFERENCE_SIGNAL * course
    if "thermal" not in config.noise_components:
        return signal
    sd = noise_sd(1.0) / rng.choice(config.snr_levels, column)
    if config.noise_type == "gaussian":
        return np.asarray(signal + sd * rng.standard_normal(clean.shape))
    level = rng.uniform(*CONTROL_LEVEL, column) + 0 * clean
    control, label = (
        with_thermal_noise(rng, image, (sd / np.sqrt(2)).astype(np.float32))
        for image in (level.astype(np.float32), (level - signal).astype(np.float32))
    )
    return np.asarray(control - label)
