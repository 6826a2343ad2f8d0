"""Noise and artefacts of simulated scans: measured in the images as requested."""

from dataclasses import replace

import numpy as np
import pytest

from aslkit.core.acquisition import REFERENCE_SIGNAL
from aslkit.prepare.motion import Frame, register, resample
from aslkit.simulate.artefacts import (
    DROPOUT_LEFT,
    MAX_DRIFT,
    NOISES,
    PHYSIO_AMPLITUDE,
    SPIKE_AMPLITUDE,
    STEP_DEGREES,
    STEP_MM,
    SUPPRESSION_EXCESS,
    add_thermal_noise,
    draw_coil_noise,
    draw_drift,
    draw_dropouts,
    draw_excess,
    draw_motion,
    draw_physio,
    draw_spike_pattern,
    draw_spikes,
    move_image,
)
from aslkit.simulate.phantoms import brain_phantom, shape_phantom
from aslkit.simulate.scanner import M0_SCALE, ScanSettings, compute_m0, phantom_frame, scan_phantom
from aslkit.simulate.signal import PROTOCOLS

PCASL = ScanSettings(PROTOCOLS["pcasl6"])


@pytest.fixture(scope="module")
def flat():
    return shape_phantom("uniform", 0)


@pytest.fixture(scope="module")
def brain():
    return brain_phantom("brain", 5, voxel_size_mm=5)


def scan(phantom, **changes):
    return scan_phantom(phantom, replace(PCASL, **changes), seed=3)


def differences(phantom, run):
    """Return ΔM/M0 of every pair in the brain, (voxels, pairs)."""
    m0 = compute_m0(phantom)[phantom.mask][:, None]
    pairs = run.volumes[..., ::2] - run.volumes[..., 1::2]
    return pairs[phantom.mask] / m0


def errors(phantom, run):
    """Return the differences minus the noise-free signal, (voxels, repeats, delays)."""
    found = differences(phantom, run)
    signal = run.signal[phantom.mask]
    return found.reshape(len(signal), -1, signal.shape[1]) - signal[:, None]


@pytest.mark.parametrize("n_pulses", [0, 2])
@pytest.mark.parametrize("snr", [0.5, 3, 30, 150])
def test_the_noise_of_the_average_is_the_requested_one_at_any_snr(flat, snr, n_pulses):
    done = scan(flat, snr=(snr, snr), repeats=2, n_pulses=n_pulses)
    average = errors(flat, done.runs[0]).mean(axis=1)
    assert REFERENCE_SIGNAL / np.sqrt(np.mean(average**2)) == pytest.approx(snr, rel=0.02)
    assert done.measured_snr == pytest.approx(snr, rel=0.02)
    assert abs(average.mean()) < 5 * REFERENCE_SIGNAL / snr / np.sqrt(average.size)
    np.testing.assert_allclose(done.noise_sd[flat.mask], REFERENCE_SIGNAL / snr, rtol=1e-5)


def test_repeats_have_independent_noise(flat):
    done = scan(flat, repeats=4)
    noise = errors(flat, done.runs[0])
    one = REFERENCE_SIGNAL / 10 * np.sqrt(4)
    assert noise.std(axis=1, ddof=1).mean() == pytest.approx(0.921 * one, rel=0.02)
    correlation = np.corrcoef(noise.transpose(1, 0, 2).reshape(4, -1)) - np.eye(4)
    assert np.abs(correlation).max() < 0.02


def test_noise_is_gaussian_in_tissue_and_rayleigh_in_air():
    rng = np.random.default_rng(0)
    air = add_thermal_noise(rng, np.zeros((60, 60, 60), np.float32), 2.0)
    assert air.mean() == pytest.approx(2 * np.sqrt(np.pi / 2), rel=0.01)
    assert air.std() == pytest.approx(2 * np.sqrt(2 - np.pi / 2), rel=0.01)
    tissue = add_thermal_noise(rng, np.full((60, 60, 60), 100, np.float32), 2.0) - 100
    assert tissue.std() == pytest.approx(2, rel=0.01)
    assert abs(((tissue / tissue.std()) ** 3).mean()) < 0.03


