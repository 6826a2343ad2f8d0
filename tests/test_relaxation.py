"""T1 of tissue as a third parameter: recovery, optimum, errors, refusals, and the command."""

import json
from dataclasses import replace

import nibabel as nib
import numpy as np
import pytest
from click.testing import CliRunner
from oracles import signal_of
from scans import CBF, PAIR, head, volumes, write_scan

from aslkit.cli.fit_ls import main
from aslkit.core.acquisition import Acquisition, protocol
from aslkit.core.constants import T1_TISSUE_BOUNDS_S
from aslkit.core.series_and_maps import AslSeries, Flag, ParameterMaps
from aslkit.fit.free_t1 import with_t1
from aslkit.fit.least_squares import fit_least_squares, fitted_signal
from aslkit.fit.settings import FreeAtt, FreeT1
from aslkit.kinetics.model import kinetic_model, tissue_curve
from aslkit.quality.goodness_of_fit import diagnostic_maps
from aslkit.simulate.signal import PROTOCOLS, noise_sd

FREE = FreeT1()
KNOWN = FreeAtt()
SIX = (0.5, 1.0, 1.5, 2.0, 2.5, 3.0)
TIMINGS = {
    "pcasl": protocol("pcasl", SIX, 1.8),
    "pcasl of varying label duration": protocol("pcasl", SIX, (0.8, 1.2, 1.6, 1.8, 2.0, 2.2)),
    "pasl": protocol("pasl", (0.5, 0.8, 1.1, 1.5, 2.0, 2.6), 0.8),
    "joint": protocol("pcasl", SIX, 1.8) + protocol("vsasl", SIX, 0.0),
}
SLICE_OFFSETS_S = (0.0, 0.047, 0.31)
PARAMETERS = ("cbf", "att", "t1_tissue")


def tissue(name):
    return replace(PROTOCOLS[name].acquisition(1), kinetic="tissue")


def truth(shape, cbf=(40, 80), att=(0.7, 1.8), t1=(1.0, 1.6), seed=0):
    rng = np.random.default_rng(seed)
    cbf, att, t1 = (rng.uniform(*r, shape).astype(np.float32) for r in (cbf, att, t1))
    nothing = 0 * cbf
    return ParameterMaps(cbf, att, nothing, nothing, nothing.astype(np.uint8), t1_tissue=t1)


def scan(true, acquisition, sd, seed=1):
    clean = fitted_signal(true, acquisition)
    noise = np.random.default_rng(seed).standard_normal(clean.shape, dtype=np.float32)
    shape = true.cbf.shape
    level = np.full(shape, sd, dtype=np.float32)
    return AslSeries(
        clean + level[..., None] * noise, acquisition, np.ones(shape, bool), np.eye(4), level
    )


@pytest.mark.parametrize("name", TIMINGS)
def test_recovery_without_noise_is_exact(name):
    acquisition = Acquisition(TIMINGS[name], SLICE_OFFSETS_S, kinetic="tissue")
    true = truth((4, 2, 3), att=(0.85, 1.05 if name == "pasl" else 2.0), t1=(0.85, 1.95))
    signal = np.empty((*true.cbf.shape, acquisition.n_timings), dtype=np.float32)
    for voxel in np.ndindex(true.cbf.shape):
        offset = SLICE_OFFSETS_S[voxel[2]]
        cbf, att, t1 = (float(getattr(true, q)[voxel]) for q in PARAMETERS)
        for i, t in enumerate(acquisition.timings):
            unit = signal_of(t.labeling, t.pld_s + offset, t.label_duration_s, att, "tissue", t1)
            signal[*voxel, i] = cbf * unit
    maps = fit_least_squares(AslSeries(signal, acquisition, np.ones((4, 2, 3), bool)), FREE)
    np.testing.assert_allclose(maps.t1_tissue, true.t1_tissue, atol=5e-3)
    np.testing.assert_allclose(maps.att, true.att, atol=2e-3)
    np.testing.assert_allclose(maps.cbf, true.cbf, rtol=2e-3)


