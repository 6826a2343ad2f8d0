"""Physics-residual networks, untrained and shipped: encoding, files, training, prediction."""

import json
from dataclasses import replace

import nibabel as nib
import numpy as np
import pytest
import torch
from click.testing import CliRunner
from torch.nn import functional

from aslkit.cli.predict import main as asl_predict
from aslkit.cli.sim import main as asl_sim
from aslkit.cli.train import main as asl_train
from aslkit.config import load_config
from aslkit.core.constants import TYPICAL_ATT_S
from aslkit.core.errors import InputError, UnavailableError
from aslkit.core.series_and_maps import Flag
from aslkit.fit.least_squares import fit_least_squares, fitted_signal
from aslkit.fit.settings import Arterial, FixedAtt, FreeAtt
from aslkit.nets.card_text import describe_card
from aslkit.nets.device import select_device
from aslkit.nets.model_store import DEFAULT_MODEL, Model, list_models, load_model, save_model
from aslkit.nets.profile_encoding import CHANNELS, ProfileEncoding
from aslkit.nets.registry import build_network
from aslkit.nets.residual_unet import PhysicsResidualNet
from aslkit.predict.inference import predict_maps
from aslkit.simulate.phantoms import brain_phantom
from aslkit.simulate.signal import PROTOCOLS, noise_sd, simulate_series, truth_maps
from aslkit.simulate.subject_physics import SubjectPhysics
from aslkit.train.batches import draw_batch
from aslkit.train.loop import RunOptions, train

OFF = FreeAtt()
TINY = (
    "network.widths=[8,8]",
    "data.patch_size=32",
    "data.protocols_per_step=1",
    "data.patches_per_protocol=2",
)


@pytest.fixture(scope="module")
def brain():
    """Six slices through the middle."""
    return brain_phantom("brain", 8, voxel_size_mm=5, matrix=(37, 42, 6))


@pytest.fixture(scope="module")
def shipped():
    return load_model(DEFAULT_MODEL)


def scan(brain, name="joint6", snr=3.0, **changes):
    acquisition = PROTOCOLS[name].acquisition(brain.mask.shape[2])
    return simulate_series(brain, acquisition, snr, seed=2, **changes)


def untrained(kind="physics_residual"):
    config = load_config("small", (f"network.kind={kind}", *TINY))
    return build_network(config.network, ProfileEncoding()).eval()


def errors(brain, maps):
    true, where = truth_maps(brain), brain.mask & (brain.cbf > 5)
    return [np.abs(getattr(maps, q) - getattr(true, q))[where].mean() for q in ("cbf", "att")]


@pytest.mark.parametrize("kind", ["physics_residual", "voxelwise"])
def test_an_untrained_network_is_least_squares(brain, kind):
    torch.manual_seed(0)
    model = Model("untrained", untrained(kind), {}, "")
    series = scan(brain)
    maps, ls = predict_maps(series, model, OFF), fit_least_squares(series, OFF)
    for name in ("cbf", "att", "cbf_std", "att_std", "flags"):
        np.testing.assert_allclose(getattr(maps, name), getattr(ls, name), rtol=1e-6)


def test_an_untrained_network_keeps_the_typical_att_of_a_single_delay_with_larger_errors(brain):
    series = scan(brain, "pcasl1")
    series = replace(series, noise_sd=np.full(brain.mask.shape, noise_sd(3), np.float32))
    torch.manual_seed(0)
    maps = predict_maps(series, Model("untrained", untrained(), {"n_timings": [1, 20]}, ""))
    ls = fit_least_squares(series, FixedAtt(TYPICAL_ATT_S))
    np.testing.assert_allclose(maps.cbf, ls.cbf, rtol=1e-6)
    np.testing.assert_allclose(maps.att, ls.att, rtol=1e-6)
    assert np.all(maps.cbf_std[brain.mask] >= ls.cbf_std[brain.mask])
    assert np.median(maps.cbf_std[brain.cbf > 50] / ls.cbf_std[brain.cbf > 50]) > 1.05
    assert set(np.unique(maps.flags)) == {Flag.OK, Flag.OUTSIDE}


