"""Measure least squares: speed, efficiency, coverage, global optimum, arteries, memory.

Usage: python bin/dev/benchmark_fit.py [--seed N] [PART ...]. The parts are named at the foot; the
default is all of them. Every number is printed with its condition. Brain phantoms are simulated.
"""

import argparse
import resource
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial

import numpy as np
from scipy.optimize import least_squares

from aslkit.core.acquisition import Acquisition
from aslkit.core.constants import ATT_BOUNDS_S, Z_95
from aslkit.core.series_and_maps import AslSeries
from aslkit.fit.curve_table import tabulate
from aslkit.fit.intervals import profile_intervals
from aslkit.fit.least_squares import fit_least_squares
from aslkit.fit.settings import Arterial, FreeAtt, FreeT1
from aslkit.fit.standard_errors import cramer_rao_sd
from aslkit.fit.variable_projection import solve_tissue
from aslkit.kinetics.model import KineticModel, delta_m, kinetic_model, tissue_curve
from aslkit.report.page import machine
from aslkit.simulate.phantoms import brain_phantom
from aslkit.simulate.signal import PROTOCOLS, noise_sd, simulate_series, truth_maps
from aslkit.validate.metrics import EFFICIENT_ERROR

OFF, ON, FREE_T1 = FreeAtt(), Arterial(), FreeT1()
N_LOOP = 1000  # voxels of the scipy loop
N_RUNS = 5
N_CURVES = 100_000
N_BRAINS = 4
SIZES = (10_000, 100_000, 1_000_000, 10_000_000)  # voxels
GIB = 1024**3


