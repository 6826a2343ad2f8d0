"""Measure the simulator: training stream, its share of a training step, whole-brain scans.

Usage: python bin/dev/benchmark_sim.py [PART ...]. The parts are named at the foot; the default
is all of them. CPU time is the figure to compare on a shared machine; wall time is printed too.
"""

import argparse
import tempfile
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import torch

from aslkit.bids.nifti import read_volumes
from aslkit.bids.reader import read_run
from aslkit.cli.sim import main as asl_sim
from aslkit.config import AnyProtocolConfig, load_config
from aslkit.core.acquisition import REFERENCE_SIGNAL
from aslkit.fit.least_squares import fit_least_squares
from aslkit.fit.settings import FreeAtt
from aslkit.prepare.series import series_from_runs
from aslkit.report.page import machine
from aslkit.simulate.bids_writer import truth_root
from aslkit.simulate.signal import PROTOCOLS
from aslkit.simulate.training_scans import draw_training_scans
from aslkit.train.batches import STREAM_SEED, draw_batch, stream_batches
from aslkit.train.loop import train
from aslkit.validate.trials import MIN_TISSUE_FRACTION

N_SCANS = 100
N_BATCHES = 20
WARM_STEPS, LAST_STEP = 4, 16
N_SUBJECTS = 4
N_CORES = 2


def main() -> None:
    """Run the requested parts."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("parts", nargs="*", metavar="PART", help=", ".join(PARTS))
    print(f"machine: {machine()}")
    torch.set_num_threads(1)
    for part in parser.parse_args().parts or PARTS:
        print(f"\n{PARTS[part].__doc__}")
        PARTS[part]()


def signals() -> None:
    """Stream of 64 x 64 patches with 12 volumes (joint6): signals and truth, no least squares."""
    for kind, device in (("numpy", None), ("torch", "cpu")):
        seconds = cpu_seconds(partial(draw_joint_scans, device=device), N_SCANS)
        show(f"one process, {kind}", seconds / DATA.patches_per_protocol)
    with ProcessPoolExecutor(N_CORES, get_context("fork")) as pool:
        list(pool.map(draw_joint_scans, range(N_CORES)))
        start = time.perf_counter()
        list(pool.map(draw_joint_scans, range(N_SCANS), chunksize=10))
        wall = time.perf_counter() - start
    patches = N_SCANS * DATA.patches_per_protocol
    print(f"{N_CORES} processes, numpy: {patches / wall:.0f} patches/s of wall time")


def batches() -> None:
    """Stream of 64 x 64 patches of random protocols, with least squares and its features."""
    show("one process", cpu_seconds(batch, N_BATCHES) / PATCHES)
    loaded = stream_batches(partial(draw_batch, DATA), 0, 0, N_CORES)
    for _ in range(3 * N_CORES):  # batches drawn in advance
        next(loaded)
    start = time.perf_counter()
    for _ in range(N_BATCHES):
        next(loaded)
    wall = time.perf_counter() - start
    print(f"{N_CORES} processes: {N_BATCHES * PATCHES / wall:.0f} patches/s of wall time")


def share() -> None:
    """Share of a training step (model small, 32 patches) outside of the network."""
    step = step_seconds()
    print(f"network, loss and optimiser: {step:.3f} s of CPU time a step")
    mixed = cpu_seconds(lambda k: draw_training_scans(DATA, generator(k)), N_SCANS)
    for name, seconds in (
        ("with least squares", cpu_seconds(batch, N_BATCHES)),
        ("signals and truth alone", mixed * DATA.protocols_per_step),
    ):
        print(f"data {name}: {seconds:.3f} s, {100 * seconds / (seconds + step):.0f} % of the sum")


def brains() -> None:
    """Time of asl_sim per whole brain (joint6, 3.5 mm), files included."""
    with tempfile.TemporaryDirectory() as folder:
        options = ["--participants", str(N_SUBJECTS), "--protocol", "joint6"]
        asl_sim(["--out", f"{folder}/first"], standalone_mode=False)  # loads the template
        cpu, wall = time.process_time(), time.perf_counter()
        asl_sim(["--out", f"{folder}/sim", *options], standalone_mode=False)
        cpu, wall = time.process_time() - cpu, time.perf_counter() - wall
    print(f"{cpu / N_SUBJECTS:.2f} s of CPU time, {wall / N_SUBJECTS:.2f} s wall a subject")


def readback() -> None:
    """Read raw scans of SNR 10 (4 repeats, background suppression) and fit them."""
    with tempfile.TemporaryDirectory() as folder:
        for name in ("joint6", "pcasl6"):
            root = Path(folder) / name
            options = (
                f"--protocol {name} --participants {N_SUBJECTS} --repeats 4 --n-bs 2 --snr 10"
            )
            asl_sim(["--out", str(root), *options.split(), "--seed", "200"], standalone_mode=False)
            for subject in sorted(root.glob("sub-*")):
                show_readback(subject, truth_root(root) / subject.name / "perf")


def show_readback(subject: Path, truth: Path) -> None:
    """Print SNR and bias in grey matter of one subject's scan."""

    def true(name: str) -> np.ndarray:
        return read_volumes(truth / f"{subject.name}_{name}.nii.gz")[0][..., 0]

    scans = sorted((subject / "perf").glob("*_asl.nii.gz"))
    series = series_from_runs([read_run(path) for path in scans])
    cbf = fit_least_squares(series, FreeAtt()).cbf
    signals = [read_volumes(path)[0] for path in sorted(truth.glob("*_signal.nii.gz"))]
    noise = (series.delta_m - np.concatenate(signals, axis=3))[true("mask") > 0]
    grey = (true("gm") > MIN_TISSUE_FRACTION) & (true("lesions") == 0)
    bias = cbf[grey].mean() / true("cbf")[grey].mean() - 1
    print(f"{subject.name}: SNR {REFERENCE_SIGNAL / noise.std():.2f}, CBF of GM {bias:+.2%}")


