"""The benchmark on phantoms: baselines, invariances, and self-checks that fail on faulty runs."""

import shutil
from dataclasses import replace

import numpy as np
import pytest
from click.testing import CliRunner
from oracles import lookup

import aslkit
from aslkit.cli.validate import main as asl_validate
from aslkit.config import load_config
from aslkit.core.errors import InputError
from aslkit.fit.least_squares import fit_least_squares
from aslkit.fit.settings import FixedAtt
from aslkit.nets.model_store import save_model
from aslkit.nets.profile_encoding import ProfileEncoding
from aslkit.nets.registry import build_network
from aslkit.simulate.phantoms import brain_phantom, save_phantom, shape_phantom
from aslkit.simulate.signal import PROTOCOLS, simulate_series
from aslkit.train.model_card import model_card
from aslkit.validate import baselines, estimators, metrics, records, self_checks, trials
from aslkit.validate.design import FULL, Condition, Design
from aslkit.validate.estimators import least_squares, load_networks
from aslkit.validate.invariance import fill_deviations, fill_rows, scale_deviations, scale_rows
from aslkit.validate.on_phantoms import phantom_sets, validate_phantoms
from aslkit.validate.trials import simulated

pytestmark = pytest.mark.slow

SMALL = Design(tracks=("matched",), protocols=("pcasl6",), snrs=(25.0,))


@pytest.fixture(scope="module")
def phantoms(tmp_path_factory):
    folder = tmp_path_factory.mktemp("phantoms")
    save_phantom(brain_phantom("brain-11", 11, voxel_size_mm=8, matrix=(23, 27, 8)), folder)
    return folder


@pytest.fixture(scope="module")
def untrained(tmp_path_factory):
    """Folder of an untrained multi-delay model, whose maps are those of least squares."""
    folder = tmp_path_factory.mktemp("models") / "untrained"
    config = load_config("small", ("network.widths=[8,8]",))
    network = build_network(config.network, ProfileEncoding())
    card = {**model_card(config, 1, 1, 1.0, None), "n_timings": [4, 20]}
    save_model(folder, network.state_dict(), card)
    return folder


@pytest.fixture(scope="module")
def both_tracks(phantoms, untrained):
    design = Design(protocols=("pcasl5", "vsasl6", "pcasl1"), snrs=(1.0, 30.0))
    return validate_phantoms(phantoms, [str(untrained)], design)


@pytest.fixture
def failing_run(phantoms, tmp_path, monkeypatch):
    """Run the command without artefact detection and report; return its error message."""
    monkeypatch.setattr("aslkit.validate.design.FULL", replace(FULL, n_artefact_scans=0))
    monkeypatch.setattr("aslkit.report.phantom_report.phantom_report", lambda *_: None)
    monkeypatch.setattr("aslkit.cli.validate._publish", lambda *_: None)

    def run(snr=25):
        command = ["--phantoms", phantoms, "--protocol", "pcasl6", "--track", "matched"]
        command += ["--snr", snr, "--out", tmp_path / "report"]
        done = CliRunner().invoke(asl_validate, [*map(str, command)])
        assert done.exit_code == 1, done.output
        return done.output

    return run


def test_progress_advances_with_each_estimator_of_a_scan():
    seen = []

    def watch(runs):
        for name, estimator in runs:
            seen.append(name)
            yield name, estimator

    condition = Condition("matched", "disc", "pcasl5", 10.0, "single", 0)
    trials.run_trial(shape_phantom("disc", 1), condition, {}, estimators.Stopwatch(), watch)
    assert seen == [records.LS] + [records.SMOOTHED_LS] * 5


def error(found, estimator, quantity="cbf", **where):
    keys = {"stratum": "brain", "metric": "MAE", "estimator": estimator, "quantity": quantity}
    return lookup(found.records, **{**keys, **where})


def change_ls_maps(monkeypatch, change):
    """Apply `change` to the maps of least squares in the benchmark."""

    def changed(macrovascular):
        unchanged = least_squares(macrovascular)
        return lambda series: change(unchanged(series), series)

    monkeypatch.setattr(baselines, "least_squares", changed)


def test_an_unchanged_run_passes_every_self_check(phantoms):
    found = validate_phantoms(phantoms, design=SMALL)
    self_checks.require_passed(found.self_checks)
    assert len(found.self_checks) == 9


def test_self_check_of_the_perfect_estimator_stops_a_run_with_wrong_scores(
    failing_run, monkeypatch
):
    monkeypatch.setitem(metrics.ACCURACY, "bias", lambda e, t: float(np.mean(e - t)) + 0.1)
    assert "a perfect estimator scores 0 and 100 % (found: " in failing_run()


