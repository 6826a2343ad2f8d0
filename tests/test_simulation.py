"""Simulated scans and their files: SNR, reproducibility, the way back."""

import numpy as np
import pytest
from click.testing import CliRunner

from aslkit.bids import read_run
from aslkit.cli.sim import main as asl_sim
from aslkit.fitting import FitSettings, fit_least_squares
from aslkit.phantoms import brain_phantom, shape_phantom
from aslkit.preprocess import series_from_runs
from aslkit.simulation import (
    PROTOCOLS,
    REFERENCE_SIGNAL,
    clean_signal,
    noise_sd,
    simulate_series,
)
from aslkit.subjects import SubjectPhysics


@pytest.fixture(scope="module")
def brain():
    return brain_phantom("brain", 5, voxel_size_mm=6)


def run(*arguments):
    return CliRunner().invoke(asl_sim, [str(a) for a in arguments])


def test_the_reference_signal_is_that_of_the_reference_voxel():
    expected = 2 * 0.85 * 60 / 6000 / 0.9 * 1.65 * np.exp(-2 / 1.65) * (1 - np.exp(-1.8 / 1.65))
    assert pytest.approx(expected, rel=1e-3) == REFERENCE_SIGNAL


@pytest.mark.parametrize("snr", [0.5, 3, 100])
def test_the_measured_snr_is_the_one_asked_for(brain, snr):
    acquisition = PROTOCOLS["pcasl6"].acquisition(brain.mask.shape[2])
    series = simulate_series(brain, acquisition, snr, seed=1)
    noise = series.delta_m - clean_signal(brain, SubjectPhysics(acquisition))
    assert pytest.approx(snr, rel=0.02) == REFERENCE_SIGNAL / noise.std()


def test_partial_volume_mixes_signals(brain):
    acquisition = PROTOCOLS["joint6"].acquisition(brain.mask.shape[2])
    whole = clean_signal(brain, SubjectPhysics(acquisition))
    assert whole[~brain.mask].max() == 0
    late = whole[..., 5][brain.mask] / np.maximum(brain.cbf[brain.mask], 1)
    assert 1e-5 < np.median(late) < 1e-4


def test_a_simulated_joint_scan_is_read_back_and_fitted(tmp_path):
    done = run(
        *("--out", tmp_path / "sim", "--protocol", "joint6", "--anatomy", "ramp"),
        *("--snr", 200, "--repeats", 2, "--seed", 4),
    )
    assert done.exit_code == 0, done.output
    folder = tmp_path / "sim" / "sub-01" / "perf"
    runs = [read_run(folder / f"sub-01_acq-{a}_asl.nii.gz") for a in ("pcasl", "vsasl")]
    series = series_from_runs(runs)
    assert series.acquisition.n_timings == 12
    phantom = shape_phantom("ramp", 4)
    maps = fit_least_squares(series, FitSettings(macrovascular="off"))
    error = np.abs(maps.cbf - phantom.cbf)[phantom.mask]
    assert np.median(error) < 0.3
    assert np.median(series.noise_sd[phantom.mask]) == pytest.approx(noise_sd(200), rel=0.15)
    assert (tmp_path / "sim" / ".bidsignore").read_text() == "*_acq-vsasl_*\n"


@pytest.mark.parametrize("protocol", ["pasl8", "pcasl6-2d"])
def test_every_kind_of_sidecar_is_read_back(tmp_path, protocol):
    done = run("--out", tmp_path / "sim", "--protocol", protocol, "--anatomy", "uniform")
    assert done.exit_code == 0, done.output
    scan = read_run(tmp_path / "sim" / "sub-01" / "perf" / "sub-01_asl.nii.gz")
    series = series_from_runs([scan])
    assert series.acquisition == PROTOCOLS[protocol].acquisition(4)


def test_a_protocol_of_ones_own_is_simulated_with_arteries(tmp_path):
    own = ("--labeling", "casl", "--plds", "0.3,0.9,1.5", "--label-duration", 1.6)
    coarse = ("--voxel-size", 8, "--snr", 1000)
    for name, extra in (("plain", ()), ("arterial", ("--macrovascular",))):
        done = run("--out", tmp_path / name, *own, *coarse, *extra)
        assert done.exit_code == 0, done.output
    plain, arterial = (
        series_from_runs([read_run(tmp_path / n / "sub-01" / "perf" / "sub-01_asl.nii.gz")])
        for n in ("plain", "arterial")
    )
    assert [t.pld_s for t in plain.acquisition.timings] == [0.3, 0.9, 1.5]
    assert {(t.labeling, t.label_duration_s) for t in plain.acquisition.timings} == {("casl", 1.6)}
    assert plain.voxel_size_mm == (8, 8, 8)
    early = (arterial.delta_m - plain.delta_m)[plain.mask][:, 0]
    assert np.nanmax(early) > 0.005


def test_the_same_seed_gives_the_same_bytes(tmp_path):
    for name in ("a", "b"):
        assert run("--out", tmp_path / name, "--anatomy", "disc", "--seed", 3).exit_code == 0
    first = sorted(p for p in (tmp_path / "a").rglob("*") if p.is_file())
    second = sorted(p for p in (tmp_path / "b").rglob("*") if p.is_file())
    assert len(first) > 15 and len(first) == len(second)
    assert all(a.read_bytes() == b.read_bytes() for a, b in zip(first, second, strict=True))


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["--protocol", "joint7"], 3, "--protocol: found joint7, expected one of joint6"),
        (["--plds", "500,1000"], 3, "--plds: found PLD 500.0 s is outside 0-20 s"),
        (["--plds", "1,2", "--protocol", "joint6"], 2, "not both"),
    ],
)
def test_wrong_options_leave_nothing_behind(tmp_path, arguments, code, message):
    done = run("--out", tmp_path / "sim", *arguments)
    assert done.exit_code == code and message in done.output
    assert not list(tmp_path.iterdir())


def test_an_existing_folder_is_not_touched(tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    done = run("--out", tmp_path, "--anatomy", "disc")
    assert done.exit_code == 3 and "found existing files, expected a new folder" in done.output
    assert [p.name for p in tmp_path.iterdir()] == ["notes.txt"]
