"""Metrics against closed forms and scipy; each self-check passes and fails as it should."""

from dataclasses import replace

import numpy as np
import pytest
from oracles import lookup
from scipy import stats

from aslkit.core.series_and_maps import Flag, ParameterMaps
from aslkit.validate import metrics, self_checks
from aslkit.validate.records import (
    LS,
    Subject,
    efficiency,
    pool_voxels,
    records,
    scored_strata,
    values_in_table_units,
    win_rate,
)
from aslkit.validate.scores import score

N = 4000
RNG = np.random.default_rng(7)
TRUTH = RNG.uniform(10, 90, N)
ESTIMATE = 3 + 0.8 * TRUTH + RNG.normal(0, 5, N)


def subject(name="one", seed=0, sd_ls=4.0, sd_net=2.0):
    """Return a subject with Gaussian errors of known standard deviation."""
    rng = np.random.default_rng(seed)
    truth = {"cbf": rng.uniform(10, 90, N), "att": rng.uniform(600, 2400, N)}

    def estimate(sd):
        return {q: t + rng.normal(0, sd, N) for q, t in truth.items()}

    return Subject(
        name=name,
        truth=truth,
        strata={"brain": np.ones(N, bool), "GM": truth["cbf"] > 50, "WM": truth["cbf"] <= 50},
        estimates={LS: estimate(sd_ls), "net": estimate(sd_net)},
        sds={e: {q: np.full(N, s) for q in truth} for e, s in ((LS, sd_ls), ("net", sd_net))},
        is_estimated={e: {q: np.arange(N) % 4 > 0 for q in truth} for e in (LS, "net")},
        bounds={q: np.full(N, 4.0) for q in truth},
    )


def table_of(*subjects):
    rows = score(subjects, ("cbf", "att"), seed=0)
    return records({"snr": 3.0}, rows)


def value(table, estimator, metric, stratum="brain", quantity="cbf"):
    where = {"estimator": estimator, "stratum": stratum, "quantity": quantity, "metric": metric}
    return lookup(table, **where)


def test_errors_of_a_known_offset_equal_the_closed_forms():
    estimate, truth = np.array([1.0, 4.0, 7.0]), np.array([2.0, 2.0, 8.0])
    assert metrics.mean_absolute_error(estimate, truth) == pytest.approx(4 / 3)
    assert metrics.bias(estimate, truth) == pytest.approx(0)
    assert metrics.root_mean_square_error(estimate, truth) == pytest.approx(np.sqrt(2))
    assert metrics.r_squared(estimate, truth) == pytest.approx(1 - 6 / 24)
    assert metrics.root_mean_square(np.array([3.0, 4.0])) == pytest.approx(np.sqrt(12.5))


def test_slope_and_rank_correlation_equal_scipy():
    assert metrics.slope(ESTIMATE, TRUTH) == pytest.approx(stats.linregress(TRUTH, ESTIMATE).slope)
    with_ties = np.round(ESTIMATE, -1)
    expected = stats.spearmanr(with_ties, TRUTH).statistic
    assert metrics.spearman(with_ties, TRUTH) == pytest.approx(expected)


def test_concordance_is_correlation_times_the_bias_correction():
    ratio = np.std(ESTIMATE) / np.std(TRUTH)
    shift = (np.mean(ESTIMATE) - np.mean(TRUTH)) ** 2 / (np.std(ESTIMATE) * np.std(TRUTH))
    expected = stats.pearsonr(ESTIMATE, TRUTH).statistic * 2 / (ratio + 1 / ratio + shift)
    assert metrics.concordance(ESTIMATE, TRUTH) == pytest.approx(expected)


def test_metrics_that_a_constant_truth_does_not_define_are_nan():
    constant = np.full(N, 60.0)
    assert np.isnan(metrics.r_squared(ESTIMATE, constant))
    assert np.isnan(metrics.slope(ESTIMATE, constant))
    assert np.isnan(metrics.spearman(ESTIMATE, constant))
    assert np.isnan(metrics.concordance(constant, constant))


@pytest.mark.parametrize("level", [0.5, 0.8, 0.95])
def test_coverage_of_gaussian_errors_is_nominal_and_of_too_small_sds_is_known(level):
    error = stats.norm.ppf((np.arange(N) + 0.5) / N)
    half_width = stats.norm.ppf(0.5 + level / 2)
    assert metrics.coverage(error, np.ones(N), level) == pytest.approx(level, abs=1e-3)
    too_small = 2 * stats.norm.cdf(half_width / 2) - 1
    assert metrics.coverage(error, np.full(N, 0.5), level) == pytest.approx(too_small, abs=1e-3)