def test_self_check_of_the_permuted_truth_stops_a_run_with_positive_r2(failing_run, monkeypatch):
    monkeypatch.setattr(metrics, "r_squared", lambda e, t: float(np.corrcoef(e, t)[0, 1] ** 2))
    assert "a permuted truth gives R2 <= 0 (found: " in failing_run()


def test_self_check_of_the_bound_stops_a_run_with_poor_least_squares(failing_run, monkeypatch):
    rng = np.random.default_rng(0)

    def noisier(maps, series):
        return replace(maps, cbf=maps.cbf * rng.normal(1, 0.1, maps.cbf.shape).astype("f4"))

    change_ls_maps(monkeypatch, noisier)
    assert "CBF of LS lies within 10 % of the Cramér-Rao bound (found: " in failing_run()


def test_self_check_of_the_snr_stops_a_run_with_another_noise_level(failing_run, monkeypatch):
    def noisier(phantom, acquisition, snr, seed, physics):
        return simulate_series(phantom, acquisition, 0.97 * snr, seed, physics)

    monkeypatch.setattr(trials, "simulate_series", noisier)
    assert "measured SNR equals the requested one (found: " in failing_run()


def test_self_check_of_the_same_voxels_stops_a_run_with_missing_estimates(
    failing_run, monkeypatch
):
    def gappy(maps, series):
        return replace(maps, att=np.where(maps.cbf > 40, maps.att, np.float32(np.nan)))

    change_ls_maps(monkeypatch, gappy)
    message = failing_run()
    assert "every estimator is scored on the same voxels" in message and "LS lacks ATT" in message


def test_self_check_of_the_swap_stops_a_run_that_gives_the_reference_other_voxels(
    failing_run, monkeypatch
):
    pool_voxels = records.pool_voxels

    def shifted(*arguments):
        pool = pool_voxels(*arguments)
        return replace(pool, reference=[np.roll(e, 7) for e in pool.reference])

    monkeypatch.setattr(self_checks, "pool_voxels", shifted)
    monkeypatch.setattr("aslkit.validate.scores.pool_voxels", shifted)
    assert "exchanging two estimators mirrors their win rate" in failing_run()


def test_self_check_of_own_voxels_stops_a_run_with_estimates_in_another_order(
    failing_run, monkeypatch
):
    def reordered(maps, mask):
        is_truth = not maps.cbf_std.any()
        if is_truth:
            return records.values_in_table_units(maps, mask)
        return {q: records.values_in(getattr(maps, q).T, mask.T, q) for q in ("cbf", "att")}

    monkeypatch.setattr(trials, "values_in_table_units", reordered)
    message = failing_run(snr=10)  # where the self-check of the bound is not applied
    assert "estimates fit their own voxels better than others" in message
    assert "of LS" in message


def test_self_check_of_the_scale_stops_a_run_whose_cbf_has_an_offset(failing_run, monkeypatch):
    change_ls_maps(monkeypatch, lambda maps, series: replace(maps, cbf=maps.cbf + 1))
    assert "CBF scales with the signal within 1 %" in failing_run()


def test_a_run_with_a_failed_self_check_writes_its_report(phantoms, tmp_path, monkeypatch):
    change_ls_maps(monkeypatch, lambda maps, series: replace(maps, cbf=maps.cbf + 1))
    monkeypatch.setattr("aslkit.validate.design.FULL", replace(FULL, n_artefact_scans=1))
    command = ["--phantoms", phantoms, "--protocol", "pcasl6", "--track", "matched"]
    command += ["--snr", 3, "--out", tmp_path / "r"]
    done = CliRunner().invoke(asl_validate, [*map(str, command)])
    assert done.exit_code == 1
    assert '"has_passed_self_checks": false' in (tmp_path / "r" / "results.json").read_text()


def test_shapes_pass_every_self_check_although_their_att_lies_on_kinks(tmp_path):
    for kind in ("uniform", "disc", "checker"):
        save_phantom(shape_phantom(kind, 1), tmp_path)
    design = replace(SMALL, protocols=("pcasl5", "pcasl1"))
    self_checks.require_passed(validate_phantoms(tmp_path, design=design).self_checks)