@pytest.mark.parametrize("name", ["joint6", "pcasl6", "pcasl5", "pasl8"])
@pytest.mark.parametrize("snr", [3, 20])
def test_no_dense_search_finds_a_smaller_residual(name, snr):
    acquisition = tissue(name)
    series = scan(truth((40, 15, 1), att=(0.3, 2.5)), acquisition, noise_sd(snr))
    maps = fit_least_squares(series, FREE)
    own = np.sum((fitted_signal(maps, acquisition) - series.delta_m) ** 2, -1).ravel()
    signal = series.delta_m.reshape(600, -1).astype(np.float64)
    model, atts = kinetic_model(acquisition), np.arange(0.1, 4.0005, 0.005)[None]
    least = np.full(600, np.inf)
    for t1 in np.linspace(*T1_TISSUE_BOUNDS_S, 121):
        curves = tissue_curve(replace(model, t1_tissue=t1), atts)[0]
        units = curves / np.sqrt(np.maximum(np.sum(curves**2, axis=0), 1e-30))
        gain = np.max((signal @ units) ** 2, axis=1)
        least = np.minimum(least, np.sum(signal**2, axis=1) - gain)
    assert np.max(own - least) < 2e-4 * noise_sd(snr) ** 2


@pytest.mark.parametrize("snr", [10, 30])
@pytest.mark.parametrize("name", ["joint6", "pcasl6", "pcasl5", "pasl8"])
def test_95_percent_intervals_have_their_nominal_coverage(name, snr):
    true = truth((70, 70, 1))
    maps = fit_least_squares(scan(true, tissue(name), noise_sd(snr)), FREE)
    for q in PARAMETERS:
        error = np.abs(getattr(maps, q) - getattr(true, q))
        is_at_bound = name == "pasl8" and snr == 10  # half of the T1s are at a bound
        assert (
            (0.90 if is_at_bound else 0.925)
            < np.mean(error < 1.96 * getattr(maps, f"{q}_std"))
            < (0.995 if is_at_bound else 0.98)
        ), q


@pytest.mark.parametrize("t1", [1.0, 1.5])
def test_standard_errors_equal_the_cramer_rao_bound_of_three_parameters(t1):
    acquisition, sd, parameters = tissue("pcasl6"), 2e-6, np.array([60.0, 1.22, t1])

    def signal(p):
        values = (signal_of("pcasl", pld, 1.8, p[1], "tissue", p[2]) for pld in SIX)
        return p[0] * np.array(list(values))

    assert [t.pld_s for t in acquisition.timings] == list(SIX)
    steps = np.diag([1.0, 1e-3, 1e-3])
    jacobian = np.array(
        [(signal(parameters + s) - signal(parameters - s)) / (2 * s.max()) for s in steps]
    )
    bound = sd * np.sqrt(np.diag(np.linalg.inv(jacobian @ jacobian.T)))
    delta_m = np.float32(signal(parameters))[None, None, None]
    level = np.full((1, 1, 1), sd, dtype=np.float32)
    series = AslSeries(delta_m, acquisition, np.ones((1, 1, 1), bool), np.eye(4), level)
    maps = fit_least_squares(series, FREE)
    found = [getattr(maps, f"{q}_std").item() for q in PARAMETERS]
    np.testing.assert_allclose(found, bound, rtol=0.05)


def test_a_free_t1_increases_errors_and_standard_errors_alike():
    series = scan(truth((30, 30, 1), t1=(1.3, 1.3)), tissue("pcasl6"), noise_sd(30))
    free, known = (fit_least_squares(series, s) for s in (FREE, KNOWN))
    for q, factor in (("cbf", 2), ("att", 1.2)):
        growth = np.median(getattr(free, f"{q}_std")) / np.median(getattr(known, f"{q}_std"))
        assert growth > factor
        sds = [np.std(getattr(m, q) - getattr(truth((30, 30, 1)), q)) for m in (free, known)]
        assert growth == pytest.approx(sds[0] / sds[1], rel=0.35)


