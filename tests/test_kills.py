"""Commands that are killed or run twice at the same time leave old, new or no files."""

import os
import random
import shutil
import signal
import subprocess
import sys
import time
from importlib import import_module

import pytest
from click.testing import CliRunner
from scans import write_scan

from aslkit.outputs.atomic_write import PREFIX, write_folder

pytestmark = pytest.mark.slow

N_KILLS = 10
LONGEST_S = 60
SMALL = ("--anatomy", "disc", "--protocol", "pcasl1")


def start(command, *arguments):
    line = [sys.executable, "-m", f"aslkit.cli.{command}", *map(str, arguments)]
    pipe = subprocess.PIPE
    return subprocess.Popen(line, stdout=pipe, stderr=pipe, text=True, start_new_session=True)


def run(command, *arguments):
    """Run the command in this process."""
    words = [str(word) for word in arguments]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("sys.argv", [f"{command}.py", *words])  # written to the sidecars
        done = CliRunner().invoke(import_module(f"aslkit.cli.{command}").main, words)
    assert done.exit_code == 0, done.output


def contents(folder):
    """Return the name and bytes of every file outside temporary folders."""
    paths = [p for p in folder.rglob("*") if p.is_file()] if folder.exists() else []
    names = {p: str(p.relative_to(folder)) for p in paths}
    return {name: p.read_bytes() for p, name in names.items() if not name.startswith(PREFIX)}


def long_simulation(folder, n_jobs, participants=400):
    """Start a simulation of many participants, and wait for the second one."""
    more = ("--participants", participants, "--n-jobs", n_jobs)
    process = start("sim", "--out", folder / "sim", *SMALL, *more)
    while not list(folder.glob(f"{PREFIX}*/sim/sub-02")) and process.poll() is None:
        time.sleep(0.01)
    return process


def wait_until_it_writes(process, folder):
    while not list(folder.glob(f"{PREFIX}*")) and process.poll() is None:
        time.sleep(0.001)


def measure(process, folder):
    """Return the time of a run, and the time from its first file to its end [s]."""
    start = time.monotonic()
    wait_until_it_writes(process, folder)
    writing = time.monotonic()
    process.communicate()
    return time.monotonic() - start, time.monotonic() - writing


def kill_at_random(process, folder, rng, seconds):
    """Kill a process group at a random time of the run, or while it writes."""
    run_s, writing_s = seconds
    moment = time.monotonic() + rng.uniform(0, run_s)
    if rng.random() < 0.5:
        wait_until_it_writes(process, folder)
        moment = time.monotonic() + rng.uniform(0, writing_s)
    while time.monotonic() < moment and process.poll() is None:
        time.sleep(0.001)
    if process.poll() is None:
        os.killpg(process.pid, signal.SIGKILL)
    process.communicate()


def test_a_killed_run_leaves_the_old_or_the_new_maps(tmp_path):
    rng, ends = random.Random(1), []
    image, out = write_scan(tmp_path), tmp_path / "out"
    options = ("-i", image, "-o", out / "cbf.nii.gz", "--fitted", "--t1b")
    sets = {}
    for name, t1_blood_s in (("new", 1.7), ("old", 1.6)):
        run("fit_ls", *options, t1_blood_s)
        sets[name] = contents(out)
    seconds = measure(start("fit_ls", *options, 1.7), out)
    for kill in range(N_KILLS):
        shutil.rmtree(out)
        out.mkdir()
        for name, content in sets["old"].items():
            (out / name).write_bytes(content)
        kill_at_random(start("fit_ls", *options, 1.7), out, rng, seconds)
        found = contents(out)
        ends.append(next((name for name, files in sets.items() if files == found), "none"))
        if ends[-1] == "none":  # rare: killed while the files are moved
            assert "cbf.json" not in found, kill
            assert any(found.items() <= files.items() for files in sets.values()), kill
    assert "old" in ends, ends  # the number depends on the load of the machine
    run("fit_ls", *options, 1.7)
    assert contents(out) == sets["new"] and not list(out.glob(f"{PREFIX}*"))


