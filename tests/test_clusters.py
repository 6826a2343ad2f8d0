"""Data sets on dask clusters: schedulers and workers of the user, and workers that die."""

import os
import signal
import socket
import subprocess
import sys
import time
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NamedTuple

import pytest
from click.testing import CliRunner
from test_batch import BIN, DyingStages, contents, images, run, shell, wait_for

from aslkit.batch.dask_cluster import (
    CLUSTER_SETTINGS,
    KILLED,
    RESTARTING,
    _ignore_restart,
    run_on_cluster,
)
from aslkit.cli.fit_ls import main as asl_fit_ls
from aslkit.cli.validate import main as asl_validate
from aslkit.core.errors import UnavailableError
from aslkit.outputs.atomic_write import PREFIX

LocalCluster = pytest.importorskip("distributed").LocalCluster
pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("default")]
N_SCANS = 4


@pytest.fixture(autouse=True, scope="module")
def ready_dask_workers():
    """Start dask workers as forks of a process that has imported everything."""
    import dask

    with dask.config.set({"distributed.worker.multiprocessing-method": "forkserver"}):
        yield


@contextmanager
def module(name, *arguments, output=subprocess.DEVNULL):
    """Run a module in a background process."""
    paths = [str(Path(__file__).parent), *filter(None, [os.environ.get("PYTHONPATH")])]
    process = subprocess.Popen(
        [sys.executable, "-m", name, *map(str, arguments)],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(paths)},
        stdout=output,
        stderr=output,
        text=True,
        start_new_session=True,
    )
    try:
        yield process
    finally:
        process.kill()
        process.wait()


