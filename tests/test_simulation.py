"""Simulated scans and their files: SNR, reproducibility, and reading them back."""

import json
import shutil
import subprocess
from pathlib import Path
from types import SimpleNamespace

import nibabel as nib
import numpy as np
import pytest
from click.testing import CliRunner

from aslkit.bids.reader import read_run
from aslkit.cli import sim_options
from aslkit.cli.sim import main as asl_sim
from aslkit.core.acquisition import REFERENCE_SIGNAL, Acquisition, protocol
from aslkit.fit.least_squares import fit_least_squares
from aslkit.fit.settings import FreeAtt
from aslkit.kinetics.dispersion import dispersed
from aslkit.kinetics.model import arterial_curve, kinetic_model, tissue_curve
from aslkit.prepare.series import series_from_runs
from aslkit.simulate.artefacts import NOISES
from aslkit.simulate.phantoms import (
    SHAPES,
    brain_phantom,
    shape_phantom,
)
from aslkit.simulate.signal import PROTOCOLS, clean_signal, mixed_signal, noise_sd, simulate_series
from aslkit.simulate.subject_physics import SubjectPhysics, draw_physics


@pytest.fixture(scope="module")
def brain():
    return brain_phantom("brain", 5, voxel_size_mm=6)


def run(*arguments):
    return CliRunner().invoke(asl_sim, [str(a) for a in arguments])


def test_the_reference_signal_is_that_of_the_reference_voxel():
    expected = 2 * 0.85 * 60 / 6000 / 0.9 * 1.65 * np.exp(-2 / 1.65) * (1 - np.exp(-1.8 / 1.65))
    assert pytest.approx(expected, rel=1e-3) == REFERENCE_SIGNAL


@pytest.mark.parametrize("snr", [0.5, 3, 100])
def test_the_measured_snr_is_the_requested_one(brain, snr):
    acquisition = PROTOCOLS["pcasl6"].acquisition(brain.mask.shape[2])
    series = simulate_series(brain, acquisition, snr, seed=1)
    noise = series.delta_m - clean_signal(brain, SubjectPhysics(acquisition))
    assert pytest.approx(snr, rel=0.02) == REFERENCE_SIGNAL / noise.std()


def test_partial_volume_mixes_signals(brain):
    acquisition = PROTOCOLS["joint6"].acquisition(brain.mask.shape[2])
    signal = clean_signal(brain, SubjectPhysics(acquisition))
    assert signal[~brain.mask].max() == 0
    late = signal[..., 5][brain.mask] / np.maximum(brain.cbf[brain.mask], 1)
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
    maps = fit_least_squares(series, FreeAtt())
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


def test_a_custom_protocol_is_simulated_with_arteries(tmp_path):
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


def test_the_same_seed_gives_the_same_bytes_whatever_the_number_of_jobs(tmp_path):
    noisy = ("--noise", ",".join(NOISES), "--n-bs", 2, "--track", "mismatched", "--snr", "3,30")
    for name, n_jobs in (("a", 1), ("b", 2)):
        done = run(
            *("--out", tmp_path / name, "--anatomy", "disc", "--seed", 3),
            *("--participants", 2, "--n-jobs", n_jobs, *noisy),
        )
        assert done.exit_code == 0, done.output
    first = sorted(p for p in (tmp_path / "a").rglob("*") if p.is_file())
    second = sorted(p for p in (tmp_path / "b").rglob("*") if p.is_file())
    assert len(first) > 40 and len(first) == len(second)
    assert all(a.read_bytes() == b.read_bytes() for a, b in zip(first, second, strict=True))


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["--protocol", "joint7"], 3, "--protocol: found joint7, expected one of joint6"),
        (["--plds", "500,1000"], 3, "--plds: found PLD 500.0 s is outside 0-20 s"),
        (["--plds", "1,2", "--protocol", "joint6"], 2, "not both"),
        (["--noise", "thermal,ghosts"], 3, "--noise: found ghosts, expected some of thermal"),
        (["--noise", "suppression"], 3, "found suppression, and no background-suppression pulses"),
        (["--snr", "30,3"], 2, "'30,3' is not a positive number X or a range A,B"),
        (["--snr", "0"], 2, "'0' is not a positive number X"),
        (["--matrix", "20,20,0.5"], 2, "is not three whole numbers like 64,64,24"),
        (["--matrix", "9,9,9", "--anatomy", "disc"], 2, "--matrix is for --anatomy brain"),
    ],
)
def test_wrong_options_leave_no_files(tmp_path, arguments, code, message):
    done = run("--out", tmp_path / "sim", *arguments)
    assert done.exit_code == code and message in done.output
    assert not list(tmp_path.iterdir())