def test_coil_noise_varies_in_space_with_the_same_mean_power(brain):
    gain = draw_coil_noise(np.random.default_rng(1), brain.mask, phantom_frame(brain))
    assert np.mean(gain[brain.mask] ** 2) == pytest.approx(1, rel=1e-5)
    assert np.abs(np.gradient(gain)).max() < 0.1 and np.ptp(gain[brain.mask]) > 0.15
    done = scan(brain, noises=("coil",), repeats=8)
    assert done.measured_snr == pytest.approx(10, rel=0.02)
    noise = errors(brain, done.runs[0]).mean(axis=1)
    expected = done.noise_sd[brain.mask]
    strong = expected > np.median(expected)
    for part in (strong, ~strong):
        relative = noise[part] / expected[part][:, None]
        assert relative.std() == pytest.approx(1, rel=0.02)
    assert noise[strong].std() > 1.1 * noise[~strong].std()


def test_physiological_fluctuation_is_a_sinusoid_of_the_stated_strength():
    rng = np.random.default_rng(2)
    time = np.arange(400) / 400
    for _ in range(50):
        wave = draw_physio(rng, 400)
        fits = []
        for cycles in np.arange(0.5, 2.001, 0.01):
            angle = 2 * np.pi * cycles * time
            design = np.column_stack([np.sin(angle), np.cos(angle)])
            weights, *_ = np.linalg.lstsq(design, wave, rcond=None)
            fits.append((np.abs(wave - design @ weights).max(), np.hypot(*weights)))
        residual, amplitude = min(fits)
        assert residual < 0.02 * amplitude
        assert 0.99 * PHYSIO_AMPLITUDE[0] < amplitude < 1.01 * PHYSIO_AMPLITUDE[1]


def test_drift_is_linear_and_has_both_signs():
    rng = np.random.default_rng(3)
    lines = np.stack([draw_drift(rng, 30) for _ in range(400)])
    np.testing.assert_allclose(np.diff(lines, 2), 0, atol=1e-12)
    assert np.all(lines[:, 0] == 0) and np.abs(lines).max() <= MAX_DRIFT
    assert lines[:, -1].std() == pytest.approx(MAX_DRIFT / np.sqrt(3), rel=0.1)
    assert abs(lines[:, -1].mean()) < 0.1 * MAX_DRIFT


@pytest.mark.parametrize("name", ["physio", "drift"])
def test_fluctuations_of_the_differences_are_a_fraction_of_the_reference_signal(flat, name):
    run = scan(flat, noises=(name,), repeats=4).runs[0]
    asked = getattr(run.artefacts, name)
    measured = errors(flat, run).mean(axis=0).ravel() / REFERENCE_SIGNAL
    assert np.ptp(asked) > 0.003
    np.testing.assert_allclose(measured, asked, atol=1e-3 * np.abs(asked).max() + 1e-5)


def test_motion_is_a_random_walk():
    walks = [draw_motion(np.random.default_rng(s), 100) for s in range(40)]
    steps = np.concatenate([np.diff(w, axis=0) for w in walks])
    assert all(np.all(w[0] == 0) for w in walks)
    assert steps[:, :3].std() == pytest.approx(STEP_MM, rel=0.02)
    assert np.rad2deg(steps[:, 3:].std()) == pytest.approx(STEP_DEGREES, rel=0.02)
    last = np.stack([w[-1, :3] for w in walks])
    assert last.std() == pytest.approx(STEP_MM * np.sqrt(99), rel=0.15)


def test_motion_by_whole_voxels_is_exact_and_resampling_reverses_any_motion(brain):
    image, frame = compute_m0(brain), phantom_frame(brain)
    shifted = move_image(image, np.array([5.0, -10.0, 0, 0, 0, 0]), frame)
    np.testing.assert_allclose(shifted[1:, :-2], image[:-1, 2:], atol=0.01)
    motion = np.array([1.5, -2.0, 0.7, 0.03, -0.02, 0.05])
    before = np.abs(move_image(image, motion, frame) - image)[brain.mask].mean()
    after = np.abs(resample(move_image(image, motion, frame), motion, frame) - image)[brain.mask]
    assert after.mean() < 0.3 * before


def test_motion_in_a_scan_equals_the_motion_in_the_truth(brain):
    frame = phantom_frame(brain)
    done = scan(brain, noises=("thermal", "motion"), snr=(30, 30), repeats=2)
    run = done.runs[0]
    found = register(run.volumes[..., -1], done.m0, brain.mask, frame)
    assert np.abs(run.artefacts.motion[-1]).max() > 0.2
    np.testing.assert_allclose(found[:3], run.artefacts.motion[-1, :3], atol=0.1)
    np.testing.assert_allclose(found[3:], run.artefacts.motion[-1, 3:], atol=np.deg2rad(0.1))
    still = register(run.volumes[..., 0], done.m0, brain.mask, frame)
    assert np.abs(still[:3]).max() < 0.05