def test_a_wrong_t1_biases_cbf_unless_it_is_free():
    true = truth((30, 30, 1), t1=(1.0, 1.0))
    series = scan(true, tissue("joint6"), noise_sd(100))
    errors = [np.median(fit_least_squares(series, s).cbf / true.cbf - 1) for s in (FREE, KNOWN)]
    assert abs(errors[0]) < 0.01 < 0.05 < abs(errors[1])


def test_without_signal_the_error_of_t1_is_at_least_that_of_its_range():
    acquisition = tissue("pcasl6")
    level = np.full((2, 2, 1), 1e-4, dtype=np.float32)
    nothing = np.zeros((2, 2, 1, 6), dtype=np.float32)
    maps = fit_least_squares(
        AslSeries(nothing, acquisition, np.ones((2, 2, 1), bool), np.eye(4), level), FREE
    )
    assert np.all((maps.t1_tissue_std > 1.2 / np.sqrt(12)) & (maps.t1_tissue_std < 0.8))
    assert np.all(maps.flags == Flag.ATT_UNDETERMINED)


def test_an_undetermined_att_does_not_go_to_its_bound():
    late = Acquisition(protocol("pcasl", (1.6, 1.9, 2.2, 2.5, 2.8), 1.8), kinetic="tissue")
    true = truth((6, 6, 1), att=(0.3, 1.5))
    maps = fit_least_squares(scan(true, late, noise_sd(100)), FREE)
    assert maps.att.min() > 1.2999  # all values below the first delay fit equally well
    assert np.median(maps.att) < 1.65


def test_a_voxel_with_nan_has_no_estimate_and_no_fitted_signal():
    series = scan(truth((2, 2, 1)), tissue("pcasl6"), noise_sd(30))
    delta_m = series.delta_m.copy()
    delta_m[0, 1, 0, 3] = np.nan
    maps = fit_least_squares(replace(series, delta_m=delta_m), FREE)
    assert maps.flags[0, 1, 0] == Flag.NOT_FINITE
    assert maps.t1_tissue[0, 1, 0] == maps.t1_tissue_std[0, 1, 0] == 0
    assert np.all(fitted_signal(maps, series.acquisition)[0, 1, 0] == 0)


def test_fitted_signal_and_chi2_use_the_t1_map():
    acquisition = tissue("joint6")
    true = truth((40, 40, 1), t1=(0.9, 1.1))
    series = scan(true, acquisition, noise_sd(100))
    model = with_t1(kinetic_model(acquisition), true.t1_tissue.reshape(1, -1))
    curve = tissue_curve(model, true.att.reshape(1, -1))[0].T.reshape(40, 40, 1, -1)
    np.testing.assert_allclose(
        fitted_signal(true, acquisition), true.cbf[..., None] * curve, rtol=1e-4, atol=1e-8
    )
    assert FREE.degrees_of_freedom(acquisition) == 12 - 3
    chi2 = diagnostic_maps(series, fit_least_squares(series, FREE), FREE)["chi2"]
    assert chi2.mean() == pytest.approx(1, abs=0.05)


def test_without_repeats_the_noise_level_comes_from_the_residuals():
    acquisition = tissue("joint6")
    series = scan(truth((40, 40, 1)), acquisition, noise_sd(30))
    known = fit_least_squares(series, FREE)
    unknown = fit_least_squares(replace(series, noise_sd=None), FREE)
    np.testing.assert_allclose(unknown.t1_tissue_std, known.t1_tissue_std, rtol=0.1)


@pytest.mark.parametrize(
    ("acquisition", "message"),
    [
        (PROTOCOLS["pcasl6"].acquisition(1), "goes with the tissue kinetic only"),
        (Acquisition(protocol("pcasl", SIX[:3], 1.8), kinetic="tissue"), "at least 4 timings"),
        (tissue("vsasl6"), "not all of them VSASL"),
    ],
)
def test_protocols_that_do_not_determine_t1_are_refused(acquisition, message):
    series = scan(truth((1, 1, 1)), acquisition, noise_sd(30))
    with pytest.raises(ValueError, match=message):
        fit_least_squares(series, FREE)


