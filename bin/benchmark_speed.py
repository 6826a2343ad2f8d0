"""Speed and efficiency of least squares against a scipy loop on the same voxels.

Usage: python bin/benchmark_speed.py [--seed N]. Simulates a joint PCASL + VSASL scan (6 + 6
delays, SNR 30) of a brain phantom and prints voxels per second of both, their ratio, and the
errors in grey matter over that of an efficient estimator (0.8 x the Cramer-Rao sd).
"""

import argparse
import time
from collections.abc import Callable
from functools import partial

import numpy as np
from scipy.optimize import least_squares

from aslkit.acquisition import Acquisition
from aslkit.fitting import FitSettings, cramer_rao_sd, fit_least_squares
from aslkit.images import AslSeries
from aslkit.metrics import EFFICIENT_ERROR
from aslkit.phantoms import brain_phantom
from aslkit.physics import KineticModel, delta_m, kinetic_model
from aslkit.report import machine
from aslkit.simulation import PROTOCOLS, noise_sd, simulate_series, truth_maps

SNR = 30.0
N_LOOP = 1000  # voxels of the scipy loop
N_RUNS = 5


def main() -> None:
    """Time both, print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seed", type=int, default=1)
    seed = parser.parse_args().seed
    phantom = brain_phantom("brain", seed)
    acquisition = PROTOCOLS["joint6"].acquisition(phantom.mask.shape[2])
    series = simulate_series(phantom, acquisition, SNR, seed)
    settings = FitSettings(macrovascular="off")
    times = [timed(partial(fit_least_squares, series, settings)) for _ in range(N_RUNS)]
    rates = sorted(series.mask.size / t for t in times)
    loop = N_LOOP / timed(partial(scipy_loop, series))
    print(f"machine: {machine()}; seed {seed}")
    print(f"voxels: {series.mask.size}, timings: {acquisition.n_timings}, SNR {SNR:g}")
    print(f"aslkit: {rates[0]:.0f} - {rates[-1]:.0f} voxels/s, median {rates[N_RUNS // 2]:.0f}")
    print(f"scipy least_squares: {loop:.0f} voxels/s; ratio {rates[N_RUNS // 2] / loop:.0f}")
    truth, maps = truth_maps(phantom), fit_least_squares(series, settings)
    for name, bound in zip(
        ("cbf", "att"), cramer_rao_sd(truth, acquisition, noise_sd(SNR)), strict=True
    ):
        where = (phantom.gm > 0.8) & (phantom.lesions == 0) & np.isfinite(bound)
        error = np.abs(getattr(maps, name) - getattr(truth, name))[where].mean()
        ratio = error / (EFFICIENT_ERROR * bound[where].mean())
        print(f"{name.upper()} error in GM / efficient: {ratio:.3f}")


def timed(run: Callable[[], object]) -> float:
    """Seconds that a call takes."""
    start = time.perf_counter()
    run()
    return time.perf_counter() - start


def scipy_loop(series: AslSeries) -> None:
    """The usual way: one bounded trust-region fit per voxel."""
    model = kinetic_model(single_slice(series.acquisition))
    for signal in series.delta_m[series.mask][:N_LOOP].astype(np.float64):
        least_squares(
            partial(residual, model=model, signal=signal),
            (50.0, 1.2),
            bounds=((-100, 0.1), (300, 4.0)),
            x_scale=(50.0, 1.0),
        )


def residual(parameters: np.ndarray, model: KineticModel, signal: np.ndarray) -> np.ndarray:
    """Model minus data of one voxel, in units that scipy's tolerances expect."""
    cbf, att = parameters[:1, None], parameters[1:, None]
    return 1000 * (delta_m(model, cbf, att)[0, :, 0] - signal)


def single_slice(acquisition: Acquisition) -> Acquisition:
    """The timings alone."""
    return Acquisition(acquisition.timings)


if __name__ == "__main__":
    main()