def test_an_existing_folder_is_not_touched(tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    done = run("--out", tmp_path, "--anatomy", "disc")
    assert done.exit_code == 3 and "found existing files, expected a new folder" in done.output
    assert [p.name for p in tmp_path.iterdir()] == ["notes.txt"]


def scan_paths(folder):
    return sorted((folder / "sub-01" / "perf").glob("*_asl.nii.gz"))


def truth(folder, name):
    path = folder / "derivatives" / "truth" / "sub-01" / "perf" / f"sub-01_{name}.nii.gz"
    return nib.load(path).get_fdata(dtype=np.float32)


@pytest.mark.parametrize("kind", ["--raw", "--deltam"])
def test_cbf_of_a_scan_that_is_read_back_is_unbiased_at_snr_10(tmp_path, kind):
    done = run(
        *("--out", tmp_path / "sim", "--protocol", "pcasl6", "--voxel-size", 5, kind),
        *("--snr", 10, "--repeats", 4, "--n-bs", 2),
    )
    assert done.exit_code == 0, done.output
    series = series_from_runs([read_run(p) for p in scan_paths(tmp_path / "sim")])
    mask, cbf = truth(tmp_path / "sim", "mask") > 0, truth(tmp_path / "sim", "cbf")
    noise = (series.delta_m - truth(tmp_path / "sim", "signal"))[mask]
    assert REFERENCE_SIGNAL / np.sqrt(np.mean(noise**2)) == pytest.approx(10, rel=0.02)
    expected = truth(tmp_path / "sim", "noise")[mask]
    assert series.noise_sd[mask].mean() == pytest.approx(expected.mean(), rel=0.02)
    maps = fit_least_squares(series, FreeAtt())
    gm = (truth(tmp_path / "sim", "gm") > 0.8) & (truth(tmp_path / "sim", "lesions") == 0) & mask
    assert gm.sum() > 2000
    assert maps.cbf[gm].mean() == pytest.approx(cbf[gm].mean(), rel=0.01)


@pytest.mark.parametrize("name", ["pcasl6", "pcasl6-2d", "pcasl-varied", "pasl8", "vsasl6"])
@pytest.mark.parametrize("n_pulses", [0, 3])
@pytest.mark.parametrize("kind", ["--raw", "--deltam"])
def test_timing_and_efficiency_are_read_back_exactly(tmp_path, name, n_pulses, kind):
    done = run(
        *("--out", tmp_path / "sim", "--protocol", name, "--anatomy", "disc", kind),
        *("--n-bs", n_pulses, "--repeats", 2),
    )
    assert done.exit_code == 0, done.output
    (path,) = scan_paths(tmp_path / "sim")
    found = series_from_runs([read_run(path)]).acquisition
    nominal = PROTOCOLS[name].acquisition(4)
    assert found.slice_offsets_s == nominal.slice_offsets_s
    for timing, expected in zip(found.timings, nominal.timings, strict=True):
        assert timing.efficiency == expected.efficiency * 0.95**n_pulses
        assert (timing.pld_s, timing.label_duration_s) == (
            expected.pld_s,
            expected.label_duration_s,
        )


def test_dispersed_signals_equal_a_numerical_convolution():
    att, spread, duration, step = 1.1, 0.3, 1.8, 1e-3
    acquisition = Acquisition(protocol("pcasl", (0.3, 0.8, 1.5, 2.5), duration), kinetic="tissue")
    transit = np.arange(0, 6, step)
    earliest, scale = att - 2 * spread, spread / 2  # gamma of shape 4
    x = np.clip(transit - earliest, 0, None) / scale
    density = x**3 * np.exp(-x) / 6 / scale
    delivered = density * np.exp(-transit / 1.65) * step
    arriving = np.convolve(delivered, np.ones(round(duration / step)))[: transit.size]
    signal = np.convolve(arriving, np.exp(-transit / 1.3))[: transit.size] * step
    at = [round((t.pld_s + duration) / step) for t in acquisition.timings]
    expected = 2 * 0.85 / 6000 / 0.9 * signal[at]
    model = kinetic_model(acquisition)
    found = dispersed(tissue_curve, model, np.array([[att]]), spread)[0, :, 0]
    np.testing.assert_allclose(found, expected, atol=4e-3 * expected.max())
    sharp = tissue_curve(model, np.array([[att]]))[0, :, 0]
    assert np.abs(sharp - expected).max() > 0.02 * expected.max()
    arterial = dispersed(arterial_curve, model, np.array([[att]]), spread)[0, :, 0]
    np.testing.assert_allclose(arterial, 2 * 0.85 / 0.9 * arriving[at], atol=0.05 * arterial.max())


def test_no_label_arrives_before_labeling():
    model = kinetic_model(Acquisition(protocol("pasl", (0.4, 1.0), 0.7)))
    early = np.array([[0.05, 0.2]])
    np.testing.assert_allclose(
        dispersed(tissue_curve, model, early, 3.0),
        dispersed(tissue_curve, model, early, early / 2),
    )


def test_numpy_and_torch_simulate_the_same_batches():
    torch = pytest.importorskip("torch")
    rng = np.random.default_rng(0)
    maps = {
        name: rng.uniform(low, high, (3, 2, 7))
        for name, low, high in [
            *(("gm", 0, 1), ("wm", 0, 1), ("cbf_gm", 20, 90), ("cbf_wm", 10, 30)),
            *(("att_gm", 0.5, 2), ("att_wm", 0.5, 2), ("abv", 0, 0.05), ("abat", 0.3, 1)),
        ]
    }
    model = kinetic_model(PROTOCOLS["joint6"].acquisition(1))
    spread = rng.uniform(0, 0.3, (3, 1, 1))
    batch = mixed_signal(model, SimpleNamespace(**maps), lambda v: v, True, spread)
    assert batch.shape == (3, 2, 12, 7)
    first = SimpleNamespace(**{name: values[0] for name, values in maps.items()})
    one = mixed_signal(model, first, lambda v: v, True, float(spread[0, 0, 0]))
    np.testing.assert_allclose(batch[0], one, rtol=1e-12)
    as_torch = kinetic_model(PROTOCOLS["joint6"].acquisition(1))
    blocks = tuple(
        type(b)(b.labeling, *map(torch.tensor, (b.plds, b.label_durations, b.efficiencies)))
        for b in as_torch.blocks
    )
    as_torch = type(as_torch)(blocks, model.t1_blood, model.t1_tissue, model.partition)
    tensors = SimpleNamespace(**{name: torch.tensor(values) for name, values in maps.items()})
    found = mixed_signal(as_torch, tensors, lambda v: v, True, torch.tensor(spread))
    assert isinstance(found, torch.Tensor)
    np.testing.assert_allclose(found.numpy(), batch, rtol=1e-9, atol=1e-15)


def test_true_constants_differ_from_nominal_ones_as_documented():
    rng = np.random.default_rng(1)
    nominal = PROTOCOLS["joint6"].acquisition(1)
    slices = PROTOCOLS["pcasl6-2d"].acquisition(20)
    subjects = [draw_physics(rng, nominal, n_pulses=2) for _ in range(600)]
    t1 = np.array([s.acquisition.t1_blood_s for s in subjects])
    assert t1.mean() == pytest.approx(1.65, abs=0.02) and t1.std() == pytest.approx(0.1, rel=0.1)
    for run_timings in (slice(0, 6), slice(6, 12)):
        expected = nominal.timings[run_timings][0]
        found = [s.acquisition.timings[run_timings] for s in subjects]
        assert all(len({t.efficiency for t in timings}) == 1 for timings in found)
        ratio = np.array([t[0].efficiency for t in found]) / expected.efficiency
        assert 0.88 * (0.9 / 0.95) ** 2 < ratio.min() < 0.85
        assert 1.17 < ratio.max() < 1.12 * (1 / 0.95) ** 2
    longer = np.array([s.acquisition.timings[0].label_duration_s for s in subjects]) / 1.8
    assert 0.97 <= longer.min() < 0.975 and 1.025 < longer.max() <= 1.03
    spread = np.array([s.dispersion_s for s in subjects])
    assert 0 <= spread.min() < 0.02 and 0.28 < spread.max() <= 0.3
    assert all(s.has_arterial for s in subjects)
    for _ in range(20):
        offsets = draw_physics(rng, slices).acquisition.slice_offsets_s
        slower = np.array(offsets[1:]) / slices.slice_offsets_s[1:]
        assert 0.97 <= slower[0] <= 1.03 and np.ptp(slower) < 1e-9


def test_a_mismatched_subject_differs_from_its_sidecar_and_agrees_with_its_truth(tmp_path):
    done = run(
        *("--out", tmp_path / "sim", "--anatomy", "uniform", "--track", "mismatched"),
        *("--snr", 1000, "--kinetic", "tissue", "--n-bs", 2),
    )
    assert done.exit_code == 0, done.output
    for labeling in ("pcasl", "vsasl"):
        (path,) = (p for p in scan_paths(tmp_path / "sim") if labeling in p.name)
        scan = series_from_runs([read_run(path)])
        signal = truth(tmp_path / "sim", f"acq-{labeling}_signal")
        np.testing.assert_allclose(scan.delta_m, signal, atol=6 * noise_sd(1000))
        stem = tmp_path / "sim/derivatives/truth/sub-01/perf" / f"sub-01_acq-{labeling}"
        physics = json.loads(Path(f"{stem}_signal.json").read_text())["Physics"]["acquisition"]
        assert physics["kinetic"] == "tissue" and physics["t1_blood_s"] != 1.65
        assert physics["timings"][0]["efficiency"] != scan.acquisition.timings[0].efficiency


def test_motion_is_in_the_truth_of_every_run(tmp_path):
    done = run("--out", tmp_path / "sim", "--anatomy", "disc", "--noise", "thermal,motion")
    assert done.exit_code == 0, done.output
    for labeling in ("pcasl", "vsasl"):
        table = np.genfromtxt(
            tmp_path / "sim/derivatives/truth/sub-01/perf" / f"sub-01_acq-{labeling}_motion.tsv",
            names=True,
        )
        assert table.dtype.names[1] == "trans_x" and len(table) == 12
        assert table["trans_x"][0] == 0 and np.ptp(table["rot_z"]) > 0.02


def test_every_participant_has_a_different_snr_in_the_range(tmp_path):
    done = run(
        *("--out", tmp_path / "sim", "--anatomy", "disc", "--protocol", "pcasl1"),
        *("--participants", 8, "--snr", "2,20"),
    )
    assert done.exit_code == 0, done.output
    sidecars = sorted((tmp_path / "sim/derivatives/truth").rglob("*_noise.json"))
    snrs = [json.loads(p.read_text())["RequestedSNR"] for p in sidecars]
    assert len(set(snrs)) == 8 and 2 <= min(snrs) < 8 < max(snrs) <= 20
    assert "s per participant" in done.output


def test_the_matrix_is_the_requested_one(tmp_path):
    done = run("--out", tmp_path / "sim", "--voxel-size", 9, "--matrix", "24,22,10")
    assert done.exit_code == 0, done.output
    assert truth(tmp_path / "sim", "cbf").shape == (24, 22, 10)


def test_the_help_lists_protocols_noises_and_anatomies():
    assert sim_options.PROTOCOLS.split() == list(PROTOCOLS)
    assert sim_options.NOISES.split(", ") == list(NOISES)
    assert set(sim_options.ANATOMIES) == {"brain", *SHAPES}


@pytest.mark.slow
@pytest.mark.skipif(not shutil.which("bids-validator-deno"), reason="no bids-validator-deno")
@pytest.mark.parametrize(
    "options",
    [
        ("--protocol", "joint6"),
        ("--protocol", "joint6", "--deltam"),
        ("--protocol", "pcasl6-2d", "--n-bs", "4"),
        ("--protocol", "pasl8", "--deltam"),
        ("--protocol", "vsasl6"),
        ("--labeling", "casl", "--plds", "1.5", "--label-duration", "1.7"),
    ],
    ids=" ".join,
)
def test_the_official_validator_accepts_the_data_set(tmp_path, options):
    done = run("--out", tmp_path / "sim", "--anatomy", "disc", "--participants", 2, *options)
    assert done.exit_code == 0, done.output
    validator = ["bids-validator-deno", "--json", "--ignoreWarnings", str(tmp_path / "sim")]
    report = subprocess.run(validator, capture_output=True, text=True, check=False)
    assert json.loads(report.stdout)["issues"]["issues"] == [], report.stdout
    assert report.returncode == 0
