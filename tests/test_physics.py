"""The signal model against published values, convolution, finite differences and torch."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from oracles import convolved

from aslkit.core.acquisition import Acquisition, Timing, protocol
from aslkit.kinetics.model import (
    TimingBlock,
    arterial_curve,
    delta_m,
    kinetic_model,
    kinks,
    take_slices,
    tissue_curve,
    tissue_slope,
)

PLDS = [0.5, 1, 1.5, 2, 2.5, 3]
CASES = [("pcasl", 1.8), ("casl", 1.4), ("pasl", 0.8), ("pasl", np.inf), ("vsasl", 0)]
ATTS = np.linspace(0.113, 3.713, 37)[None]
TIMES_S = st.floats(0.05, 4.0)


@pytest.mark.parametrize(
    ("labeling", "t1_blood", "att", "expected"),
    [
        ("pcasl", 1.65, 1.2, [7.33, 9.35, 8.34, 6.16, 4.55, 3.36]),
        ("pcasl", 1.85, 1.2, [8.19, 10.57, 9.66, 7.37, 5.63, 4.29]),
        ("pcasl", 1.85, 1.6, [4.64, 7.02, 8.84, 7.37, 5.63, 4.29]),
        ("vsasl", 1.85, 1.6, [4.75, 7.25, 8.30, 6.75, 5.15, 3.93]),
    ],
)
def test_signal_equals_published_values(labeling, t1_blood, att, expected):
    model = kinetic_model(Acquisition(protocol(labeling, PLDS, 1.8), t1_blood_s=t1_blood))
    signal = delta_m(model, np.array([[60.0]]), np.array([[att]]))[0, :, 0]
    np.testing.assert_allclose(1000 * signal, expected, atol=0.006)


@pytest.mark.parametrize("kinetic", ["single", "tissue"])
@pytest.mark.parametrize(("labeling", "tau"), [("pcasl", 1.8), ("pasl", 0.8)])
@pytest.mark.parametrize("att", [0.3, 1.2, 2.2])
def test_curve_equals_a_numerical_convolution(labeling, tau, kinetic, att):
    model = kinetic_model(Acquisition(protocol(labeling, PLDS, tau), kinetic=kinetic))
    lead = tau if labeling == "pcasl" else 0
    oracle = [convolved(labeling, p + lead, tau, att, kinetic) for p in PLDS]
    np.testing.assert_allclose(
        tissue_curve(model, np.array([[att]]))[0, :, 0], oracle, rtol=1e-6, atol=1e-15
    )


@pytest.mark.parametrize("kinetic", ["single", "tissue"])
@pytest.mark.parametrize(("labeling", "tau"), CASES)
def test_slope_equals_finite_differences(labeling, tau, kinetic):
    model = kinetic_model(Acquisition(protocol(labeling, PLDS, tau), kinetic=kinetic))
    step = 1e-6
    difference = (tissue_curve(model, ATTS + step) - tissue_curve(model, ATTS - step)) / (2 * step)
    scale = np.abs(difference).max()
    np.testing.assert_allclose(tissue_slope(model, ATTS) / scale, difference / scale, atol=1e-7)


@pytest.mark.parametrize(("labeling", "tau"), CASES)
def test_curve_is_continuous_at_its_kinks(labeling, tau):
    model = kinetic_model(Acquisition(protocol(labeling, PLDS, tau)))
    corners = np.array([[t for p in PLDS for t in (p - tau, p, p + tau) if 0 < t < 9]])
    below, at, above = (tissue_curve(model, corners + d) for d in (-1e-9, 0, 1e-9))
    np.testing.assert_allclose(below, above, atol=1e-11)
    np.testing.assert_allclose(at, above, atol=1e-11)


def in_torch(model):
    blocks = tuple(
        TimingBlock(b.labeling, *map(torch.tensor, (b.plds, b.label_durations, b.efficiencies)))
        for b in model.blocks
    )
    return replace(model, blocks=blocks)


@pytest.mark.parametrize("kinetic", ["single", "tissue"])
@pytest.mark.parametrize(("labeling", "tau"), CASES)
def test_torch_equals_numpy_and_is_differentiable(labeling, tau, kinetic):
    model = kinetic_model(Acquisition(protocol(labeling, PLDS, tau), kinetic=kinetic))
    att = torch.tensor(ATTS, requires_grad=True)
    curve = tissue_curve(in_torch(model), att)
    np.testing.assert_allclose(curve.detach().numpy(), tissue_curve(model, ATTS), rtol=1e-6)
    curve.sum().backward()
    slope = tissue_slope(model, ATTS)
    np.testing.assert_allclose(att.grad.numpy(), slope.sum(1), atol=1e-12)
    ours = tissue_slope(in_torch(model), torch.tensor(ATTS))
    assert isinstance(ours, torch.Tensor)
    np.testing.assert_allclose(ours.numpy(), slope, rtol=1e-6, atol=1e-12)
    assert isinstance(kinks(in_torch(model)), torch.Tensor)


def test_signal_is_linear_in_cbf():
    model = kinetic_model(Acquisition(protocol("pcasl", PLDS, 1.8)))
    one, three = (delta_m(model, np.full((1, 37), c), ATTS) for c in (16.0, 64.0))
    np.testing.assert_array_equal(4 * one, three)


@pytest.mark.parametrize(("labeling", "tau"), CASES)
@given(cbf=st.floats(-50, 200), factor=st.floats(-10, 10), att=TIMES_S)
def test_signal_is_linear_in_cbf_for_any_att(labeling, tau, cbf, factor, att):
    model = kinetic_model(Acquisition(protocol(labeling, PLDS, tau)))
    one, scaled = (delta_m(model, np.array([[c]]), np.array([[att]])) for c in (cbf, factor * cbf))
    np.testing.assert_allclose(scaled, factor * one, rtol=1e-12, atol=1e-15)


@pytest.mark.parametrize(("labeling", "tau"), CASES)
@given(att=TIMES_S, pld=TIMES_S, step=st.floats(-1e-3, 1e-3))
def test_signal_is_continuous_in_att_and_delay(labeling, tau, att, pld, step):
    def signal(delay, arrival):
        model = kinetic_model(Acquisition(protocol(labeling, [delay], tau)))
        return 60 * tissue_curve(model, np.array([[arrival]])).item()

    steepest = 0.025 * abs(step) + 1e-15  # largest slope [per s]: 2 α CBF / (6000 λ), plus decay
    assert abs(signal(pld, att + step) - signal(pld, att)) <= steepest
    assert abs(signal(pld + step, att) - signal(pld, att)) <= steepest


def test_kinks_are_the_delays_and_the_ends_of_the_bolus():
    def found(labeling, tau):
        model = kinetic_model(Acquisition(protocol(labeling, [1.0, 2.5], tau), (0.0, 0.1)), 2)
        return np.sort(kinks(model), axis=-1)

    np.testing.assert_allclose(found("pcasl", 1.8), [[1, 2.5, 2.8, 4.3], [1.1, 2.6, 2.9, 4.4]])
    np.testing.assert_allclose(found("pasl", 0.8), [[0.2, 1, 1.7, 2.5], [0.3, 1.1, 1.8, 2.6]])
    np.testing.assert_allclose(found("vsasl", 0), [[1, 1, 2.5, 2.5], [1.1, 1.1, 2.6, 2.6]])


@pytest.mark.parametrize(("labeling", "tau"), CASES)
def test_a_later_slice_has_the_signal_of_a_longer_delay(labeling, tau):
    offsets = (0.0, 0.25, 0.5)
    model = kinetic_model(Acquisition(protocol(labeling, PLDS, tau), offsets), 3)
    curves = tissue_curve(model, np.repeat(ATTS, 3, axis=0))
    for z, offset in enumerate(offsets):
        later = kinetic_model(Acquisition(protocol(labeling, [p + offset for p in PLDS], tau)))
        np.testing.assert_allclose(curves[z], tissue_curve(later, ATTS)[0], rtol=1e-12)
        one = take_slices(model, slice(z, z + 1))
        np.testing.assert_array_equal(tissue_curve(one, ATTS), curves[z : z + 1])


def test_a_joint_acquisition_concatenates_the_signals_of_its_parts():
    parts = (
        protocol("vsasl", PLDS[:2], 0),
        protocol("pcasl", PLDS, 1.8),
        protocol("pasl", [1], 0.8),
    )
    joint = kinetic_model(Acquisition(sum(parts, ())))
    single = [kinetic_model(Acquisition(part)) for part in parts]
    for curve in (tissue_curve, tissue_slope, arterial_curve):
        expected = np.concatenate([curve(model, ATTS) for model in single], axis=1)
        np.testing.assert_array_equal(curve(joint, ATTS), expected)


def test_signal_depends_on_every_constant_of_the_acquisition():
    """PCASL in the closed form of the white paper (PLD after ATT), VSASL as in docs/model.md."""
    timings = protocol("pcasl", [2.0], 1.5, 0.7) + protocol("vsasl", [2.0], 0, 0.5)
    acquisition = Acquisition(
        timings, t1_blood_s=1.4, partition_ml_per_g=0.98, saturation_recovery=0.75
    )
    curve = tissue_curve(kinetic_model(acquisition), np.array([[1.2]]))[0, :, 0]
    decay = np.exp(-2 / 1.4) / (0.98 * 6000)
    pcasl = 2 * 0.7 * 1.4 * decay * (1 - np.exp(-1.5 / 1.4))
    np.testing.assert_allclose(curve, [pcasl, 2 * 0.5 * 1.2 * decay * 0.75], rtol=1e-12)
    tissue = replace(acquisition, timings=timings[:1], kinetic="tissue", t1_tissue_s=1.1)
    found = tissue_curve(kinetic_model(tissue), np.array([[1.2]])).item()
    after = 1.1 * np.exp(-1.2 / 1.4 - 0.8 / 1.1) * (1 - np.exp(-1.5 / 1.1))
    assert found == pytest.approx(2 * 0.7 / (0.98 * 6000) * after, rel=1e-12)


@pytest.mark.parametrize(("labeling", "tau"), CASES)
def test_a_t1_per_voxel_gives_the_signal_of_that_t1(labeling, tau):
    """Includes the T1 of blood, for which the rate in the integral of PASL is 0."""
    acquisition = Acquisition(protocol(labeling, PLDS, tau), kinetic="tissue")
    t1s = np.array([1.0, 1.3, 1.65, 2.0])
    model = replace(kinetic_model(acquisition), t1_tissue=t1s[None, None])
    att = np.full((1, 4), 0.9)
    for function in (tissue_curve, tissue_slope):
        each = [
            function(kinetic_model(replace(acquisition, t1_tissue_s=t1)), att[:, :1])[..., 0]
            for t1 in t1s
        ]
        np.testing.assert_allclose(function(model, att), np.stack(each, -1), rtol=1e-12)


def test_a_model_in_single_precision_gives_single_precision():
    acquisition = Acquisition(protocol("pcasl", PLDS, 1.8), (0.0, 0.04))
    model = kinetic_model(acquisition, 2, np.float32)
    assert tissue_curve(model, np.ones((2, 5), np.float32)).dtype == np.float32
    assert kinetic_model(acquisition, 2).blocks[0].plds.dtype == np.float64


def boxcar_with_linear_edges(start, end, t):
    """Return the fraction of a window of 0.1 s around t with the bolus in the artery."""
    return max(min(end, t + 0.05) - max(start, t - 0.05), 0) / 0.1


@pytest.mark.parametrize(("labeling", "tau", "alpha"), [("pcasl", 1.8, 0.85), ("pasl", 0.8, 0.98)])
@given(abat=TIMES_S)
def test_arterial_signal_is_a_bolus_with_linear_edges_and_the_decay_of_blood(
    labeling, tau, alpha, abat
):
    is_pulsed = labeling == "pasl"
    times = [p if is_pulsed else p + tau for p in PLDS]  # since the start of labeling
    age = [t if is_pulsed else abat for t in times]  # of the blood in the artery
    oracle = [
        2 * alpha / 0.9 * np.exp(-a / 1.65) * boxcar_with_linear_edges(abat, abat + tau, t)
        for t, a in zip(times, age, strict=True)
    ]
    model = kinetic_model(Acquisition(protocol(labeling, PLDS, tau)))
    curve = arterial_curve(model, np.array([[abat]]))[0, :, 0]
    np.testing.assert_allclose(curve, oracle, rtol=1e-9, atol=1e-12)


def test_arterial_signal_is_absent_from_the_vsasl_part_of_a_joint_acquisition():
    timings = protocol("pcasl", PLDS, 1.8) + protocol("vsasl", PLDS, 1.8)
    curve = arterial_curve(kinetic_model(Acquisition(timings)), ATTS)[0]
    assert curve[:6].any() and not curve[6:].any()


def test_arterial_signal_adds_to_tissue_signal():
    model = kinetic_model(Acquisition(protocol("pcasl", PLDS, 1.8)))
    cbf, abv, abat = (np.full((1, 37), v) for v in (60.0, 0.01, 0.4))
    arterial = delta_m(model, cbf, ATTS, abv, abat) - delta_m(model, cbf, ATTS)
    np.testing.assert_allclose(arterial, 0.01 * arterial_curve(model, abat), atol=1e-15)


@pytest.mark.parametrize(("labeling", "tau"), CASES)
def test_arterial_signal_is_equal_in_torch(labeling, tau):
    model = kinetic_model(Acquisition(protocol(labeling, PLDS, tau)))
    curve = arterial_curve(in_torch(model), torch.tensor(ATTS))
    np.testing.assert_allclose(curve.numpy(), arterial_curve(model, ATTS), rtol=1e-6, atol=1e-12)


def test_a_delay_in_milliseconds_is_refused():
    with pytest.raises(ValueError, match="PLD 1800 s is outside 0-20 s"):
        Timing("pcasl", 1800, 1.8, 0.85)
