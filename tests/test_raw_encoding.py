"""Raw curves of one protocol: channels, scans that can be encoded, and the maps."""

import json
from dataclasses import asdict, replace

import numpy as np
import pytest
import torch
from click.testing import CliRunner

from aslkit.cli.train import main as asl_train
from aslkit.config import load_config
from aslkit.config.schema import NETWORKS
from aslkit.core.acquisition import Acquisition, protocol
from aslkit.core.errors import InputError
from aslkit.core.series_and_maps import AslSeries
from aslkit.nets.encoding_registry import build_encoding, read_encoding
from aslkit.nets.experimental.raw_encoding import RawEncoding
from aslkit.nets.model_store import Model, load_model
from aslkit.nets.registry import build_network
from aslkit.predict.inference import predict_maps
from aslkit.train.ensemble import train_members
from aslkit.train.loop import RunOptions

pytestmark = pytest.mark.usefixtures("own_batches")
PLDS = (0.5, 1.5, 2.5)
TIMINGS = protocol("pcasl", PLDS, 1.8, 0.6) + protocol("vsasl", PLDS, 0.0, 0.5)
FEATURES = ("mean", "std", "peak", "t1_artery")
TINY = (
    "network.widths=[8,8]",
    "data.patch_size=32",
    "data.patches_per_step=2",
    "members=1",
    "steps=2",
)


def encoding(**changes):
    return replace(RawEncoding(TIMINGS, "global_scale", 10.0, FEATURES, 1.65), **changes)


def series(timings=TIMINGS, seed=0, **changes):
    rng = np.random.default_rng(seed)
    mask = np.zeros((8, 8, 2), dtype=bool)
    mask[2:6, 2:6] = True
    delta_m = rng.normal(0.005, 0.001, (8, 8, 2, len(timings))).astype(np.float32)
    return AslSeries(delta_m, Acquisition(timings, **changes), mask)


def test_channels_are_percent_of_m0_times_ten_and_features_of_each_labeling():
    scan = series(t1_blood_s=1.85)
    channels = encoding().encode_series(scan)
    assert channels.shape == (2, 6 + 2 * 3 + 1 + 1, 8, 8) and channels.dtype == np.float32
    curve = 1000 * scan.delta_m[3, 4, 1]
    found = channels[1, :, 3, 4]
    expected = [*curve]
    for feature in (np.mean, np.std, np.max):
        expected += [feature(curve[:3]), feature(curve[3:])]
    np.testing.assert_allclose(found, [*expected, 1.0, 1.0], rtol=1e-5)
    assert not channels[:, :, 0, 0].any()


def test_per_curve_loses_the_amplitude_and_the_global_scale_keeps_it():
    scan = series()
    double = replace(scan, delta_m=2 * scan.delta_m)
    for normalization, factor in (("per_curve", 1), ("global_scale", 2)):
        own = encoding(normalization=normalization, features=())
        one, other = (own.encode_series(s)[:, :-1] for s in (scan, double))
        np.testing.assert_allclose(other, factor * one, rtol=1e-4, atol=1e-5)


def test_the_order_of_the_volumes_and_the_efficiency_of_a_scan_do_not_matter():
    scan = series()
    order = [3, 4, 5, 2, 0, 1]
    timings = tuple(replace(TIMINGS[i], efficiency=TIMINGS[i].efficiency / 2) for i in order)
    weak = replace(scan, delta_m=scan.delta_m[..., order] / 2, acquisition=Acquisition(timings))
    np.testing.assert_allclose(
        encoding().encode_series(weak), encoding().encode_series(scan), rtol=1e-5
    )


@pytest.mark.parametrize("place", [(3, 3), (0, 0)])
def test_a_voxel_that_is_not_finite_is_outside_the_mask(place):
    scan = series()
    scan.delta_m[*place, 0, :] = np.nan
    channels = encoding().encode_series(scan)
    assert np.isfinite(channels).all() and not channels[(0, slice(None), *place)].any()


@pytest.mark.parametrize(
    "other",
    [
        series(TIMINGS[:3]),
        series(protocol("pcasl", (0.5, 1.5, 2.6), 1.8) + TIMINGS[3:]),
        series(protocol("pcasl", PLDS, 1.4) + TIMINGS[3:]),
        series(protocol("pasl", PLDS, 1.8) + TIMINGS[3:]),
        series(slice_offsets_s=(0.0, 0.04)),
        series(TIMINGS + TIMINGS[:1]),
    ],
)
def test_a_scan_of_another_protocol_is_refused(other):
    with pytest.raises(InputError) as caught:
        encoding().encode_series(other)
    assert "expected the protocol of the model, PCASL 0.5, 1.5, 2.5 s (label duration 1.8 s) " in (
        str(caught.value)
    )