def test_a_killed_simulation_leaves_no_data_set_and_the_next_run_removes_temporary_files(tmp_path):
    rng, complete = random.Random(2), tmp_path / "complete"
    seconds = measure(start("sim", "--out", complete, *SMALL), tmp_path)
    for _ in range(N_KILLS // 2):
        kill_at_random(start("sim", "--out", tmp_path / "sim", *SMALL), tmp_path, rng, seconds)
        assert contents(tmp_path / "sim") in ({}, contents(complete))
        shutil.rmtree(tmp_path / "sim", ignore_errors=True)
    run("sim", "--out", tmp_path / "sim", *SMALL)
    assert contents(tmp_path / "sim") == contents(complete)
    assert not list(tmp_path.glob(f"{PREFIX}*"))


def test_processes_end_with_the_command_that_started_them(tmp_path):
    process = long_simulation(tmp_path, n_jobs=2)
    process.kill()
    process.communicate(timeout=LONGEST_S)  # returns when all processes have closed the pipe
    run("sim", "--out", tmp_path / "sim", *SMALL)
    assert [path.name for path in tmp_path.iterdir()] == ["sim"]


def test_a_simulation_continues_when_a_worker_process_is_killed(tmp_path):
    process = long_simulation(tmp_path, n_jobs=2, participants=20)
    line = ["ps", "-ww", "-o", "pid=,args=", "--ppid", str(process.pid)]
    workers = subprocess.run(line, capture_output=True, text=True).stdout.splitlines()
    victim = next(line for line in workers if "spawn_main" in line)
    os.kill(int(victim.split()[0]), signal.SIGKILL)
    _, errors = process.communicate(timeout=LONGEST_S)
    assert process.returncode == 0, errors
    run("sim", "--out", tmp_path / "complete", *SMALL, "--participants", 20)
    assert contents(tmp_path / "sim") == contents(tmp_path / "complete")


def test_one_of_two_simultaneous_simulations_into_one_folder_is_refused(tmp_path):
    run("sim", "--out", tmp_path / "complete", *SMALL)
    processes = [start("sim", "--out", tmp_path / "sim", *SMALL) for _ in range(2)]
    errors = [process.communicate(timeout=LONGEST_S)[1] for process in processes]
    assert sorted(process.returncode for process in processes) == [0, 3]
    assert "found existing files, expected a new folder" in "".join(errors)
    assert contents(tmp_path / "sim") == contents(tmp_path / "complete")
    assert not list(tmp_path.glob(f"{PREFIX}*"))


def test_two_simultaneous_validations_into_one_folder_leave_one_complete_report(tmp_path):
    write_scan(tmp_path / "study")
    line = ("--bids", tmp_path / "study", "--out", tmp_path / "out")
    processes = [start("validate", *line) for _ in range(2)]
    for process in processes:
        _, errors = process.communicate(timeout=LONGEST_S)
        assert process.returncode == 0, errors
    names = {"report.html", "results.json", "results.tsv", "sub-01.html", "sub-01.json"}
    assert set(contents(tmp_path / "out")) == names | {"logs/sub-01.log"}
    assert not list((tmp_path / "out").glob(f"{PREFIX}*"))


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("n_jobs", [1, 2])
def test_a_stopped_simulation_prints_a_message_and_leaves_no_files(tmp_path, number, n_jobs):
    process = long_simulation(tmp_path, n_jobs)
    os.killpg(process.pid, number)
    _, errors = process.communicate(timeout=LONGEST_S)
    assert process.returncode == 128 + number, errors
    assert errors == f"Stopped by {number.name}; files written so far are complete\n"
    assert not list(tmp_path.iterdir())


def test_an_empty_folder_is_replaced_and_a_folder_with_files_is_not(tmp_path):
    out = tmp_path / "out"
    out.mkdir()
    with write_folder(out) as folder:
        (folder / "first").touch()
    with pytest.raises(OSError, match="not empty"), write_folder(out) as folder:
        (folder / "second").touch()
    assert [path.name for path in tmp_path.rglob("*")] == ["out", "first"]
