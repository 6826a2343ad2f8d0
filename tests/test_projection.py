"""Parts of least squares with a closed form."""

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


def test_cbf_for_a_known_att_is_the_projection_on_the_curve():
    model = kinetic_model(Acquisition(JOINT))
    signal = np.random.default_rng(0).normal(0, 1e-3, (1, 5, 4))
    curve = tissue_curve(model, ATTS)
    found = solve_fixed(model, signal, ATTS)
    for v in range(4):
        cbf, rss, *_ = np.linalg.lstsq(curve[0, :, v : v + 1], signal[0, :, v], rcond=None)
        np.testing.assert_allclose(found.cbf[0, v], cbf[0], rtol=1e-9)
        np.testing.assert_allclose(found.rss[0, v], rss[0], rtol=1e-9)
    np.testing.assert_array_equal(found.att, ATTS)


def test_a_known_att_after_the_last_delay_gives_zero_cbf():
    late = kinetic_model(Acquisition(protocol("pasl", [0.5, 1.0], 0.8)))
    found = solve_fixed(late, np.full((1, 2, 1), 0.01), np.array([[1.5]]))
    np.testing.assert_allclose([found.cbf.item(), found.rss.item()], [0, 2e-4])


def test_each_slice_is_solved_with_its_own_delays():
    """Two slices of a joint PCASL and VSASL acquisition."""
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


def test_cbf_beyond_a_bound_becomes_the_bound():
    model = kinetic_model(Acquisition(JOINT))
    table = tabulate(model, ATT_BOUNDS_S)
    signal = np.array([60.0, -20.0, 200.0])[None, None] * tissue_curve(model, np.full((1, 3), 1.2))
    found = solve_tissue(table, signal, (0.0, 100.0))
    np.testing.assert_allclose(found.cbf[0], [60, 0, 100], rtol=1e-4, atol=1e-9)
    np.testing.assert_allclose(found.att[0, 0], 1.2, atol=1e-4)
    np.testing.assert_allclose(found.rss[0, 1], (signal[0, :, 1] ** 2).sum(), rtol=1e-6)


def cubic(coefficients):
    """Return values and slopes at 0 and 1 of a polynomial; its constant comes first."""
    p = np.polynomial.Polynomial(coefficients)
    return [np.array([f(x)]) for f in (p, p.deriv()) for x in (0.0, 1.0)]


def test_a_cubic_is_defined_by_its_values_and_slopes_at_both_ends():
    t = np.linspace(0, 1, 7)
    found = evaluate_cubic(cubic([1.0, -2.0, 3.0, 0.5]), t)
    np.testing.assert_allclose(found, 1 - 2 * t + 3 * t**2 + 0.5 * t**3, rtol=1e-12)


def test_the_maximum_of_a_cubic_has_zero_slope_or_is_at_an_end():
    for coefficients, position in (
        ([1.0, 0.5, -1.0], 0.25),
        ([0.0, 1.0, 0.0, -1.0], np.sqrt(1 / 3)),
        ([0.0, 0.4, 0.5, -1.0], (1 + np.sqrt(1 + 4.8)) / 6),
        ([0.0, 1.0], 1.0),
        ([0.0, -1.0], 0.0),
        ([0.0, 0.0, -1.0], 0.0),
        ([0.0, 2.0, -1.0], 1.0),
        ([3.0], 0.0),
    ):
        np.testing.assert_allclose(maximum_of_cubic(cubic(coefficients)), position, atol=1e-12)


def test_curve_tables_have_the_dtype_of_the_model():
    for kind in (np.float32, np.float64):
        table = tabulate(kinetic_model(Acquisition(JOINT), 1, kind), ATT_BOUNDS_S)
        tables = vars(table)
        assert {v.dtype for k, v in tables.items() if k != "model"} == {np.dtype(kind)}


def test_cell_edges_are_the_bounds_and_every_kink_between_them():
    (edges,) = tabulate(kinetic_model(Acquisition(JOINT)), (0.45, 2.95)).edges
    assert (edges[0], edges[-1]) == (0.45, 2.95)
    assert {0.5, 1.0, 1.5, 2.0, 2.3, 2.8} <= set(np.round(edges, 6))
    assert np.all(np.diff(edges) > 0) and np.diff(edges).max() <= 0.1 + 1e-9