@pytest.fixture
def scheduler():
    """Start a scheduler without workers."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    options = ("--host", "127.0.0.1", "--port", str(port), "--no-dashboard")
    with module("dask", "scheduler", *options) as process:
        yield Scheduler(f"tcp://127.0.0.1:{port}", process)


class Scheduler(NamedTuple):
    address: str
    process: subprocess.Popen


def worker(address, n_threads=1):
    options = ("--nthreads", n_threads, "--no-nanny", "--no-dashboard")
    return module("dask", "worker", address, *options)


def results_of(tasks, stages, where, n_workers=1):
    return dict(run_on_cluster(tasks, stages, where, n_workers, lambda _: None))


class SlowStages(DyingStages):
    """Stages that take some time, so that tasks run at the same time."""

    def compute(self, state):
        time.sleep(0.2)
        return super().compute(state)


class ProcessIdStages(DyingStages):
    """Stages that return the id of their process."""

    def write(self, state):
        return state, os.getpid()


def test_no_task_is_lost_when_a_worker_is_killed(scheduler, tmp_path):
    tasks = [f"task {i}" for i in range(40)]
    where = scheduler.address
    with worker(where), worker(where):
        results = run_on_cluster(tasks, ProcessIdStages(tmp_path), where, 1, print)
        first, victim = next(results)
        os.kill(victim, signal.SIGKILL)
        rest = dict(results)
    assert {first, *rest} == set(tasks)
    assert victim not in list(rest.values())[-10:]


def test_other_tasks_of_a_killed_worker_are_not_lost(tmp_path):
    """The worker has four threads, so that four tasks run when it dies."""
    import dask

    settings = dask.config.set(CLUSTER_SETTINGS)
    with settings, LocalCluster(n_workers=1, threads_per_worker=4) as cluster:
        stages = SlowStages(tmp_path)
        results = results_of(["a", "b", "deadly", "c"], stages, cluster.scheduler_address)
    assert results.pop("deadly") == KILLED
    assert results == {"a": "done", "b": "done", "c": "done"}


def test_the_end_of_the_scheduler_is_reported(scheduler, tmp_path):
    with worker(scheduler.address):
        results = run_on_cluster(
            [f"task {i}" for i in range(40)], SlowStages(tmp_path), scheduler.address, 1, print
        )
        next(results)
        scheduler.process.kill()
        with pytest.raises(UnavailableError, match="the dask scheduler has ended"):
            list(results)


def are_being_written(derivatives):
    """Whether the folder of a subject contains a temporary folder."""
    folders = os.walk(derivatives)
    next(folders, None)  # the folder of the data set itself
    return any(name.startswith(PREFIX) for _, names, _ in folders for name in names)


@pytest.fixture
def default_port_is_occupied():
    """Occupy the default port of the dashboard of dask."""
    with socket.socket() as own:
        with suppress(OSError):  # another program uses it
            own.bind(("", 8787))
            own.listen()
        yield


@pytest.mark.usefixtures("default_port_is_occupied")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_stopped_run_prints_a_message_and_leaves_complete_maps(study, derivatives, number):
    line = ("--bids", study, "--derivatives", derivatives, "--dask", "local", "--n-jobs", 2)
    with module("aslkit.cli.fit_ls", *line, output=subprocess.PIPE) as process:
        wait_for(lambda: are_being_written(derivatives) or process.poll() is not None)
        os.killpg(process.pid, number)  # like Ctrl-C
        _, errors = process.communicate(timeout=60)
    assert process.returncode == 128 + number, errors
    assert errors == f"Stopped by {number.name}; files written so far are complete\n"
    assert not list(derivatives.rglob(f"{PREFIX}*"))
    assert "0 failed" in run(study, derivatives, "--skip-existing")


def test_the_maps_have_the_same_bytes_as_those_of_one_process(scheduler, study, derivatives):
    with worker(scheduler.address):
        printed = run(study, derivatives, "--dask", scheduler.address)
    assert "Dashboard of the cluster: http" in printed
    assert f"{N_SCANS} scans: {N_SCANS} done, 0 skipped, 0 failed" in printed
    alone = derivatives.with_name("alone")
    run(study, alone)
    assert images(derivatives) == images(alone) and len(images(alone)) > N_SCANS


def test_a_validation_on_a_cluster_gives_the_same_results(study, tmp_path):
    found = []
    for name, options in (("alone", ()), ("cluster", ("--dask", "local", "--n-jobs", "2"))):
        line = ["--bids", str(study), "--session-label", "b", "a", "--out", str(tmp_path / name)]
        done = CliRunner().invoke(asl_validate, [*line, *options])
        assert done.exit_code == 0, done.output
        found.append((tmp_path / name / "results.tsv").read_bytes())
    assert found[0] == found[1] and b"sub-03_ses-a" in found[0] and b"sub-01" not in found[0]


def test_only_the_task_that_kills_its_workers_is_lost(tmp_path):
    tasks = ["a", "b", "deadly", "c", "once"]
    results = results_of(tasks, DyingStages(tmp_path), "local", 2)
    assert results.pop("deadly") == KILLED
    assert results == {task: "done" for task in tasks if task != "deadly"}


def test_slurm_workers_use_the_dask_configuration(study, derivatives, tmp_path, monkeypatch):
    pytest.importorskip("dask_jobqueue")
    import dask as configured  # dask_jobqueue has added its defaults

    folder = tmp_path / "slurm commands"
    folder.mkdir()
    sbatch, scancel = folder / "sbatch", folder / "scancel"
    sbatch.write_text(
        f'#!/bin/sh\ncat "$1" >"{folder}/script"\n'
        f'setsid bash "{folder}/script" >/dev/null 2>&1 &\necho $! >"{folder}/pid"\n'
        'echo "Submitted batch job 7"\n'
    )
    scancel.write_text(f'#!/bin/sh\nkill -- -"$(cat "{folder}/pid")"\n')
    for path in (sbatch, scancel):
        path.chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")
    settings = {"cores": 1, "memory": "1GB", "queue": "short", "interface": "lo"}
    with configured.config.set({f"jobqueue.slurm.{k}": v for k, v in settings.items()}):
        printed = run(study, derivatives, "--dask", "slurm", "--n-jobs", "1")
    assert f"{N_SCANS} done" in printed and "#SBATCH -p short" in (folder / "script").read_text()


def test_a_failed_scan_is_recorded_as_without_dask(study, derivatives):
    (study / "sub-02" / "perf" / "sub-02_asl.nii.gz").write_bytes(b"no image")
    run(study, derivatives, "--dask", "local", code=4)
    assert "sub-02" in (derivatives / "failed.tsv").read_text()
    before = contents(derivatives)
    printed = run(study, derivatives, "--dask", "local", "--skip-existing", code=4)
    assert f"0 done, {N_SCANS - 1} skipped, 1 failed" in printed
    assert {k: v for k, v in contents(derivatives).items() if k != "failed.tsv"} == {
        k: v for k, v in before.items() if k != "failed.tsv"
    }


def test_a_missing_scheduler_or_package_is_named(study, derivatives, monkeypatch):
    monkeypatch.setattr("aslkit.batch.dask_cluster.CONNECT_TIMEOUT_S", 0.5)
    printed = run(study, derivatives, "--dask", "tcp://127.0.0.1:9", code=5)
    assert "no dask scheduler answers at 'tcp://127.0.0.1:9'" in printed
    assert "goes with --dask local" in run(
        study, derivatives, "--dask", "tcp://127.0.0.1:9", "--n-jobs", "2", code=2
    )
    monkeypatch.setitem(sys.modules, "distributed", None)
    printed = run(study, derivatives, "--dask", "local", code=5)
    assert "distributed is not installed. Fix: pip install 'aslkit[cluster]'" in printed


def test_dask_is_refused_for_a_single_scan():
    done = CliRunner().invoke(asl_fit_ls, ["-i", "a.nii.gz", "-o", "b.nii.gz", "--dask", "local"])
    assert done.exit_code == 2 and "--dask needs --bids DIR" in done.output


@pytest.fixture
def script_path(tmp_path):
    """PATH with the commands of the script; sbatch starts one worker, unless IDLE is set."""
    folder = tmp_path / "commands"
    folder.mkdir()
    python = f'#!/bin/sh\nexec "{sys.executable}" -m'
    commands = {
        "dask": f'{python} dask "$@"\n',
        "asl_fit_ls": f'{python} aslkit.cli.fit_ls "$@"\n',
        "sbatch": "#!/bin/bash\n"
        'if [ -z "$IDLE" ]; then\n'
        f'    setsid bash -c "${{!#}}" &>/dev/null & echo $! >"{folder}/pid"\n'
        "fi\necho 7\n",
        "scancel": f'#!/bin/sh\necho "$1" >"{folder}/cancelled"\n'
        f'kill -- -"$(cat "{folder}/pid")"\n',
    }
    for name, text in commands.items():
        (folder / name).write_text(text)
        (folder / name).chmod(0o755)
    return f"{folder}{os.pathsep}{os.environ['PATH']}"


def test_the_script_starts_a_cluster_runs_the_command_and_stops_it(
    study, derivatives, script_path
):
    arguments = (2, "asl_fit_ls", study, derivatives, "--t1b", 1.7)
    dry = shell("asl_dask_cluster.sh", "--dry-run", *arguments, PATH=script_path)
    assert dry.returncode == 0 and "(2 times)" in dry.stdout and not derivatives.exists()
    done = shell("asl_dask_cluster.sh", *arguments, PATH=script_path)
    assert done.returncode == 0, done.stderr
    assert f"{N_SCANS} done" in done.stdout
    assert not list((derivatives / "logs").glob("*.json"))


def test_the_script_submits_workers_and_cancels_them(study, derivatives, script_path, tmp_path):
    arguments = ("--slurm", 1, "asl_fit_ls", study, derivatives)
    done = shell("asl_dask_cluster.sh", *arguments, PATH=script_path)
    assert done.returncode == 0, done.stderr
    assert f"{N_SCANS} done" in done.stdout
    assert (tmp_path / "commands" / "cancelled").read_text() == "7\n"


def test_a_stopped_script_stops_its_workers(study, derivatives, script_path, tmp_path):
    line = ("--slurm", "1", "asl_fit_ls", str(study), str(derivatives))
    script = subprocess.Popen(
        ["bash", str(BIN / "asl_dask_cluster.sh"), *line],
        env={**os.environ, "PATH": script_path, "IDLE": "yes"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    assert "workers so far: 0" in script.stdout.readline()
    script.terminate()
    _, errors = script.communicate(timeout=60)  # returns when all processes have closed the pipe
    assert script.returncode == 128 + signal.SIGTERM
    assert "Stopped by SIGTERM; files written so far are complete" in errors
    assert (tmp_path / "commands" / "cancelled").exists()


def test_a_worker_that_restarts_while_its_cluster_closes_is_no_error():
    with _ignore_restart():
        raise AssertionError(RESTARTING)
    with pytest.raises(AssertionError, match="another"), _ignore_restart():
        raise AssertionError("another")
    with pytest.raises(UnavailableError, match="first"), _ignore_restart():
        try:
            raise UnavailableError("first")
        finally:
            raise AssertionError(RESTARTING)
