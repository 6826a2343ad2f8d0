"""The same input gives the same bytes, wherever it lies, and however the work is shared out."""

import os
import shutil
import subprocess
import sys

import numpy as np
import pytest
from scans import M0, SHAPE, SIDECAR, save, volumes, write_m0, write_scan

MAPS = ("-o", "out/cbf.nii.gz", "--fitted", "--diagnostics")


def run(command, folder, *arguments, threads=1):
    """Run a command; arguments that name a file of the folder, or one in `out`, made absolute."""
    is_place = [str(a).startswith("out") or (folder / str(a)).exists() for a in arguments]
    words = [str(folder / a if p else a) for a, p in zip(arguments, is_place, strict=True)]
    environment = {**os.environ, "OMP_NUM_THREADS": str(threads)}
    line = [sys.executable, "-m", f"aslkit.cli.{command}", *words]
    done = subprocess.run(line, capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr


def contents(folder, unlike=()):
    """Bytes of every file of a result, lines that begin with one of `unlike` left out."""
    return {
        path.relative_to(folder): [
            line for line in path.read_bytes().splitlines() if not line.strip().startswith(unlike)
        ]
        for path in sorted(folder.rglob("*"))
        if path.is_file() and "logs" not in path.parts
    }


def add_subject(folder):
    """A second subject with the scans of the first."""
    shutil.copytree(folder / "sub-01", folder / "sub-02")
    for path in list((folder / "sub-02").rglob("sub-01*")):
        content = path.read_bytes().replace(b"sub-01", b"sub-02")
        path.with_name(path.name.replace("sub-01", "sub-02")).write_bytes(content)
        path.unlink()


@pytest.fixture
def places(tmp_path):
    """Two folders of the same scan with a separate M0, masks and a map of ATT."""
    places = tmp_path / "here", tmp_path / "some where" / "else"
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


SCAN = ("-i", "sub-01/perf/sub-01_asl.nii.gz")


@pytest.mark.parametrize(
    ("command", "options"),
    [
        ("fit_ls", MAPS),
        ("fit_ls", ("-o", "out/cbf.nii.gz", "--m0", "m0.nii.gz", "--att", "att.nii.gz")),
        ("fit_ls", ("-o", "out/cbf.nii.gz", "--outliers", "0.1", "--moco")),
        ("predict", (*MAPS, "--tta", "--ood")),
    ],
)
def test_maps_of_a_scan_are_the_same_bytes_in_any_folder_with_any_threads(
    places, command, options
):
    for threads, place in enumerate(places, start=1):
        run(command, place, *SCAN, *options, threads=threads)
    here, elsewhere = (contents(place / "out") for place in places)
    assert here == elsewhere and len(here) > 8
    folders = [str(place).encode() for place in places]
    assert not any(f in line for lines in here.values() for line in lines for f in folders)


@pytest.mark.parametrize("command", ["fit_ls", "predict"])
def test_maps_of_a_data_set_are_the_same_bytes_with_any_number_of_jobs(places, command):
    for n_jobs, place in enumerate(places, start=1):
        add_subject(place)
        out = place / "derivatives" / "aslkit"
        run(command, place, "--bids", place, "--derivatives", out, "--n-jobs", n_jobs)
    here, elsewhere = (
        contents(place / "derivatives", unlike=b'"CommandLine"') for place in places
    )
    assert here == elsewhere and len(here) > 20


def test_figures_of_a_validation_are_the_same_bytes_with_any_number_of_jobs(places):
    for n_jobs, place in enumerate(places, start=1):
        add_subject(place)
        run("validate", place, "--bids", place, "--out", "out", "--n-jobs", n_jobs)
    here, elsewhere = ((place / "out" / "results.tsv").read_bytes() for place in places)
    assert here == elsewhere and len(here) > 1000
