"""Random generator -> noise and artefacts of the images of one scan.

`draw_...` functions draw an artefact for the volumes of a scan; the others change one image. An
image is control or label, (x, y, z) in scanner units. Fluctuations are changes of the difference
of control and label, as fractions of the reference signal.
"""

from collections.abc import Collection
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from aslkit.core.backend import Array, FloatArray, namespace, standard_normal
from aslkit.core.series_and_maps import FloatImage, MaskImage
from aslkit.prepare.motion import Frame, Parameters, rigid_matrix

NOISES = ("thermal", "coil", "physio", "drift", "motion", "spikes", "dropouts", "suppression")

COIL_GAIN = 0.8  # largest additional relative noise in the middle of the head
COIL_WIDTH_MM = 50.0
PHYSIO_AMPLITUDE = (0.03, 0.15)  # fraction of the reference signal
PHYSIO_CYCLES = (0.5, 2.0)  # cycles in one scan
MAX_DRIFT = 0.03  # fraction of the reference signal, from the first difference to the last
STEP_MM, STEP_DEGREES = 0.1, 0.1  # standard deviation from one volume to the next, per axis
SPIKE_FRACTION = 0.05  # of the volumes
SPIKE_AMPLITUDE = (0.005, 0.05)  # fraction of M0
DROPOUT_FRACTION = 0.05  # of the volumes
DROPOUT_LEFT = (0.1, 0.7)  # fraction of the signal that remains in the slice
SUPPRESSION_FRACTION = 0.1  # of the volumes
SUPPRESSION_EXCESS = (0.005, 0.1)  # additional static signal, fraction of M0


@dataclass(frozen=True)
class Artefacts:
    """The artefacts of a scan of n pairs, that is of 2 n images.

    Attributes
    ----------
    physio, drift : array (n,)
        Change of every difference, as a fraction of the reference signal.
    excess : array (2 n,)
        Additional static signal [fraction of M0].
    motion : array (2 n, 6)
        Displacement of the head from M0 [mm, rad], in the convention of `aslkit.prepare.motion`.
    spikes : array (2 n,)
        Amplitude of a spike in k-space [fraction of M0].
    slices : array (2 n, z)
        Factor of the signal of every slice.
    ghosts : array (2 n,)
        Amplitude of the ghost at half the field of view along y [fraction of the image].
    """

    physio: FloatArray
    drift: FloatArray
    excess: FloatArray
    motion: Parameters
    spikes: FloatArray
    slices: FloatArray
    ghosts: FloatArray


def draw_artefacts(
    rng: np.random.Generator, noises: Collection[str], n_pairs: int, n_slices: int
) -> Artefacts:
    """Draw the artefacts in `noises` (of `NOISES`); each is independent of the others."""
    n = 2 * n_pairs
    none = np.zeros(n)
    streams = dict(zip(NOISES, rng.spawn(len(NOISES)), strict=True))
    draws = {name: stream for name, stream in streams.items() if name in noises}
    return Artefacts(
        physio=draw_physio(draws["physio"], n_pairs) if "physio" in draws else none[::2],
        drift=draw_drift(draws["drift"], n_pairs) if "drift" in draws else none[::2],
        excess=draw_excess(draws["suppression"], n) if "suppression" in draws else none,
        motion=draw_motion(draws["motion"], n) if "motion" in draws else np.zeros((n, 6)),
        spikes=draw_spikes(draws["spikes"], n) if "spikes" in draws else none,
        slices=draw_dropouts(draws["dropouts"], n, n_slices)
        if "dropouts" in draws
        else np.ones((n, n_slices)),
        ghosts=none,
    )


def add_thermal_noise(rng: np.random.Generator, image: Array, sd: Array) -> Array:
    """Add complex Gaussian noise to an image and take the magnitude (Rayleigh noise in air).

    `image` is an array of numpy or torch; `sd` is a number or an array that broadcasts.
    """
    real, imaginary = standard_normal(rng, (2, *image.shape), image) * sd
    return namespace(image).hypot(image + real, imaginary)


