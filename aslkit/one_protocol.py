"""Configuration and random generator -> noisy patches of one protocol, physics drawn per patch."""

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from aslkit.acquisition import Acquisition, Timing, protocol
from aslkit.anatomy import draw_planes, draw_subjects
from aslkit.arrays import first_places, rows_at, scattered, standard_normal
from aslkit.artefacts import drift, physiological, with_thermal_noise
from aslkit.cells import alike, model_like
from aslkit.config.schema import OneProtocolConfig
from aslkit.physics import KineticModel, kinetic_model, namespace
from aslkit.simulation import REFERENCE_SIGNAL, mixed_signal, noise_sd

Values = NDArray[np.floating]

N_PULSES = {"pcasl": 4, "vsasl": 3}  # of background suppression, where physics are drawn
DURATION_SCATTER = 0.1  # at most, of the label duration
CONTROL_LEVEL = (0.02, 0.2)  # control signal under background suppression, fraction of M0


@dataclass(frozen=True)
class Patches:
    """Slices of `b` subjects, 0 outside the brain; all arrays, or all tensors on a device.

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


def draw_patches(
    config: OneProtocolConfig, rng: np.random.Generator, device: str | None = None
) -> Patches:
    """`config.patches` random slices under the protocol.

    Parameters
    ----------
    device : str, optional
        Makes torch tensors on this device; without it, numpy arrays.
    """
    planes = draw_planes(rng, config.patches, config.patch).on(device)
    tissue = draw_subjects(rng, config.patches).at(planes)
    model = _draw_model(config, rng, planes.x)
    rows = mixed_signal(model, tissue, lambda v: v.reshape(len(v), -1), has_arterial=False)
    clean = namespace(rows).moveaxis(rows, 1, -1).reshape(*tissue.mask.shape, -1)[tissue.mask]
    return Patches(
        signal=scattered(_measured(clean, first_places(tissue.mask), config, rng), tissue.mask),
        cbf=tissue.cbf * tissue.mask,
        att=tissue.att * tissue.mask,
        mask=tissue.mask,
        t1_blood_s=model.t1_blood.ravel(),  # type: ignore[union-attr]
    )


def _draw_model(config: OneProtocolConfig, rng: np.random.Generator, like) -> KineticModel:  # type: ignore[no-untyped-def]
    """The kinetic model of every patch, arrays (b, n, 1) as `like`."""
    nominal = kinetic_model(Acquisition(nominal_timings(config)), 1, np.float32)
    column: Values = np.ones((config.patches, 1, 1))

    def drawn(limits: tuple[float, float]) -> Values:
        return rng.uniform(*limits, column.shape)

    duration = column
    if config.domain_randomization:
        duration = drawn((1 - DURATION_SCATTER, 1 + DURATION_SCATTER))
    blocks = []
    for block in nominal.blocks:
        efficiency = block.efficiencies * column
        if config.domain_randomization:
            efficiency = drawn(getattr(config, f"alpha_{block.labeling}_range")) + 0 * efficiency
            for _ in range(N_PULSES[block.labeling]):
                efficiency = efficiency * drawn(config.alpha_bs_range)
        durations = block.label_durations * duration
        blocks.append(replace(block, label_durations=durations, efficiencies=efficiency))
    t1_blood = config.t1_blood_s * column
    if config.domain_randomization:
        t1_blood = drawn(config.t1_blood_range_s)
    drawn_model = replace(nominal, blocks=tuple(blocks))
    return replace(model_like(drawn_model, like), t1_blood=alike(t1_blood, like))


def _measured(clean, patches, config: OneProtocolConfig, rng: np.random.Generator):  # type: ignore[no-untyped-def]
    """Control minus label of a clean ΔM/M0 (voxels, n), with the noise of the configuration.

    Parameters
    ----------
    patches : array (voxels,)
        Number of the patch that a voxel belongs to.
    """

    def of_voxels(of_patches: Values):  # type: ignore[no-untyped-def]
        """Values (patches, …) of the patch of every voxel, (voxels, …)."""
        return rows_at(alike(of_patches, clean), patches)

    b, n, signal = config.patches, clean.shape[1], clean
    for name, draw in (("physio", physiological), ("drift", drift)):
        if name in config.noise_components:
            course = np.stack([draw(rng, n) for _ in range(b)])
            signal = signal + of_voxels(REFERENCE_SIGNAL * course)
    if "thermal" not in config.noise_components:
        return signal
    sd = of_voxels(noise_sd(1.0) / rng.choice(config.snr_levels, (b, 1)))
    if config.noise_type == "gaussian":
        return signal + sd * standard_normal(rng, clean.shape, clean)
    level = of_voxels(rng.uniform(*CONTROL_LEVEL, (b, 1))) + 0 * clean
    control, label = (
        with_thermal_noise(rng, image, sd / 2**0.5) for image in (level, level - signal)
    )
    return control - label
