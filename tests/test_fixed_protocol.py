"""Training data of one protocol: physics and noise are measured and equal the configuration."""

import numpy as np
import pytest
import torch

from aslkit.config import load_config
from aslkit.config.fixed_protocol import nominal_timings
from aslkit.core.acquisition import REFERENCE_SIGNAL
from aslkit.core.errors import InputError
from aslkit.nets.encoding_registry import build_encoding
from aslkit.simulate.fixed_protocol import draw_patches
from aslkit.simulate.signal import noise_sd
from aslkit.train.experimental.raw_batches import draw_raw_batch

SMALL = ("data.patch_size=32", "data.patches_per_step=8")
QUIET = (*SMALL, "data.noise_components=[]")


def drawn(*changes, seed=4):
    config = load_config("production_v2", changes).data
    return draw_patches(config, np.random.default_rng(seed))


def noise(*changes):
    """Return the noise of a configuration (b, n, x, y) and the mask (b, 1, x, y)."""
    noisy, clean = drawn(*SMALL, *changes), drawn(*changes, *QUIET)
    return noisy.signal - clean.signal, clean.mask[:, None]


def sd_in_brain(difference, mask):
    return difference[np.broadcast_to(mask, difference.shape)].std()


@pytest.mark.parametrize("kind", ["gaussian", "rician"])
def test_thermal_noise_has_the_sd_of_its_snr(kind):
    only = ("data.noise_components=[thermal]", f"data.noise_type={kind}", "data.snr_levels=[10]")
    assert sd_in_brain(*noise(*only)) == pytest.approx(noise_sd(10), rel=0.03)


def test_the_noise_at_the_networks_input_is_a_tenth_of_the_signal_at_snr_10():
    only = ("data.noise_components=[thermal]", "data.snr_levels=[10]", "data.noise_type=gaussian")
    config = load_config("production_v2", (*SMALL, *only))
    encoding = build_encoding(config)
    noisy, clean = drawn(*SMALL, *only), drawn(*only, *QUIET)
    one, other = (encoding.encode(p.signal, p.mask, p.t1_blood_s)[:, :12] for p in (noisy, clean))
    sd = sd_in_brain(one - other, clean.mask[:, None])
    assert sd == pytest.approx(1000 * REFERENCE_SIGNAL / 10, rel=0.03)


def test_magnitudes_scatter_less_where_noise_reaches_the_control_image():
    loud = ("data.noise_components=[thermal]", "data.snr_levels=[0.1]")
    gaussian, rician = (
        sd_in_brain(*noise(*loud, f"data.noise_type={k}")) / noise_sd(0.1)
        for k in ("gaussian", "rician")
    )
    assert gaussian == pytest.approx(1, abs=0.02) and 0.6 < rician < 0.97


@pytest.mark.parametrize(("component", "most"), [("physio", 0.15), ("drift", 0.03)])
def test_structured_noise_is_a_fraction_of_the_reference_and_common_to_the_slice(component, most):
    difference, mask = noise(f"data.noise_components=[{component}]")
    for patch, inside in zip(difference, mask[:, 0], strict=True):
        values = patch[:, inside]
        np.testing.assert_allclose(values, np.broadcast_to(values[:, :1], values.shape), atol=1e-7)
        largest = np.abs(values).max() / REFERENCE_SIGNAL
        assert 0 < largest <= most + 1e-6


def test_physics_are_drawn_per_patch_and_t1_of_blood_is_an_input():
    patches = drawn(*QUIET)
    assert len(set(patches.t1_blood_s)) == 8
    assert patches.t1_blood_s.min() >= 1.55 and patches.t1_blood_s.max() <= 2.15
    fixed = drawn(*QUIET, "data.domain_randomization=false")
    assert set(fixed.t1_blood_s) == {np.float32(1.85)}


def test_without_randomization_the_signal_is_that_of_the_nominal_protocol():
    config = load_config("production_v2", (*QUIET, "data.domain_randomization=false")).data
    weak = config.model_copy(update={"alpha_pcasl": 0.425})
    one, half = (draw_patches(c, np.random.default_rng(4)).signal for c in (config, weak))
    np.testing.assert_allclose(half[:, :6], one[:, :6] / 2, rtol=1e-5)
    np.testing.assert_allclose(half[:, 6:], one[:, 6:])


def test_nominal_timings_have_the_mean_background_suppression_efficiency():
    random, fixed = (
        nominal_timings(load_config("production_v2", (f"data.domain_randomization={r}",)).data)
        for r in ("true", "false")
    )
    assert [t.efficiency for t in fixed[::6]] == [0.85, 0.56]
    ratios = [r.efficiency / f.efficiency for r, f in zip(random[::6], fixed[::6], strict=True)]
    np.testing.assert_allclose(ratios, [0.925**4, 0.925**3])


EXTENDED = ("data.extended_randomization=true", "data.noise_type=gaussian")


def lasting(*changes):
    """Return noise-free curves (voxels, 12) of 32 patches, with the patch and CBF of each."""
    patches = drawn(
        "data.patch_size=32", "data.patches_per_step=32", "data.noise_components=[]", *changes
    )
    curves = np.moveaxis(patches.signal, 1, -1)[patches.mask]
    return curves, np.nonzero(patches.mask)[0], patches.cbf[patches.mask]