def test_converting_to_outputs_and_back_changes_nothing():
    own = encoding()
    np.testing.assert_allclose(own.from_outputs(*own.to_outputs(60.0, 1.2)), (60.0, 1.2))


def test_an_encoding_is_the_same_after_the_model_card():
    own = encoding()
    card = json.loads(json.dumps(own.describe()))
    assert read_encoding(card) == own
    assert set(card["encoding"]) == {"kind", *asdict(own)}
    with pytest.raises(ValueError, match="another version"):
        read_encoding({"encoding": {"kind": "wavelets"}})


@pytest.mark.parametrize("kind", ["spatial", "amplitude_aware", "dual_encoder", "voxelwise"])
def test_a_network_of_curves_gives_maps_with_least_squares_around_them(kind):
    own = encoding()
    torch.manual_seed(0)
    config = NETWORKS.validate_python({"kind": kind, "widths": (8, 8)})
    network = build_network(config, own).eval()
    scan = series()
    maps = predict_maps(scan, Model("own", network, {}, "", encoding=own))
    assert np.isfinite(maps.cbf).all() and (maps.cbf_std[scan.mask] > 0).all()
    assert abs(maps.cbf[scan.mask].mean() - own.cbf_unit[0]) < 50


def test_confidence_is_the_mean_probability_of_all_passes_inside_the_mask():
    own, scan, logits = encoding(), series(), (0.0, 2.0)
    options = {"confidence_head": True, "output_modulation": False}
    config = NETWORKS.validate_python({"kind": "amplitude_aware", "widths": (8, 8), **options})
    first, second = (build_network(config, own).eval() for _ in logits)
    for network, logit in zip((first, second), logits, strict=True):
        for head, sign in ((network.cbf_head, 1), (network.att_head, -1)):
            torch.nn.init.zeros_(head.weight)
            head.bias.data = torch.tensor([0.0, 0.0, sign * logit])
    maps = predict_maps(scan, Model("own", first, {}, "", (second,), own))
    probability = (0.5 + 1 / (1 + np.exp(-2.0))) / 2
    np.testing.assert_allclose(maps.cbf_confidence, probability * scan.mask, rtol=1e-5)
    np.testing.assert_allclose(maps.att_confidence, (1 - probability) * scan.mask, rtol=1e-5)


def test_training_writes_a_model_that_loads_with_its_encoding(tmp_path):
    config = load_config("production_v2", TINY)
    train_members(config, tmp_path / "own")
    model = load_model(str(tmp_path / "own"))
    assert model.encoding == build_encoding(config) and model.kind == "amplitude-aware"
    assert not model.corrects_least_squares
    assert model.card["n_timings"] == [12, 12] and model.card["plds_s"] == [0.5, 3.0]


def test_members_are_trained_independently_and_joined_in_one_model(tmp_path):
    config = load_config("production_v2", (*TINY, "members=2"))
    steps = []
    train_members(config, tmp_path / "own", progress=lambda step, loss: steps.append(step))
    model = load_model(str(tmp_path / "own"))
    assert steps == [1, 2, 3, 4] and model.card["members"] == 2 and model.card["steps"] == 4
    first, second = (m.state_dict() for m in model.members)
    assert set(first) == set(second)
    assert not torch.equal(
        first["encoder.pairs.0.convs.0.weight"], second["encoder.pairs.0.convs.0.weight"]
    )
    with pytest.raises(InputError, match="found a training run, expected a new folder"):
        train_members(config, tmp_path / "own")
    train_members(config, tmp_path / "own", RunOptions(resume=True))
    again = load_model(str(tmp_path / "own"))
    assert again.sha256 == model.sha256
    with pytest.raises(InputError, match="found no checkpoint, expected member-1/"):
        train_members(config, tmp_path / "other", RunOptions(resume=True))


def test_the_command_trains_members_and_lists_the_renamed_keys(tmp_path):
    path = tmp_path / "own.yaml"
    path.write_text("{name: own, n_epochs: 1, batch_size: 2, hidden_sizes: [8, 8], cbf_weight: 2}")
    tiny = [part for c in ("steps=1", "data.patch_size=32") for part in ("--set", c)]
    network = ["--set", "network.kind=spatial"]
    command = ["--config", str(path), "--out", str(tmp_path / "run"), "--members", "2"]
    done = CliRunner().invoke(asl_train, [*command, *tiny, *network])
    assert done.exit_code == 0, done.output
    assert "batch_size: 2 is read as data.patches_per_step: 2" in done.output
    assert len(load_model(str(tmp_path / "run")).members) == 2
