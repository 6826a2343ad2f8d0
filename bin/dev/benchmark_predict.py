"""Measure asl_predict: time, memory, least squares, patches, patch places, uncertainty.

Usage: python bin/dev/benchmark_predict.py [--seed N] [PART ...]. The parts are named at the foot;
the default is all of them. Every number is printed with its condition. Scans are simulated.
"""

import argparse
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
from benchmark_fit import scipy_loop
from scipy import ndimage

from aslkit.core.constants import Z_95
from aslkit.core.series_and_maps import AslSeries
from aslkit.fit.least_squares import fit_least_squares
from aslkit.fit.settings import FreeAtt
from aslkit.nets.model_store import DEFAULT_MODEL, load_model, save_model
from aslkit.predict.inference import noise_level, predict_maps
from aslkit.predict.passes import Passes
from aslkit.predict.tiling import Tiling
from aslkit.report.page import machine
from aslkit.simulate.bids_writer import write_scan
from aslkit.simulate.phantoms import Phantom, brain_phantom
from aslkit.simulate.scanner import ScanSettings, scan_phantom
from aslkit.simulate.signal import PROTOCOLS, simulate_series

OFF = FreeAtt()
SIZES = ((64, 64, 24), (128, 128, 60), (256, 256, 100))
FIELD_MM = (220.0, 220.0, 140.0)  # field of view for every matrix size
N_LOOP = 1000  # voxels of the scipy loop
GIB = 1024**3


