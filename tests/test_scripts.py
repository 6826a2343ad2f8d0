"""Every script of bin/ runs on small data and prints its results."""

import json
import re
import sys
from importlib import import_module
from pathlib import Path
from subprocess import Popen
from types import SimpleNamespace

import numpy as np
import pytest
from scans import SHAPE, head, save

from aslkit.cli.sim import main as asl_sim
from aslkit.config import load_config
from aslkit.fit.least_squares import fit_least_squares
from aslkit.simulate.phantoms import brain_phantom

BIN = Path(__file__).parents[1] / "bin" / "dev"
WITH_OPTIONS = sorted(p.stem for p in BIN.glob("*.py") if "ArgumentParser" in p.read_text())
TINY = (
    "network.widths=[8,8]",
    "data.patch_size=16",
    "data.protocols_per_step=1",
    "data.patches_per_protocol=2",
)


@pytest.fixture
def run(monkeypatch, capsys):
    """Return a function that runs a script in this process and returns its printed lines."""
    for folder in (BIN, BIN.parent):
        monkeypatch.syspath_prepend(str(folder))

    def run(name, *arguments, **changes):
        script = import_module(name)
        for constant, value in changes.items():
            monkeypatch.setattr(script, constant, value)
        monkeypatch.setattr(sys, "argv", [name, *map(str, arguments)])
        script.main()
        return [line for line in capsys.readouterr().out.splitlines() if line]

    return run


def coarse_brain(name, seed, *_):
    return brain_phantom(name, seed, voxel_size_mm=12)


def coarse_sim(options, **how):
    asl_sim([*options, "--voxel-size", "6"], **how)


@pytest.mark.parametrize("name", WITH_OPTIONS)
def test_the_help_of_a_script_starts_with_its_docstring(run, capsys, name):
    with pytest.raises(SystemExit, match="0"):
        run(name, "--help")
    first = import_module(name).__doc__.splitlines()[0]
    assert "".join(first.split()) in "".join(capsys.readouterr().out.split())


@pytest.mark.slow
@pytest.mark.parametrize(
    ("part", "n_lines"),
    [
        ("speed", 6),
        ("efficiency", 6),
        ("coverage", 9),
        ("free-t1", 6),
        ("optimum", 6),
        ("arteries", 8),
    ],
)
def test_benchmark_fit_prints_a_table(run, part, n_lines):
    tiny = {"N_LOOP": 5, "N_RUNS": 1, "N_CURVES": 2000, "N_BRAINS": 1}
    _, title, *lines = run("benchmark_fit", part, brain_phantom=coarse_brain, **tiny)
    assert title and len(lines) == n_lines
    assert not any("nan" in line for line in lines)


def test_benchmark_limits_prints_error_bounds(run):
    brain = coarse_brain("brain", 8)
    sets = {"phantom_sets": lambda _: {"brain": [brain]}, "SNRS": (10,)}
    *_, joint, single = run("benchmark_limits", "joint6", "pcasl6", **sets)
    numbers = [[float(cell) for cell in row.split("|")[2:5]] for row in (joint, single)]
    assert 0.9 < numbers[0][0] < 1 and 0.5 < numbers[1][0] < 0.8
    assert all(0.4 < area < 1 for row in numbers for area in row[1:])


@pytest.mark.slow
@pytest.mark.parametrize(
    ("part", "n_least"),
    [("resources", 1), ("patches", 8), ("places", 9), ("uncertainty", 4), ("rivals", 4)],
)
def test_benchmark_predict_prints_a_table(run, part, n_least):
    """Use a small model, and replace the command of `resources` and the network of `places`."""
    changes = {"SIZES": ((16, 16, 4),), "N_LOOP": 5, "DEFAULT_MODEL": "voxelwise"}
    changes |= {"brain_phantom": coarse_brain, "sys": SimpleNamespace(executable="true")}
    if part == "places":
        changes["predict_maps"] = lambda series, *_, **__: fit_least_squares(series)
    _, title, *lines = run("benchmark_predict", part, **changes)
    assert title and len(lines) >= n_least
    assert not any("nan" in line for line in lines)


