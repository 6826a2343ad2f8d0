"""Property tests try the same examples everywhere; a small data set for all who need one."""

import shutil
import signal

import pytest
from hypothesis import settings
from scans import write_scan

settings.register_profile("repeatable", derandomize=True, deadline=None)
settings.load_profile("repeatable")


@pytest.fixture
def study(tmp_path):
    """Three subjects, the third with two sessions."""
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
    """SIGINT works as in a terminal, also where the tests run in the background."""
    previous = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, previous)
