"""The parts of least squares that have a closed form."""

from dataclasses import replace

import numpy as np

from aslkit.core.acquisition import Acquisition, protocol
from aslkit.core.constants import ATT_BOUNDS_S
from aslkit.fit.curve_table import evaluate_cubic, maximum_of_cubic, tabulate
from aslkit.fit.variable_projection import solve_fixed, solve_tissue, weighted
from aslkit.kinetics.model import kinetic_model, tissue_curve

JOINT = protocol("pcasl", [0.5, 1.0, 2.0], 1.8) + protocol("vsasl", [1.5, 2.0], 0)
ATTS = np.array([[0.3, 0.9, 1.4, 2.3]])


def test_weighting_multiplies_every_timing_by_the_root_of_its_weight():
    model = kinetic_model(Acquisition(JOINT))
    weights = np.array([0.25, 1.0, 4.0, 9.0, 16.0])
    found = tissue_curve(weighted(model, weights), ATTS)
    expected = np.array([0.5, 1, 2, 3, 4])[:, None] * tissue_curve(model, ATTS)
    np.testing.assert_allclose(found, expected, rtol=1e-12)


def test_the_flow_of_a_known_arrival_is_the_projection_on_its_curve():
    model = kinetic_model(Acquisition(JOINT))
    signal = np.random.default_rng(0).normal(0, 1e-3, (1, 5, 4))
    curve = tissue_curve(model, ATTS)
    found = solve_fixed(model, signal, ATTS)
    for v in range(4):
        cbf, rss, *_ = np.linalg.lstsq(curve[0, :, v : v + 1], signal[0, :, v], rcond=None)
        np.testing.assert_allclose(found.cbf[0, v], cbf[0], rtol=1e-9)
        np.testing.assert_allclose(found.rss[0, v], rss[0], rtol=1e-9)
    np.testing.assert_array_equal(found.att, ATTS)


def test_a_known_arrival_after_the_last_delay_leaves_all_of_the_signal():
    late = kinetic_model(Acquisition(protocol("pasl", [0.5, 1.0], 0.8)))
    found = solve_fixed(late, np.full((1, 2, 1), 0.01), np.array([[1.5]]))
    np.testing.assert_allclose([found.cbf.item(), found.rss.item()], [0, 2e-4])


def test_slices_of_different_delays_are_solved_each_with_its_own_curves():
    """Two slices, 3 and 1 timings of which belong to different labelings."""
    acquisition = Acquisition(JOINT, (0.0, 0.4))
    model = kinetic_model(acquisition, 2)
    cbf, att = (
        np.array([[60.0, -20, 5], [30, 90, -40]]),
        np.array([[0.8, 1.3, 1.7], [1.1, 1.6, 2]]),
    )
    signal = cbf[:, None] * tissue_curve(model, att)
    found = solve_tissue(tabulate(model, ATT_BOUNDS_S), signal)
    np.testing.assert_allclose(found.cbf, cbf, rtol=1e-4)
    np.testing.assert_allclose(found.att, att, atol=1e-4)
    assert np.all(found.rss < 1e-8 * (signal**2).sum(1))


def test_within_bounds_the_flow_is_the_nearest_one_where_it_cannot_be_the_best():
    model = kinetic_model(Acquisition(JOINT))
    cells = tabulate(model, ATT_BOUNDS_S)
    signal = np.array([60.0, -20.0, 200.0])[None, None] * tissue_curve(model, np.full((1, 3), 1.2))
    found = solve_tissue(cells, signal, (0.0, 100.0))
    np.testing.assert_allclose(found.cbf[0], [60, 0, 100], rtol=1e-4, atol=1e-9)
    np.testing.assert_allclose(found.att[0, 0], 1.2, atol=1e-4)
    np.testing.assert_allclose(found.rss[0, 1], (signal[0, :, 1] ** 2).sum(), rtol=1e-6)


def cubic(coefficients):
    """Values and slopes at 0 and 1 of a polynomial, its constant first."""
    p = np.polynomial.Polynomial(coefficients)
    return [np.array([f(x)]) for f in (p, p.deriv()) for x in (0.0, 1.0)]


def test_a_cubic_is_given_by_its_values_and_slopes_at_both_ends():
    t = np.linspace(0, 1, 7)
    found = evaluate_cubic(cubic([1.0, -2.0, 3.0, 0.5]), t)
    np.testing.assert_allclose(found, 1 - 2 * t + 3 * t**2 + 0.5 * t**3, rtol=1e-12)


def test_the_top_of_a_cubic_is_where_its_slope_vanishes_or_at_the_higher_end():
    for coefficients, top in (
        ([1.0, 0.5, -1.0], 0.25),
        ([0.0, 1.0, 0.0, -1.0], np.sqrt(1 / 3)),
        ([0.0, 0.4, 0.5, -1.0], (1 + np.sqrt(1 + 4.8)) / 6),
        ([0.0, 1.0], 1.0),
        ([0.0, -1.0], 0.0),
        ([0.0, 0.0, -1.0], 0.0),
        ([0.0, 2.0, -1.0], 1.0),
        ([3.0], 0.0),
    ):
        np.testing.assert_allclose(maximum_of_cubic(cubic(coefficients)), top, atol=1e-12)


def test_precision_of_tables_is_that_of_the_model():
    for kind in (np.float32, np.float64):
        cells = tabulate(kinetic_model(Acquisition(JOINT), 1, kind), ATT_BOUNDS_S)
        tables = replace(cells).__dict__
        assert {v.dtype for k, v in tables.items() if k != "model"} == {np.dtype(kind)}


def test_cells_end_at_the_bounds_and_at_every_kink_between():
    (edges,) = tabulate(kinetic_model(Acquisition(JOINT)), (0.45, 2.95)).edges
    assert (edges[0], edges[-1]) == (0.45, 2.95)
    assert {0.5, 1.0, 1.5, 2.0, 2.3, 2.8} <= set(np.round(edges, 6))
    assert np.all(np.diff(edges) > 0) and np.diff(edges).max() <= 0.1 + 1e-9