def test_extended_randomization_adds_arteries_in_some_patches():
    """Arterial signal is far above tissue signal."""
    curves, patch, cbf = lasting(*EXTENDED)
    ratios, usual = curves.max(1) / cbf.clip(1), lasting("data.noise_type=gaussian")
    most = np.array([ratios[patch == p].max() for p in range(32)])
    assert 0.2 < (most > 2 * (usual[0].max(1) / usual[2].clip(1)).max()).mean() < 0.8


def test_extended_randomization_draws_a_gain_for_each_delay_of_a_patch(monkeypatch):
    with_gains, patch, _ = lasting(*EXTENDED)
    monkeypatch.setattr("aslkit.simulate.fixed_protocol.MAX_GAIN_ERROR", 0)
    without = lasting(*EXTENDED)[0]
    some = without > 1e-4
    ratios = np.where(some, with_gains / np.where(some, without, 1), np.nan)
    of_patches = np.array([np.nanmean(ratios[patch == p], 0) for p in range(32)])
    spread = np.array([np.nanstd(ratios[patch == p], 0).max() for p in range(32)])
    assert spread.max() < 1e-3 and 0.02 < of_patches.std() < 0.08


def test_extended_randomization_varies_delays_and_label_durations(monkeypatch):
    def moved(name):
        monkeypatch.setattr(f"aslkit.simulate.fixed_protocol.{name}", 0)
        return np.abs(lasting(*EXTENDED)[0] - usual).max()

    usual = lasting(*EXTENDED)[0]
    assert moved("PLD_SCATTER_S") > 1e-4 and moved("EXTENDED_DURATION_SCATTER") > 1e-4


def test_extended_randomization_disperses_the_arrival(monkeypatch):
    """Dispersion broadens the curves, so their peaks are lower."""
    for name in ("ARTERIAL_FRACTION", "MAX_GAIN_ERROR", "PLD_SCATTER_S"):
        monkeypatch.setattr(f"aslkit.simulate.fixed_protocol.{name}", 0)
    dispersed = lasting(*EXTENDED)[0]
    monkeypatch.setattr("aslkit.simulate.fixed_protocol.MAX_DISPERSION_S", 0)
    sharp = lasting(*EXTENDED)[0]
    strong = sharp[:, :6].max(1) > 2e-3
    ratio = dispersed[strong, :6].max(1) / sharp[strong, :6].max(1)
    assert 0.7 < ratio.mean() < 0.99


def test_extended_randomization_correlates_neighbouring_noise_and_keeps_its_sd():
    only = ("data.noise_components=[thermal]", "data.snr_levels=[10]")
    extended, plain = (
        noise(*only, *changes) for changes in (EXTENDED, ("data.noise_type=gaussian",))
    )
    for (difference, mask), least, most in ((extended, 0.1, 0.6), (plain, -0.02, 0.02)):
        assert sd_in_brain(difference, mask) == pytest.approx(noise_sd(10), rel=0.05)
        both = np.broadcast_to(mask[:, :, 1:] & mask[:, :, :-1], difference[:, :, 1:].shape)
        pairs = difference[:, :, 1:][both], difference[:, :, :-1][both]
        assert least < np.corrcoef(*pairs)[0, 1] < most


@pytest.mark.parametrize("change", ["data.domain_randomization=false", "data.noise_type=rician"])
def test_extended_randomization_without_its_requirements_is_refused(change):
    with pytest.raises(InputError, match="extended_randomization with domain_randomization, gau"):
        load_config("production_v2", (*EXTENDED, change))


def test_extended_randomization_also_makes_tensors():
    config = load_config("production_v2", (*SMALL, *EXTENDED))
    arrays, tensors = (
        draw_raw_batch(config, np.random.default_rng(3), device) for device in (None, "cpu")
    )
    assert tensors["signal"].dtype == torch.float32
    torch.testing.assert_close(tensors["truth"], arrays["truth"], rtol=1e-3, atol=1e-3)
    sds = [float(batch["signal"].std()) for batch in (arrays, tensors)]
    assert sds[0] == pytest.approx(sds[1], rel=0.1)


def test_the_same_generator_gives_the_same_patches():
    one, two = drawn(*SMALL), drawn(*SMALL)
    for name, values in vars(one).items():
        np.testing.assert_array_equal(values, getattr(two, name))


@pytest.mark.parametrize("normalization", ["global_scale", "per_curve"])
def test_tensors_and_arrays_are_drawn_and_encoded_in_the_same_way(normalization):
    changes = (*SMALL, f"encoding.normalization={normalization}", "data.noise_components=[]")
    config = load_config("production_v2", changes)
    arrays, tensors = (
        draw_raw_batch(config, np.random.default_rng(3), device) for device in (None, "cpu")
    )
    for name, values in arrays.items():
        assert tensors[name].dtype == torch.float32
        torch.testing.assert_close(tensors[name], values, rtol=1e-3, atol=1e-3)


def test_tensors_and_arrays_have_the_same_noise():
    noisy, quiet = (
        draw_raw_batch(load_config("production_v2", c), np.random.default_rng(3), "cpu")["signal"]
        for c in ((*SMALL, "data.snr_levels=[5]", "data.noise_components=[thermal]"), QUIET)
    )
    assert (noisy - quiet)[quiet != 0].std() == pytest.approx(noise_sd(5), rel=0.05)
