"""Training scans: their content, and their reproducibility with any number of workers."""

import subprocess
import sys
from functools import partial
from itertools import islice

import numpy as np
import pytest
import torch

from aslkit.config import AnyProtocolConfig
from aslkit.core.acquisition import Acquisition, protocol
from aslkit.core.constants import TYPICAL_ATT_S
from aslkit.kinetics.model import kinetic_model, tissue_curve
from aslkit.nets.profile_encoding import CHANNELS
from aslkit.simulate.signal import PROTOCOLS, noise_sd
from aslkit.simulate.training_protocols import MAX_TIMINGS, draw_acquisition, draw_mismatched_model
from aslkit.simulate.training_scans import draw_training_scans
from aslkit.train.batches import batch_from_scans, draw_batch, stream_batches

JOINT = PROTOCOLS["joint6"].acquisition(1)
EARLY = PROTOCOLS["pcasl6-2d"].acquisition(1)
QUIET = {"snr_range": (1e4, 1e4)}


def config(**values):
    return AnyProtocolConfig(patch_size=32, patches_per_protocol=6, **values)


def draw(seed=0, acquisition=None, device=None, **values):
    return draw_training_scans(config(**values), np.random.default_rng(seed), acquisition, device)


def batch(scans):
    return batch_from_scans(scans, np.random.default_rng(1))


def test_training_scans_are_zero_outside_the_brain_and_noisy_inside():
    draws = [draw(seed, JOINT) for seed in range(12)]
    for scans in draws:
        outside = np.broadcast_to(~scans.mask[:, None], scans.signal.shape)
        assert scans.signal.shape == (6, 12, 32, 32) and not scans.signal[outside].any()
        assert not scans.cbf[~scans.mask].any() and not scans.noise_sd[~scans.mask].any()
        assert scans.signal.dtype == scans.cbf.dtype == np.float32
        assert scans.mask.sum((1, 2)).min() > 100
    noise = [(s.signal - s.clean).swapaxes(1, 3)[s.mask.swapaxes(1, 2)] for s in draws]
    levels = [s.noise_sd.swapaxes(1, 2)[s.mask.swapaxes(1, 2)] for s in draws]
    units = np.concatenate([n / level[:, None] for n, level in zip(noise, levels, strict=True)])
    assert units.std() == pytest.approx(1, abs=0.03)


def test_snr_is_drawn_uniformly_in_its_logarithm():
    levels = [draw(s, JOINT, snr_range=(1, 100)).noise_sd.max((1, 2)) for s in range(30)]
    snr = noise_sd(1) / np.concatenate(levels)
    assert 0.4 < snr.min() < 2 and 50 < snr.max() < 110 and 6 < np.median(snr) < 14


def test_without_noise_least_squares_finds_the_truth_of_matched_scans():
    scans = draw(3, JOINT, mismatched_fraction=0, arterial_fraction=0, **QUIET)
    base, truth = (batch(scans)[k].numpy().swapaxes(1, 3) for k in ("base", "truth"))
    inside = scans.mask.swapaxes(1, 2) & (truth[..., 0] > 5)
    error = np.abs(base - truth)[inside]
    assert scans.is_matched and not scans.is_arterial_fitted
    assert np.median(error[:, 0] / truth[inside][:, 0]) < 0.005
    assert np.median(error[:, 1]) < 0.02  # in voxels with several tissues, ATT is the mean


def test_mismatched_constants_change_the_signal_and_the_target():
    matched, wrong = (
        draw(4, JOINT, mismatched_fraction=share, arterial_fraction=0, **QUIET) for share in (0, 1)
    )
    assert matched.is_matched and not wrong.is_matched
    assert np.abs(matched.clean - wrong.clean).max() > 0.05 * matched.clean.max()
    found = batch(wrong)
    inside = torch.as_tensor(wrong.mask)
    error = (found["base"] - found["truth"]).abs()[:, 0][inside]
    moved = np.abs(found["truth"][:, 0][inside].numpy() - wrong.cbf[wrong.mask])
    assert error.median() < 0.05 < np.median(moved)


@pytest.mark.parametrize("plds_s", [(1.8,), (1.0, 2.0)])
def test_few_delays_make_finite_batches_whose_target_is_the_truth(plds_s):
    acquisition = Acquisition(protocol("pcasl", plds_s, 1.8))
    scans = draw(5, acquisition, mismatched_fraction=1)
    found = batch(scans)
    assert not scans.is_matched and all(torch.isfinite(v).all() for v in found.values())
    np.testing.assert_allclose(found["truth"], np.stack([scans.cbf, scans.att], 1), rtol=1e-6)
    assert (found["errors"][:, :, scans.mask.any(0)].amax((0, 2)) > 0).all()


