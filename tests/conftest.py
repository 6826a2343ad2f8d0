"""Settings of all tests: repeatable hypothesis examples, fast worker processes, a data set."""

import gc
import multiprocessing
import shutil
import signal

import pytest
from hypothesis import settings
from scans import write_scan

gc.disable()  # during imports, which create no garbage
settings.register_profile("repeatable", derandomize=True, deadline=None)
settings.load_profile("repeatable")

WORKER_IMPORTS = (  # imported by the processes of --n-jobs
    "ready",
    "distributed",
    "pytest",
    "aslkit.cli.fit_ls",
    "aslkit.outputs.maps",
    "aslkit.fit.least_squares",
    "aslkit.predict.inference",
    "aslkit.report.group_report",
    "aslkit.prepare.motion",
    "aslkit.simulate.bids_writer",
)


def pytest_collection_finish():
    gc.enable()
    gc.freeze()


@pytest.fixture(autouse=True, scope="session")
def ready_workers():
    """Start the processes of --n-jobs as forks of a process that has imported everything.

    A command that a test starts in another process starts its processes as for users.
    """
    if "forkserver" not in multiprocessing.get_all_start_methods():
        yield
        return
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(list(WORKER_IMPORTS))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("aslkit.batch.processes.get_context", lambda _: context)
        yield


@pytest.fixture
def own_batches(monkeypatch):
    """Simulate training batches in the main process."""
    monkeypatch.setattr("aslkit.train.distributed.n_data_workers", lambda: 0)


@pytest.fixture
def study(tmp_path):
    """Return a data set of three subjects; the third has two sessions."""
    folder = tmp_path / "my study"
    for subject in ("01", "02", "03"):
        one = write_scan(tmp_path / subject)
        target = folder / f"sub-{subject}" / "perf"
        if subject == "03":
            target = folder / "sub-03" / "ses-a" / "perf"
        target.mkdir(parents=True)
        for path in one.parent.iterdir():
            name = path.name.replace("sub-01", f"sub-{subject}")
            if subject == "03":
                name = name.replace("sub-03", "sub-03_ses-a")
            shutil.copy(path, target / name)
    again = folder / "sub-03" / "ses-b" / "perf"
    again.mkdir(parents=True)
    for path in target.iterdir():
        shutil.copy(path, again / path.name.replace("ses-a", "ses-b"))
    shutil.copy(tmp_path / "01" / "dataset_description.json", folder)
    return folder


@pytest.fixture
def derivatives(study):
    return study / "derivatives" / "aslkit"


@pytest.fixture(autouse=True)
def interruptible():
    """Handle SIGINT as in a terminal, also when the tests run in the background."""
    previous = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, previous)
