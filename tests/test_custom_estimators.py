"""Estimators of other packages: their names, their errors, and both ways to evaluate them."""

import json
from importlib.metadata import EntryPoint

import numpy as np
import pytest
from click.testing import CliRunner

from aslkit.cli.sim import main as asl_sim
from aslkit.cli.validate import main as asl_validate
from aslkit.core.errors import InputError, UnavailableError
from aslkit.fit.least_squares import fit_least_squares
from aslkit.fit.settings import FreeAtt
from aslkit.simulate.phantoms import brain_phantom, save_phantom, shape_phantom
from aslkit.simulate.signal import PROTOCOLS, simulate_series
from aslkit.validate.custom_estimators import (
    CustomEstimator,
    load_estimators,
    source_sha256,
    wrap_estimators,
)

SOURCE = """
from dataclasses import replace
from aslkit.fit.least_squares import fit_least_squares
from aslkit.fit.settings import FreeAtt

number = 3

def raised(series):
    maps = fit_least_squares(series, FreeAtt())
    return replace(maps, cbf=1.1 * maps.cbf)

def no_maps(series):
    return series.delta_m

class Methods:
    raised = raised
"""


@pytest.fixture
def module(tmp_path, monkeypatch):
    """Name of a module in the current folder, which Python does not search by itself."""
    name = f"method_{tmp_path.name}".replace("-", "_")
    (tmp_path / f"{name}.py").write_text(SOURCE)
    (tmp_path / "broken.py").write_text("def (:\n")
    monkeypatch.chdir(tmp_path)
    return name


@pytest.fixture
def series():
    phantom = shape_phantom("disc", 1)
    acquisition = PROTOCOLS["pcasl5"].acquisition(phantom.mask.shape[2])
    return simulate_series(phantom, acquisition, snr=30, seed=1)


def entry_points_of(**values):
    def entry_points(group):
        assert group == "aslkit.estimators"
        return [EntryPoint(name, value, group) for name, value in values.items()]

    return entry_points


def test_a_function_is_found_in_a_module_of_the_current_folder(module, series):
    (estimator,) = wrap_estimators(load_estimators([f"{module}:raised"])).values()
    assert estimator.name == "raised"
    expected = 1.1 * fit_least_squares(series, FreeAtt()).cbf
    np.testing.assert_array_equal(estimator(series).cbf, expected)


def test_an_entry_point_has_its_name_in_the_tables(module, monkeypatch):
    points = entry_points_of(mine=f"{module}:raised")
    monkeypatch.setattr("aslkit.validate.custom_estimators.entry_points", points)
    assert list(load_estimators(["mine", f"{module}:no_maps"])) == ["mine", "no_maps"]


def test_functions_of_one_name_are_told_apart_by_their_modules(module):
    names = [f"{module}:raised", f"{module}:Methods.raised"]
    assert list(load_estimators(names)) == names


def test_importing_leaves_the_search_path_as_it_was(module):
    import sys

    before = list(sys.path)
    load_estimators([f"{module}:raised"])
    assert sys.path == before


def test_the_source_of_a_function_is_part_of_its_fingerprint(module):
    (function,) = load_estimators([f"{module}:raised"]).values()
    assert len(source_sha256(function)) == 64
    assert source_sha256(len) == ""


@pytest.mark.parametrize(
    ("name", "error", "message"),
    [
        ("nothing", UnavailableError, "'nothing' is not installed. Installed estimators: mine."),
        ("absent:f", UnavailableError, "'absent:f' cannot be imported .No module named 'absent'"),
        ("{module}:f", UnavailableError, "cannot be imported .module '.*' has no attribute 'f'"),
        ("broken:f", UnavailableError, "'broken:f' cannot be imported .invalid syntax"),
        ("{module}:number", InputError, "number: found an object of type int, expected a functi"),
    ],
)
def test_estimators_that_cannot_be_loaded(module, monkeypatch, name, error, message):
    points = entry_points_of(mine="a:b")
    monkeypatch.setattr("aslkit.validate.custom_estimators.entry_points", points)
    with pytest.raises(error, match=message):
        load_estimators([name.format(module=module)])


@pytest.mark.parametrize("name", ["LS", "small"])
def test_a_name_that_another_estimator_has_is_refused(name):
    with pytest.raises(InputError, match=f"found the name '{name}', which another estimator"):
        wrap_estimators({name: fit_least_squares}, ["small"])


def test_a_function_must_return_maps_of_the_shape_of_the_series(series):
    with pytest.raises(InputError, match="mine: found a function that returns ndarray"):
        CustomEstimator("mine", lambda s: s.delta_m)(series)
    half = series.cropped((slice(0, 5), slice(None)))
    message = r"mine: found maps of shape \(5, .*expected the shape of the series, \("
    with pytest.raises(InputError, match=message):
        CustomEstimator("mine", lambda s: fit_least_squares(half))(series)


def run(*arguments):
    return CliRunner().invoke(asl_validate, [*map(str, arguments)])


def records_of(out, **where):
    records = json.loads((out / "results.json").read_text())["records"]
    return [r for r in records if all(r[k] == v for k, v in where.items())]


@pytest.mark.slow
def test_a_function_is_evaluated_on_phantoms(module, tmp_path):
    save_phantom(brain_phantom("brain-1", 11, voxel_size_mm=8, matrix=(23, 27, 4)), tmp_path)
    command = ["--phantoms", tmp_path, "--quick", "--protocol", "pcasl5", "--snr", 10]
    command += ["--track", "matched", "--out", tmp_path / "out"]
    done = run(*command, "--estimator", f"{module}:no_maps")
    assert done.exit_code == 3 and "no_maps: found a function that returns" in done.output
    assert not (tmp_path / "out").exists()
    done = run(*command, "--estimator", f"{module}:raised")
    assert done.exit_code == 0, done.output
    where = {"quantity": "cbf", "metric": "slope", "stratum": "brain"}
    (own,) = records_of(tmp_path / "out", estimator="raised", **where)
    (ls,) = records_of(tmp_path / "out", estimator="LS", **where)
    assert own["value"] == pytest.approx(1.1 * ls["value"], rel=1e-5)


@pytest.mark.slow
def test_a_function_is_evaluated_in_vivo(module, tmp_path):
    command = ["--out", tmp_path / "sim", "--protocol", "pcasl6", "--repeats", 4, "--snr", 5]
    simulated = CliRunner().invoke(asl_sim, [*map(str, command), "--voxel-size", "10"])
    assert simulated.exit_code == 0, simulated.output
    command = ["--bids", tmp_path / "sim", "--out", tmp_path / "out", "--estimator"]
    done = run(*command, f"{module}:absent")
    assert done.exit_code == 5 and "has no attribute 'absent'" in done.output
    done = run(*command, f"{module}:raised")
    assert done.exit_code == 0, done.output
    where = {"n_repeats": 4, "metric": "mean over the mask", "quantity": "cbf"}
    (own,) = records_of(tmp_path / "out", estimator="raised", **where)
    (ls,) = records_of(tmp_path / "out", estimator="LS", **where)
    assert own["value"] == pytest.approx(1.1 * ls["value"], rel=1e-5)
