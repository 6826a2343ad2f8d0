"""A phantom and the settings of a scanner -> control and label images."""

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
from scipy import ndimage

from aslkit.core.acquisition import EFFICIENCY_PER_PULSE, REFERENCE_SIGNAL, Acquisition
from aslkit.core.series_and_maps import FloatImage, voxel_size_mm
from aslkit.prepare.motion import Frame
from aslkit.simulate.artefacts import (
    Artefacts,
    add_thermal_noise,
    draw_artefacts,
    draw_coil_noise,
    draw_spike_pattern,
    move_image,
)
from aslkit.simulate.phantoms import Phantom
from aslkit.simulate.signal import Protocol, clean_signal, noise_sd
from aslkit.simulate.subject_physics import SubjectPhysics, draw_physics

M0_SCALE = 1000.0  # scanner units of M0 in CSF
M0_OF_TISSUE = {"gm": 0.85, "wm": 0.75, "csf": 1.0}  # proton density relative to CSF
BLUR_VOXELS = 0.5  # sigma of the point spread of the readout
SUPPRESSED_SIGNAL = 0.3  # static signal after background suppression, fraction of M0
SCANNER_SEED = 2_907  # separates the random stream of noise from that of the subject


@dataclass(frozen=True)
class ScanSettings:
    """The settings of a simulated scan.

    Attributes
    ----------
    snr : tuple of float
        Lowest and highest SNR of the average of the repeats; a value is drawn per subject.
    track : str
        "matched": the sidecars state the true constants; "mismatched": see `draw_physics`.
    noises : tuple of str
        Some of `aslkit.simulate.artefacts.NOISES`; coil is thermal noise that varies in space.
    n_pulses : int
        Background-suppression pulses.
    has_arterial : bool
        Whether arteries have signal on the matched track.
    """

    protocol: Protocol
    repeats: int = 1
    snr: tuple[float, float] = (10.0, 10.0)
    track: str = "matched"
    noises: tuple[str, ...] = ("thermal",)
    kinetic: str = "single"
    n_pulses: int = 0
    has_arterial: bool = False

    @property
    def static_signal(self) -> float:
        """Static tissue signal of control images [fraction of M0]."""
        return SUPPRESSED_SIGNAL if self.n_pulses else 1.0

    @property
    def has_thermal_noise(self) -> bool:
        """Whether the images have thermal noise, uniform or varying in space."""
        return "thermal" in self.noises or "coil" in self.noises


@dataclass(frozen=True)
class SimulatedRun:
    """One run: control and label of every delay, then the next repeat of all delays.

    Attributes
    ----------
    nominal : Acquisition
        The acquisition in the sidecar, without background suppression.
    physics : SubjectPhysics
        The true constants.
    volumes : array (x, y, z, 2 n repeats)
        In scanner units.
    signal : array (x, y, z, n)
        ΔM/M0 without noise and artefacts.
    artefacts : Artefacts
        The artefacts in the images.
    noise_rms : float
        Thermal noise of the averaged ΔM/M0 volumes, rms in the brain, as measured.
    """

    nominal: Acquisition
    physics: SubjectPhysics
    volumes: FloatImage
    signal: FloatImage
    artefacts: Artefacts
    noise_rms: float


@dataclass(frozen=True)
class SimulatedScan:
    """All runs of one subject, the M0 image and the noise level.

    Attributes
    ----------
    m0 : array (x, y, z)
        In scanner units.
    noise_sd : array (x, y, z)
        Standard deviation of the thermal noise of an averaged ΔM/M0 volume; 0 outside the brain.
    snr : float
        Requested SNR.
    """

    runs: tuple[SimulatedRun, ...]
    m0: FloatImage
    noise_sd: FloatImage
    snr: float

    @property
    def measured_snr(self) -> float | None:
        """The reference signal over the thermal noise of all runs, rms; None without noise."""
        rms = np.sqrt(np.mean([run.noise_rms**2 for run in self.runs]))
        return float(REFERENCE_SIGNAL / rms) if rms else None


@dataclass(frozen=True)
class _Head:
    """A phantom, its M0, and the noise sd of one image (0: none), in scanner units."""

    phantom: Phantom
    m0: FloatImage
    image_sd: FloatImage

    @property
    def frame(self) -> Frame:
        return phantom_frame(self.phantom)


def scan_phantom(phantom: Phantom, settings: ScanSettings, seed: int) -> SimulatedScan:
    """Scan a phantom; the same seed gives the same scan."""
    rng = np.random.default_rng([SCANNER_SEED, seed])
    snr_rng, physics_rng, coil_rng, m0_rng, *run_rngs = rng.spawn(4 + len(settings.protocol.runs))
    lowest, highest = settings.snr
    snr = lowest * (highest / lowest) ** snr_rng.uniform()
    m0 = compute_m0(phantom)
    head = _Head(phantom, m0, _image_sd(coil_rng, phantom, m0, settings) / np.float32(snr))
    runs = tuple(
        _scan_run(head, nominal, physics, settings, run_rng)
        for nominal, physics, run_rng in zip(
            settings.protocol.acquisitions(m0.shape[2]),
            _run_physics(physics_rng, settings, m0.shape[2]),
            run_rngs,
            strict=True,
        )
    )
    pair_sd = np.divide(head.image_sd, m0, out=np.zeros_like(m0), where=phantom.mask)
    average_sd = pair_sd * np.float32(np.sqrt(2 / settings.repeats))
    return SimulatedScan(runs, add_thermal_noise(m0_rng, m0, head.image_sd), average_sd, snr)


