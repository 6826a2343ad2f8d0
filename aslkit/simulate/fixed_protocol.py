"""Configuration and random generator -> noisy patches of one protocol, with random physics.

Only the experiments with networks of raw curves and models for one protocol use this module; the
default model is trained on `training_scans`.
"""

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from aslkit.config.fixed_protocol import N_PULSES, FixedProtocolConfig, nominal_timings
from aslkit.core.acquisition import REFERENCE_SIGNAL, Acquisition
from aslkit.core.backend import (
    Array,
    FloatArray,
    array_like,
    first_axis_indices,
    namespace,
    scatter_to_images,
    standard_normal,
    take_rows,
)
from aslkit.fit.curve_table import model_like
from aslkit.kinetics.model import KineticModel, TimingBlock, kinetic_model
from aslkit.simulate.anatomy import Tissue, draw_planes, draw_subjects
from aslkit.simulate.artefacts import add_thermal_noise, draw_drift, draw_physio
from aslkit.simulate.signal import mixed_signal, noise_sd
from aslkit.simulate.training_scans import (
    ARRIVALS,
    EARLIEST_S,
    MAX_DISPERSION_S,
    MAX_GAIN_ERROR,
    coloured_noise,
    draw_spectrum,
)

DURATION_SCATTER = 0.1  # largest relative deviation of the label duration
# The following constants are those of extended randomization.
EXTENDED_DURATION_SCATTER = 0.2  # largest relative deviation of the label duration
PLD_SCATTER_S = 0.1  # largest deviation of each delay
ARTERIAL_FRACTION = 0.45  # of the patches have arterial signal
ARRIVAL_TIMES = "att_gm", "att_wm", "abat"

CONTROL_LEVEL = (0.02, 0.2)  # control signal with background suppression, fraction of M0


@dataclass(frozen=True)
class Patches:
    """Slices of `b` subjects, 0 outside the brain; numpy arrays, or tensors on a device.

    Attributes
    ----------
    signal, clean : array (b, n, x, y)
        ΔM/M0 with and without noise.
    cbf, att : array (b, x, y)
        Truth [ml/100 g/min, s].
    mask : bool array (b, x, y)
    t1_blood_s : array (b,)
        T1 of blood of every subject, which estimators receive.
    """

    signal: FloatArray
    clean: FloatArray
    cbf: FloatArray
    att: FloatArray
    mask: NDArray[np.bool_]
    t1_blood_s: FloatArray


def draw_patches(
    config: FixedProtocolConfig, rng: np.random.Generator, device: str | None = None
) -> Patches:
    """Draw `config.patches_per_step` random slices under the protocol.

    Parameters
    ----------
    device : str, optional
        Device of the torch tensors; None: numpy arrays.
    """
    planes = draw_planes(rng, config.patches_per_step, config.patch_size).on(device)
    tissue = draw_subjects(rng, config.patches_per_step).at(planes)
    model = _draw_model(config, rng, planes.x)
    signal = _extended_signal if config.extended_randomization else _tissue_signal
    rows = signal(model, tissue, rng)
    clean = namespace(rows).moveaxis(rows, 1, -1).reshape(*tissue.mask.shape, -1)[tissue.mask]
    return Patches(
        signal=scatter_to_images(_add_noise(clean, tissue.mask, config, rng), tissue.mask),
        clean=scatter_to_images(clean, tissue.mask),
        cbf=tissue.cbf * tissue.mask,
        att=tissue.att * tissue.mask,
        mask=tissue.mask,
        t1_blood_s=model.t1_blood.ravel(),  # type: ignore[union-attr]
    )


def draw_second_measurement(
    patches: Patches, config: FixedProtocolConfig, rng: np.random.Generator
) -> FloatArray:
    """Simulate the signal of patches again, with new noise of a new SNR."""
    rows = namespace(patches.clean).moveaxis(patches.clean, 1, -1)[patches.mask]
    again: FloatArray = scatter_to_images(
        _add_noise(rows, patches.mask, config, rng), patches.mask
    )
    return again