def draw_coil_noise(rng: np.random.Generator, mask: MaskImage, frame: Frame) -> FloatImage:
    """Draw the relative noise level of every voxel, highest in the middle of the head.

    The mean square over the mask is 1.
    """
    places = frame.to_mm(np.indices(frame.shape, dtype=np.float64).reshape(3, -1))
    centre = frame.to_mm(np.argwhere(mask).T.astype(np.float64)).mean(axis=1) + rng.normal(
        0, 10, 3
    )
    distance = (((places - centre[:, None]) / COIL_WIDTH_MM) ** 2).sum(axis=0)
    gain = 1 + rng.uniform(0.25, 1) * COIL_GAIN * np.exp(-distance / 2).reshape(frame.shape)
    return (gain / np.sqrt(np.mean(gain[mask] ** 2))).astype(np.float32)


def draw_physio(rng: np.random.Generator, n: int) -> FloatArray:
    """Draw a sinusoid of random amplitude, frequency and phase, (n,)."""
    cycles, phase = rng.uniform(*PHYSIO_CYCLES), rng.uniform(0, 2 * np.pi)
    wave = np.sin(2 * np.pi * cycles * np.arange(n) / n + phase)
    return np.asarray(rng.uniform(*PHYSIO_AMPLITUDE) * wave)


def draw_drift(rng: np.random.Generator, n: int) -> FloatArray:
    """Draw a straight line from 0, (n,)."""
    return np.linspace(0, rng.uniform(-MAX_DRIFT, MAX_DRIFT), n)


def draw_motion(rng: np.random.Generator, n: int) -> Parameters:
    """Draw a random walk of the head from its position in M0, (n, 6) [mm, rad]."""
    steps = rng.standard_normal((n, 6)) * ([STEP_MM] * 3 + [np.deg2rad(STEP_DEGREES)] * 3)
    steps[0] = 0
    return steps.cumsum(axis=0)


def move_image(image: FloatImage, parameters: Parameters, frame: Frame) -> FloatImage:
    """Move an image rigidly, with cubic splines; voxels from outside the image are 0."""
    if not parameters.any():
        return image
    matrix = rigid_matrix(parameters)
    size = np.array(frame.size_mm)
    inverse = matrix[:, :3].T * size / size[:, None]  # voxels after -> voxels before
    middle = (np.array(frame.shape) - 1) / 2
    offset = middle - inverse @ (middle + matrix[:, 3] / size)
    return np.asarray(ndimage.affine_transform(image, inverse, offset), dtype=np.float32)


def draw_spikes(rng: np.random.Generator, n: int) -> FloatArray:
    """Draw the amplitude of the spike of every volume (n,); most are 0."""
    amplitudes = np.zeros(n)
    hit = _choose_volumes(rng, n, SPIKE_FRACTION)
    amplitudes[hit] = rng.uniform(*SPIKE_AMPLITUDE, hit.size)
    return amplitudes


def draw_spike_pattern(rng: np.random.Generator, shape: tuple[int, ...]) -> FloatImage:
    """Draw the image of one wrong sample of k-space: a plane wave of amplitude 1."""
    frequency = [int(rng.integers(1, max(n // 2, 2))) / n for n in shape]
    x, y, z = np.ogrid[tuple(slice(n) for n in shape)]
    turns = frequency[0] * x + frequency[1] * y + frequency[2] * z + rng.random()
    return np.cos(2 * np.pi * turns).astype(np.float32)


def draw_dropouts(rng: np.random.Generator, n: int, n_slices: int) -> FloatArray:
    """Draw factors of the signal (n, n_slices); in some volumes, one slice is below 1."""
    factors = np.ones((n, n_slices))
    hit = _choose_volumes(rng, n, DROPOUT_FRACTION)
    factors[hit, rng.integers(n_slices, size=hit.size)] = rng.uniform(*DROPOUT_LEFT, hit.size)
    return factors


def draw_excess(rng: np.random.Generator, n: int) -> FloatArray:
    """Draw the additional static signal after failed background suppression, (n,)."""
    excess = np.zeros(n)
    hit = _choose_volumes(rng, n, SUPPRESSION_FRACTION)
    excess[hit] = rng.uniform(*SUPPRESSION_EXCESS, hit.size)
    return excess


def _choose_volumes(rng: np.random.Generator, n: int, fraction: float) -> NDArray[np.int64]:
    """Choose a random fraction of n volumes, at least one."""
    return rng.choice(n, max(round(fraction * n), 1), replace=False)