def image_with_artefacts(
    m0: FloatImage,
    frame: Frame,
    level: FloatImage,
    artefacts: Artefacts,
    i: int,
    rng: np.random.Generator,
    spike_pattern: Callable[
        [np.random.Generator, tuple[int, ...]], FloatImage
    ] = draw_spike_pattern,
) -> FloatImage:
    """Simulate one image with artefacts, without thermal noise.

    Parameters
    ----------
    m0 : array (x, y, z)
        In scanner units.
    level : array (x, y, z)
        Signal of the image without artefacts [fraction of M0].
    i : int
        Number of the image in the scan; even: control, odd: label.
    rng : Generator
        Draws the pattern of a spike.
    spike_pattern : callable
        Returns the image of a spike of amplitude 1.
    """
    fluctuation = REFERENCE_SIGNAL * (artefacts.physio[i // 2] + artefacts.drift[i // 2])
    half = fluctuation / 2 * (-1) ** i  # the difference of control and label has all of it
    image = m0 * (level + np.float32(artefacts.excess[i] + half))
    image = move_image(image, artefacts.motion[i], frame) * np.float32(artefacts.slices[i])
    if artefacts.ghosts[i]:
        image += np.float32(artefacts.ghosts[i]) * np.roll(image, image.shape[1] // 2, axis=1)
    if artefacts.spikes[i]:
        image += np.float32(M0_SCALE * artefacts.spikes[i]) * spike_pattern(rng, image.shape)
    return image


def compute_m0(phantom: Phantom) -> FloatImage:
    """Compute M0 in scanner units, with the blur of the readout; 0 in air.

    Without blur, edges ring when the head moves, and realignment is 20 % less accurate.
    """
    density = sum(getattr(phantom, tissue) * pd for tissue, pd in M0_OF_TISSUE.items())
    m0 = np.asarray(M0_SCALE * density * phantom.mask, dtype=np.float32)
    return ndimage.gaussian_filter(m0, BLUR_VOXELS)


def phantom_frame(phantom: Phantom) -> Frame:
    """Return the grid of a phantom, for displacements."""
    return Frame(phantom.mask.shape, voxel_size_mm(phantom.affine))


def _image_sd(
    rng: np.random.Generator, phantom: Phantom, m0: FloatImage, settings: ScanSettings
) -> FloatImage:
    """Return the noise sd of one image for which the average of the repeats has SNR 1."""
    if not settings.has_thermal_noise:
        return np.zeros_like(m0)
    coil = np.ones_like(m0)
    if "coil" in settings.noises:
        coil = draw_coil_noise(rng, phantom.mask, phantom_frame(phantom))
    rms = np.sqrt(np.mean((coil[phantom.mask] / m0[phantom.mask]) ** 2))
    return np.asarray(coil * np.float32(noise_sd(1) * np.sqrt(settings.repeats / 2) / rms))


def _run_physics(
    rng: np.random.Generator, settings: ScanSettings, n_slices: int
) -> list[SubjectPhysics]:
    """Return the true constants of one subject in every run."""
    joint = settings.protocol.acquisition(n_slices)
    bs_efficiency = EFFICIENCY_PER_PULSE**settings.n_pulses
    timings = tuple(replace(t, efficiency=t.efficiency * bs_efficiency) for t in joint.timings)
    nominal = replace(joint, timings=timings, kinetic=settings.kinetic)
    subject = SubjectPhysics(nominal, settings.has_arterial)
    if settings.track == "mismatched":
        subject = draw_physics(rng, nominal, settings.n_pulses)
    true_timings = iter(subject.acquisition.timings)
    return [
        replace(
            subject,
            acquisition=replace(
                subject.acquisition, timings=tuple(next(true_timings) for _ in run)
            ),
        )
        for run in settings.protocol.runs
    ]


def _scan_run(
    head: _Head,
    nominal: Acquisition,
    physics: SubjectPhysics,
    settings: ScanSettings,
    rng: np.random.Generator,
) -> SimulatedRun:
    artefact_rng, spike_rng, noise_rng = rng.spawn(3)
    signal = clean_signal(head.phantom, physics)
    n, shape = nominal.n_timings, head.m0.shape
    n_pairs = n * settings.repeats
    artefacts = draw_artefacts(artefact_rng, settings.noises, n_pairs, shape[2])
    volumes = np.empty((*shape, 2 * n_pairs), dtype=np.float32, order="F")
    noise = np.zeros((*shape, n), dtype=np.float32, order="F")  # noise of the averages
    for i in range(2 * n_pairs):
        delay = i // 2 % n
        level = settings.static_signal - signal[..., delay] * (i % 2)
        image = np.abs(image_with_artefacts(head.m0, head.frame, level, artefacts, i, spike_rng))
        volumes[..., i] = add_thermal_noise(noise_rng, image, head.image_sd)
        noise[..., delay] += (-1) ** i * (volumes[..., i] - image) / settings.repeats
    inside = head.phantom.mask
    rms = np.sqrt(np.mean((noise[inside] / head.m0[inside][:, None]) ** 2, dtype=np.float64))
    return SimulatedRun(nominal, physics, volumes, signal, artefacts, float(rms))