def test_crps_and_likelihood_of_gaussian_predictions_equal_their_definitions():
    error, sd = np.array([0.7, -1.5]), np.array([1.2, 0.4])
    x = np.linspace(-30, 30, 600_001)
    steps = [stats.norm.cdf(x, 0, s) - (x >= e) for e, s in zip(error, sd, strict=True)]
    integrals = [np.trapezoid(np.square(s), x) for s in steps]
    assert metrics.crps(error, sd) == pytest.approx(np.mean(integrals), rel=1e-4)
    expected = -stats.norm.logpdf(error, 0, sd).mean()
    assert metrics.negative_log_likelihood(error, sd) == pytest.approx(expected)


def test_with_sd_zero_the_crps_is_the_error_and_the_likelihood_is_nan():
    error, sd = np.array([1.0, -3.0]), np.zeros(2)
    assert metrics.crps(error, sd) == pytest.approx(2)
    assert np.isnan(metrics.negative_log_likelihood(error, sd))


def test_only_estimators_with_confidence_have_a_line_for_it():
    one = subject()
    error = {q: np.abs(one.estimates["net"][q] - one.truth[q]) for q in one.truth}
    sure = {q: np.exp(-e / e.mean()) for q, e in error.items()}
    table = table_of(replace(one, confidences={"net": sure}))
    by_confidence = "AUROC of large errors by confidence"
    assert value(table, "net", by_confidence) == 1
    assert value(table, "net", "AUROC of large errors") == 0.5  # all sds are the same
    assert {r["estimator"] for r in table if r["metric"] == by_confidence} == {"net"}


def test_auroc_is_the_probability_that_a_large_error_has_the_larger_sd():
    rng = np.random.default_rng(0)
    sd = np.round(rng.uniform(1, 5, 400), 1)  # with ties
    error = rng.normal(0, sd)
    is_large = np.abs(error) >= np.quantile(np.abs(error), 0.9)
    pairs = sd[is_large][:, None] - sd[~is_large]
    expected = np.mean((pairs > 0) + 0.5 * (pairs == 0))
    assert metrics.auroc_of_large_errors(error, sd) == pytest.approx(expected)
    assert metrics.auroc_of_large_errors(error, np.abs(error)) == 1
    assert np.isnan(metrics.auroc_of_large_errors(np.zeros(9), np.ones(9)))


@pytest.mark.parametrize("figure", ["crps", "auroc_of_large_errors", "negative_log_likelihood"])
def test_without_standard_deviations_their_metrics_are_nan(figure):
    unknown = np.full(N, np.nan)
    assert np.isnan(getattr(metrics, figure)(ESTIMATE - TRUTH, unknown))
    assert np.isnan(metrics.coverage(ESTIMATE - TRUTH, unknown, 0.95))


def test_bootstrap_interval_of_a_mean_equals_the_normal_limits():
    values = np.random.default_rng(1).normal(10, 2, 400)
    low, high = metrics.bootstrap_interval(values, np.ones(400), np.random.default_rng(0))
    half_width = 1.96 * values.std() / np.sqrt(400)
    assert (low, high) == pytest.approx(
        (values.mean() - half_width, values.mean() + half_width), abs=0.03
    )


def test_one_subject_has_no_interval():
    one = np.ones(1)
    assert np.isnan(metrics.bootstrap_interval(one, one, np.random.default_rng(0))).all()


def test_scale_deviation_is_zero_for_proportional_cbf_and_known_otherwise():
    perfect = metrics.scale_deviation(TRUTH, 10 * TRUTH, 10)
    assert (perfect.slope, perfect.mean, perfect.p95) == pytest.approx((1, 0, 0))
    shrunk = metrics.scale_deviation(TRUTH, 9 * TRUTH, 10)
    assert (shrunk.slope, shrunk.mean, shrunk.p95) == pytest.approx((0.9, -0.1, 0.1))


def test_exchanging_two_estimators_mirrors_the_win_rate():
    one = subject()
    one.estimates["net"]["cbf"][:100] = one.estimates[LS]["cbf"][:100]  # some ties
    swapped = replace(one, estimates={LS: one.estimates["net"], "net": one.estimates[LS]})
    won, n = win_rate(pool_voxels([one], "brain", "net", "cbf"))
    lost, _ = win_rate(pool_voxels([swapped], "brain", "net", "cbf"))
    assert won[0] > n[0] / 2
    assert won[0] + lost[0] == n[0] == N