def test_each_track_has_its_baselines(both_tracks):
    met = {(r["track"], r["protocol"]): set() for r in both_tracks.records}
    for r in both_tracks.records:
        if r["estimator"] != records.BOUND:
            met[r["track"], r["protocol"]].add(r["estimator"])
    plain, oracle = {"LS", "smoothed LS"}, {"LS", "smoothed LS", "LS oracle"}
    assert met == {
        ("matched", "pcasl5"): plain | {"untrained"},
        ("matched", "vsasl6"): plain | {"untrained"},
        ("matched", "pcasl1"): plain,
        ("mismatched", "pcasl5"): oracle | {"untrained", "LS + arterial"},
        ("mismatched", "vsasl6"): oracle | {"untrained"},
        ("mismatched", "pcasl1"): oracle,
    }
    assert both_tracks.models == ["untrained"]


def test_a_single_delay_is_scored_for_cbf_alone(both_tracks):
    own = [r for r in both_tracks.records if r["protocol"] == "pcasl1"]
    assert {r["quantity"] for r in own} == {"cbf"}
    assert not any(r["estimator"] == "untrained" for r in own)
    assert error(both_tracks, "LS", protocol="pcasl1", snr=30.0) < 15


def test_true_constants_reduce_the_error_and_smoothing_does_at_low_snr(both_tracks):
    wrong = {"track": "mismatched", "protocol": "pcasl5", "snr": 30.0}
    assert error(both_tracks, "LS oracle", **wrong) < 0.8 * error(both_tracks, "LS", **wrong)
    noisy = {"track": "matched", "protocol": "pcasl5", "snr": 1.0}
    assert error(both_tracks, "smoothed LS", **noisy) < 0.5 * error(both_tracks, "LS", **noisy)
    for q in ("cbf", "att"):
        calm = {**noisy, "snr": 30.0, "quantity": q}
        assert error(both_tracks, "smoothed LS", **calm) <= error(both_tracks, "LS", **calm)
        low, high = (
            error(both_tracks, "smoothed LS", **{**noisy, "quantity": q, "snr": s})
            for s in (30.0, 1.0)
        )
        assert low < high


def test_the_table_states_the_sigma_of_smoothed_least_squares(both_tracks):
    where = {"metric": "oracle sigma", "estimator": "smoothed LS", "protocol": "vsasl6"}
    sigmas = [
        lookup(both_tracks.records, **where, track="matched", snr=s, quantity=q)
        for s in (1.0, 30.0)
        for q in ("cbf", "att")
    ]
    assert set(sigmas) <= set(baselines.SIGMAS_VOXELS) and sigmas[0] > sigmas[2]


def test_results_of_a_condition_do_not_depend_on_other_conditions(phantoms, both_tracks):
    design = Design(tracks=("mismatched",), protocols=("vsasl6",), snrs=(30.0,))
    alone = validate_phantoms(phantoms, design=design).records
    where = {"track": "mismatched", "protocol": "vsasl6", "snr": 30.0, "estimator": "LS"}
    within = [r for r in both_tracks.records if all(r[k] == v for k, v in where.items())]
    same = [r for r in alone if r["estimator"] == "LS" and "scale" not in r["metric"]]
    same = [r for r in same if "FOV" not in r["metric"]]
    within = [r for r in within if "untrained" not in r["metric"]]
    assert str(same) == str(within) and len(same) > 50  # compared as text because nan != nan


def test_subjects_keep_their_constants_at_every_snr_and_differ_from_each_other():
    def constants(name, snr):
        phantom = replace(shape_phantom("disc", 1), name=name)
        condition = Condition("mismatched", "disc", "pcasl6", snr, "single", 0)
        return condition.physics(phantom).acquisition

    assert constants("a", 1.0) == constants("a", 30.0) != constants("b", 1.0)


def test_the_error_for_an_unknown_protocol_lists_the_known_ones():
    with pytest.raises(InputError, match="found pcasl9, expected one of joint6, "):
        Design(protocols=("pcasl9",))


def test_duplicates_in_a_design_are_removed():
    design = Design(tracks=("matched",), protocols=("pcasl6", "pcasl6"), snrs=(3.0, 3.0))
    phantom = shape_phantom("disc", 1)
    assert len(list(design.tasks({"disc": [phantom]}))) == 1
    assert len(list(design.typical_conditions("disc"))) == 1


def scan():
    phantom = shape_phantom("disc", 1)
    acquisition = PROTOCOLS["pcasl6"].acquisition(phantom.mask.shape[2])
    return simulate_series(phantom, acquisition, 10.0, 0), phantom.mask


