"""asl_predict measured: time and memory, patches, uncertainty, and what artefacts leave.

Usage: python bin/benchmark_predict.py [--seed N] [PART ...], parts as named at the foot; all of
them by default. Every number is printed with the condition it holds for; scans are simulated anew.
"""

import argparse
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from aslkit.acquisition import Acquisition
from aslkit.ensembles import Passes
from aslkit.fitting import FitSettings
from aslkit.images import AslSeries, FloatImage, ParameterMaps
from aslkit.inference import noise_level, predict
from aslkit.leftovers import residual_structure, score
from aslkit.noise import noise_from_repeats
from aslkit.phantoms import Phantom, brain_phantom
from aslkit.report import machine
from aslkit.scanner import M0_OF_TISSUE, STATIC_SIGNAL, ScanSettings, scan_phantom
from aslkit.simulation import PROTOCOLS, clean_signal, noise_sd, simulate_series
from aslkit.subjects import SubjectPhysics
from aslkit.tiling import Tiling
from aslkit.weights import DEFAULT_MODEL, load_model

OFF = FitSettings(macrovascular="off")
SIZES = ((64, 64, 24), (128, 128, 60), (256, 256, 100))
FIELD_MM = (220.0, 220.0, 140.0)  # of view, whatever the matrix
N_SCANS = 6  # of each kind of artefact
REPEATS = 4
GIB = 1024**3


