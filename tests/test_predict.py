"""asl_predict: the same maps for any patches, their uncertainty, and its messages."""

import json
import shutil
from dataclasses import replace

import nibabel as nib
import numpy as np
import pytest
import torch
from click.testing import CliRunner
from torch import nn

from aslkit.cli.fit_ls import main as asl_fit_ls
from aslkit.cli.predict import main as asl_predict
from aslkit.cli.sim import main as asl_sim
from aslkit.config import load_config
from aslkit.core.errors import InputError, UnavailableError
from aslkit.core.series_and_maps import AslSeries, Flag
from aslkit.fit.least_squares import fit_least_squares
from aslkit.fit.settings import FreeAtt
from aslkit.nets.card_text import describe_card, interval_coverage, list_deviations_from_training
from aslkit.nets.encoding_registry import build_encoding
from aslkit.nets.experimental.raw_encoding import ATT_CLOSE_S, CBF_CLOSE
from aslkit.nets.model_store import DEFAULT_MODEL, Model, load_model, save_model
from aslkit.nets.network import Network
from aslkit.nets.profile_encoding import CHANNELS
from aslkit.nets.registry import build_network
from aslkit.nets.residual_unet import PhysicsResidualNet
from aslkit.predict import inference, passes
from aslkit.predict.inference import noise_level, predict_maps
from aslkit.predict.passes import Passes, run_passes
from aslkit.predict.tiling import Tiling
from aslkit.quality.residual_structure import residual_structure
from aslkit.simulate.phantoms import brain_phantom
from aslkit.simulate.signal import PROTOCOLS, noise_sd, simulate_series
from aslkit.train.model_card import model_card

OFF = FreeAtt()
CPU = torch.device("cpu")
MIRRORED = Passes(is_mirrored=True)


@pytest.fixture(scope="module")
def shipped():
    return load_model(DEFAULT_MODEL)


@pytest.fixture(scope="module")
def brain():
    return brain_phantom("brain", 8, voxel_size_mm=5)


@pytest.fixture(scope="module")
def series(brain):
    return some_slices(simulate(brain), slice(10, 20))