def draw_joint_scans(number: int, device: str | None = None) -> None:
    """Draw training scans of the joint protocol and discard them."""
    draw_training_scans(DATA, generator(number), JOINT, device)


def batch(number: int) -> None:
    """Draw an encoded batch and discard it."""
    draw_batch(DATA, generator(number))


def generator(number: int) -> np.random.Generator:
    """Return the random generator of a step of the training stream."""
    return np.random.default_rng([STREAM_SEED, 0, number])


def cpu_seconds(run: Callable[[int], object], n: int) -> float:
    """Return the mean CPU time of n runs [s], after one warm-up run."""
    run(n)
    start = time.process_time()
    for k in range(n):
        run(k)
    return (time.process_time() - start) / n


def step_seconds() -> float:
    """Return the CPU time of a training step [s] without simulation.

    One thread is used, because waiting threads would count as CPU time.
    """
    config = load_config("small", (f"steps={LAST_STEP}",))
    times = {}

    def note(step: int, _: Mapping[str, float]) -> None:
        times[step] = time.process_time()

    with tempfile.TemporaryDirectory() as folder:
        train(config, Path(folder), progress=note)
    return (times[LAST_STEP] - times[WARM_STEPS]) / (LAST_STEP - WARM_STEPS)


def show(name: str, seconds: float) -> None:
    """Print the CPU time per patch."""
    rate = N_CORES / seconds
    print(f"{name}: {1e3 * seconds:.2f} ms of CPU time a patch, {rate:.0f}/s on {N_CORES} cores")


SMALL = load_config("small").data
assert isinstance(SMALL, AnyProtocolConfig)
DATA: AnyProtocolConfig = SMALL
PATCHES = DATA.protocols_per_step * DATA.patches_per_protocol
JOINT = PROTOCOLS["joint6"].acquisition(1)
PARTS = {f.__name__: f for f in (signals, batches, share, brains, readback)}

if __name__ == "__main__":
    main()
