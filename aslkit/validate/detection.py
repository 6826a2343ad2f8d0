"""Phantoms -> how well scores of a scan separate scans with artefacts from clean ones (AUROC).

    control, label ─ artefacts ─ difference / M0 ─ + noise, averaged over repeats ─ maps ─ score

`aslkit.simulate.scanner` simulates the images; every image has an artefact of its own. A wrong
sidecar changes the timings that the estimator receives and leaves the images as they are.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import groupby, product
from operator import itemgetter

import numpy as np
from numpy.typing import NDArray

from aslkit.core.acquisition import Acquisition
from aslkit.core.progress import Progress
from aslkit.core.series_and_maps import AslSeries, FloatImage, MaskImage, ParameterMaps
from aslkit.prepare.motion import Frame
from aslkit.prepare.noise import noise_from_repeats
from aslkit.quality.residual_structure import residual_structure
from aslkit.simulate.artefacts import Artefacts, draw_artefacts
from aslkit.simulate.phantoms import Phantom
from aslkit.simulate.scanner import (
    SUPPRESSED_SIGNAL,
    compute_m0,
    image_with_artefacts,
    phantom_frame,
)
from aslkit.simulate.signal import clean_signal, noise_sd
from aslkit.simulate.subject_physics import SubjectPhysics
from aslkit.simulate.training_scans import coloured_noise, power_spectrum
from aslkit.validate.estimators import Estimator
from aslkit.validate.records import Row

CLEAN = "clean"
OOD = "ood"  # the quantity of these lines in the tidy table
REPEATS = 4
SIZES = (0.5, 1.0)  # range of the factor that scales the artefacts of one scan
SHIFT_VOXELS, TURN_DEGREES = 0.4, 2.0  # standard deviations of the motion of one image
GHOST_AMPLITUDE, GHOST_VARIATION = 0.08, (0.7, 1.3)  # fraction of the image; factor per image
SPIKE_AMPLITUDE = 0.02  # fraction of the static signal
SPIKE_FRACTION = 1 / 8  # of the images, at least one
SPIKED_SLICES = 0.4  # fraction of the slices of such an image, at least one
STRIPES_PER_PIXEL = (0.1, 1.2)  # range of the wave number of the stripes [rad/pixel]
PHYSIO_FRACTION = 0.1  # of the noise variance is correlated over `PHYSIO_PIXELS`
RECONSTRUCTION_PIXELS, PHYSIO_PIXELS = 0.55, 8.0  # sigma of the blur of the noise
SMALLEST_DOUBT = 1e-6  # 1 - confidence that single precision still resolves

Generator = np.random.Generator


def detection_rows(
    phantoms: Sequence[Phantom],
    acquisition: Callable[[Phantom], Acquisition],
    snr: float,
    estimators: Callable[[Acquisition], Mapping[str, Estimator]],
    n_scans: int,
    seed: int,
    progress: Progress = iter,
) -> Iterator[Row]:
    """Yield the area under the ROC curve for every artefact, estimator and score.

    Parameters
    ----------
    estimators : callable
        Returns the estimators that accept this acquisition.
    n_scans : int
        Number of scans with each artefact, and of clean ones; the phantoms take turns.
    progress : callable
        Wraps the scans.
    """
    scores: dict[tuple[str, str], dict[str, list[float]]] = {}
    scans = progress(list(product(range(n_scans), ARTEFACTS)))
    for i, group in groupby(scans, key=itemgetter(0)):
        phantom = phantoms[i % len(phantoms)]
        noise_rng, _ = _generators(seed, i)
        images = draw_images(phantom, acquisition(phantom), snr, noise_rng)
        for _, kind in group:
            _, artefact_rng = _generators(seed, i)
            series = scan_with_artefact(images, kind, artefact_rng)
            for name, estimator in estimators(series.acquisition).items():
                for score, value in _scores(series, estimator(series)).items():
                    own = scores.setdefault((name, score), {})
                    own.setdefault(kind, []).append(value)
    for (name, score), own in scores.items():
        for kind in own:
            if kind != CLEAN:
                metric, area = f"AUROC of {kind}{score}", _auroc(own[kind], own[CLEAN])
                yield Row(name, "brain", OOD, metric, "", area, n_subjects=n_scans)


@dataclass(frozen=True)
class Images:
    """The parts of a scan without artefacts.

    Attributes
    ----------
    m0 : array (x, y, z)
        In scanner units.
    signal : array (x, y, z, timings)
        ΔM/M0 without noise.
    noise : array (pairs, x, y, z)
        Noise of ΔM/M0 of every pair; the timings in turn, all of them `REPEATS` times.
    """

    phantom: Phantom
    acquisition: Acquisition
    m0: FloatImage
    signal: FloatImage
    noise: NDArray[np.float64]


def draw_images(phantom: Phantom, acquisition: Acquisition, snr: float, rng: Generator) -> Images:
    """Draw the parts of a scan whose average over the repeats has this SNR."""
    n_pairs, sd = acquisition.n_timings * REPEATS, noise_sd(snr) * np.sqrt(REPEATS)
    return Images(
        phantom=phantom,
        acquisition=acquisition,
        m0=compute_m0(phantom),
        signal=clean_signal(phantom, SubjectPhysics(acquisition)),
        noise=sd * _correlated_noise(rng, (n_pairs, *phantom.mask.shape)),
    )


def scan_with_artefact(images: Images, kind: str, rng: Generator) -> AslSeries:
    """Average the repeats of a scan with one kind of artefact, or with none."""
    phantom, acquisition, frame = images.phantom, images.acquisition, phantom_frame(images.phantom)
    n, n_pairs = acquisition.n_timings, len(images.noise)
    clean = draw_artefacts(rng, (), n_pairs, phantom.mask.shape[2])
    artefacts = ARTEFACTS[kind](clean, rng.uniform(*SIZES), frame, rng)
    groups = np.empty((n, *phantom.mask.shape, REPEATS), dtype=np.float32)
    for pair in range(n_pairs):
        signal = images.signal[..., pair % n]
        control, label = (
            image_with_artefacts(
                images.m0, frame, SUPPRESSED_SIGNAL - signal * (i % 2), artefacts, i, rng, _stripes
            )
            for i in (2 * pair, 2 * pair + 1)
        )
        ratio = np.zeros_like(control)
        np.divide(control - label, images.m0, out=ratio, where=phantom.mask)
        groups[pair % n, ..., pair // n] = ratio + images.noise[pair]
    repeats_sd = noise_from_repeats(list(groups), [REPEATS] * n, phantom.mask, frame.size_mm)
    means = np.moveaxis(groups.mean(axis=4), 0, 3)
    stated = STATED.get(kind, _unchanged)(acquisition)
    return AslSeries(means, stated, phantom.mask, phantom.affine, repeats_sd)


def energy(maps: ParameterMaps, mask: MaskImage) -> float | None:
    """Return the mean energy in the mask; None for maps without confidence.

    Energy is -log sum exp of the logits (Liu 2020, arXiv:2010.03759) and high where a network is
    uncertain. With the logits of "close" and of "not close" (0), it is the logarithm of the
    probability of "not close". The energies of CBF and ATT are added.
    """
    if maps.cbf_confidence is None or maps.att_confidence is None:
        return None
    doubts = (1 - image[mask] for image in (maps.cbf_confidence, maps.att_confidence))
    return float(sum(np.log(np.maximum(doubt, SMALLEST_DOUBT)).mean() for doubt in doubts))


def _generators(seed: int, scan: int) -> list[Generator]:
    """Return the generators of the noise, the same for every artefact, and of the artefact."""
    return np.random.default_rng([seed, scan]).spawn(2)


def _scores(series: AslSeries, maps: ParameterMaps) -> dict[str, float]:
    """Return the scores of a scan, by the end of their name in the table."""
    found = {
        "": residual_structure(series, maps).score or 0.0,
        " by energy": energy(maps, series.mask),
    }
    return {name: score for name, score in found.items() if score is not None}


def _auroc(bad: Sequence[float], clean: Sequence[float]) -> float:
    """Return the fraction of pairs in which the scan with an artefact has the higher score."""
    return float(np.mean([(b > c) + 0.5 * (b == c) for b in bad for c in clean]))


def _correlated_noise(rng: Generator, shape: tuple[int, ...]) -> NDArray[np.float64]:
    """Draw noise (n, x, y, z) of unit variance, correlated within slices as in vivo."""
    n, nx, ny, nz = shape
    even = ny + ny % 2  # the Fourier transform needs an even number
    power = (1 - PHYSIO_FRACTION) * power_spectrum(np.array([RECONSTRUCTION_PIXELS]), nx, even)
    power = power + PHYSIO_FRACTION * power_spectrum(np.array([PHYSIO_PIXELS]), nx, even)
    noise = coloured_noise(rng, (n, nz, nx, even), np.zeros(1), power)
    return np.asarray(np.moveaxis(noise[..., :ny], 1, -1))


def _without(artefacts: Artefacts, _size: float, _frame: Frame, _rng: Generator) -> Artefacts:
    return artefacts


def _with_motion(artefacts: Artefacts, size: float, frame: Frame, rng: Generator) -> Artefacts:
    motion = np.zeros_like(artefacts.motion)
    motion[:, :3] = rng.normal(0, SHIFT_VOXELS * size, (len(motion), 3)) * frame.size_mm
    motion[:, 5] = rng.normal(0, np.deg2rad(TURN_DEGREES * size), len(motion))
    return replace(artefacts, motion=motion)


def _with_ghosts(artefacts: Artefacts, size: float, _: Frame, rng: Generator) -> Artefacts:
    factors = rng.uniform(*GHOST_VARIATION, artefacts.ghosts.shape)
    return replace(artefacts, ghosts=GHOST_AMPLITUDE * size * factors)


def _stripes(rng: Generator, shape: tuple[int, ...]) -> FloatImage:
    """Draw the in-plane stripes of a spike in some slices of a 2D readout, at least one."""
    x, y = np.ogrid[: shape[0], : shape[1]]
    kx, ky = rng.uniform(*STRIPES_PER_PIXEL, 2)
    is_hit = rng.random(shape[2]) < SPIKED_SLICES
    is_hit[rng.integers(shape[2])] = True
    return np.asarray(np.cos(kx * x + ky * y)[..., None] * is_hit, dtype=np.float32)


def _with_spikes(artefacts: Artefacts, size: float, _: Frame, rng: Generator) -> Artefacts:
    is_hit = rng.random(artefacts.spikes.shape) < SPIKE_FRACTION
    is_hit[rng.integers(is_hit.size)] = True
    return replace(artefacts, spikes=SPIKE_AMPLITUDE * size * SUPPRESSED_SIGNAL * is_hit)


def _unchanged(acquisition: Acquisition) -> Acquisition:
    return acquisition


def _shorter_plds(acquisition: Acquisition) -> Acquisition:
    timings = tuple(replace(t, pld_s=0.6 * t.pld_s) for t in acquisition.timings)
    return replace(acquisition, timings=timings)


def _later_plds(acquisition: Acquisition) -> Acquisition:
    timings = tuple(replace(t, pld_s=t.pld_s + 0.5) for t in acquisition.timings)
    return replace(acquisition, timings=timings)


ARTEFACTS: dict[str, Callable[[Artefacts, float, Frame, Generator], Artefacts]] = {
    CLEAN: _without,
    "motion": _with_motion,
    "spikes": _with_spikes,
    "ghost": _with_ghosts,
    "PLDs x 0.6 in the sidecar": _without,
    "PLDs + 0.5 s in the sidecar": _without,
}
STATED: dict[str, Callable[[Acquisition], Acquisition]] = {
    "PLDs x 0.6 in the sidecar": _shorter_plds,
    "PLDs + 0.5 s in the sidecar": _later_plds,
}