def random_network(is_linear=False):
    """Return a network of three resolutions; a linear one has blocks that add nothing."""
    torch.manual_seed(0)
    network = PhysicsResidualNet(3, (8, 8, 8)).eval()
    for name, parameter in network.named_parameters():
        torch.nn.init.normal_(parameter, std=0.3)
        if is_linear and "second" in name:
            torch.nn.init.zeros_(parameter)
    return network


def test_the_maps_of_a_shift_equivariant_network_shift_with_the_image():
    network, image = random_network(), torch.randn(1, 3, 9, 11)
    with torch.no_grad():
        one = network.to_shift_equivariant()(functional.pad(image, (32, 32, 32, 32)))
        other = network.to_shift_equivariant()(functional.pad(image, (35, 29, 33, 31)))
        gridded = [network(functional.pad(image, p)) for p in ((25, 28, 24, 23), (26, 27, 24, 23))]
    inner = one[..., 32:-32, 32:-32]
    torch.testing.assert_close(other[..., 33:-31, 35:-29], inner, rtol=1e-5, atol=1e-5)
    cut = [o[..., 24:33, x : x + 11] for o, x in zip(gridded, (25, 26), strict=True)]
    assert (cut[0] - cut[1]).abs().max() > 0.01 * inner.std()


def test_a_linear_shift_equivariant_network_is_the_mean_over_all_grids():
    network, image = random_network(is_linear=True), torch.randn(1, 3, 56, 56)
    with torch.no_grad():
        found = network.to_shift_equivariant()(image)[..., 16:40, 16:40]
        moved = [
            network(image.roll((-x, -y), (2, 3))).roll((x, y), (2, 3))
            for x in range(network.stride)
            for y in range(network.stride)
        ]
    expected = torch.stack(moved).mean(0)[..., 16:40, 16:40]
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)
    assert network.stride == 4 and network.to_shift_equivariant().stride == 1


@pytest.mark.parametrize("name", ["joint6", "pcasl6"])
@pytest.mark.parametrize("snr", [3, 10])
def test_the_default_model_has_smaller_errors_than_least_squares_in_a_new_brain(
    brain, shipped, name, snr
):
    series = scan(brain, name, snr)
    net = errors(brain, predict_maps(series, shipped, OFF))
    ls = errors(brain, fit_least_squares(series, OFF))
    assert net[0] < 0.97 * ls[0] and net[1] < 0.7 * ls[1]


@pytest.mark.parametrize("name", ["joint6", "pcasl6"])
def test_errors_fall_from_least_squares_to_the_voxelwise_and_to_the_default_model(
    brain, shipped, name
):
    series = scan(brain, name)
    ls = errors(brain, fit_least_squares(series, OFF))
    alone = errors(brain, predict_maps(series, load_model("voxelwise"), OFF))
    together = errors(brain, predict_maps(series, shipped, OFF))
    assert alone[0] < 1.05 * ls[0] and alone[1] < 0.8 * ls[1]  # CBF of joint6 is not better
    assert together[0] < 0.9 * alone[0] and together[1] < 0.65 * alone[1]


@pytest.mark.parametrize("name", ["small", "voxelwise"])
def test_signal_and_noise_scaled_together_scale_cbf(brain, name):
    series, model = scan(brain), load_model(name)
    one = predict_maps(series, model, OFF)
    where = brain.mask & (np.abs(one.cbf) > 1)
    for factor in (0.1, 10):
        other = predict_maps(series.scaled(factor), model, OFF)
        for expected, found in ((factor * one.cbf, other.cbf), (one.att, other.att)):
            deviation = np.abs(found[where] / expected[where] - 1)
            assert np.percentile(deviation, 99.9) < 0.01  # rounding decides a few ties