def main() -> None:
    """Run the parts that were asked for."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("parts", nargs="*", metavar="PART", help=", ".join(PARTS))
    arguments = parser.parse_args()
    print(f"machine: {machine()}; load {os.getloadavg()[0]:.1f}; seed {arguments.seed}")
    for part in arguments.parts or PARTS:
        print(f"\n{PARTS[part].__doc__.splitlines()[0]}", flush=True)
        PARTS[part](arguments.seed)


def resources(seed: int) -> None:
    """The command from start to end, imports included: wall time, CPU time, peak memory."""
    for shape in SIZES:
        with tempfile.TemporaryDirectory() as folder:
            settings = ScanSettings(PROTOCOLS["joint6"], 1, 10.0, seed)
            phantom = _resampled(brain_phantom("brain", seed, 3.0), shape)
            scan_phantom(Path(folder), "01", phantom, settings)
            scans = [str(path) for path in sorted(Path(folder).rglob("*_asl.nii.gz"))]
            command = [sys.executable, "-m", "aslkit.cli.predict", "-i", scans[0], "-i", scans[1]]
            start = time.perf_counter()
            child = subprocess.Popen(
                [*command, "-q", "-o", f"{folder}/out/cbf.nii.gz", "--macrovascular", "off"]
            )
            _, status, usage = os.wait4(child.pid, 0)
            wall, used = time.perf_counter() - start, usage.ru_utime + usage.ru_stime
            if status:
                raise SystemExit(f"asl_predict failed: {' '.join(command)}")
            print(
                f"  {' x '.join(map(str, shape))}, joint 6 + 6 timings, 24 volumes: {wall:.1f} s "
                f"(CPU {used:.1f} s), {usage.ru_maxrss * 1024 / GIB:.2f} GiB; "
                f"load {os.getloadavg()[0]:.1f}",
                flush=True,
            )


def patches(seed: int) -> None:
    """Patches against whole slices: mean deviation of CBF, worst row or column [% of CBF]."""
    model = load_model(DEFAULT_MODEL)
    for size_mm in (3.5, 1.8):
        series = _middle(brain_phantom("brain", seed, size_mm), seed)
        whole = predict(series, model, OFF)
        mean = whole.cbf[series.mask].mean()
        for tiling in (Tiling(64), Tiling(64, 0.5, "hann"), Tiling(64, 0.5, "mean"), Tiling(128)):
            tiled = predict(series, model, OFF, passes=Passes(tiling=tiling))
            difference = np.abs(tiled.cbf - whole.cbf) * series.mask
            bands = [
                difference.sum(axes)[counts > 50] / counts[counts > 50]
                for axes in ((1, 2), (0, 2))
                for counts in [series.mask.sum(axes)]
            ]
            print(
                f"  {size_mm} mm, patch {tiling.patch}, overlap {tiling.overlap:g}, "
                f"{tiling.blend}: {100 * difference[series.mask].mean() / mean:.2f}, "
                f"{100 * np.concatenate(bands).max() / mean:.2f}"
            )


def places(seed: int) -> None:
    """Patch grid moved against the brain: mean deviation of CBF, 99th percentile [% of CBF]."""
    model = load_model(DEFAULT_MODEL)
    series = _middle(brain_phantom("brain", seed), seed)
    for name, tiling in (
        ("whole slices", Tiling()),
        ("patches of 64", Tiling(64)),
        ("whole slices, laid once", Tiling(shifts=(0,))),
    ):
        still = predict(series, model, OFF, passes=Passes(tiling=tiling))
        mean, shown = still.cbf[series.mask].mean(), []
        for shift in (1, 2, 3, 8, 31, 64):
            moved = predict(_moved(series, shift), model, OFF, passes=Passes(tiling=tiling))
            difference = np.abs(moved.cbf[shift:, shift + 1 :] - still.cbf)[series.mask] / mean
            tail = np.percentile(difference, 99)
            shown.append(f"{shift}: {100 * difference.mean():.2f}, {100 * tail:.1f}")
        print(f"  {name}: {'; '.join(shown)}")


def uncertainty(seed: int) -> None:
    """Error of CBF over that of one pass, and coverage of 95 % intervals, where CBF > 5."""
    model = load_model(DEFAULT_MODEL)
    phantom = brain_phantom("brain", seed)
    where = phantom.mask & (phantom.cbf > 5)
    for snr in (3, 10):
        acquisition = PROTOCOLS["pcasl6"].acquisition(phantom.mask.shape[2])
        series = simulate_series(phantom, acquisition, snr, seed)
        one = predict(series, model, OFF)
        error = np.abs(one.cbf - phantom.cbf)[where].mean()
        for name, passes in (("one pass", Passes()), ("--tta", Passes(is_mirrored=True))):
            maps = predict(series, model, OFF, passes=passes)
            off = np.abs(maps.cbf - phantom.cbf)[where]
            share = np.mean(off < 1.96 * maps.cbf_std[where])
            print(f"  pcasl6, SNR {snr}, {name}: {off.mean() / error:.3f}, {100 * share:.1f} %")


def artefacts(seed: int) -> None:
    """AUROC of the structure left in the data: scans with an artefact against clean ones."""
    brains = [_slab(brain_phantom("brain", 50 + i, 5.0)) for i in range(4)]
    for n_repeats in (REPEATS, 1):
        for is_correlated in (False, True):
            found: dict[str, list[float]] = {kind: [] for kind in ARTEFACTS}
            for i in range(N_SCANS):
                for kind in ARTEFACTS:
                    rng = np.random.default_rng([seed, i])
                    series = _spoilt(brains[i % 4], kind, n_repeats, is_correlated, rng)
                    found[kind].append(_score(series))
            clean = found.pop("clean")
            shown = [f"{kind} {_auroc(values, clean):.2f}" for kind, values in found.items()]
            noise = "correlated" if is_correlated else "white"
            print(
                f"  {n_repeats} repeat{'s' * (n_repeats > 1)}, {noise} noise: "
                f"{', '.join(shown)}; clean {min(clean):.1f}-{max(clean):.1f}",
                flush=True,
            )


def _spoilt(
    phantom: Phantom, kind: str, n_repeats: int, is_correlated: bool, rng: np.random.Generator
) -> AslSeries:
    """A scan of a random protocol and SNR with one kind of artefact."""
    name, snr = str(rng.choice(["joint6", "pcasl6", "pcasl5"])), float(np.exp(rng.uniform(1, 3.4)))
    acquisition = PROTOCOLS[name].acquisition(phantom.mask.shape[2])
    clean = clean_signal(phantom, SubjectPhysics(acquisition))
    density = sum(getattr(phantom, tissue) * pd for tissue, pd in M0_OF_TISSUE.items())
    static = STATIC_SIGNAL * density * phantom.mask
    sd, size = noise_sd(snr) * np.sqrt(n_repeats / 2), float(rng.uniform(0.5, 1))
    groups = []
    for i in range(acquisition.n_timings):
        pairs = []
        for _ in range(n_repeats):
            control = ARTEFACTS[kind](static, size, rng)
            label = ARTEFACTS[kind](static - clean[..., i], size, rng)
            noise = _noise(rng, (2, *static.shape), is_correlated)
            pairs.append(control - label + sd * (noise[0] - noise[1]))
        groups.append(np.stack(pairs, axis=3).astype(np.float32))
    averages = [n_repeats] * acquisition.n_timings
    repeats_sd = noise_from_repeats(groups, averages, phantom.mask, (5.0, 5.0, 5.0))
    means = np.stack([g.mean(axis=3) for g in groups], axis=3)
    return AslSeries(means, _stated(acquisition, kind), phantom.mask, phantom.affine, repeats_sd)


def _stated(acquisition: Acquisition, kind: str) -> Acquisition:
    """What the sidecar says: the truth, or other delays."""
    factor, later = {"PLDs x 0.6": (0.6, 0.0), "PLDs + 0.5 s": (1.0, 0.5)}.get(kind, (1.0, 0.0))
    timings = [replace(t, pld_s=factor * t.pld_s + later) for t in acquisition.timings]
    if kind == "PLDs reversed":
        plds = [t.pld_s for t in reversed(timings)]
        timings = [replace(t, pld_s=pld) for t, pld in zip(timings, plds, strict=True)]
    return replace(acquisition, timings=tuple(timings))


def _as_it_is(image: FloatImage, _size: float, _rng: np.random.Generator) -> FloatImage:
    return image


def _moved_head(image: FloatImage, size: float, rng: np.random.Generator) -> FloatImage:
    """Up to a few mm and degrees away."""
    turned = ndimage.rotate(image, rng.normal(0, 2 * size), reshape=False, order=1)
    return ndimage.shift(turned, rng.normal(0, 0.4 * size, 3), order=1)


def _ghosted(image: FloatImage, size: float, rng: np.random.Generator) -> FloatImage:
    """With 3-8 % of itself half a field of view away, unsteady by a third."""
    return image + 0.08 * size * rng.uniform(0.7, 1.3) * np.roll(image, image.shape[1] // 2, 1)


def _spiked(image: FloatImage, size: float, rng: np.random.Generator) -> FloatImage:
    """In one volume of eight, stripes of 1-2 % of the static signal over some slices."""
    if rng.random() > 1 / 8:
        return image
    x, y = np.meshgrid(*map(np.arange, image.shape[:2]), indexing="ij")
    kx, ky = rng.uniform(0.1, 1.2, 2)
    stripes = np.cos(kx * x + ky * y)[..., None] * (rng.random(image.shape[2]) < 0.4)
    return image + 0.02 * size * STATIC_SIGNAL * stripes


def _noise(
    rng: np.random.Generator, shape: tuple[int, ...], is_correlated: bool
) -> NDArray[np.float64]:
    """Unit noise; correlated: in neighbours by reconstruction, in regions by physiology."""
    noise = rng.standard_normal(shape)
    if not is_correlated:
        return noise
    near = ndimage.gaussian_filter(noise, (0, 0.6, 0.6, 0), mode="wrap")
    wide = ndimage.gaussian_filter(rng.standard_normal(shape), (0, 8, 8, 0), mode="wrap")
    return np.sqrt(0.9) * near / near.std() + np.sqrt(0.1) * wide / wide.std()


def _score(series: AslSeries) -> float:
    known = replace(series, noise_sd=noise_level(series, OFF))
    maps: ParameterMaps = predict(known, load_model(DEFAULT_MODEL), OFF)
    return score(residual_structure(known, maps)) or 0.0


def _auroc(bad: Iterable[float], clean: Iterable[float]) -> float:
    higher = [(b > c) + 0.5 * (b == c) for b in bad for c in clean]
    return float(np.mean(higher))


def _middle(phantom: Phantom, seed: int) -> AslSeries:
    """Six slices of a joint scan at SNR 5, of known noise level."""
    z = slice(phantom.mask.shape[2] // 2, phantom.mask.shape[2] // 2 + 6)
    acquisition = PROTOCOLS["joint6"].acquisition(phantom.mask.shape[2])
    whole = simulate_series(phantom, acquisition, 5.0, seed)
    series = AslSeries(whole.delta_m[:, :, z], acquisition, whole.mask[:, :, z], whole.affine)
    return replace(series, noise_sd=noise_level(series, OFF))


def _slab(phantom: Phantom) -> Phantom:
    """Its middle eight slices."""
    z = slice(phantom.mask.shape[2] // 2 - 4, phantom.mask.shape[2] // 2 + 4)
    images = {
        name: image[:, :, z]
        for name, image in vars(phantom).items()
        if isinstance(image, np.ndarray) and image.ndim == 3
    }
    return replace(phantom, **images)


def _moved(series: AslSeries, shift: int) -> AslSeries:
    """The scan with a voxel far off in its mask, from which patches are laid."""
    wide = [(shift, 0), (shift + 1, 0), (0, 0)]
    mask = np.pad(series.mask, wide)
    mask[0, 0] = True
    delta_m = np.pad(series.delta_m, [*wide, (0, 0)])
    sd = np.pad(series.noise_sd, wide, mode="edge")
    return replace(series, delta_m=delta_m, mask=mask, noise_sd=sd)


def _resampled(phantom: Phantom, shape: tuple[int, ...]) -> Phantom:
    """The phantom on a grid of some shape over `FIELD_MM`."""
    size = np.array(FIELD_MM) / shape
    affine = np.diag([*size, 1.0])
    affine[:3, 3] = -size * (np.array(shape) - 1) / 2
    to_old = np.linalg.inv(phantom.affine) @ affine
    images = {
        name: ndimage.affine_transform(
            image.astype(np.float32), to_old[:3, :3], to_old[:3, 3], shape, order=0
        ).astype(image.dtype)
        for name, image in vars(phantom).items()
        if isinstance(image, np.ndarray) and image.ndim == 3
    }
    return replace(phantom, affine=affine, **images)


ARTEFACTS: dict[str, Callable[[FloatImage, float, np.random.Generator], FloatImage]] = {
    "clean": _as_it_is,
    "motion": _moved_head,
    "ghost": _ghosted,
    "spikes": _spiked,
    "PLDs x 0.6": _as_it_is,
    "PLDs reversed": _as_it_is,
    "PLDs + 0.5 s": _as_it_is,
}
PARTS = {
    "resources": resources,
    "patches": patches,
    "places": places,
    "uncertainty": uncertainty,
    "artefacts": artefacts,
}

if __name__ == "__main__":
    main()