def test_least_squares_is_scale_equivariant_and_independent_of_the_field_of_view():
    series, inside = scan()
    estimators = {"LS": least_squares("off")}
    rows = scale_rows(scale_deviations(series, inside, estimators))
    rows += fill_rows(fill_deviations(series, inside, estimators, 10.0, 0))
    found = {r.metric: r.value for r in rows}
    assert found["scale 0.1 to 10 ratio"] == pytest.approx(100, rel=1e-4)
    shares = [f"{s:.0%}" for s in (np.mean(inside) * np.array([64**2 / 44**2, 1 / 2, 1 / 4]))]
    assert all(found[f"FOV fill {s} deviation"] == 0 for s in shares)
    assert all(found[f"FOV fill {s} mean change"] == 0 for s in shares)


def test_a_known_noise_level_is_scaled_and_padded_with_the_series():
    def noise(series):
        maps = fit_least_squares(series, FixedAtt(1.3))
        return replace(maps, cbf=maps.cbf_std)

    phantom = shape_phantom("disc", 1)
    series = simulated(phantom, Condition("matched", "disc", "pcasl1", 10.0, "single", 0))
    rows = scale_rows(scale_deviations(series, phantom.mask, {"noise": noise}))
    rows += fill_rows(fill_deviations(series, phantom.mask, {"noise": noise}, 10.0, 0))
    found = {r.metric: r.value for r in rows}
    assert found["scale 0.1 to 10 ratio"] == pytest.approx(100, rel=1e-4)
    assert all(v == pytest.approx(0, abs=1e-6) for m, v in found.items() if "FOV" in m)


def test_an_estimator_that_depends_on_the_field_of_view_has_a_deviation():
    unchanged = least_squares("off")

    def global_amplitude(series):
        maps = unchanged(series)
        return replace(maps, cbf=maps.cbf * np.float32(series.mask.mean()))

    series, inside = scan()
    (found,) = fill_deviations(series, inside, {"net": global_amplitude}, 10.0, 0).values()
    expected = [f.share / inside.mean() - 1 for f in found]
    assert [f.mean for f in found] == pytest.approx(expected, rel=1e-4)
    assert [f.p95 for f in found] == pytest.approx(np.abs(expected), rel=1e-4)


def test_mc_dropout_is_evaluated_beside_the_network_without_it(phantoms):
    design = replace(SMALL, tracks=("mismatched",), protocols=("joint6",), snrs=(10.0,))
    found = validate_phantoms(phantoms, ["exp00"], replace(design, mc_dropout=4))
    assert found.models == ["exp00", "exp00 MC"]
    covered = [error(found, e, metric="coverage 95 %") for e in found.models]
    assert 0 < covered[0] < covered[1] <= 1
    assert all(np.isfinite(error(found, "exp00 MC", metric=m)) for m in ("CRPS", "NLL"))


def test_mc_dropout_of_a_network_without_dropout_is_refused(phantoms):
    with pytest.raises(InputError, match="found no dropout layer"):
        validate_phantoms(phantoms, ["small"], replace(SMALL, mc_dropout=2))


def test_models_of_the_same_folder_name_keep_their_paths(tmp_path):
    shipped = aslkit.__path__[0]
    for parent in ("a", "b"):
        shutil.copytree(f"{shipped}/models/small", tmp_path / parent / "model")
    names = [str(tmp_path / parent / "model") for parent in ("a", "b")]
    assert list(load_networks([*names, "small"])) == [*names, "small"]
    assert list(load_networks(names[:1])) == ["model"]


def test_times_are_summed_and_peak_memory_is_the_maximum():
    one = estimators.Speed("LS", 1.0, 100, 50.0)
    part = estimators.Benchmark([], [], [], [one])
    (total,) = estimators.merge_benchmarks([part, part]).speeds
    assert (total.voxels_per_second, total.n_voxels, total.peak_mib) == (100.0, 200, 50.0)


def test_phantoms_with_another_voxel_size_form_a_separate_set(tmp_path):
    for seed, size in ((1, 8.0), (2, 8.0), (3, 6.0)):
        save_phantom(brain_phantom(f"brain-{seed}", seed, voxel_size_mm=size), tmp_path)
    save_phantom(shape_phantom("disc", 1), tmp_path)
    sets = phantom_sets(tmp_path)
    assert {kind: len(own) for kind, own in sets.items()} == {
        "brain": 2,
        "brain 6 mm": 1,
        "disc": 1,
    }
    tasks = list(Design(protocols=("joint6",), snrs=(3.0,)).tasks(sets))
    assert [(c.track, c.phantoms) for c, _ in tasks] == [
        *[("matched", "brain")] * 2,
        ("matched", "brain 6 mm"),
        ("matched", "disc"),
        *[("mismatched", "brain")] * 2,
    ]
