"""asl_validate on phantoms and on a scan: table, self-checks, files and errors."""

import csv
import json

import numpy as np
import pytest
from click.testing import CliRunner

from aslkit.cli.sim import main as asl_sim
from aslkit.cli.validate import main as asl_validate
from aslkit.simulate.phantoms import brain_phantom, save_phantom

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def phantoms(tmp_path_factory):
    folder = tmp_path_factory.mktemp("phantoms")
    for seed in (11, 12):
        brain = brain_phantom(f"brain-{seed}", seed, voxel_size_mm=8, matrix=(23, 27, 4))
        save_phantom(brain, folder)
    return folder


@pytest.fixture(scope="module")
def on_phantoms(phantoms, tmp_path_factory):
    out = tmp_path_factory.mktemp("out") / "report"
    command = ["--phantoms", phantoms, "--model", "small", "--quick", "--protocol", "joint6"]
    command += ["--snr", "3"]
    return out, CliRunner().invoke(asl_validate, [*map(str, command), "--out", str(out)])


@pytest.fixture(scope="module")
def in_vivo(tmp_path_factory):
    folder = tmp_path_factory.mktemp("study")
    command = ["--out", folder / "sim", "--protocol", "pcasl6", "--repeats", 4, "--snr", 5]
    simulated = CliRunner().invoke(asl_sim, [*map(str, command), "--voxel-size", "10"])
    assert simulated.exit_code == 0, simulated.output
    out = folder / "report"
    command = ["--bids", folder / "sim", "--model", "voxelwise", "--out", out]
    return out, CliRunner().invoke(asl_validate, [*map(str, command)])


def table(out):
    with (out / "results.tsv").open() as file:
        return list(csv.DictReader(file, delimiter="\t"))


def value(rows, **wanted):
    (row,) = (r for r in rows if all(r[k] == v for k, v in wanted.items()))
    return float(row["value"])


def test_phantoms_give_a_table_a_page_and_passed_self_checks(on_phantoms):
    out, done = on_phantoms
    assert done.exit_code == 0, done.output
    assert sorted(p.name for p in out.iterdir()) == ["report.html", "results.json", "results.tsv"]
    page = (out / "report.html").read_text()
    assert page.count("data:image/png;base64,") >= 3 and "http://" not in page
    assert json.loads((out / "results.json").read_text())
    assert "joint6" in done.output and "ratio" in done.output


def test_the_table_compares_the_model_with_least_squares_on_the_same_voxels(on_phantoms):
    rows = table(on_phantoms[0])
    common = {"track": "matched", "snr": "3", "stratum": "brain", "quantity": "att"}
    own, ls = (value(rows, metric="MAE", estimator=e, **common) for e in ("small", "LS"))
    ratio = value(rows, metric="MAE / LS", estimator="small", **common)
    assert ratio == pytest.approx(own / ls, rel=1e-4) and ratio < 0.6
    counts = {
        r["n_voxels"]
        for r in rows
        if r["stratum"] == "brain" and r["metric"] == "MAE" and r["estimator"] != "Cramér-Rao"
    }
    assert len(counts) == 1


def test_the_json_has_the_speed_and_memory_of_each_estimator(on_phantoms):
    speeds = json.loads((on_phantoms[0] / "results.json").read_text())["speeds"]
    names = {"LS", "LS + arterial", "LS oracle", "smoothed LS", "small"}
    assert {s["estimator"] for s in speeds} == names
    assert all(s["voxels_per_second"] > 100 and 50 < s["peak_mib"] < 50_000 for s in speeds)


def test_the_prediction_error_of_left_out_repeats_has_the_expected_size(in_vivo):
    out, done = in_vivo
    assert done.exit_code == 0, done.output
    rows = table(out)
    common = {"metric": "left-out RMS", "stratum": "mask"}
    one, two = (value(rows, estimator="LS", n_repeats=str(n), **common) for n in (1, 2))
    average = value(rows, estimator="average of the repeats", n_repeats="2", **common)
    noise = 100 * 0.00616 / 5 * np.sqrt(2)  # noise of the mean of half of the repeats [% of M0]
    assert noise < two < one
    assert average == pytest.approx(np.sqrt(2) * noise, rel=0.1)
    assert (out / "report.html").read_text().count("data:image/png;base64,") >= 2


def test_shipped_phantoms_are_those_of_the_installation(tmp_path, monkeypatch):
    monkeypatch.setattr("aslkit.simulate.resources.phantoms_folder", lambda: tmp_path)
    command = ["--phantoms", "shipped", "--out", str(tmp_path / "report")]
    done = CliRunner().invoke(asl_validate, command)
    assert done.exit_code == 3 and f"phantoms: {tmp_path}\n" in done.output
    assert f"Error: {tmp_path}: found no phantom" in done.output


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        ([], 2, "give either --phantoms shipped|DIR or --bids DIR"),
        (["--phantoms", "{empty}"], 3, "found no phantom"),
        (["--phantoms", "{empty}/none"], 3, "Fix: give --phantoms shipped"),
        (["--phantoms", "{phantoms}", "--model", "best"], 5, "model 'best' is not there"),
        (["--phantoms", "{phantoms}", "--protocol", "pcasl"], 3, "found pcasl, expected one of"),
        (["--phantoms", "{phantoms}", "--snr", "0"], 2, "--snr must be positive"),
        (["--bids", "{empty}", "--snr", "3"], 2, "are for --phantoms"),
        (["--bids", "{empty}", "--quick"], 2, "are for --phantoms"),
        (["--bids", "{empty}", "--mc-dropout", "4"], 2, "are for --phantoms"),
        (["--bids", "{empty}"], 3, "Error: "),
    ],
)
def test_wrong_options_are_refused_and_write_nothing(phantoms, tmp_path, arguments, code, message):
    (tmp_path / "empty").mkdir()
    given = [a.format(empty=tmp_path / "empty", phantoms=phantoms) for a in arguments]
    done = CliRunner().invoke(asl_validate, [*given, "--out", str(tmp_path / "report")])
    assert done.exit_code == code and message in done.output
    assert not (tmp_path / "report").exists()