def test_equal_estimates_have_a_win_rate_of_one_half():
    one = subject()
    one.estimates["net"]["cbf"][:] = one.estimates[LS]["cbf"]
    assert value(table_of(one), "net", "win rate") == 0.5


def test_the_table_has_the_errors_of_the_subjects():
    table = table_of(subject(), subject("two", 1))
    assert value(table, "net", "MAE") == pytest.approx(2 * metrics.EFFICIENT_ERROR, rel=0.05)
    assert value(table, "net", "MAE / LS") == pytest.approx(0.5, rel=0.05)
    assert value(table, LS, "MAE / Cramér-Rao") == pytest.approx(1, rel=0.05)
    assert value(table, "Cramér-Rao", "MAE") == pytest.approx(4 * metrics.EFFICIENT_ERROR)
    assert value(table, "net", "coverage 95 %") == pytest.approx(0.95, abs=0.02)
    # two independent Gaussian errors of sd 2 and 4: P(|a| < |b|) = 2/pi atan(sd_b / sd_a)
    assert value(table, "net", "win rate") == pytest.approx(2 / np.pi * np.arctan(2), abs=0.02)
    assert value(table, LS, "GM/WM contrast recovered") == pytest.approx(1, abs=0.02)


def test_every_ordered_pair_of_estimators_has_one_win_rate():
    table = table_of(subject(), subject("two", 1))
    ahead = value(table, "net", "win rate over LS")
    assert ahead == value(table, "net", "win rate")
    assert ahead + value(table, LS, "win rate over net") == pytest.approx(1)


def test_share_estimated_equals_that_of_the_subjects():
    assert value(table_of(subject()), "net", "share estimated") == 0.75


def test_intervals_do_not_depend_on_other_estimators():
    both = [subject(), subject("two", 1)]
    alone = [
        replace(s, **{f: {LS: getattr(s, f)[LS]} for f in ("estimates", "sds", "is_estimated")})
        for s in both
    ]
    limits = [
        [(r["low"], r["high"]) for r in table_of(*subjects) if r["metric"] == "MAE"][:2]
        for subjects in (both, alone)
    ]
    assert limits[0] == limits[1] and np.isfinite(limits).all()


def test_slope_and_contrast_measure_a_reduced_contrast():
    one = subject()
    one.estimates["net"]["cbf"][:] = 50 + 0.5 * (one.truth["cbf"] - 50)
    table = table_of(one)
    assert value(table, "net", "slope") == pytest.approx(0.5)
    assert value(table, "net", "GM/WM contrast recovered") == pytest.approx(
        60 / 40 / (70 / 30), rel=0.02
    )


def test_strata_with_few_voxels_are_not_scored():
    one = subject()
    small = np.arange(N) < 19
    assert scored_strata([replace(one, strata={**one.strata, "infarct": small})]) == [
        "brain",
        "GM",
        "WM",
    ]