def main() -> None:
    """Run the requested parts."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--voxels", type=int, help=argparse.SUPPRESS)  # one size of `memory`
    parser.add_argument("parts", nargs="*", metavar="PART", help=", ".join(PARTS))
    arguments = parser.parse_args()
    if arguments.voxels:
        fit_many(arguments.voxels, arguments.seed)
        return
    print(f"machine: {machine()}; seed {arguments.seed}")
    for part in arguments.parts or PARTS:
        print(f"\n{PARTS[part].__doc__}")
        PARTS[part](arguments.seed)


def brain_scan(
    protocol: str, snr: float, seed: int, kinetic: str = "single"
) -> tuple[AslSeries, dict[str, np.ndarray]]:
    """Simulate a whole brain with known noise; return it, its truth and the pure-tissue mask."""
    phantom = brain_phantom("brain", seed)
    acquisition = replace(PROTOCOLS[protocol].acquisition(phantom.mask.shape[2]), kinetic=kinetic)
    series = simulate_series(phantom, acquisition, snr, seed)
    sd = np.full(phantom.mask.shape, noise_sd(snr), dtype=np.float32)
    truth = truth_maps(phantom)
    bounds = cramer_rao_sd(truth, acquisition, noise_sd(snr))
    grey = (phantom.gm > 0.8) & (phantom.lesions == 0)
    known = {"cbf": truth.cbf, "att": truth.att, "grey": grey, "brain": truth.cbf > 5}
    return replace(series, noise_sd=sd), {**known, "cbf sd": bounds[0], "att sd": bounds[1]}


def speed(seed: int) -> None:
    """Voxels per second for all maps of a whole volume: median (range) of five fits."""
    for name, settings in (
        ("joint6", OFF),
        ("pasl8", OFF),
        ("pcasl6", OFF),
        ("pcasl5", OFF),
        ("joint6", ON),
        ("pcasl5", ON),
    ):
        series, _ = brain_scan(name, 30, seed)
        times = [timed(partial(fit_least_squares, series, settings)) for _ in range(N_RUNS)]
        rates = sorted(series.mask.size / t for t in times)
        loop = "" if settings is ON else f", {rates[N_RUNS // 2] / scipy_rate(series):.0f} x scipy"
        print(
            f"  {name}, {series.acquisition.n_timings} timings, arteries "
            f"{'on' if settings.has_arterial else 'off'}: {rates[N_RUNS // 2]:.0f} "
            f"({rates[0]:.0f} - {rates[-1]:.0f}){loop}"
        )


def efficiency(seed: int) -> None:
    """MAE in grey matter divided by that of an efficient estimator (0.8 x the Cramér-Rao sd)."""
    for name in ("joint6", "pcasl6", "pasl8"):
        for snr in (20, 30):
            series, known = brain_scan(name, snr, seed)
            maps = fit_least_squares(series, OFF)
            ratios = []
            for q in ("cbf", "att"):
                where = known["grey"] & np.isfinite(known[f"{q} sd"])
                error = np.abs(getattr(maps, q) - known[q])[where].mean()
                ratios.append(error / (EFFICIENT_ERROR * known[f"{q} sd"][where].mean()))
            print(f"  {name}, SNR {snr}: CBF {ratios[0]:.3f}, ATT {ratios[1]:.3f}")


def coverage(seed: int) -> None:
    """Coverage of the 95 % intervals in grey matter (in brackets: of 1.96 standard errors)."""
    for name in ("joint6", "pcasl6", "pasl8"):
        for snr in (5, 10, 20):
            series, known = brain_scan(name, snr, seed)
            maps = fit_least_squares(series, OFF)
            intervals = profile_intervals(series, maps, OFF)
            shares = []
            for q in ("cbf", "att"):
                low, high = (intervals[f"{q}-ci95"][..., i] for i in (0, 1))
                is_in = (low <= known[q]) & (known[q] <= high)
                z = np.abs(getattr(maps, q) - known[q]) / getattr(maps, f"{q}_std")
                shares += [100 * s[known["grey"]].mean() for s in (is_in, z < Z_95)]
            print(
                f"  {name}, SNR {snr}: CBF {shares[0]:.1f} % ({shares[1]:.1f}), "
                f"ATT {shares[2]:.1f} % ({shares[3]:.1f})"
            )


def free_t1(seed: int) -> None:
    """Free tissue T1, grey matter: RMS error (x that with known T1), coverage of 1.96 SE."""
    for name in ("joint6", "pcasl6", "pasl8"):
        for snr in (10, 30):
            series, known = brain_scan(name, snr, seed, "tissue")
            grey, t1 = known["grey"], series.acquisition.t1_tissue_s
            found, start = fit_least_squares(series, OFF), time.perf_counter()
            maps = fit_least_squares(series, FREE_T1)
            rate = series.mask.size / (time.perf_counter() - start)
            shown = []
            for q, unit, true in (("cbf", "", known["cbf"]), ("att", " s", known["att"])):
                rms = [np.sqrt(np.mean((getattr(m, q) - true)[grey] ** 2)) for m in (maps, found)]
                is_in = np.abs(getattr(maps, q) - true) < Z_95 * getattr(maps, f"{q}_std")
                shown.append(
                    f"{q.upper()} {rms[0]:.3g}{unit}, x {rms[0] / rms[1]:.2f}, "
                    f"{100 * is_in[grey].mean():.1f} %"
                )
            assert maps.t1_tissue is not None and maps.t1_tissue_std is not None
            error = (maps.t1_tissue - t1)[grey]
            is_in = np.abs(error) < Z_95 * maps.t1_tissue_std[grey]
            shown.append(f"T1t {np.sqrt(np.mean(error**2)):.3g} s, {100 * is_in.mean():.1f} %")
            print(f"  {name}, SNR {snr}: {'; '.join(shown)}; {rate:.0f} voxels/s")


def optimum(seed: int) -> None:
    """Residuals compared with a dense 1 ms search, for random CBF, ATT and SNR 1-30."""
    atts = np.arange(ATT_BOUNDS_S[0], ATT_BOUNDS_S[1] + 5e-4, 1e-3)[None]
    for name in ("joint6", "pcasl6", "pcasl6-2d", "pcasl5", "pasl8", "vsasl6"):
        rng = np.random.default_rng(seed)
        model = kinetic_model(PROTOCOLS[name].acquisition(1))
        cells, curves = tabulate(model, ATT_BOUNDS_S), tissue_curve(model, atts)[0]
        unit = (curves / np.sqrt(np.maximum((curves**2).sum(0), 1e-40))).T
        excess = []
        for _ in range(N_CURVES // 2000):
            cbf, att = rng.uniform(5, 100, (1, 2000)), rng.uniform(0.2, 3.0, (1, 2000))
            sd = noise_sd(1) / np.exp(rng.uniform(0, np.log(30), 2000))
            signal = delta_m(model, cbf, att)
            signal = signal + sd * rng.standard_normal(signal.shape)
            found = solve_tissue(cells, signal)
            own = ((signal - delta_m(model, found.cbf, found.att)) ** 2).sum(-2)[0]
            dense = (signal[0] ** 2).sum(0) - ((unit @ signal[0]) ** 2).max(0)
            excess.append(own / dense - 1)
        above = np.concatenate(excess)
        print(
            f"  {name}: {np.sum(above > 1e-6)} of {above.size} more than 1e-6 above, "
            f"largest {above.max():.1e}"
        )


def arteries(seed: int) -> None:
    """Error with the arterial compartment / error without it, on scans without arterial signal."""
    for name in ("pcasl6-2d", "pcasl5"):
        for snr in (3, 5, 10, 30):
            ratios = []
            for brain in range(N_BRAINS):
                series, known = brain_scan(name, snr, seed + brain)
                maps = [fit_least_squares(series, s) for s in (ON, OFF)]
                errors = [
                    [np.abs(getattr(m, q) - known[q])[known["brain"]].mean() for m in maps]
                    for q in ("cbf", "att")
                ]
                ratios.append([on / off for on, off in errors])
            cbf, att = np.mean(ratios, axis=0)
            print(f"  {name}, SNR {snr}, {N_BRAINS} brains: CBF {cbf:.3f}, ATT {att:.3f}")


def memory(seed: int) -> None:
    """Time and memory against the number of voxels, 12 timings, each size in its own process."""
    for n in SIZES:
        command = [sys.executable, __file__, "--voxels", str(n), "--seed", str(seed)]
        print(
            f"  {subprocess.run(command, capture_output=True, text=True, check=True).stdout}",
            end="",
        )


def fit_many(n_voxels: int, seed: int) -> None:
    """Fit `n_voxels` noisy voxels; print the time and the peak memory beyond the input."""
    acquisition = PROTOCOLS["joint6"].acquisition(1)
    rng = np.random.default_rng(seed)
    shape = n_voxels // 100, 100, 1
    signal = rng.standard_normal((*shape, acquisition.n_timings), dtype=np.float32)
    series = AslSeries(signal, acquisition, np.ones(shape, dtype=bool))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    seconds = timed(partial(fit_least_squares, series, OFF))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    print(
        f"{n_voxels} voxels: {seconds:.2f} s, {n_voxels / seconds:.0f} voxels/s, input "
        f"{signal.nbytes / GIB:.3f} GiB, peak {peak * 1024 / GIB:.2f} GiB "
        f"({before * 1024 / GIB:.2f} before the fit)"
    )


def timed(run: Callable[[], object]) -> float:
    """Return the wall time of a call [s]."""
    start = time.perf_counter()
    run()
    return time.perf_counter() - start


def scipy_rate(series: AslSeries) -> float:
    """Return the voxels per second of a scipy loop over voxels."""
    signals = series.delta_m[series.mask][:N_LOOP]
    return N_LOOP / timed(lambda: scipy_loop(series.acquisition, signals))


def scipy_loop(acquisition: Acquisition, signals: np.ndarray) -> None:
    """Fit signals (voxels, n) one by one by bounded trust-region fits from a common start."""
    model = kinetic_model(Acquisition(acquisition.timings))
    for signal in signals.astype(np.float64):
        least_squares(
            partial(residual, model=model, signal=signal),
            (50.0, 1.2),
            bounds=((-100, 0.1), (300, 4.0)),
            x_scale=(50.0, 1.0),
        )


def residual(parameters: np.ndarray, model: KineticModel, signal: np.ndarray) -> np.ndarray:
    """Return model minus data of one voxel, scaled for scipy's tolerances."""
    cbf, att = parameters[:1, None], parameters[1:, None]
    return 1000 * (delta_m(model, cbf, att)[0, :, 0] - signal)


PARTS = {
    "speed": speed,
    "efficiency": efficiency,
    "coverage": coverage,
    "free-t1": free_t1,
    "optimum": optimum,
    "arteries": arteries,
    "memory": memory,
}

if __name__ == "__main__":
    main()
