"""Least squares against the truth, scipy, the Cramér-Rao bound and torch."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.optimize import least_squares

from aslkit.core.acquisition import Acquisition, protocol
from aslkit.core.constants import ATT_BOUNDS_S
from aslkit.core.series_and_maps import AslSeries, Flag, ParameterMaps
from aslkit.fit.arterial import arterial_given_tissue, solve_arterial
from aslkit.fit.curve_table import tabulate
from aslkit.fit.least_squares import (
    POOLING_VOXELS,
    fit_least_squares,
    fitted_signal,
    pooled_sd,
    quality_flags,
    residual_sd,
)
from aslkit.fit.settings import Arterial, FixedAtt, FreeAtt, FreeT1, choose_settings
from aslkit.fit.standard_errors import cramer_rao_sd, errors_with_assumed_att
from aslkit.fit.variable_projection import solve_tissue
from aslkit.kinetics.model import delta_m, kinetic_model
from aslkit.simulate.signal import PROTOCOLS, noise_sd

OFF = FreeAtt()
ARTERIAL = Arterial()
SHAPE = (24, 24, 4)
MULTI_DELAY = sorted(name for name, p in PROTOCOLS.items() if p.acquisition(1).n_timings > 1)


def truth(shape=SHAPE, att_range=(0.8, 2.2), seed=0):
    rng = np.random.default_rng(seed)
    cbf = rng.uniform(20, 90, shape).astype(np.float32)
    att = rng.uniform(*att_range, shape).astype(np.float32)
    zero = np.zeros(shape, np.float32)
    return ParameterMaps(cbf, att, zero, zero, zero.astype(np.uint8))


def scan(maps, acquisition, sd=0.0, seed=1):
    clean = fitted_signal(maps, acquisition)
    noise = np.random.default_rng(seed).normal(0, 1, clean.shape) * sd
    noise = noise / np.sqrt(acquisition.weights)
    return AslSeries(
        (clean + noise).astype(np.float32), acquisition, np.ones(maps.cbf.shape, bool)
    )


@pytest.mark.parametrize("kinetic", ["single", "tissue"])
@pytest.mark.parametrize("name", MULTI_DELAY)
def test_parameters_are_recovered_without_noise(name, kinetic):
    acquisition = replace(PROTOCOLS[name].acquisition(SHAPE[2]), kinetic=kinetic)
    late = acquisition.effective_plds_s(SHAPE[2]).min(axis=1).max() + 0.1
    true = truth(att_range=(max(late, 0.5), max(late, 0.5) + 0.9))
    maps = fit_least_squares(scan(true, acquisition), OFF)
    np.testing.assert_allclose(maps.cbf, true.cbf, rtol=5e-3)
    np.testing.assert_allclose(maps.att, true.att, atol=5e-3)


@pytest.mark.parametrize("name", ["joint6", "pcasl6"])
def test_errors_reach_the_cramer_rao_bound(name):
    acquisition, sd = PROTOCOLS[name].acquisition(SHAPE[2]), noise_sd(30)
    true = truth()
    maps = fit_least_squares(scan(true, acquisition, sd), OFF)
    for q, bound in zip(("cbf", "att"), cramer_rao_sd(true, acquisition, sd), strict=True):
        efficient = np.sqrt(2 / np.pi) * bound.mean()
        error = np.abs(getattr(maps, q) - getattr(true, q)).mean()
        assert 0.9 < error / efficient < 1.1


def test_no_local_search_of_scipy_finds_a_smaller_residual():
    acquisition = PROTOCOLS["pcasl5"].acquisition(1)
    series = scan(truth((5, 5, 1)), acquisition, noise_sd(3))
    maps = fit_least_squares(series, OFF)
    model = kinetic_model(acquisition)
    own = np.sum((fitted_signal(maps, acquisition) - series.delta_m) ** 2, axis=-1).ravel()
    for signal, rss in zip(series.delta_m.reshape(25, -1), own, strict=True):

        def residual(p, signal=signal):
            return 1e3 * (delta_m(model, p[:1, None], p[1:, None])[0, :, 0] - signal)

        starts = ((50, 0.5), (50, 1.3), (50, 2.2), (-20, 1.3))
        found = [least_squares(residual, s, bounds=((-900, 0.1), (900, 4))).fun for s in starts]
        assert rss * 1e6 <= min(np.sum(f**2) for f in found) * 1.001 + 1e-6


def test_standard_errors_have_their_nominal_coverage():
    acquisition = PROTOCOLS["joint6"].acquisition(SHAPE[2])
    true = truth()
    maps = fit_least_squares(scan(true, acquisition, noise_sd(20)), OFF)
    for q in ("cbf", "att"):
        inside = np.abs(getattr(maps, q) - getattr(true, q)) < getattr(maps, f"{q}_std")
        assert 0.63 < inside.mean() < 0.74


def test_residuals_give_the_noise_level():
    acquisition = PROTOCOLS["joint6"].acquisition(SHAPE[2])
    sd = residual_sd(scan(truth(), acquisition, noise_sd(10)), OFF)
    np.testing.assert_allclose(sd, noise_sd(10), rtol=0.05)


def test_the_noise_level_is_the_median_residual_divided_by_that_of_chi_squared():
    """The median of chi squared with two degrees of freedom is 2 ln 2; slices are pooled."""
    rss = np.full((20, 10, 3), 4.0, np.float32)
    rss[..., 1] = 16
    rss[:3, :, 1] = 1e6  # voxels where no model holds
    mask = np.zeros(rss.shape, dtype=bool)
    mask[..., 0], mask[:10, :, 1] = True, True
    rss[0, 0, 0] = np.nan
    sd = pooled_sd(rss, mask, 2)
    counts = np.array([199, 100, 0])
    medians = (counts * [4, 16, 4] + POOLING_VOXELS * 4) / (counts + POOLING_VOXELS)
    expected = np.broadcast_to(np.sqrt(medians / (2 * np.log(2))), rss.shape)
    np.testing.assert_allclose(sd, expected, rtol=1e-5)
    assert sd.dtype == np.float32
    assert np.isfinite(pooled_sd(rss, mask, 1)).all()


def test_the_noise_level_is_nan_without_degrees_of_freedom_or_voxels():
    rss, mask = np.ones((2, 2, 2), np.float32), np.ones((2, 2, 2), bool)
    assert np.isnan(pooled_sd(rss, mask, 0)).all()
    assert np.isnan(pooled_sd(rss, ~mask, 2)).all()


def test_auto_fits_arteries_to_early_delays():
    six = Acquisition(protocol("pcasl", [0.5, 1, 1.5, 2, 2.5, 3], 1.8))
    late = Acquisition(protocol("pcasl", [1, 1.5, 2, 2.5, 3, 3.5], 1.8))
    assert choose_settings(six) == ARTERIAL and choose_settings(late) == OFF
    assert choose_settings(late, "on") == ARTERIAL and choose_settings(six, "off") == OFF
    assert choose_settings(six, cbf_bounds=(0, 200)) == FreeAtt((0, 200))
    assert [s.degrees_of_freedom(six) for s in (ARTERIAL, FreeT1())] == [3, 3]


def test_only_a_single_delay_has_an_assumed_att():
    one, two = (Acquisition(protocol("pcasl", plds, 1.8)) for plds in ([1.8], [1.8, 2.0]))
    assert choose_settings(one) == choose_settings(one, "off") == FixedAtt(1.3)
    assert choose_settings(two) == FreeAtt()


def test_averages_are_weights():
    timings = protocol("pcasl", [0.5, 1, 1.5, 2, 2.5, 3], 1.8)
    uneven = tuple(
        replace(t, n_averages=n) for t, n in zip(timings, [1] * 3 + [9] * 3, strict=True)
    )
    true = truth(att_range=(1.6, 2.6))
    series = scan(true, Acquisition(uneven), noise_sd(5))
    ignored = replace(series, acquisition=Acquisition(timings))
    errors = [np.abs(fit_least_squares(s, OFF).cbf - true.cbf).mean() for s in (series, ignored)]
    assert errors[0] < 0.9 * errors[1]


def with_artery(abv, sd, seed=3):
    acquisition = PROTOCOLS["pcasl6-2d"].acquisition(SHAPE[2])
    true = truth(att_range=(1.0, 1.4))
    abat = true.att - 0.4
    artery = np.full(SHAPE, abv, np.float32)
    true = replace(true, abv=artery, abat=abat)
    return true, scan(true, acquisition, sd, seed)


def test_the_arterial_compartment_fits_arterial_signal():
    true, series = with_artery(abv=0.02, sd=noise_sd(20))
    on, off = (fit_least_squares(series, settings) for settings in (ARTERIAL, OFF))
    assert abs(np.median(on.abv) - 0.02) < 0.003
    errors = [np.abs(m.cbf - true.cbf).mean() for m in (on, off)]
    assert errors[0] < 0.5 * errors[1]
    assert np.all(on.abat <= on.att + 1e-6)


def test_the_arterial_compartment_stays_small_without_arterial_signal():
    true, series = with_artery(abv=0.0, sd=noise_sd(10))
    maps = fit_least_squares(series, Arterial())
    assert np.mean(maps.abv) < 0.002
    plain = fit_least_squares(series, OFF)
    assert np.abs(maps.cbf - true.cbf).mean() < 2 * np.abs(plain.cbf - true.cbf).mean()


def test_arterial_volume_is_recovered_for_known_tissue():
    true, series = with_artery(abv=0.02, sd=1e-6)
    model = kinetic_model(series.acquisition, SHAPE[2])
    signal = series.delta_m.reshape(-1, SHAPE[2], 6).transpose(1, 2, 0).astype(float)
    cbf, att = (i.reshape(-1, SHAPE[2]).swapaxes(0, 1).astype(float) for i in (true.cbf, true.att))
    abv, abat = arterial_given_tissue(model, signal, 0 * cbf + 1e-4, cbf, att, 0 * att)
    assert np.abs(abv - 0.02).mean() < 0.002
    assert np.abs(abat - (att - 0.4)).mean() < 0.06


def test_torch_and_numpy_agree():
    acquisition = PROTOCOLS["joint6"].acquisition(1)
    series = scan(truth((9, 9, 1)), acquisition, noise_sd(5))
    signal = series.delta_m.reshape(81, -1).T[None].astype(float)
    model = kinetic_model(acquisition)
    as_torch = replace(
        model,
        blocks=tuple(
            replace(
                b,
                **{
                    k: torch.tensor(getattr(b, k))
                    for k in ("plds", "label_durations", "efficiencies")
                },
            )
            for b in model.blocks
        ),
    )
    sd = np.full((1, 81), noise_sd(5))
    both = (model, signal), (as_torch, torch.tensor(signal))
    for ours, theirs in (
        tuple(solve_tissue(tabulate(m, ATT_BOUNDS_S), s) for m, s in both),
        (
            solve_arterial(model, signal, sd),
            solve_arterial(as_torch, torch.tensor(signal), torch.tensor(sd)),
        ),
    ):
        np.testing.assert_allclose(theirs.cbf.numpy(), ours.cbf, rtol=1e-6)
        np.testing.assert_allclose(theirs.att.numpy(), ours.att, rtol=1e-6)


def test_flags_mark_nan_undetermined_att_and_voxels_outside():
    acquisition = PROTOCOLS["pcasl6"].acquisition(SHAPE[2])
    true = truth()
    series = scan(true, acquisition, noise_sd(30))
    data, mask = series.delta_m.copy(), series.mask.copy()
    data[0, 0, 0, 2] = np.nan
    data[1, 0, 0] = np.random.default_rng(0).normal(0, 1e-5, 6)
    mask[2, 0, 0] = False
    maps = fit_least_squares(replace(series, delta_m=data, mask=mask), OFF)
    assert maps.flags[0, 0, 0] == Flag.NOT_FINITE
    assert maps.flags[1, 0, 0] == Flag.ATT_UNDETERMINED
    assert abs(maps.cbf[1, 0, 0]) < 2
    assert maps.flags[2, 0, 0] == Flag.OUTSIDE
    assert np.mean(maps.flags == Flag.OK) > 0.98


def test_flags_begin_at_their_thresholds():
    """The search range is 0.5-2.5 s; a uniform distribution over it has an sd of 0.577 s."""
    undetermined = np.sqrt(0.5) * 2 / np.sqrt(12)
    att = np.array([0.503, 0.5019, 2.497, 2.4981, 1, 1, 0.5, 1, 1, 1, 1])
    att_std = np.array([0.1] * 4 + [undetermined - 1e-6, *[undetermined + 1e-6] * 2] + [0.1] * 4)
    cbf, cbf_std, mask = np.full(11, 60.0), np.ones(11), np.ones(11, dtype=bool)
    cbf[7], cbf_std[8], mask[[9, 10]], cbf_std[10] = np.nan, 0, False, 0
    flags = quality_flags(cbf, att, cbf_std, att_std, mask, FreeAtt(att_bounds_s=(0.5, 2.5)))
    at_bound, unknown_att, not_finite = Flag.AT_ATT_BOUND, Flag.ATT_UNDETERMINED, Flag.NOT_FINITE
    expected = [Flag.OK, at_bound] * 2 + [Flag.OK] + [unknown_att] * 2 + [not_finite] * 2
    assert [*flags] == [*expected, Flag.OUTSIDE, not_finite]
    assert flags.dtype == np.uint8
    known = FixedAtt(0.5, att_bounds_s=(0.5, 2.5))
    flags = quality_flags(cbf, att, cbf_std, att_std, mask, known)
    assert [*flags] == [Flag.OK] * 7 + [not_finite] * 2 + [Flag.OUTSIDE, not_finite]


def test_the_cramer_rao_bound_is_the_inverse_of_the_fisher_information():
    timings = protocol("pcasl", [0.5, 1.5, 2.5], 1.8)
    timings = tuple(replace(t, n_averages=n) for t, n in zip(timings, (1, 2, 6), strict=True))
    acquisition = Acquisition(timings, (0.0, 0.3))
    true = truth((2, 3, 2), att_range=(0.9, 1.4))
    found = cramer_rao_sd(true, acquisition, 1e-3)
    model, step = kinetic_model(acquisition, 2), 1e-6
    for x, y, z in np.ndindex(2, 3, 2):
        at = [np.full((2, 1), i[x, y, z], float) for i in (true.cbf, true.att)]
        jacobian = np.stack(
            [
                delta_m(model, at[0] + 1, at[1]) - delta_m(model, *at),
                (delta_m(model, at[0], at[1] + step) - delta_m(model, at[0], at[1] - step))
                / (2 * step),
            ]
        )[:, z, :, 0]
        information = jacobian * [1 / 3, 2 / 3, 2] @ jacobian.T / 1e-6
        expected = np.sqrt(np.diag(np.linalg.inv(information)))
        np.testing.assert_allclose([sd[x, y, z] for sd in found], expected, rtol=1e-4)


def test_an_undetermined_att_has_an_infinite_cramer_rao_bound():
    late = Acquisition(protocol("pcasl", [1.6, 1.9, 2.2], 1.8))
    true = truth((2, 2, 1), att_range=(0.5, 1.5))
    assert all(np.isinf(sd).all() for sd in cramer_rao_sd(true, late, 1e-3))


def test_estimates_respect_bounds_and_a_known_att():
    acquisition = PROTOCOLS["pcasl6"].acquisition(SHAPE[2])
    series = scan(truth(), acquisition, noise_sd(1))
    bounded = fit_least_squares(series, FreeAtt((0, 80), att_bounds_s=(0.5, 1.5)))
    assert bounded.cbf.min() >= 0 and bounded.cbf.max() <= 80 + 1e-4
    assert bounded.att.min() >= 0.5 and bounded.att.max() <= 1.5
    fixed = fit_least_squares(series, FixedAtt(1.2))
    assert np.all(fixed.att == np.float32(1.2)) and np.all(fixed.att_std == 0)
    both = fit_least_squares(series, FixedAtt(1.2, (30, 60)))
    np.testing.assert_allclose(both.cbf, np.clip(fixed.cbf, 30, 60))
    rss = np.sum((fitted_signal(both, acquisition) - series.delta_m) ** 2, axis=3)
    sd = pooled_sd(rss, series.mask, FixedAtt(1.2).degrees_of_freedom(acquisition))
    np.testing.assert_allclose(residual_sd(series, FixedAtt(1.2, (30, 60))), sd, rtol=1e-3)


def test_a_single_delay_determines_cbf_for_a_known_att():
    acquisition = PROTOCOLS["pcasl1"].acquisition(SHAPE[2])
    true = truth(att_range=(1.3, 1.3 + 1e-6))
    maps = fit_least_squares(scan(true, acquisition), FixedAtt(1.3))
    np.testing.assert_allclose(maps.cbf, true.cbf, rtol=1e-4)
    assumed = fit_least_squares(scan(true, acquisition))
    np.testing.assert_array_equal(assumed.cbf, maps.cbf)
    with pytest.raises(ValueError, match="one timing does not determine ATT: use FixedAtt"):
        fit_least_squares(scan(true, acquisition), OFF)


@pytest.mark.parametrize("cbf", [20.0, 60.0])
def test_errors_of_a_single_delay_include_noise_and_the_assumed_range_of_att(cbf):
    acquisition = PROTOCOLS["pcasl1"].acquisition(1)
    rng, shape, sd = np.random.default_rng(0), (200, 200, 1), noise_sd(10)
    true = truth(shape, att_range=(0.3, 2.3))
    signal = fitted_signal(replace(true, cbf=np.full_like(true.cbf, cbf)), acquisition)
    noisy = signal[..., 0] + rng.normal(0, sd, shape)
    typical = fitted_signal(
        replace(true, cbf=0 * true.cbf + 1, att=0 * true.att + 1.3), acquisition
    )
    found = noisy / typical[..., 0]
    model = kinetic_model(acquisition, 1)
    cbf_se, att_se = errors_with_assumed_att(model, np.array([[cbf]]), np.array([[sd]]))
    assert cbf_se.item() == pytest.approx(np.sqrt(np.mean((found - cbf) ** 2)), rel=0.05)
    assert att_se.item() == pytest.approx(np.std(true.att), rel=0.02)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"att_bounds_s": (2.0, 1.0)}, "must be positive and ascending"),
        ({"att_bounds_s": (1.0, 1.0)}, "must be positive and ascending"),
        ({"att_bounds_s": (0.0, 1.0)}, "must be positive and ascending"),
        ({"cbf_bounds": (80.0, 0.0)}, "CBF bounds must be ascending"),
        ({"cbf_bounds": (80.0, 80.0)}, "CBF bounds must be ascending"),
    ],
)
def test_bounds_that_are_not_ascending_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        FreeAtt(**settings)
    with pytest.raises(ValueError, match=message):
        FixedAtt(1.3, **settings)


@pytest.mark.parametrize(
    ("n", "options", "message"),
    [
        (1, {"macrovascular": "on"}, "needs several timings and no bounds of CBF"),
        (6, {"macrovascular": "on", "cbf_bounds": (0, 80)}, "no bounds of CBF"),
        (6, {"macrovascular": "maybe"}, "macrovascular must be one of auto, on, off"),
    ],
)
def test_settings_that_do_not_suit_the_acquisition_are_refused(n, options, message):
    with pytest.raises(ValueError, match=message):
        choose_settings(PROTOCOLS[f"pcasl{n}"].acquisition(1), **options)
