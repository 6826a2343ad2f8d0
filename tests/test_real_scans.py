"""Real scans in training: halves of the repeats, windows of the brain, the model card."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from scans import CONTEXTS, SHAPE, SIDECAR, select_repeats, volumes, write_scan

from aslkit.bids.reader import read_run
from aslkit.config import load_config
from aslkit.core.acquisition import Acquisition, protocol
from aslkit.core.errors import InputError
from aslkit.core.series_and_maps import AslSeries
from aslkit.predict.inference import fit_base
from aslkit.prepare.series import series_from_runs
from aslkit.train.experimental.real_scans import (
    RealScan,
    describe_scans,
    draw_real_batch,
    read_real_scans,
)

EVERYWHERE = tuple(slice(0, size) for size in SHAPE)
SIZES = ("network.widths=[8,8]", "data.patch_size=16", "data.protocols_per_step=1")
SLICES = ("data.slices_per_subject=2", "data.patches_per_protocol=2")
DATA = load_config("exp14", (*SIZES, *SLICES)).data
ONE_DELAY = {"PostLabelingDelay": [0.0, *[1.8] * 12]}


@pytest.fixture(scope="module")
def image(tmp_path_factory):
    return write_scan(tmp_path_factory.mktemp("scan"), voxels=volumes(noise_sd=2.0))


@pytest.fixture(scope="module")
def scan(image):
    (found,) = read_real_scans(image.parents[2])
    return found


@pytest.mark.parametrize("chosen", [[0], [1], [0, 1]])
def test_a_subset_is_the_series_of_the_chosen_repeats(image, scan, chosen):
    run = read_run(image)
    expected = series_from_runs([select_repeats(run, chosen)], scan.series.mask)
    found = scan.subset([np.array(chosen)] * 3, EVERYWHERE)
    inside = scan.series.mask
    np.testing.assert_allclose(found.delta_m[inside], expected.delta_m[inside], rtol=1e-5)
    assert found.acquisition.timings == expected.acquisition.timings
    if len(chosen) > 1:
        np.testing.assert_allclose(found.noise_sd[inside], expected.noise_sd[inside], rtol=1e-5)


def test_a_subset_of_the_slices_keeps_their_timing(scan):
    found = scan.subset([np.array([0])] * 3, (*EVERYWHERE[:2], slice(1, 3)))
    assert found.acquisition.slice_offsets_s == tuple(SIDECAR["SliceTiming"][1:])


@pytest.fixture
def chosen(monkeypatch):
    """Collect the repeats of every subset that is drawn, timing by timing."""
    parts, true = [], RealScan.subset

    def part(self, chosen, window):
        parts.append([order.tolist() for order in chosen])
        return true(self, chosen, window)

    monkeypatch.setattr(RealScan, "subset", part)
    return parts


def test_a_batch_has_one_half_of_the_repeats_as_input_and_the_other_as_target(scan, chosen):
    for seed in range(4):
        draw_real_batch([scan], DATA, np.random.default_rng(seed))
    for one, other in zip(chosen[::2], chosen[1::2], strict=True):
        assert all(sorted(a + b) == [0, 1] for a, b in zip(one, other, strict=True))
    assert len({str(one) for one in chosen[::2]}) > 1


def test_the_channels_are_those_of_inference(image, scan, chosen):
    data = load_config(
        "exp14", (*SIZES, "data.slices_per_subject=4", "data.patches_per_protocol=4")
    ).data
    seed = 0
    while not chosen or chosen[0] != [[1], [1], [1]]:  # as one series has it
        chosen.clear()
        batch = draw_real_batch([scan], data, np.random.default_rng(seed))
        seed += 1
    mask = scan.series.mask
    fit = fit_base(series_from_runs([select_repeats(read_run(image), [1])], mask))
    for z in range(SHAPE[2]):
        inside = batch["inside"][z, 0].numpy() > 0
        found = batch["channels"][z].numpy()[:, inside]
        np.testing.assert_allclose(
            found, fit.encode_slice(z)[:, fit.inside[:, :, z]], rtol=1e-3, atol=1e-4
        )


def test_a_batch_holds_neighbouring_slices_with_zeros_around_them(scan):
    batch = draw_real_batch([scan], DATA, np.random.default_rng(0))
    number, first = batch["place"].tolist()
    assert number == 0 and batch["signal"].shape == (2, 3, 16, 16)
    inside = batch["inside"].sum((1, 2, 3)).tolist()
    known = scan.series.mask & np.isfinite(scan.series.delta_m).all(3)
    assert inside == known[:, :, first : first + 2].sum((0, 1)).tolist()
    assert (batch["channels"][:, -1:] == batch["inside"]).all()
    outside = batch["inside"].expand_as(batch["base"]) == 0
    assert not batch["base"][outside].any()


def test_a_window_holds_as_much_of_the_brain_as_fits():
    mask = np.zeros((40, 40, 5), bool)
    mask[10:34, 12:20, 1:4] = True
    timings = protocol("pcasl", [0.5, 1.0, 1.8], 1.8)
    acquisition = Acquisition(tuple(replace(t, n_averages=2) for t in timings))
    rng = np.random.default_rng(0)
    repeats = tuple(rng.normal(0.005, 0.001, (*mask.shape, 2)).astype(np.float32) for _ in "123")
    series = AslSeries(
        np.stack([r.mean(3) for r in repeats], 3), acquisition, mask, noise_sd=0.001 + 0 * mask
    )
    batches = [draw_real_batch([RealScan("01", series, repeats)], DATA, rng) for _ in range(6)]
    assert {int(n) for b in batches for n in b["inside"].sum((1, 2, 3))} == {16 * 8}
    assert {int(b["place"][1]) for b in batches} == {1, 2}


def test_a_scan_without_repeats_is_named_with_the_reason(tmp_path, caplog):
    write_scan(tmp_path, ONE_DELAY, name="sub-01_run-1")
    short = {"PostLabelingDelay": SIDECAR["PostLabelingDelay"][:7]}
    write_scan(tmp_path, short, CONTEXTS[:7], volumes()[..., :7], name="sub-01_run-2")
    write_scan(tmp_path, {"ArterialSpinLabelingType": None}, name="sub-01_run-3")
    with pytest.raises(InputError, match="found no scan that can judge itself, expected several"):
        read_real_scans(tmp_path)
    for number, reason in enumerate(("one delay", "a delay without a repeat", "LabelingType"), 1):
        (line,) = [r.getMessage() for r in caplog.records if f"run-{number} is" in r.getMessage()]
        assert reason in line


def test_the_card_describes_the_scans_without_names(image, scan, tmp_path):
    found = describe_scans([scan])
    assert {k: found[k] for k in ("scans", "subjects", "repeats")} == {
        "scans": 1,
        "subjects": 1,
        "repeats": [2, 2],
    }
    assert found["protocols"] == [{"labelings": ["pcasl"], "plds_s": [0.5, 1.0, 1.8]}]
    assert "01" not in json.dumps(found["protocols"]) and str(Path(image).parent) not in str(found)
    same = write_scan(tmp_path / "same", voxels=volumes(noise_sd=2.0), name="sub-01_acq-other")
    other = write_scan(tmp_path / "other", voxels=volumes(noise_sd=2.1))
    hashes = [describe_scans(read_real_scans(path.parents[2]))["sha256"] for path in (same, other)]
    assert hashes[0] == found["sha256"] != hashes[1]