def test_undetermined_voxels_do_not_count_towards_the_bound():
    one = subject()
    one.bounds["att"][: N // 2] = np.inf
    one.estimates[LS]["att"][: N // 2] += 1e6
    assert efficiency(pool_voxels([one], "brain", LS, "att")) == pytest.approx(1, rel=0.05)


def test_att_is_scored_in_milliseconds():
    grid = np.ones((2, 1, 1), np.float32)
    maps = ParameterMaps(60 * grid, 1.5 * grid, grid, grid, np.full(grid.shape, Flag.OK, np.uint8))
    mask = np.array([True, False]).reshape(2, 1, 1)
    assert {q: v.tolist() for q, v in values_in_table_units(maps, mask).items()} == {
        "cbf": [60.0],
        "att": [1500.0],
    }


def test_all_self_checks_pass_for_correct_scores():
    subjects = [subject(), subject("two", 1)]
    found = self_checks.check_scoring(subjects, ("cbf", "att"))
    found += self_checks.check_ls_efficiency(subjects, ("cbf", "att"), snr=30)
    found += self_checks.check_own_voxels(subjects, ("cbf", "att"), snr=30)
    assert len(found) == 7
    self_checks.require_passed(found)


def test_perfect_estimator_self_check_fails_when_the_scores_are_wrong(monkeypatch):
    monkeypatch.setitem(metrics.ACCURACY, "MAE", lambda e, t: float(np.mean(np.abs(e - t + 0.1))))
    assert not self_checks.check_perfect_estimator([subject()], ("cbf",)).has_passed


def test_permuted_truth_self_check_fails_when_the_truth_is_not_shuffled(monkeypatch):
    class Unshuffled:
        def permutation(self, values):
            return values

    one = subject()
    monkeypatch.setattr(np.random, "default_rng", lambda seed: Unshuffled())
    assert not self_checks.check_permuted_truth([one], ("cbf",)).has_passed


def test_perfect_estimator_self_check_allows_ties_where_least_squares_is_exact():
    one = subject()
    one.estimates[LS]["att"][:500] = one.truth["att"][:500]
    assert self_checks.check_perfect_estimator([one], ("att",)).has_passed


def test_perfect_estimator_self_check_fails_when_ties_count_as_losses(monkeypatch):
    one = subject()
    one.estimates[LS]["att"][:500] = one.truth["att"][:500]
    monkeypatch.setattr(metrics, "wins", lambda mine, theirs: np.abs(mine) < np.abs(theirs))
    assert not self_checks.check_perfect_estimator([one], ("att",)).has_passed


def test_swap_self_check_fails_when_the_reference_is_scored_against_other_voxels(monkeypatch):
    def shifted(*arguments):
        pool = pool_voxels(*arguments)
        return replace(pool, reference=[np.roll(e, 1) for e in pool.reference])

    monkeypatch.setattr(self_checks, "pool_voxels", shifted)
    self_check = self_checks.check_mirrored_win_rates([subject()], ("cbf",))
    assert not self_check.has_passed and self_check.found.startswith("LS and net win 1")


def test_own_voxel_self_check_fails_for_estimates_of_other_voxels_and_ignores_flat_truths():
    one = subject()
    (self_check,) = self_checks.check_own_voxels([one], ("cbf", "att"), 10)
    assert self_check.has_passed
    one.estimates["net"]["att"] = np.roll(one.estimates["net"]["att"], 1)
    (self_check,) = self_checks.check_own_voxels([one], ("cbf", "att"), 10)
    assert not self_check.has_passed and "for att of net" in self_check.found
    one.truth["att"][:] = 1200.0
    (self_check,) = self_checks.check_own_voxels([one], ("att",), 10)
    assert self_check.has_passed
    assert self_checks.check_own_voxels([one], ("att",), 3) == []


@pytest.mark.parametrize("fault", ["nan", "shorter"])
def test_same_voxels_self_check_fails_when_an_estimate_is_missing(fault):
    one = subject()
    cbf = one.estimates["net"]["cbf"]
    cbf[3] = np.nan
    one.estimates["net"]["cbf"] = cbf if fault == "nan" else cbf[:-1]
    self_check = self_checks.check_same_voxels([one], ("cbf", "att"))
    assert not self_check.has_passed
    assert self_check.found == "net lacks CBF in 1 of one"


def test_bound_self_check_fails_for_a_poor_least_squares_and_is_not_applied_at_low_snr():
    poor = [subject(sd_ls=4.8)]
    assert [g.has_passed for g in self_checks.check_ls_efficiency(poor, ("cbf", "att"), 30)] == [
        False,
        False,
    ]
    assert self_checks.check_ls_efficiency(poor, ("cbf", "att"), 10) == []


def test_snr_self_check_allows_two_percent():
    noise = np.random.default_rng(0).normal(0, 0.002, (40, 40, 40, 6)).astype(np.float32)
    assert self_checks.check_requested_snr(3, 0.006, [noise]).has_passed
    assert not self_checks.check_requested_snr(3, 0.006, [1.03 * noise]).has_passed
    assert not self_checks.check_requested_snr(3, 0.006, [0 * noise]).has_passed


def test_scale_self_check_fails_for_an_estimator_that_does_not_scale():
    good, bad = (metrics.scale_deviation(TRUTH, k * TRUTH, 10) for k in (10, 9.8))
    assert self_checks.check_scale_equivariance({LS: [good], "net": [good]}).has_passed
    self_check = self_checks.check_scale_equivariance({LS: [good], "net": [good, bad]})
    assert (self_check.has_passed, self_check.found) == (False, "net deviates by 2.00%")


def test_failed_self_checks_are_reported_in_one_sentence():
    passed, failed = (
        self_checks.SelfCheck("a", True, "held"),
        self_checks.SelfCheck("b", False, "0.9"),
    )
    combined = self_checks.combine_conditions({"SNR 3": [passed, failed], "SNR 10": [passed]})
    assert [(g.name, g.has_passed) for g in combined] == [("a", True), ("b", False)]
    with pytest.raises(
        self_checks.SelfCheckError,
        match=r"1 of 2 benchmark self-checks failed: b \(found: SNR 3: 0.9\)",
    ):
        self_checks.require_passed(combined)