def _draw_model(
    config: FixedProtocolConfig, rng: np.random.Generator, like: Array
) -> KineticModel:
    """Draw the kinetic model of every patch; arrays (b, n, 1) of the type of `like`."""
    nominal = kinetic_model(Acquisition(nominal_timings(config)), 1, np.float32)
    column: FloatArray = np.ones((config.patches_per_step, 1, 1))

    def drawn(limits: tuple[float, float]) -> FloatArray:
        return rng.uniform(*limits, column.shape)

    duration = column
    if config.domain_randomization:
        is_extended = config.extended_randomization
        scatter = EXTENDED_DURATION_SCATTER if is_extended else DURATION_SCATTER
        duration = drawn((1 - scatter, 1 + scatter))
    blocks = []
    for block in nominal.blocks:
        efficiency = block.efficiencies * column
        if config.domain_randomization:
            efficiency = drawn(getattr(config, f"alpha_{block.labeling}_range")) + 0 * efficiency
            for _ in range(N_PULSES[block.labeling]):
                efficiency = efficiency * drawn(config.alpha_bs_range)
        plds = block.plds
        if config.extended_randomization:
            early = rng.uniform(
                -PLD_SCATTER_S, PLD_SCATTER_S, (config.patches_per_step, *plds.shape[1:])
            )
            plds = np.maximum(plds - early, 0)
        durations = block.label_durations * duration
        blocks.append(TimingBlock(block.labeling, plds, durations, efficiency))
    t1_blood = config.t1_blood_s * column
    if config.domain_randomization:
        t1_blood = drawn(config.t1_blood_range_s)
    drawn_model = replace(nominal, blocks=tuple(blocks))
    return replace(model_like(drawn_model, like), t1_blood=array_like(t1_blood, like))


def _tissue_signal(model: KineticModel, tissue: Tissue, rng: np.random.Generator) -> FloatArray:
    """Compute the noise-free ΔM/M0 of tissue, (b, n, pixels)."""
    return mixed_signal(model, tissue, _flat, has_arterial=False)


def _extended_signal(model: KineticModel, tissue: Tissue, rng: np.random.Generator) -> FloatArray:
    """Compute ΔM/M0 with arteries in some patches, dispersion and a random gain per delay."""
    abv, column = tissue.abv, (len(tissue.mask), 1, 1)
    has_arteries = array_like(rng.random(column) < ARTERIAL_FRACTION, abv)
    sd_s = rng.uniform(0, MAX_DISPERSION_S, column)

    def arriving(shift: FloatArray) -> Tissue:
        times = {name: getattr(tissue, name) + array_like(shift, abv) for name in ARRIVAL_TIMES}
        later = {name: namespace(t).clip(t, EARLIEST_S, None) for name, t in times.items()}
        return replace(tissue, abv=abv * has_arteries, **later)

    parts = (mixed_signal(model, arriving(sd_s * a), _flat, True) for a in ARRIVALS)
    rows: FloatArray = sum(parts) / len(ARRIVALS)  # type: ignore[assignment]
    error = rng.uniform(0, MAX_GAIN_ERROR, column) * rng.standard_normal((*rows.shape[:2], 1))
    return rows * array_like(np.exp(error), rows)


def _flat(images: FloatArray) -> FloatArray:
    """Reshape (b, x, y) to (b, pixels)."""
    return images.reshape(len(images), -1)


def _correlated_noise(rng: np.random.Generator, mask: Array, like: Array) -> Array:
    """Draw noise of unit variance (voxels, n), in most patches correlated between voxels."""
    b, nx, ny = mask.shape
    _, power = draw_spectrum(rng, b, nx, ny)
    images = coloured_noise(rng, (b, like.shape[1], nx, ny), like, power)
    return namespace(images).moveaxis(images, 1, -1)[mask]


def _add_noise(
    clean: Array, mask: Array, config: FixedProtocolConfig, rng: np.random.Generator
) -> Array:
    """Add the noise of the configuration to a clean ΔM/M0 (voxels, n)."""
    patches = first_axis_indices(mask)

    def of_voxels(of_patches: FloatArray) -> Array:
        """Expand values of patches (patches, …) to voxels, (voxels, …)."""
        return take_rows(array_like(of_patches, clean), patches)

    b, n, signal = config.patches_per_step, clean.shape[1], clean
    for name, draw in (("physio", draw_physio), ("drift", draw_drift)):
        if name in config.noise_components:
            course = np.stack([draw(rng, n) for _ in range(b)])
            signal = signal + of_voxels(REFERENCE_SIGNAL * course)
    if "thermal" not in config.noise_components:
        return signal
    sd = of_voxels(noise_sd(1.0) / rng.choice(config.snr_levels, (b, 1)))
    if config.extended_randomization:
        return signal + sd * _correlated_noise(rng, mask, clean)
    if config.noise_type == "gaussian":
        return signal + sd * standard_normal(rng, clean.shape, clean)
    level = of_voxels(rng.uniform(*CONTROL_LEVEL, (b, 1))) + 0 * clean
    control, label = (
        add_thermal_noise(rng, image, sd / 2**0.5) for image in (level, level - signal)
    )
    return control - label