def test_background_around_the_head_hardly_changes_the_maps(brain, shipped):
    series = scan(brain, snr=10)
    wide = [(16, 16), (16, 16), (0, 0)]
    padded = replace(
        series,
        delta_m=np.pad(series.delta_m, [*wide, (0, 0)]),
        mask=np.pad(series.mask, wide),
    )
    one, other = predict_maps(series, shipped, OFF), predict_maps(padded, shipped, OFF)
    difference = np.abs(other.cbf[16:-16, 16:-16] - one.cbf)[brain.mask]
    assert difference.mean() < 0.02 * one.cbf[brain.mask].mean()


def test_prediction_with_arteries_explains_the_early_signal(brain, shipped):
    acquisition = PROTOCOLS["pcasl6-2d"].acquisition(brain.mask.shape[2])
    series = scan(brain, "pcasl6-2d", 10, physics=SubjectPhysics(acquisition, has_arterial=True))
    maps = predict_maps(series, shipped, Arterial())
    rest = fitted_signal(maps, series.acquisition) - series.delta_m
    assert np.sqrt(np.mean(rest[brain.mask] ** 2)) < 1.3 * noise_sd(10)
    assert maps.abv is not None and maps.abv[brain.mask].max() > 0.005


def test_outside_the_mask_the_maps_are_least_squares(brain, shipped):
    series = scan(brain)
    maps, ls = predict_maps(series, shipped, OFF), fit_least_squares(series, OFF)
    np.testing.assert_array_equal(maps.cbf[~brain.mask], ls.cbf[~brain.mask])


def test_a_series_without_any_measure_of_noise_is_refused(brain, shipped):
    timings = scan(brain).acquisition.timings[:2]
    series = scan(brain)
    two = replace(
        series,
        delta_m=series.delta_m[..., :2],
        acquisition=replace(series.acquisition, timings=timings),
    )
    with pytest.raises(InputError, match="noise level: found 2 timings without repeats"):
        predict_maps(two, shipped, OFF)


def test_the_command_predicts_a_simulated_scan_from_file_to_files(tmp_path):
    simulate = ["--out", str(tmp_path / "sim"), "--voxel-size", "8", "--snr", "20"]
    assert CliRunner().invoke(asl_sim, simulate).exit_code == 0
    perf = tmp_path / "sim" / "sub-01" / "perf"
    runs = [str(perf / f"sub-01_acq-{a}_asl.nii.gz") for a in ("pcasl", "vsasl")]
    out = tmp_path / "out" / "cbf.nii.gz"
    inputs = ["-i", runs[0], "-i", runs[1], "-o", str(out), "--macrovascular", "off"]
    done = CliRunner().invoke(asl_predict, [*inputs, "--device", "cpu", "--diagnostics"])
    assert done.exit_code == 0, done.output
    names = ("cbf", "att", "cbf-std", "att-std", "flags", "chi2", "cbf-ci95", "att-ci95", "pld")
    written = {f"{n}.{e}" for n in names for e in ("nii.gz", "json")}
    tables = {"quality.tsv", "quality.json", "outliers.tsv"}
    assert {p.name for p in out.parent.iterdir()} == written | tables
    truth = tmp_path / "sim" / "derivatives" / "truth" / "sub-01" / "perf"
    cbf, true = (nib.load(p).get_fdata() for p in (out, truth / "sub-01_cbf.nii.gz"))
    assert np.abs(cbf - true)[true > 5].mean() < 1.5


def test_models_and_configurations_are_listed():
    for command, flag in ((asl_predict, "--list-models"), (asl_train, "--list-configs")):
        done = CliRunner().invoke(command, [flag])
        assert done.exit_code == 0 and "small\t" in done.output


@pytest.mark.slow
def test_training_ends_at_its_time_limit(tmp_path):
    options = [part for change in (*TINY, "steps=100000") for part in ("--set", change)]
    command = ["--config", "small", "--out", str(tmp_path / "run"), "--max-minutes", "0.03"]
    assert CliRunner().invoke(asl_train, [*command, *options]).exit_code == 0
    assert 0 < load_model(str(tmp_path / "run")).card["steps"] < 100000