def six_delays(folder):
    """Write a scan of six delays without repeats; T1 of tissue is 1.1 s."""
    plds = [0.0, *(p for p in SIX for _ in PAIR)]

    def signal(pld):
        return CBF * signal_of("pcasl", pld, 1.8, 0.9, "tissue", 1.1)

    voxels = volumes(noise_sd=1e-3, signal=signal, plds_s=plds)
    return write_scan(folder, {"PostLabelingDelay": plds}, voxels=voxels)


def fit(*arguments):
    return CliRunner().invoke(main, [str(a) for a in arguments])


def test_command_writes_t1_and_its_error(tmp_path):
    image = six_delays(tmp_path / "data")
    options = ("--kinetic", "tissue", "--fit-t1t", "--diagnostics", "--fitted")
    result = fit("-i", image, "-o", tmp_path / "cbf.nii.gz", *options)
    assert result.exit_code == 0, result.output
    assert "note: --fit-t1t: the arterial compartment is off\n" in result.output
    assert "arterial compartment: off (auto)\n" in result.output
    assert "\ntissue T1 [s] " in result.output
    for kind, expected in (("t1t", 1.1), ("att", 0.9), ("cbf", CBF)):
        values = nib.load(tmp_path / f"{kind}.nii.gz").get_fdata()[head()]
        assert np.median(values) == pytest.approx(expected, rel=0.01)
    assert np.all(nib.load(tmp_path / "t1t-std.nii.gz").get_fdata()[head()] > 0)
    sidecar = json.loads((tmp_path / "t1t.json").read_text())
    assert (sidecar["Units"], sidecar["DegreesOfFreedom"]) == ("s", 3)
    assert (sidecar["TissueT1"], sidecar["TissueT1Bounds"]) == (None, [0.8, 2.0])
    low, high = np.moveaxis(nib.load(tmp_path / "cbf-ci95.nii.gz").get_fdata()[head()], 1, 0)
    sd = nib.load(tmp_path / "cbf-std.nii.gz").get_fdata()[head()]
    np.testing.assert_allclose(high - low, 2 * 1.96 * sd, rtol=1e-3)


def test_without_the_option_there_is_no_t1_map(tmp_path):
    image = six_delays(tmp_path / "data")
    result = fit("-i", image, "-o", tmp_path / "cbf.nii.gz", "--kinetic", "tissue")
    assert result.exit_code == 0, result.output
    assert not list(tmp_path.glob("t1t*"))
    assert json.loads((tmp_path / "cbf.json").read_text())["TissueT1"] == 1.3


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ((), "--fit-t1t needs --kinetic tissue"),
        (("--kinetic", "single"), "--fit-t1t needs --kinetic tissue"),
        (("--kinetic", "tissue", "--att", "1.3"), "--fit-t1t excludes --att"),
        (("--kinetic", "tissue", "--cbf-bounds", "0,100"), "--fit-t1t excludes --cbf-bounds"),
        (("--kinetic", "tissue", "--macrovascular", "on"), "excludes --macrovascular on"),
        (("--kinetic", "tissue", "--t1t", "1.2"), "--fit-t1t excludes --t1t"),
        (("--kinetic", "tissue"), "--fit-t1t: a free tissue T1 needs at least 4 timings"),
        (("--kinetic", "tissue", "--dry-run"), "--fit-t1t: a free tissue T1 needs at least 4"),
    ],
)
def test_options_that_exclude_each_other_are_a_usage_error(tmp_path, options, message):
    image = write_scan(tmp_path / "data")
    result = fit("-i", image, "-o", tmp_path / "out" / "cbf.nii.gz", "--fit-t1t", *options)
    assert result.exit_code == 2, result.output
    assert message in result.stderr
    assert not (tmp_path / "out").exists()