def test_some_volumes_have_spikes():
    amplitudes = draw_spikes(np.random.default_rng(4), 1000)
    hit = amplitudes[amplitudes > 0]
    assert hit.size == 50 and SPIKE_AMPLITUDE[0] < hit.min() < hit.max() < SPIKE_AMPLITUDE[1]
    assert hit.mean() == pytest.approx(np.mean(SPIKE_AMPLITUDE), rel=0.15)
    assert np.count_nonzero(draw_spikes(np.random.default_rng(5), 4)) == 1


def test_a_spike_is_one_sample_of_k_space():
    wave = draw_spike_pattern(np.random.default_rng(6), (40, 32, 10))
    power = np.sort(np.abs(np.fft.fftn(wave)).ravel() ** 2)
    assert power[-2:].sum() > 0.999 * power.sum()
    assert wave.max() == pytest.approx(1, abs=0.05)


def test_spikes_change_only_their_volumes(flat):
    run = scan(flat, noises=("spikes",), repeats=4).runs[0]
    control = compute_m0(flat)[..., None] * np.ones(24)
    change = (run.volumes[..., ::2] - control) / M0_SCALE
    rms = np.sqrt((change**2).mean(axis=(0, 1, 2)))
    np.testing.assert_allclose(rms, run.artefacts.spikes[::2] / np.sqrt(2), atol=1e-3)


def test_dropouts_reduce_single_slices(flat):
    factors = draw_dropouts(np.random.default_rng(7), 400, 30)
    lost = factors[factors < 1]
    assert lost.size == 20 and DROPOUT_LEFT[0] < lost.min() < lost.max() < DROPOUT_LEFT[1]
    assert (factors < 1).sum(axis=1).max() == 1
    run = scan(flat, noises=("dropouts",), repeats=4, n_pulses=1).runs[0]
    undisturbed = scan(flat, noises=(), repeats=4, n_pulses=1).runs[0]
    ratio = (run.volumes / undisturbed.volumes).mean(axis=(0, 1)).T
    assert ratio.min() < 0.75
    np.testing.assert_allclose(ratio, run.artefacts.slices, rtol=1e-4)


def test_background_suppression_fails_in_some_volumes(flat):
    excess = draw_excess(np.random.default_rng(8), 500)
    hit = excess[excess > 0]
    assert hit.size == 50
    assert SUPPRESSION_EXCESS[0] < hit.min() < hit.max() < SUPPRESSION_EXCESS[1]
    run = scan(flat, noises=("suppression",), repeats=2, n_pulses=2).runs[0]
    controls = (run.volumes[..., ::2] / compute_m0(flat)[..., None]).mean(axis=(0, 1, 2))
    np.testing.assert_allclose(controls, 0.3 + run.artefacts.excess[::2], rtol=1e-4)


def test_every_artefact_is_independent_of_the_others(flat):
    every = scan(flat, noises=NOISES, n_pulses=2).runs[0].artefacts
    for name in ("physio", "drift", "motion", "spikes"):
        alone = scan(flat, noises=(name,), n_pulses=2).runs[0].artefacts
        np.testing.assert_array_equal(getattr(alone, name), getattr(every, name))
        assert not alone.excess.any() and np.all(alone.slices == 1)
    quiet, thermal = (scan(flat, noises=n).runs[0].volumes for n in ((), ("thermal",)))
    moving = scan(flat, noises=("thermal", "drift")).runs[0].volumes
    np.testing.assert_allclose(moving - thermal, 0, atol=0.5)
    assert np.abs(thermal - quiet).max() > 1


def test_m0_has_no_motion(flat):
    plain, moving = (scan(flat, noises=n).m0 for n in (("thermal",), ("thermal", "motion")))
    np.testing.assert_array_equal(plain, moving)


def test_scans_without_thermal_noise_have_no_measured_snr(flat):
    done = scan(flat, noises=("drift",))
    assert done.measured_snr is None and not done.noise_sd.any()
    np.testing.assert_array_equal(done.m0, compute_m0(flat))


def test_the_frame_has_the_shape_and_voxel_size_of_the_phantom(brain):
    assert phantom_frame(brain) == Frame(brain.mask.shape, (5.0, 5.0, 5.0))
