"""Phantoms, scanned well and badly -> how well scores of a scan tell bad ones from good ones.

    static image ─ artefact ─ control ┐
    - ΔM         ─ artefact ─ label  ─┴─ + noise, averaged over repeats ─ maps ─ leftovers ─ score

The artefact changes from image to image; a wrong sidecar changes what the estimator is told.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import groupby, product
from operator import itemgetter

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from aslkit.core.acquisition import Acquisition
from aslkit.core.progress import Progress
from aslkit.core.series_and_maps import AslSeries, FloatImage, MaskImage, ParameterMaps
from aslkit.prepare.noise import noise_from_repeats
from aslkit.quality.residual_structure import leftovers
from aslkit.simulate.phantoms import Phantom
from aslkit.simulate.scanner import M0_SCALE, SUPPRESSED_SIGNAL, compute_m0, phantom_frame
from aslkit.simulate.signal import clean_signal, noise_sd
from aslkit.simulate.subject_physics import SubjectPhysics
from aslkit.validate.estimators import Estimator
from aslkit.validate.records import Row

CLEAN = "clean"
OOD = "ood"  # the quantity of these lines in the tidy table
REPEATS = 4
SPIKED_SHARE = 1 / 8  # of the images, at least one
PHYSIOLOGY_SHARE = 0.1  # of the variance of the noise, alike over 8 pixels
RECONSTRUCTION_PIXELS, PHYSIOLOGY_PIXELS = 0.6, 8.0  # sigma of the correlation of the noise
LEAST_DOUBT = 1e-6  # single precision knows no probability nearer to 1

Generator = np.random.Generator
Artefact = Callable[[FloatImage, float, Generator], FloatImage]


def detection_rows(
    phantoms: Sequence[Phantom],
    acquisition: Callable[[Phantom], Acquisition],
    snr: float,
    estimators: Callable[[Acquisition], Mapping[str, Estimator]],
    n_scans: int,
    seed: int,
    progress: Progress = iter,
) -> Iterator[Row]:
    """Area under the ROC curve of every artefact, for every score of every estimator.

    Parameters
    ----------
    estimators : function
        Those that take scans which state this protocol.
    n_scans : int
        Of each artefact, and clean ones; in turn of each phantom.
    progress : callable
        Wraps the scans.
    """
    scores: dict[tuple[str, str], dict[str, list[float]]] = {}
    scans = progress(list(product(range(n_scans), ARTEFACTS)))
    for i, group in groupby(scans, key=itemgetter(0)):
        phantom = phantoms[i % len(phantoms)]
        of_noise, _ = _generators(seed, i)
        images = draw_images(phantom, acquisition(phantom), snr, of_noise)
        for _, kind in group:
            _, of_artefact = _generators(seed, i)
            series = spoilt_scan(images, kind, of_artefact)
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
    """What a scan without artefacts adds up.

    Attributes
    ----------
    static : array (x, y, z)
    signal : array (x, y, z, timings)
    noise : array (timings, repeats, 2, x, y, z)
        Of control and label.
    """

    phantom: Phantom
    acquisition: Acquisition
    static: FloatImage
    signal: FloatImage
    noise: NDArray[np.float64]


def draw_images(phantom: Phantom, acquisition: Acquisition, snr: float, rng: Generator) -> Images:
    """The images of some repeats, and their noise."""
    static = SUPPRESSED_SIGNAL * compute_m0(phantom) / M0_SCALE
    sd = noise_sd(snr) * np.sqrt(REPEATS / 2)
    n_images = acquisition.n_timings * REPEATS * 2
    noise = np.stack([sd * _correlated(rng, static.shape) for _ in range(n_images)])
    return Images(
        phantom=phantom,
        acquisition=acquisition,
        static=static,
        signal=clean_signal(phantom, SubjectPhysics(acquisition)),
        noise=noise.reshape(acquisition.n_timings, REPEATS, 2, *static.shape),
    )


def spoilt_scan(images: Images, kind: str, rng: Generator) -> AslSeries:
    """The average of the repeats with one kind of artefact, of random size, or without."""
    phantom, acquisition, static = images.phantom, images.acquisition, images.static
    size = float(rng.uniform(0.5, 1))
    share = SPIKED_SHARE if kind == "spikes" else 1
    is_hit = np.asarray(rng.random(images.noise.shape[:3]) < share)
    is_hit.flat[rng.integers(is_hit.size)] = True
    artefact = ARTEFACTS[kind]
    groups = []
    for i, timing_hit in enumerate(is_hit):
        pairs = []
        for hits, noise in zip(timing_hit, images.noise[i], strict=True):
            scanned = (static, static - images.signal[..., i])
            control, label = (
                (artefact(image, size, rng) if hit else image) + own
                for image, hit, own in zip(scanned, hits, noise, strict=True)
            )
            pairs.append(control - label)
        groups.append(np.stack(pairs, axis=3).astype(np.float32))
    averages = [REPEATS] * acquisition.n_timings
    repeats_sd = noise_from_repeats(groups, averages, phantom.mask, phantom_frame(phantom).size_mm)
    means = np.stack([g.mean(axis=3) for g in groups], axis=3)
    stated = STATED.get(kind, _as_it_was)(acquisition)
    return AslSeries(means, stated, phantom.mask, phantom.affine, repeats_sd)


def energy(maps: ParameterMaps, mask: MaskImage) -> float | None:
    """Mean energy in the mask, higher where the network is less sure; None without confidence.

    Energy is -log sum exp of logits (Liu 2020, arXiv:2010.03759). Of the logits of "close" and,
    0, of "not close" it is the logarithm of the probability of the latter; CBF and ATT add up.
    """
    if maps.cbf_confidence is None or maps.att_confidence is None:
        return None
    doubts = (1 - image[mask] for image in (maps.cbf_confidence, maps.att_confidence))
    return float(sum(np.log(np.maximum(doubt, LEAST_DOUBT)).mean() for doubt in doubts))


def _generators(seed: int, scan: int) -> list[Generator]:
    """Of the noise of a scan, the same for every artefact, and of what an artefact does."""
    return np.random.default_rng([seed, scan]).spawn(2)


def _scores(series: AslSeries, maps: ParameterMaps) -> dict[str, float]:
    """What may tell that a scan is bad, by how its lines end in the table."""
    found = {"": leftovers(series, maps).score or 0.0, " by energy": energy(maps, series.mask)}
    return {name: score for name, score in found.items() if score is not None}


def _auroc(bad: Sequence[float], clean: Sequence[float]) -> float:
    """Share of pairs in which the bad scan has the higher score."""
    return float(np.mean([(b > c) + 0.5 * (b == c) for b in bad for c in clean]))


def _untouched(image: FloatImage, _size: float, _rng: Generator) -> FloatImage:
    return image


def _moved(image: FloatImage, size: float, rng: Generator) -> FloatImage:
    """Up to a voxel and a few degrees away."""
    turned = ndimage.rotate(image, rng.normal(0, 2 * size), reshape=False, order=1)
    return np.asarray(ndimage.shift(turned, rng.normal(0, 0.4 * size, 3), order=1))


def _ghosted(image: FloatImage, size: float, rng: Generator) -> FloatImage:
    """With 3-10 % of itself half a field of view away, unsteady by a third."""
    return image + 0.08 * size * rng.uniform(0.7, 1.3) * np.roll(image, image.shape[1] // 2, 1)


def _spiked(image: FloatImage, size: float, rng: Generator) -> FloatImage:
    """With stripes of 1-2 % of the static signal over some slices, at least one."""
    x, y = np.meshgrid(*map(np.arange, image.shape[:2]), indexing="ij")
    kx, ky = rng.uniform(0.1, 1.2, 2)
    is_hit = np.asarray(rng.random(image.shape[2]) < 0.4)
    is_hit[rng.integers(is_hit.size)] = True
    stripes = np.cos(kx * x + ky * y)[..., None] * is_hit
    return image + 0.02 * size * SUPPRESSED_SIGNAL * stripes


def _correlated(rng: Generator, shape: tuple[int, ...]) -> NDArray[np.float64]:
    """Unit noise, alike in neighbours by reconstruction and in regions by physiology."""
    near, wide = (
        ndimage.gaussian_filter(rng.standard_normal(shape), (sigma, sigma, 0), mode="wrap")
        for sigma in (RECONSTRUCTION_PIXELS, PHYSIOLOGY_PIXELS)
    )
    share = PHYSIOLOGY_SHARE
    return np.asarray(np.sqrt(1 - share) * near / near.std() + np.sqrt(share) * wide / wide.std())


def _as_it_was(acquisition: Acquisition) -> Acquisition:
    return acquisition


def _shortened(acquisition: Acquisition) -> Acquisition:
    timings = tuple(replace(t, pld_s=0.6 * t.pld_s) for t in acquisition.timings)
    return replace(acquisition, timings=timings)


def _later(acquisition: Acquisition) -> Acquisition:
    timings = tuple(replace(t, pld_s=t.pld_s + 0.5) for t in acquisition.timings)
    return replace(acquisition, timings=timings)


ARTEFACTS: dict[str, Artefact] = {
    CLEAN: _untouched,
    "motion": _moved,
    "spikes": _spiked,
    "ghost": _ghosted,
    "PLDs x 0.6 in the sidecar": _untouched,
    "PLDs + 0.5 s in the sidecar": _untouched,
}
STATED: dict[str, Callable[[Acquisition], Acquisition]] = {
    "PLDs x 0.6 in the sidecar": _shortened,
    "PLDs + 0.5 s in the sidecar": _later,
}