def test_a_single_delay_is_fitted_with_the_typical_att():
    scans = draw(5, Acquisition(protocol("pcasl", (1.8,), 1.8)), **QUIET)
    base = batch(scans)["base"].numpy().swapaxes(0, 1)[:, scans.mask]
    assert np.all(base[1] == np.float32(TYPICAL_ATT_S))
    curve = tissue_curve(kinetic_model(scans.acquisition), np.array([[TYPICAL_ATT_S]]))
    signal = scans.signal[:, 0][scans.mask]
    np.testing.assert_allclose(base[0], signal / curve.item(), rtol=1e-3, atol=1e-3)


def test_protocols_have_one_to_twenty_timings_mostly_eight_or_more():
    rng = np.random.default_rng(0)
    counts = np.array([draw_acquisition(rng).n_timings for _ in range(1500)])
    assert set(range(1, MAX_TIMINGS + 1)) == set(counts)
    assert 0.05 < np.mean(counts == 1) < 0.12 and np.mean(counts > 3) > 0.8


def test_each_subject_has_different_constants():
    real = draw_mismatched_model(np.random.default_rng(0), JOINT, 50)
    assert real.t1_blood.shape == real.t1_tissue.shape == (50, 1, 1)
    assert real.t1_blood.std() / JOINT.t1_blood_s == pytest.approx(0.06, rel=0.3)


def test_arterial_signal_and_arterial_fit_mostly_go_together():
    draws = [
        draw(s, EARLY, mismatched_fraction=0, arterial_fraction=0.5, **QUIET) for s in range(24)
    ]
    fitted = [s.is_arterial_fitted for s in draws]
    assert 4 < sum(fitted) < 20
    vsasl = PROTOCOLS["vsasl6"].acquisition(1)
    assert not any(draw(s, vsasl, arterial_fraction=1).is_arterial_fitted for s in range(5))
    bright = [np.percentile(s.clean[:, 0], 99.9) for s in draws]
    assert np.median(np.array(bright)[fitted]) > np.median(np.array(bright)[~np.array(fitted)])


def test_numpy_and_torch_draw_the_same_truth():
    here, there = (draw(5, JOINT, device, mismatched_fraction=1) for device in (None, "cpu"))
    for name in ("clean", "cbf", "att", "noise_sd"):
        one, other = getattr(here, name), getattr(there, name)
        assert isinstance(other, torch.Tensor) and other.dtype == torch.float32
        np.testing.assert_allclose(other.numpy(), one, rtol=1e-3, atol=1e-3 * np.abs(one).max())
    noise = ((there.signal - there.clean) / there.noise_sd[:, None])[
        there.mask[:, None].expand_as(there.signal)
    ]
    assert noise.std() == pytest.approx(1, abs=0.1)


def test_a_batch_has_the_channels_of_the_network():
    made = batch(draw(6))
    assert made["channels"].shape == (6, len(CHANNELS), 32, 32)
    assert {k: v.shape[1] for k, v in made.items() if k != "channels"} == dict.fromkeys(
        ("base", "errors", "truth"), 2
    )
    assert all(torch.isfinite(v).all() for v in made.values())


@pytest.mark.parametrize("patch", [16, 64])
def test_slices_with_little_brain_make_finite_batches(patch):
    for seed in range(6):
        data = AnyProtocolConfig(patch_size=patch, patches_per_protocol=12)
        scans = draw_training_scans(data, np.random.default_rng(seed))
        assert patch < 64 or scans.mask.sum((1, 2)).min() > 200
        assert all(torch.isfinite(v).all() for v in batch(scans).values())


def test_a_batch_is_the_same_with_any_number_of_workers():
    small = config(protocols_per_step=1)
    one, two = (
        list(islice(stream_batches(partial(draw_batch, small), 7, 3, n), 4)) for n in (1, 2)
    )
    for a, b in zip(one, two, strict=True):
        assert all(torch.equal(a[key], b[key]) for key in a)


def test_the_template_is_loaded_once_before_worker_processes_start(monkeypatch):
    made = []
    monkeypatch.setattr("aslkit.train.batches.atlas", lambda: made.append(True))
    for n_workers in (0, 2):
        batches = stream_batches(
            lambda rng: {"drawn": torch.tensor(rng.random())}, 7, 3, n_workers
        )
        next(batches)
        batches.close()
        assert len(made) == (n_workers > 0)


@pytest.mark.slow
def test_training_scans_and_phantoms_need_no_torch():
    script = """
import sys
import numpy as np
from aslkit.config import AnyProtocolConfig
from aslkit.simulate.phantoms import brain_phantom
from aslkit.simulate.training_scans import draw_training_scans
config = AnyProtocolConfig(patch_size=16, patches_per_protocol=1)
draw_training_scans(config, np.random.default_rng(0))
brain_phantom("brain", 1, voxel_size_mm=20)
print("torch" in sys.modules)
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, "False\n"), done.stderr
