"""Measure throughput, memory and restart of asl_predict on a data set of many subjects.

Usage: python bin/dev/benchmark_batch.py [--subjects 500] [--ways "--n-jobs 1" …] [--seed 1]
Simulates the subjects (30 x 36 x 8 voxels, 6 delays), runs the command in every way, records the
memory of all its processes, then ends a run by SIGKILL and starts it again.
"""

import argparse
import os
import re
import shlex
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from aslkit.nets.model_store import DEFAULT_MODEL
from aslkit.report.page import machine

WAYS = ("--n-jobs 1", "--n-jobs 2", "--dask local --n-jobs 2")
SHARE_BEFORE_KILL = 0.3  # of the subjects
POLL_S = 0.5
KIB = 1024
HOURS_S = 3600
MANY = 100_000  # subjects to project to


def main() -> None:
    """Simulate the subjects, time every way, and measure the restart after SIGKILL."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--subjects", type=int, default=500)
    parser.add_argument("--ways", nargs="*", default=WAYS)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    print(f"machine: {machine()}, seed {options.seed}, {options.subjects} subjects")
    with tempfile.TemporaryDirectory() as folder:
        study = Path(folder, "study")
        simulation = f"--participants {options.subjects} --seed {options.seed} --n-jobs 2"
        grid = "--matrix 30,36,8 --voxel-size 6 --protocol pcasl6 --deltam -q"
        run("sim", f"--out {study} {simulation} {grid}")
        alone = 0.0
        for i, way in enumerate(options.ways):
            seconds, memory = watched(start(study, Path(folder, f"maps{i}"), way))
            alone = alone or seconds
            show(way, seconds, memory, options.subjects)
            project(way, seconds, alone / seconds, options.subjects)
        killed(study, Path(folder, "killed"), options.subjects)


def command(name: str, arguments: str) -> list[str]:
    """Return the path of an asl_* command of this environment."""
    return [sys.executable, "-m", f"aslkit.cli.{name}", *shlex.split(arguments)]


def run(name: str, arguments: str) -> str:
    """Run a command that must succeed and return its output."""
    return subprocess.run(
        command(name, arguments), check=True, stdout=subprocess.PIPE, text=True
    ).stdout


def start(study: Path, maps: Path, options: str) -> subprocess.Popen[str]:
    """Start asl_predict on a data set in its own process group."""
    arguments = f"--bids {study} --derivatives {maps} {options}"
    return subprocess.Popen(
        command("predict", arguments),
        stdout=subprocess.DEVNULL,
        text=True,
        start_new_session=True,
    )


def watched(process: "subprocess.Popen[str]") -> tuple[float, list[float]]:
    """Return the wall time [s] of a run and samples of the memory [MiB] of all its processes."""
    began, memory = time.perf_counter(), []
    while process.poll() is None:
        memory.append(resident_mib(process.pid))
        time.sleep(POLL_S)
    if process.returncode:
        raise SystemExit(f"asl_predict ended with exit code {process.returncode}")
    return time.perf_counter() - began, memory


def resident_mib(session: int) -> float:
    """Return the proportional memory [MiB] of a session's processes: shared pages count once."""
    total = 0
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            if os.getsid(int(folder.name)) == session:
                found = re.search(r"^Pss:\s+(\d+)", (folder / "smaps_rollup").read_text(), re.M)
                total += int(found[1]) if found else 0
        except (OSError, ProcessLookupError):
            continue  # the process has ended
    return total / KIB


def show(way: str, seconds: float, memory: list[float], n: int) -> None:
    """Print time, and memory in the second and the last fifth of the run."""
    fifth = max(len(memory) // 5, 1)
    parts = memory[fifth : 2 * fifth + 1], memory[-fifth:]
    early, late = (sorted(part)[len(part) // 2] for part in parts)
    rate = (
        f"{seconds:.0f} s, {seconds / n:.2f} s per subject, {n / seconds * HOURS_S:.0f} per hour"
    )
    held = f"memory {early:.0f} MiB early, {late:.0f} late, {max(memory):.0f} at most"
    print(f"{way}: {rate}; {held}", flush=True)


def project(way: str, seconds: float, speedup: float, n: int) -> None:
    """Print the speedup over the first way, the efficiency, and the time of `MANY` subjects."""
    n_workers = int(way.partition("--n-jobs ")[2].split()[0])
    hours = MANY * seconds / n / HOURS_S
    print(
        f"  {speedup:.2f} times as fast as the first way, efficiency {speedup / n_workers:.0%}; "
        f"{n_workers * seconds / n:.2f} s of a worker per subject; {MANY} subjects: {hours:.0f} h "
        f"on this machine, {n_workers * hours:.0f} worker hours",
        flush=True,
    )


def killed(study: Path, maps: Path, n: int) -> None:
    """End a run with all its processes by SIGKILL and count the subjects of the next run."""
    process = start(study, maps, WAYS[1])
    while process.poll() is None and n_done(maps) < SHARE_BEFORE_KILL * n:
        time.sleep(POLL_S)
    if process.poll() is not None:
        raise SystemExit("asl_predict ended before it could be killed")
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    done = n_done(maps)
    arguments = f"--bids {study} --derivatives {maps} {WAYS[1]} --skip-existing"
    *_, last = run("predict", arguments).splitlines()
    print(f"SIGKILL of everything after {done} subjects; run again: {last}")


def n_done(maps: Path) -> int:
    """Count the subjects with complete maps (the CBF sidecar is written last)."""
    return len(list(maps.glob(f"sub-*/perf/*_desc-{DEFAULT_MODEL}_cbf.json")))


if __name__ == "__main__":
    main()