@pytest.fixture(scope="module")
def few(brain):
    """Three neighbouring slices."""
    return some_slices(simulate(brain), slice(12, 15))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A simulated scan on disk, of five slices."""
    root = tmp_path_factory.mktemp("scan")
    options = ["--out", str(root), "--voxel-size", "8", "--snr", "20", "--protocol", "pcasl6"]
    assert CliRunner().invoke(asl_sim, options).exit_code == 0
    for path in (root / "sub-01" / "perf").glob("*.nii.gz"):
        image = nib.load(path).slicer[:, :, 7:12]
        nib.save(nib.Nifti1Image(image.get_fdata(dtype=np.float32), image.affine), path)
    return root / "sub-01" / "perf"


@pytest.fixture(scope="module")
def straight(folder, tmp_path_factory):
    """Return the folder with the maps of the unchanged scan."""
    out = tmp_path_factory.mktemp("straight")
    assert run(folder, out / "cbf.nii.gz").exit_code == 0
    return out


def simulate(brain, snr=5.0):
    acquisition = PROTOCOLS["joint6"].acquisition(brain.mask.shape[2])
    return simulate_series(brain, acquisition, snr, seed=2)


def some_slices(series, z):
    return AslSeries(series.delta_m[:, :, z], series.acquisition, series.mask[:, :, z])


def constant_network(correction, log_sd):
    """Return a network with the same outputs in all pixels."""
    network = PhysicsResidualNet(len(CHANNELS), (8, 8)).eval()
    with torch.no_grad():
        network.head.bias.copy_(torch.tensor([correction, correction, log_sd, log_sd]))
    return network


class Dropout(Network):
    """Returns the mean of 100 features of 1 after dropout of 20 %, in every output."""

    stride = 1

    def __init__(self):
        super().__init__()
        self.dropout = nn.Dropout2d(0.2)

    def forward(self, x):
        features = self.dropout(torch.ones(len(x), 100, *x.shape[2:]))
        return features.mean(1, keepdim=True).expand(-1, 4, -1, -1)


def run(folder, out, *options):
    return CliRunner().invoke(
        asl_predict, ["-i", str(folder / "sub-01_asl.nii.gz"), "-o", str(out), *options]
    )


def deviation(series, found, expected):
    """Return the mean absolute deviation of CBF in the mask over mean CBF."""
    return np.abs(found.cbf - expected.cbf)[series.mask].mean() / expected.cbf[series.mask].mean()


def test_the_place_of_the_head_in_the_image_changes_nothing(few, shipped):
    series, wide = few, [(3, 70), (5, 1), (0, 0)]
    moved = replace(
        series, delta_m=np.pad(series.delta_m, [*wide, (0, 0)]), mask=np.pad(series.mask, wide)
    )
    one, other = predict_maps(series, shipped, OFF), predict_maps(moved, shipped, OFF)
    for name in ("cbf", "att", "cbf_std", "att_std"):
        cut = getattr(other, name)[3:-70, 5:-1][series.mask]
        np.testing.assert_allclose(cut, getattr(one, name)[series.mask], rtol=1e-4, atol=1e-4)


def test_the_edge_of_a_slice_does_not_change_the_maps(few, shipped, monkeypatch):
    near = predict_maps(few, shipped, OFF)
    monkeypatch.setattr("aslkit.predict.tiling.MARGIN", 48)
    far = predict_maps(few, shipped, OFF)
    for name in ("cbf", "att", "cbf_std", "att_std"):
        one, other = (getattr(maps, name)[few.mask] for maps in (near, far))
        assert np.abs(one - other).max() < 0.005 * np.abs(other).mean()


@pytest.mark.parametrize(
    ("patch", "shift", "snr"), [(None, 1, 3.0), (None, 21, 30.0), (128, 3, 3.0)]
)
def test_the_places_of_the_patches_change_cbf_by_less_than_one_percent(
    brain, shipped, patch, shift, snr
):
    """A distant voxel in the mask moves the corner from which patches are placed."""
    series = some_slices(simulate(brain, snr), slice(12, 14))
    known = replace(series, noise_sd=noise_level(series, OFF))
    wide = [(shift, 0), (shift, 0), (0, 0)]
    mask = np.pad(series.mask, wide)
    mask[0, 0] = True
    moved = replace(
        known,
        delta_m=np.pad(series.delta_m, [*wide, (0, 0)]),
        mask=mask,
        noise_sd=np.pad(known.noise_sd, wide, mode="edge"),
    )
    passes = Passes(tiling=Tiling(patch))
    one, other = (predict_maps(s, shipped, OFF, passes=passes).cbf for s in (known, moved))
    perfused = series.mask & (one > 5)
    change = other[shift:, shift:][perfused] / one[perfused] - 1
    assert np.abs(change).max() < 0.01


@pytest.mark.slow
def test_patches_leave_no_seams(shipped):
    """Check the mean deviation from whole slices in the worst row and column."""
    series = simulate(brain_phantom("brain", 8, voxel_size_mm=1.8, matrix=(102, 117, 1)))
    whole = predict_maps(series, shipped, OFF)
    tiled = predict_maps(series, shipped, OFF, passes=Passes(tiling=Tiling(64)))
    mask, difference = series.mask[..., 0], np.abs(tiled.cbf - whole.cbf)[..., 0]
    for axis in (0, 1):
        counts = mask.sum(axis)
        bands = (difference * mask).sum(axis)[counts > 20] / counts[counts > 20]
        assert bands.max() < 0.005 * whole.cbf[series.mask].mean()


def test_slices_run_a_few_at_a_time_and_their_number_changes_nothing(series, monkeypatch):
    most = []

    def count_slices(model, slices, *others):
        most.append(len(slices))
        return run_passes(model, slices, *others)

    copied, flat = [], load_model("small")
    convert = PhysicsResidualNet.to_shift_equivariant
    monkeypatch.setattr(
        PhysicsResidualNet,
        "to_shift_equivariant",
        lambda own: copied.append(own) or convert(own),
    )
    monkeypatch.setattr(inference, "run_passes", count_slices)
    together = predict_maps(series, flat, OFF)
    monkeypatch.setattr(inference, "SLICES_AT_ONCE", 3)
    apart = predict_maps(series, flat, OFF)
    assert most == [8, 2, 3, 3, 3, 1] and copied == 2 * [flat.network]
    np.testing.assert_allclose(apart.cbf, together.cbf, rtol=1e-4, atol=1e-4)


def test_variances_of_members_and_between_them_add_up(series):
    model = Model("two", constant_network(1, 0), {}, "", (constant_network(-1, np.log(2)),))
    maps, ls = predict_maps(series, model, OFF), fit_least_squares(series, OFF)
    inside = series.mask & (ls.cbf_std > 0)
    np.testing.assert_allclose(maps.cbf[inside], ls.cbf[inside], rtol=1e-4, atol=1e-4)
    for name in ("cbf_std", "att_std"):
        se, total = getattr(ls, name)[inside], getattr(maps, name)[inside]
        np.testing.assert_allclose(total, np.sqrt((1 + 4) / 2 + 1) * se, rtol=1e-4)
        np.testing.assert_allclose(getattr(maps, f"{name}_network")[inside], se, rtol=1e-4)
    first = predict_maps(series, model, OFF, passes=Passes(members=1))
    np.testing.assert_allclose(first.cbf_std[inside], ls.cbf_std[inside], rtol=1e-4)
    assert first.cbf_std_network is None


def test_mirrored_views_are_mirrored_back(few, shipped):
    one, mirrored = (
        predict_maps(few, shipped, OFF),
        predict_maps(few, shipped, OFF, passes=MIRRORED),
    )
    assert 0 < deviation(few, mirrored, one) < 0.02
    network = mirrored.cbf_std_network
    assert (network <= mirrored.cbf_std).all() and network[few.mask].mean() > 0
    assert (network[~few.mask] == 0).all()


def test_mc_dropout_drops_the_same_features_in_all_pixels_and_in_every_call():
    model = Model("dropout", Dropout().eval(), {}, "")
    slices = np.ones((2, 1, 9, 20), dtype=np.float32)
    tiling = Tiling(32, 0.5)
    whole = run_passes(model, slices, Passes(tiling=tiling), CPU)
    np.testing.assert_allclose(whole.mean, 1, rtol=1e-6)
    one, two = (
        run_passes(model, slices, Passes(n_mc_dropout=60, tiling=tiling), CPU) for _ in "ab"
    )
    np.testing.assert_array_equal(one.mean, two.mean)
    for found in (one.mean, one.network_variance):
        np.testing.assert_allclose(found, found[0, 0, 0, 0], rtol=1e-3)
    np.testing.assert_allclose(one.mean, 1, atol=0.03)
    np.testing.assert_allclose(one.network_variance, 0.2 / 0.8 / 100, rtol=0.5)


def test_members_share_a_file(tmp_path, shipped):
    members = [constant_network(value, 0) for value in (0.5, -0.5)]
    states = {f"{i}.{k}": v for i, m in enumerate(members) for k, v in m.state_dict().items()}
    card = {**shipped.card, "name": "two", "members": 2, "network": {"widths": [8, 8]}}
    save_model(tmp_path, states, card)
    found = load_model(str(tmp_path))
    assert [m.head.bias[0].item() for m in found.members] == [0.5, -0.5]
    save_model(tmp_path, states, {**card, "members": 3})
    with pytest.raises(InputError, match="0.|2.head.*found nothing"):
        load_model(str(tmp_path))


def test_passes_that_a_model_cannot_run_are_refused(shipped, folder, tmp_path):
    for options, message in (
        (["--members", "2"], "members: found 1, expected at least 2. Fix: give --members 1"),
        (["--mc-dropout", "5"], "network: found no dropout layer"),
    ):
        done = run(folder, tmp_path / "cbf.nii.gz", *options)
        assert done.exit_code == 3 and f"model aslnet: {message}" in done.output


def test_the_batch_size_follows_the_pixels_of_a_patch():
    slices = np.zeros((3, 1, 240, 240), dtype=np.float32)
    assert passes._batch_size(slices, Tiling(), FLAT, CPU) == 1
    assert passes._batch_size(slices, Tiling(64), FLAT, CPU) == 8


def test_the_batch_on_a_gpu_fits_into_half_of_its_free_memory(monkeypatch):
    slices, cuda = np.zeros((3, 1, 52, 52), dtype=np.float32), torch.device("cuda")
    pixels = Tiling().side(52, 1) ** 2
    for n_fitting, expected in (
        (5, 5),
        (0.5, 1),
        (1e6, passes.PIXELS_PER_RUN["cuda"] // pixels),
    ):
        free = int(2 * n_fitting * pixels * passes.BYTES_PER_PIXEL)
        monkeypatch.setattr(torch.cuda, "mem_get_info", lambda _, free=free: (free, 2 * free))
        assert passes._batch_size(slices, Tiling(), FLAT, cuda) == expected


FLAT = PhysicsResidualNet(1, (8, 8))


class Crowded(Network):
    """Returns its input, and runs out of memory with more than `most` patches."""

    stride = 1

    def __init__(self, most):
        super().__init__()
        self.most, self.seen = most, []

    def forward(self, x):
        self.seen.append(len(x))
        if len(x) > self.most:
            raise torch.cuda.OutOfMemoryError("CUDA out of memory")
        return x


def test_the_batch_is_halved_if_memory_is_exhausted(shipped):
    slices = np.random.default_rng(0).standard_normal((12, 4, 9, 9), dtype=np.float32)
    crowded = Crowded(3)
    model = replace(shipped, network=crowded)
    found = passes.run_passes(model, slices, Passes(batch=12), CPU)
    np.testing.assert_allclose(found.mean, slices[:, :2], rtol=1e-6)
    assert set(crowded.seen) == {12, 6, 3} and crowded.seen.count(3) == 4
    with pytest.raises(UnavailableError, match="memory does not hold one patch. Give --patch 64"):
        passes.run_passes(replace(shipped, network=Crowded(0)), slices, Passes(batch=2), CPU)


def test_properties_outside_of_the_training_are_named(series, shipped):
    measured = replace(series, noise_sd=noise_level(series, OFF))
    assert list_deviations_from_training(shipped.card, measured) == []
    late = replace(series.acquisition, slice_offsets_s=(2.0,), t1_blood_s=2.2)
    many = replace(late, slice_offsets_s=(0.0,), timings=2 * late.timings)
    noisy = replace(
        series,
        delta_m=np.concatenate(2 * [series.delta_m], axis=3),
        acquisition=many,
        noise_sd=np.full(series.mask.shape, noise_sd(0.25), dtype=np.float32),
    )
    card = {**shipped.card, "labelings": ["vsasl"], "kinetics": ["tissue"]}
    assert list_deviations_from_training({**card, "t1_blood_s": [1.5, 1.9]}, noisy) == [
        "labeling pcasl: model aslnet was trained for vsasl",
        "kinetic single: model aslnet was trained for tissue",
        "timings 24: model aslnet was trained for 1-20",
        "T1 of blood 2.2 s: model aslnet was trained for 1.5-1.9 s",
        "SNR 0.25: model aslnet was trained for 0.7-120",
    ]
    assert (
        "PLDs 2.5-5 s: "
        in list_deviations_from_training(card, replace(series, acquisition=late))[2]
    )


def test_a_quantity_without_weight_in_training_is_named(series):
    card = {"name": "half", "training": {"loss": {"cbf_weight": 1.0, "att_weight": 0.0}}}
    assert list_deviations_from_training(card, series) == [
        "ATT means nothing: model half was trained without it (loss.att_weight 0)"
    ]


def test_the_card_of_every_model_is_listed_and_damage_does_not_hide_the_others(
    tmp_path, shipped, monkeypatch
):
    assert describe_card({}) == ["weights: members 1; sha256 unknown"]
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "model.json").write_text("{")
    monkeypatch.setenv("ASLKIT_MODELS", str(tmp_path))
    done = CliRunner().invoke(asl_predict, ["--list-models"])
    assert done.exit_code == 0
    assert "trained for: pcasl, casl, pasl, vsasl; single, tissue; timings 4-16;" in done.output
    assert f"sha256 {shipped.sha256[:12]}" in done.output
    assert "broken\t" in done.output and "expected a matching model.json" in done.output


def coverage_record(protocol, snr, level, value):
    names = {"estimator": "net", "phantoms": "brain", "track": "matched", "stratum": "brain"}
    metric = f"coverage {level} %"
    return {**names, "quantity": "cbf", "protocol": protocol, "snr": snr, "metric": metric} | {
        "value": value
    }


def test_the_card_holds_the_coverage_of_the_intervals():
    records = [
        coverage_record(protocol, 3.0, level, share)
        for protocol, shares in (("pcasl6", (0.4, 0.7, 0.9)), ("pasl8", (0.5, 0.8, 1.0)))
        for level, share in zip((50, 80, 95), shares, strict=True)
    ]
    field = interval_coverage([*records, coverage_record("pasl8", 3.0, 50, None)], "net")
    assert field["covered"] == {"matched": {"cbf": {"3": [0.45, 0.75, 0.95]}}}
    line = "covered by intervals of 50, 80, 95 %: matched CBF SNR 3 45/75/95; pcasl6, pasl8"
    assert line in " ".join(describe_card({"calibration": field}))
    with pytest.raises(InputError, match="found none of model other"):
        interval_coverage(records, "other")


@pytest.fixture(scope="module")
def middle():
    """Eight slices through the middle of a brain."""
    return brain_phantom("brain", 8, voxel_size_mm=5, matrix=(37, 42, 8))


@pytest.fixture(scope="module")
def clean(middle, shipped):
    """Return a scan of these slices without artefacts, and the structure of its residuals."""
    series = simulate(middle, snr=10)
    return series, residual_structure(series, predict_maps(series, shipped, OFF))


@pytest.mark.parametrize("artefact", ["ghost", "wrong delays", "spike"])
def test_artefacts_add_structure_to_the_residuals(middle, clean, shipped, artefact):
    series, expected = clean
    delta_m, acquisition = series.delta_m.copy(), series.acquisition
    if artefact == "ghost":
        delta_m[..., 3] += 0.1 * np.roll(middle.gm * 0.05, delta_m.shape[1] // 2, axis=1)
    elif artefact == "spike":
        stripes = np.cos(0.8 * np.arange(delta_m.shape[0]))[:, None]
        delta_m[:, :, 4, 2] += 3 * noise_sd(10) * stripes
    else:
        timings = tuple(replace(t, pld_s=0.6 * t.pld_s) for t in acquisition.timings)
        acquisition = replace(acquisition, timings=timings)
    damaged = replace(series, delta_m=delta_m, acquisition=acquisition)
    found = residual_structure(damaged, predict_maps(damaged, shipped, OFF))
    assert np.isnan(expected.structure[~series.mask]).all()
    assert 0.7 < np.nanmean(expected.structure) < 1.1
    assert found.score > 1.5 * expected.score


def test_the_score_of_white_noise_hardly_depends_on_its_level(brain):
    """Check that its unit is the difference between neighbours, not between repeats."""
    high_snr, low_snr = (simulate(brain, snr) for snr in (30, 3))
    scores = [residual_structure(s, fit_least_squares(s, OFF)).score for s in (high_snr, low_snr)]
    assert 0.5 < scores[0] / scores[1] < 2


def test_the_score_of_an_empty_mask_is_none(series):
    empty = replace(series, mask=np.zeros_like(series.mask))
    assert residual_structure(empty, fit_least_squares(series, OFF)).score is None


def test_the_command_writes_the_parts_of_the_uncertainty_and_the_structure(folder, tmp_path):
    out = tmp_path / "cbf.nii.gz"
    done = run(
        folder, out, "--tta", "--ood", "--patch", "64", "--overlap", "0.5", "--blend", "hann"
    )
    assert done.exit_code == 0, done.output
    assert "1 member, 4 mirrored views, patches of 64, overlap 0.5, hann blend" in done.output
    assert "residual structure: " in done.output and "cite: aslkit" in done.output
    assert "s (reading" in done.output
    for name in ("cbf", "att"):
        total, data, network = (
            nib.load(tmp_path / f"{name}-std{part}.nii.gz").get_fdata()
            for part in ("", "-data", "-network")
        )
        np.testing.assert_allclose(total**2, data**2 + network**2, rtol=1e-3, atol=1e-6)
    sidecar = json.loads((tmp_path / "ood.json").read_text())
    assert sidecar["OODScore"] > 0 and sidecar["Device"] == "cpu" and sidecar["Units"] == "1"


def test_the_command_writes_the_confidence_of_a_network_that_states_it(folder, tmp_path):
    own = ("data.labelings=[pcasl]", "network.widths=[8,8]", "data.patch_size=16")
    config = load_config("exp17c", own)
    network = build_network(config.network, build_encoding(config))
    save_model(tmp_path, network.state_dict(), model_card(config, 1, 1, 1.0, None))
    done = run(folder, tmp_path / "cbf.nii.gz", "--model", str(tmp_path))
    assert done.exit_code == 0, done.output
    mask = nib.load(tmp_path / "flags.nii.gz").get_fdata() != Flag.OUTSIDE
    for name, limit in (("cbf", f"{CBF_CLOSE:g} mL"), ("att", f"{ATT_CLOSE_S:g} s")):
        probability = nib.load(tmp_path / f"{name}-confidence.nii.gz").get_fdata()
        assert 0 < probability[mask].min() < probability[mask].max() < 1
        sidecar = json.loads((tmp_path / f"{name}-confidence.json").read_text())
        assert sidecar["Units"] == "1" and limit in sidecar["Description"]


def test_a_series_outside_of_the_training_is_predicted_with_a_warning(folder, tmp_path):
    out = tmp_path / "cbf.nii.gz"
    done = run(folder, out, "--plds", "1.5,2,2.5,3,3.5,4")
    assert done.exit_code == 0, done.output
    warning = "PLDs 1.5-4 s: model aslnet was trained for 0.05-3.6 s"
    assert f"Warning: {warning}" in done.output
    assert json.loads((tmp_path / "cbf.json").read_text())["Warnings"] == [warning]


def test_a_single_delay_is_mapped_with_an_assumed_att_or_refused(tmp_path):
    options = ["--voxel-size", "8", "--snr", "3", "--protocol", "pcasl1", "--repeats", "4"]
    assert CliRunner().invoke(asl_sim, ["--out", str(tmp_path), *options]).exit_code == 0
    scan = tmp_path / "sub-01" / "perf" / "sub-01_asl.nii.gz"
    out, ls = tmp_path / "out" / "cbf.nii.gz", tmp_path / "ls" / "cbf.nii.gz"
    done = CliRunner().invoke(asl_predict, ["-i", str(scan), "-o", str(out)])
    assert done.exit_code == 0, done.output
    assert "single-delay data do not determine ATT" in done.output
    assert json.loads(out.with_name("cbf.json").read_text())["AssumedATT"] == 1.3
    assert CliRunner().invoke(asl_fit_ls, ["-i", str(scan), "-o", str(ls)]).exit_code == 0
    folder = tmp_path / "derivatives" / "truth" / "sub-01" / "perf"
    paths = (folder / "sub-01_cbf.nii.gz", out, out.with_name("cbf-std.nii.gz"), ls)
    true, cbf, sd, ls_cbf = (nib.load(path).get_fdata() for path in paths)
    error, ls_error = (np.abs(image - true)[true > 5] for image in (cbf, ls_cbf))
    assert error.mean() < 0.95 * ls_error.mean()
    assert 0.85 < np.mean(error < 1.96 * sd[true > 5]) < 1
    small = ["-i", str(scan), "-o", str(out), "--model", "small"]
    refused = CliRunner().invoke(asl_predict, small)
    assert refused.exit_code == 3
    assert "a single delay, for which model small was not trained" in refused.output


@pytest.mark.parametrize("orientation", ["RAS", "LAS", "LPS", "oblique"])
def test_maps_keep_the_orientation_of_the_scan(folder, straight, tmp_path, orientation):
    scan = tmp_path / "sub-01" / "perf"
    shutil.copytree(folder, scan)
    original = nib.load(folder / "sub-01_asl.nii.gz").affine
    signs = {"RAS": (1, 1, 1), "LAS": (-1, 1, 1), "LPS": (-1, -1, 1), "oblique": (1, 1, 1)}
    affine = original @ np.diag([*signs[orientation], 1])
    if orientation == "oblique":
        turn = np.array([[0.936, -0.289, 0.201], [0.275, 0.957, 0.094], [-0.220, -0.033, 0.975]])
        affine[:3, :3] = np.linalg.qr(turn)[0] @ affine[:3, :3]
    for path in scan.glob("*.nii.gz"):
        image = nib.load(path)
        nib.save(nib.Nifti1Image(image.get_fdata(dtype=np.float32), affine), path)
    assert run(scan, tmp_path / "cbf.nii.gz").exit_code == 0
    for name in ("cbf", "att"):
        found, expected = (nib.load(p / f"{name}.nii.gz") for p in (tmp_path, straight))
        np.testing.assert_allclose(found.affine, affine, atol=1e-5)
        np.testing.assert_allclose(found.get_fdata(), expected.get_fdata(), rtol=1e-3, atol=1e-3)