def main() -> None:
    """Run the requested parts."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("parts", nargs="*", metavar="PART", help=", ".join(PARTS))
    arguments = parser.parse_args()
    print(f"machine: {machine()}; load {os.getloadavg()[0]:.1f}; seed {arguments.seed}")
    for part in arguments.parts or PARTS:
        print(f"\n{PARTS[part].__doc__}", flush=True)
        PARTS[part](arguments.seed)


def resources(seed: int) -> None:
    """Wall time, CPU time and peak memory of the whole command, imports included."""
    for shape in SIZES:
        with tempfile.TemporaryDirectory() as folder:
            settings = ScanSettings(PROTOCOLS["joint6"])
            phantom = _resampled(brain_phantom("brain", seed, 3.0), shape)
            scan = scan_phantom(phantom, settings, seed)
            write_scan(Path(folder), "01", phantom, settings, scan, False, "benchmark")
            first, second = sorted(Path(folder).rglob("*_asl.nii.gz"))
            scans = f"-i {first} -i {second} -q --macrovascular off -o {folder}"
            print(f"  {' x '.join(map(str, shape))}, joint 6 + 6 timings, 24 volumes")
            _measured("least squares", f"fit_ls {scans}/ls/cbf.nii.gz")
            _measured("one member", f"predict {scans}/one/cbf.nii.gz")
            three = _of_three_members(Path(folder, "model"))
            _measured("three members", f"predict {scans}/three/cbf.nii.gz --model {three}")


def rivals(seed: int) -> None:
    """CPU time of a whole brain: scipy loop, least squares, one member, three members."""
    phantom = brain_phantom("brain", seed)
    acquisition = PROTOCOLS["joint6"].acquisition(phantom.mask.shape[2])
    series = simulate_series(phantom, acquisition, 10.0, seed)
    series = replace(series, noise_sd=noise_level(series, OFF))
    one, n_voxels = load_model(DEFAULT_MODEL), int(series.mask.sum())
    three = replace(one, others=(one.network, one.network))  # time does not depend on weights
    signals = series.delta_m[series.mask][:: n_voxels // N_LOOP][:N_LOOP]
    loop = _cpu_time(lambda: scipy_loop(acquisition, signals)) * n_voxels / N_LOOP
    print(f"  {n_voxels} voxels; scipy {loop:.0f} s, extrapolated from {N_LOOP} voxels")
    for name, run in (
        ("least squares", lambda: fit_least_squares(series, OFF)),
        ("one member, least squares included", lambda: predict_maps(series, one, OFF)),
        ("three members", lambda: predict_maps(series, three, OFF)),
    ):
        seconds = _cpu_time(run)
        print(f"  {name}: {seconds:.2f} s, {loop / seconds:.0f} times faster than scipy")


def patches(seed: int) -> None:
    """Patches compared with whole slices: mean deviation of CBF, worst row or column [%]."""
    model = load_model(DEFAULT_MODEL)
    for size_mm in (3.5, 1.8):
        series = _middle(brain_phantom("brain", seed, size_mm), seed)
        whole = predict_maps(series, model, OFF)
        mean = whole.cbf[series.mask].mean()
        for tiling in (Tiling(64), Tiling(64, 0.5, "hann"), Tiling(64, 0.5, "mean"), Tiling(128)):
            tiled = predict_maps(series, model, OFF, passes=Passes(tiling=tiling))
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
    """Largest change of CBF, where CBF > 5, when the patch grid moves; mean change [%]."""
    model = load_model(DEFAULT_MODEL)
    for snr in (3.0, 10.0, 30.0):
        series = _middle(brain_phantom("brain", seed), seed, snr)
        for name, tiling in (
            ("whole slices", Tiling()),
            ("patches of 128", Tiling(128)),
            ("patches of 64", Tiling(64)),
        ):
            still = predict_maps(series, model, OFF, passes=Passes(tiling=tiling)).cbf
            where, shown = series.mask & (still > 5), []
            for shift in (1, 2, 3, 8, 31, 64):
                moved = predict_maps(
                    _moved(series, shift), model, OFF, passes=Passes(tiling=tiling)
                )
                change = 100 * np.abs(moved.cbf[shift:, shift + 1 :] / still - 1)[where]
                shown.append(f"{shift}: {change.max():.2f}, {change.mean():.3f}")
            print(f"  SNR {snr:g}, {name}: {'; '.join(shown)}", flush=True)


def uncertainty(seed: int) -> None:
    """CBF error divided by that of one pass, and coverage of 95 % intervals, where CBF > 5."""
    model = load_model(DEFAULT_MODEL)
    phantom = brain_phantom("brain", seed)
    where = phantom.mask & (phantom.cbf > 5)
    for snr in (3, 10):
        acquisition = PROTOCOLS["pcasl6"].acquisition(phantom.mask.shape[2])
        series = simulate_series(phantom, acquisition, snr, seed)
        one = predict_maps(series, model, OFF)
        error = np.abs(one.cbf - phantom.cbf)[where].mean()
        for name, passes in (("one pass", Passes()), ("--tta", Passes(is_mirrored=True))):
            maps = predict_maps(series, model, OFF, passes=passes)
            off = np.abs(maps.cbf - phantom.cbf)[where]
            share = np.mean(off < Z_95 * maps.cbf_std[where])
            print(f"  pcasl6, SNR {snr}, {name}: {off.mean() / error:.3f}, {100 * share:.1f} %")


def _middle(phantom: Phantom, seed: int, snr: float = 5.0) -> AslSeries:
    """Return six slices of a joint scan with a known noise level."""
    z = slice(phantom.mask.shape[2] // 2, phantom.mask.shape[2] // 2 + 6)
    acquisition = PROTOCOLS["joint6"].acquisition(phantom.mask.shape[2])
    whole = simulate_series(phantom, acquisition, snr, seed)
    series = AslSeries(whole.delta_m[:, :, z], acquisition, whole.mask[:, :, z], whole.affine)
    return replace(series, noise_sd=noise_level(series, OFF))


def _measured(name: str, arguments: str) -> None:
    """Print wall time, CPU time and peak memory of a command."""
    command = [sys.executable, "-m", f"aslkit.cli.{arguments.split()[0]}", *arguments.split()[1:]]
    start = time.perf_counter()
    with subprocess.Popen(command) as child:
        _, status, usage = os.wait4(child.pid, 0)
        child.returncode = os.waitstatus_to_exitcode(status)
    wall, used = time.perf_counter() - start, usage.ru_utime + usage.ru_stime
    if child.returncode:
        raise SystemExit(f"failed: {' '.join(command)}")
    memory = usage.ru_maxrss * 1024 / GIB
    load = os.getloadavg()[0]
    print(f"    {name}: {wall:.1f} s (CPU {used:.1f} s), {memory:.2f} GiB; load {load:.1f}")


def _of_three_members(folder: Path) -> Path:
    """Write a model with the default network three times (time does not depend on weights)."""
    model = load_model(DEFAULT_MODEL)
    state = {f"{i}.{k}": v for i in range(3) for k, v in model.network.state_dict().items()}
    save_model(folder, state, {**model.card, "members": 3})
    return folder


def _cpu_time(run: Callable[[], object]) -> float:
    """Return the CPU time of a call over all cores [s]."""
    start = time.process_time()
    run()
    return time.process_time() - start


def _moved(series: AslSeries, shift: int) -> AslSeries:
    """Add a distant voxel to the mask of the scan, which moves the patch grid."""
    assert series.noise_sd is not None
    wide = [(shift, 0), (shift + 1, 0), (0, 0)]
    mask = np.pad(series.mask, wide)
    mask[0, 0] = True
    delta_m = np.pad(series.delta_m, [*wide, (0, 0)])
    sd = np.pad(series.noise_sd, wide, mode="edge")
    return replace(series, delta_m=delta_m, mask=mask, noise_sd=sd)


def _resampled(phantom: Phantom, shape: tuple[int, ...]) -> Phantom:
    """Resample the phantom to a matrix of the given shape over `FIELD_MM`."""
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


PARTS = {
    "resources": resources,
    "patches": patches,
    "places": places,
    "uncertainty": uncertainty,
    "rivals": rivals,
}

if __name__ == "__main__":
    main()
