"""The same input gives the same bytes in any folder, with any number of threads or jobs."""

import json
import os
import shutil
import subprocess
import sys

import numpy as np
import pytest
from click.testing import CliRunner
from scans import M0, SHAPE, SIDECAR, save, volumes, write_m0, write_scan

from aslkit.cli.fit_ls import main as asl_fit_ls
from aslkit.cli.predict import main as asl_predict
from aslkit.cli.validate import main as asl_validate

pytestmark = pytest.mark.slow

SCAN = ("-i", "sub-01/perf/sub-01_asl.nii.gz")
MAPS = ("-o", "out/cbf.nii.gz", "--fitted", "--diagnostics")
LINES = (
    ("fit_ls", *SCAN, *MAPS),
    ("fit_ls", *SCAN, "-o", "out/cbf.nii.gz", "--m0", "m0.nii.gz", "--att", "att.nii.gz"),
    ("fit_ls", *SCAN, "-o", "out/cbf.nii.gz", "--outliers", "0.1", "--moco"),
    ("predict", *SCAN, *MAPS, "--tta", "--ood"),
)
RUN_LINES = """
import importlib, json, sys
for command, *words in json.load(sys.stdin):
    sys.argv = [f"asl_{command}", *words]
    importlib.import_module(f"aslkit.cli.{command}").main(words, standalone_mode=False)
"""


def run_with_threads(n_threads, folder):
    """Run the command lines in a process with `n_threads` threads; outputs are out-0, out-1, …"""
    lines = [
        [str(folder / f"out-{k}" / w[4:]) if w.startswith("out/") else w for w in words]
        for k, words in enumerate(LINES)
    ]
    lines = [[str(folder / w) if (folder / w).exists() else w for w in words] for words in lines]
    done = subprocess.run(
        [sys.executable, "-c", RUN_LINES],
        input=json.dumps(lines),
        capture_output=True,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": str(n_threads)},
    )
    assert done.returncode == 0, done.stderr


def run(command, *words):
    """Run a command in this process."""
    done = CliRunner().invoke(command, [str(word) for word in words])
    assert done.exit_code == 0, done.output


def contents(folder, unlike=()):
    """Return the lines of every file, except lines that start with one of `unlike`."""
    return {
        path.relative_to(folder): [
            line for line in path.read_bytes().splitlines() if not line.strip().startswith(unlike)
        ]
        for path in sorted(folder.rglob("*"))
        if path.is_file() and "logs" not in path.parts
    }


def add_subject(folder):
    """Add a second subject with the scans of the first."""
    shutil.copytree(folder / "sub-01", folder / "sub-02")
    for path in list((folder / "sub-02").rglob("sub-01*")):
        content = path.read_bytes().replace(b"sub-01", b"sub-02")
        path.with_name(path.name.replace("sub-01", "sub-02")).write_bytes(content)
        path.unlink()


def make_places(folder):
    """Write the same scan, with a separate M0 and an ATT map, to two folders."""
    places = folder / "here", folder / "some where" / "else"
    image = volumes()
    timing = SIDECAR["PostLabelingDelay"][1:]
    contexts = ("label", "control") * 6
    for place in places:
        fields = {"M0Type": "Separate", "PostLabelingDelay": timing}
        scan = write_scan(place, fields, contexts, image[..., 1:])
        write_m0(scan, image[..., 0])
        save(place / "m0.nii.gz", np.full(SHAPE, M0, np.float32))
        save(place / "att.nii.gz", np.full(SHAPE, 0.9, np.float32))
    return places


@pytest.fixture
def places(tmp_path):
    """Return two data sets with the same two subjects."""
    places = make_places(tmp_path)
    for place in places:
        add_subject(place)
    return places


@pytest.fixture(scope="module")
def by_threads(tmp_path_factory):
    """Run every command line with one and with two threads; return the two folders."""
    places = make_places(tmp_path_factory.mktemp("threads"))
    for n_threads, place in enumerate(places, start=1):
        run_with_threads(n_threads, place)
    return places


@pytest.mark.parametrize("k", range(len(LINES)), ids=[" ".join(words[3:]) for words in LINES])
def test_maps_of_a_scan_have_the_same_bytes_in_any_folder_with_any_number_of_threads(
    by_threads, k
):
    here, elsewhere = (contents(place / f"out-{k}") for place in by_threads)
    assert here == elsewhere and len(here) > 8
    folders = [str(place).encode() for place in by_threads]
    assert not any(f in line for lines in here.values() for line in lines for f in folders)


@pytest.mark.parametrize("command", [asl_fit_ls, asl_predict], ids=["fit_ls", "predict"])
def test_maps_of_a_data_set_have_the_same_bytes_with_any_number_of_jobs(places, command):
    for n_jobs, place in enumerate(places, start=1):
        out = place / "derivatives" / "aslkit"
        run(command, "--bids", place, "--derivatives", out, "--n-jobs", n_jobs)
    here, elsewhere = (
        contents(place / "derivatives", unlike=b'"CommandLine"') for place in places
    )
    assert here == elsewhere and len(here) > 20


def test_results_of_a_validation_have_the_same_bytes_with_any_number_of_jobs(places):
    for n_jobs, place in enumerate(places, start=1):
        run(asl_validate, "--bids", place, "--out", place / "out", "--n-jobs", n_jobs)
    here, elsewhere = ((place / "out" / "results.tsv").read_bytes() for place in places)
    assert here == elsewhere and len(here) > 1000
