"""Least squares recovers the parameters of an independent simulation, at the global optimum."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from oracles import signal_of

from aslkit.core.acquisition import Acquisition, protocol
from aslkit.core.constants import ATT_BOUNDS_S
from aslkit.core.series_and_maps import AslSeries, ParameterMaps
from aslkit.fit.curve_table import evaluate_cubic, tabulate
from aslkit.fit.intervals import profile_intervals
from aslkit.fit.least_squares import fit_least_squares, fitted_signal
from aslkit.fit.settings import FreeAtt
from aslkit.fit.variable_projection import solve_tissue
from aslkit.kinetics.model import delta_m, kinetic_model, tissue_curve
from aslkit.simulate.signal import PROTOCOLS, noise_sd

SIX = (0.5, 1.0, 1.5, 2.0, 2.5, 3.0)
TIMINGS = {
    "pcasl": protocol("pcasl", SIX, 1.8),
    "pcasl of varying label duration": protocol("pcasl", SIX, (0.8, 1.2, 1.6, 1.8, 2.0, 2.2)),
    "casl": protocol("casl", SIX, 1.6),
    "pasl": protocol("pasl", (0.5, 0.8, 1.1, 1.5, 2.0, 2.6), 0.8),
    "pasl without cut-off": protocol("pasl", (0.5, 0.8, 1.1, 1.5, 2.0, 2.6), np.inf),
    "vsasl": protocol("vsasl", SIX, 0.0),
    "joint": protocol("pcasl", SIX, 1.8) + protocol("vsasl", SIX, 0.0),
}
SLICE_OFFSETS_S = (0.0, 0.047, 0.31)


@pytest.mark.parametrize("kinetic", ["single", "tissue"])
@pytest.mark.parametrize("name", TIMINGS)
def test_recovery_without_noise_is_exact(name, kinetic):
    acquisition = Acquisition(TIMINGS[name], SLICE_OFFSETS_S, kinetic=kinetic)
    rng = np.random.default_rng(0)
    shape = 4, 2, 3
    latest = 1.9 if "pasl" in name else 2.3  # at least two delays after arrival
    cbf, att = rng.uniform(20, 90, shape), rng.uniform(0.85, latest, shape)
    signal = np.empty((*shape, acquisition.n_timings), dtype=np.float32)
    for voxel in np.ndindex(shape):
        offset = SLICE_OFFSETS_S[voxel[2]]
        for i, t in enumerate(acquisition.timings):
            unit = signal_of(t.labeling, t.pld_s + offset, t.label_duration_s, att[voxel], kinetic)
            signal[*voxel, i] = cbf[voxel] * unit
    series = AslSeries(signal, acquisition, np.ones(shape, dtype=bool))
    maps = fit_least_squares(series, FreeAtt())
    np.testing.assert_allclose(maps.cbf, cbf, rtol=1e-3)
    np.testing.assert_allclose(maps.att, att, atol=1e-3)


def noisy_curves(name, n, seed=0):
    """Return a model and noisy signals (1, n_timings, n) of SNR 1 to 30."""
    model = kinetic_model(PROTOCOLS[name].acquisition(1))
    rng = np.random.default_rng(seed)
    cbf, att = rng.uniform(5, 100, (1, n)), rng.uniform(0.2, 3.0, (1, n))
    clean = delta_m(model, cbf, att)
    sd = noise_sd(np.exp(rng.uniform(0, np.log(30), n)))
    return model, clean + sd * rng.standard_normal(clean.shape)


def residual(model, signal, solution):
    return ((signal - delta_m(model, solution.cbf, solution.att)) ** 2).sum(-2)[0]


def dense_search(model, signal, cbf_bounds=(-np.inf, np.inf)):
    """Return the smallest residual sum of squares on a 1 ms grid of ATT."""
    curves = tissue_curve(model, np.arange(0.1, 4.0005, 0.001)[None])[0]
    squares = np.maximum((curves**2).sum(0), 1e-40)[:, None]
    match = curves.T @ signal[0]
    cbf = np.clip(match / squares, *cbf_bounds)
    return (signal[0] ** 2).sum(0) - (cbf * (2 * match - cbf * squares)).max(0)


@pytest.mark.parametrize("name", ["joint6", "pcasl6", "pcasl6-2d", "pcasl5", "pasl8", "vsasl6"])
def test_no_dense_search_finds_a_smaller_residual(name):
    model, signal = noisy_curves(name, 1500)
    found = solve_tissue(tabulate(model, ATT_BOUNDS_S), signal)
    own, dense = residual(model, signal, found), dense_search(model, signal)
    assert np.all(own <= dense * (1 + 1e-6))
    np.testing.assert_allclose(found.rss[0], own, atol=1e-6 * (signal[0] ** 2).sum(0).max())


def test_no_dense_search_within_bounds_finds_a_smaller_residual():
    bounds = 20.0, 70.0
    model, signal = noisy_curves("pcasl6", 1500)
    found = solve_tissue(tabulate(model, ATT_BOUNDS_S), signal, bounds)
    assert found.cbf.min() >= bounds[0] and found.cbf.max() <= bounds[1]
    own, dense = residual(model, signal, found), dense_search(model, signal, bounds)
    assert np.all(own <= dense * (1 + 1e-6))


@given(att=st.floats(0.1, 4.0), name=st.sampled_from(["joint6", "pasl8", "pcasl6-2d"]))
def test_cubics_interpolate_the_curves(att, name):
    model = kinetic_model(PROTOCOLS[name].acquisition(1))
    table = tabulate(model, ATT_BOUNDS_S)
    edges = table.edges[0]
    inside = np.clip(att, edges[0], edges[-1])
    i = np.clip(np.searchsorted(edges, inside) - 1, 0, len(edges) - 2)
    t = (inside - edges[i]) / (edges[i + 1] - edges[i])
    unit = evaluate_cubic(
        (*table.unit[0].T[[i, i + 1]], table.rising[0, :, i], table.falling[0, :, i]), t
    )
    curve = tissue_curve(model, np.array([[inside]]))[0, :, 0]
    np.testing.assert_allclose(unit, curve / np.linalg.norm(curve), atol=3e-6)


@pytest.mark.parametrize("kind", [np.float32, np.float64])
def test_an_undetermined_att_is_the_typical_one(kind):
    late = Acquisition(protocol("pcasl", (1.6, 1.9, 2.2, 2.5), 1.8))
    model = kinetic_model(late, 1, kind)
    clean = delta_m(model, np.full((1, 40), 60.0), np.linspace(0.3, 1.5, 40)[None])
    signal = clean.astype(kind)
    found = solve_tissue(tabulate(model, ATT_BOUNDS_S), signal)
    np.testing.assert_allclose(found.att, 1.3, atol=3e-6)
    np.testing.assert_allclose(found.cbf, 60.0, rtol=1e-6)


@pytest.mark.parametrize("name", ["pcasl6", "pasl8"])
def test_profile_intervals_have_their_nominal_coverage(name):
    acquisition, off = PROTOCOLS[name].acquisition(1), FreeAtt()
    rng = np.random.default_rng(0)
    shape, sd = (60, 60, 1), noise_sd(10)
    cbf, att = (rng.uniform(*r, shape).astype(np.float32) for r in ((40, 80), (0.7, 1.8)))
    nothing = 0 * cbf
    truth = ParameterMaps(cbf, att, nothing, nothing, nothing.astype(np.uint8))
    signal = fitted_signal(truth, acquisition)
    signal = signal + sd * rng.standard_normal(signal.shape, dtype=np.float32)
    noise = np.full(shape, sd, dtype=np.float32)
    series = AslSeries(signal, acquisition, np.ones(shape, dtype=bool), noise_sd=noise)
    maps = fit_least_squares(series, off)
    found = profile_intervals(series, maps, off)
    for q, true in (("cbf", cbf), ("att", att)):
        low, high = np.moveaxis(found[f"{q}-ci95"], 3, 0)
        assert np.all((low <= getattr(maps, q) + 1e-4) & (getattr(maps, q) - 1e-4 <= high))
        assert 0.925 < np.mean((low <= true) & (true <= high)) < 0.97