@pytest.mark.parametrize("part", ["signals", "batches", "share", "brains", "readback"])
def test_benchmark_sim_prints_a_table(run, part):
    tiny = {"N_SCANS": 2, "N_BATCHES": 1, "WARM_STEPS": 1, "LAST_STEP": 2, "N_SUBJECTS": 1}
    tiny["load_config"] = lambda name, changes: load_config(name, (*changes, *TINY))
    tiny |= {"DATA": load_config("small", TINY).data, "asl_sim": coarse_sim}
    _, title, *lines = run("benchmark_sim", part, **tiny)
    assert title and lines


def test_benchmark_train_prints_rates(run):
    changes = [part for change in TINY for part in ("--set", change)]
    _, *lines = run("benchmark_train", "small", "--steps", 2, *changes, N_BATCHES=1)
    rates = [re.fullmatch(r"small: .*: (\d+) patches/s", line) for line in lines]
    assert len(rates) == 3 and all(rates)


@pytest.mark.slow
def test_benchmark_adaptation_prints_a_table(run):
    changes = {"SCANS": "--protocol pcasl6 --voxel-size 9 --repeats 2 --deltam"}
    changes |= {"SUBJECTS": ["sub-01", "sub-02"], "WAYS": {"adapted": "exp14"}}
    changes["BUDGET"] = "data.patch_size=16 data.protocols_per_step=1"
    _, *table = run("benchmark_adaptation", "--steps", 1, "--adapt-to", 1, **changes)
    names = [row.split("|")[1].strip() for row in table[2:]]
    assert names == ["least squares", "exp21", "adapted"]
    assert all(row.count("0 of 1") + row.count("1 of 1") == 2 for row in table[2:])
    assert not any("nan" in row for row in table)


def test_benchmark_batch_measures_time_and_memory(run, monkeypatch, capsys):
    monkeypatch.syspath_prepend(str(BIN))
    batch = import_module("benchmark_batch")
    seconds, memory = batch.watched(Popen(["sleep", "1"], start_new_session=True))
    assert seconds > 0.5 and max(memory) > 0
    batch.show("--n-jobs 2", 50.0, memory, 100)
    batch.project("--n-jobs 2", 50.0, 1.5, 100)
    printed = capsys.readouterr().out
    assert "0.50 s per subject, 7200 per hour" in printed and "efficiency 75%" in printed


def test_the_demo_compares_maps_with_the_truth(run, tmp_path):
    inside = head().astype(np.float32)
    for label, cbf in (("ls", 62.0), ("network", 59.0)):
        for kind, value in (("cbf", cbf), ("att", 1.0), ("cbf-std", 3.0), ("att-std", 0.1)):
            save(tmp_path / f"a_desc-{label}_{kind}.nii.gz", value * inside)
        save(tmp_path / f"a_desc-{label}_flags.nii.gz", np.zeros(SHAPE, np.uint8))
    truth = [save(tmp_path / f"{k}.nii.gz", v * inside) for k, v in (("cbf", 60), ("att", 1.1))]
    text = "\n".join(run("demo_report", tmp_path / "a", *truth))
    assert re.search(r"network .* 1\.00 +100", text) and re.search(r"squares .* 2\.00 +100", text)
    assert (tmp_path / "maps.png").exists() and (tmp_path / "report.html").exists()


def test_card_calibration_writes_the_calibration_to_the_card(run, tmp_path):
    record = {"estimator": "net", "phantoms": "brain", "track": "matched", "stratum": "brain"}
    record |= {"quantity": "cbf", "protocol": "pasl8", "snr": 3.0}
    records = [
        {**record, "metric": f"coverage {level} %", "value": level / 100} for level in (50, 80, 95)
    ]
    results, card = tmp_path / "results.json", tmp_path / "model.json"
    results.write_text(json.dumps({"records": records}))
    card.write_text('{"name": "net"}')
    (shown,) = [json.loads("".join(run("card_calibration", results, "net")))]
    assert run("card_calibration", results, "net", card) == []
    assert json.loads(card.read_text()) == {"name": "net", **shown}
    assert shown["calibration"]["covered"] == {"matched": {"cbf": {"3": [0.5, 0.8, 0.95]}}}