def test_batches_are_finite_and_the_same_for_the_same_seed(tmp_path):
    config = load_config("small", TINY).data
    one, two = (draw_batch(config, np.random.default_rng(3)) for _ in range(2))
    assert one["channels"].shape == (2, len(CHANNELS), 32, 32)
    for name, values in one.items():
        assert torch.isfinite(values).all(), name
        assert torch.equal(values, two[name])


@pytest.mark.usefixtures("own_batches")
def test_a_new_run_may_start_from_a_model(tmp_path):
    config = load_config("small", (*TINY, "steps=1", "seed=5"))
    train(config, tmp_path / "one")
    still = load_config("small", (*TINY, "steps=1", "seed=6", "learning_rate=1e-12"))
    train(still, tmp_path / "two", RunOptions(init_from=str(tmp_path / "one")))
    first, second = (load_model(str(tmp_path / n)) for n in ("one", "two"))
    for name, value in first.network.state_dict().items():
        torch.testing.assert_close(second.network.state_dict()[name], value, rtol=1e-3, atol=1e-6)
    assert second.card["initialised_from"]["sha256"] == first.sha256


@pytest.mark.usefixtures("own_batches")
def test_training_refuses_to_overwrite_or_to_resume_nothing(tmp_path):
    options = [part for change in (*TINY, "steps=1") for part in ("--set", change)]
    command = ["--config", "small", "--out", str(tmp_path / "run"), "--device", "cpu", *options]
    nothing = CliRunner().invoke(asl_train, [*command, "--resume"])
    assert nothing.exit_code == 3 and "found no checkpoint" in nothing.output
    assert CliRunner().invoke(asl_train, command).exit_code == 0
    again = CliRunner().invoke(asl_train, command)
    assert again.exit_code == 3 and "found a training run, expected a new folder" in again.output
    other = CliRunner().invoke(asl_train, [*command, "--set", "seed=9", "--resume"])
    assert other.exit_code == 3 and "found another configuration" in other.output


def test_a_model_is_the_same_after_writing_and_damage_is_named(tmp_path, shipped):
    folder = tmp_path / "copy"
    save_model(folder, shipped.network.state_dict(), {**shipped.card, "name": "copy"})
    again = load_model(str(folder))
    assert again.sha256 == again.card["sha256"] == shipped.sha256
    (folder / "weights.safetensors").write_bytes(b"damaged")
    with pytest.raises(InputError, match="expected a matching model.json"):
        load_model(str(folder))
    card = json.loads((folder / "model.json").read_text())
    (folder / "model.json").write_text(json.dumps({**card, "channels": ["ATT"]}))
    save_model(folder, {}, {**card, "network": {"widths": [8, 8]}})
    with pytest.raises(InputError, match="found nothing, expected a tensor"):
        load_model(str(folder))


def test_the_default_model_is_also_found_by_its_earlier_name():
    default, earlier = load_model(DEFAULT_MODEL), load_model("exp21")
    assert default.name == earlier.name == "aslnet" and default.sha256 == earlier.sha256
    assert default.card["version"] == "1.0" and default.card["trained_as"] == "exp21"
    assert "exp21" not in list_models()
    assert "version: 1.0; trained as exp21" in describe_card(default.card)


def test_unknown_models_and_devices_are_refused(tmp_path, monkeypatch):
    with pytest.raises(UnavailableError, match="is not there: installed are aslnet, exp00, exp09"):
        load_model("best")
    with pytest.raises(UnavailableError, match="device 'cuda:99': found none"):
        select_device("cuda:99")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert select_device("auto") == torch.device("cpu")
    own = tmp_path / "mine"
    own.mkdir()
    (own / "model.json").write_text("{}")
    monkeypatch.setenv("ASLKIT_MODELS", str(tmp_path))
    assert list_models()["mine"] == own
