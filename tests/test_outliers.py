"""Outlier pairs among repeats are found, rejected and recorded."""

import json

import numpy as np
import pytest
from click.testing import CliRunner
from scans import CONTEXTS, PLDS_S, SHAPE, SIDECAR, head, select_repeats, volumes, write_scan

from aslkit.bids.reader import read_run
from aslkit.bids.run import timings
from aslkit.cli.fit_ls import main
from aslkit.prepare.outliers import remove_outliers, score_pairs
from aslkit.prepare.pipeline import PreparationSettings, prepare_runs
from aslkit.prepare.series import series_from_runs
from aslkit.validate.in_vivo import validate_run

CORRUPTED_VOLUME = 4  # label volume with an artefact: pair (4, 3), second delay


def run_of(folder, repeats=6, corrupted=(), noise_sd=5.0, left_out=()):
    """Write and read a noisy run of three delays; `corrupted` volumes have stripes."""
    plds = [0.0, *(p for p in PLDS_S * repeats for _ in range(2))]
    contexts = ("m0scan", *("label", "control") * (len(PLDS_S) * repeats))
    rng = np.random.default_rng(5)
    voxels = np.concatenate([volumes(0)[..., :1], *[volumes(0)[..., 1:7]] * repeats], axis=3)
    voxels = voxels + rng.normal(0, noise_sd, voxels.shape)
    for i in corrupted:
        voxels[..., i] += 40 * np.cos(1.3 * np.arange(SHAPE[0]))[:, None, None]
    kept = [i for i in range(len(contexts)) if i not in left_out]
    sidecar = {"PostLabelingDelay": [plds[i] for i in kept]}
    contexts = [contexts[i] for i in kept]
    return read_run(write_scan(folder, sidecar, contexts, voxels[..., kept].astype(np.float32)))


def rejected(run, threshold=5.0):
    return [s.pair.indices for s in score_pairs(run, head(), threshold) if s.is_rejected]


def test_no_pair_of_a_scan_with_normal_noise_is_rejected(tmp_path):
    for n in (2, 3, 9):
        assert rejected(run_of(tmp_path / str(n), n)) == []


@pytest.mark.parametrize("repeats", [2, 3, 6])
def test_only_the_corrupted_pair_is_rejected(tmp_path, repeats):
    assert rejected(run_of(tmp_path, repeats, [CORRUPTED_VOLUME])) == [(4, 3)]


def test_a_corrupted_pair_is_rejected_from_a_group_with_fewer_repeats(tmp_path):
    assert rejected(run_of(tmp_path, 4, [CORRUPTED_VOLUME], left_out=(9, 10))) == [(4, 3)]


def test_a_single_pair_and_at_least_half_of_a_group_are_kept(tmp_path):
    assert rejected(run_of(tmp_path / "one", 1, [CORRUPTED_VOLUME])) == []
    corrupted = [2 + 6 * n for n in range(4)]  # four of five repeats of the first delay
    assert len(rejected(run_of(tmp_path / "many", 5, corrupted))) <= 2


def test_no_pair_of_a_noise_free_scan_is_rejected(tmp_path):
    assert rejected(run_of(tmp_path, 3, noise_sd=0.0)) == []


def test_a_rejected_pair_is_removed_from_the_average_and_its_count(tmp_path):
    clean, corrupted = run_of(tmp_path / "a"), run_of(tmp_path / "b", corrupted=[CORRUPTED_VOLUME])
    kept = remove_outliers(corrupted, score_pairs(corrupted, head(), 5.0))
    assert [t.n_averages for t in timings(kept)] == [6, 5, 6]
    inside = head()
    error = [
        np.std((series_from_runs([r], inside).delta_m - series_from_runs([clean]).delta_m)[inside])
        for r in (corrupted, kept)
    ]
    assert error[1] < 0.3 * error[0]


def test_repeats_are_selected_from_the_remaining_pairs(tmp_path):
    corrupted = run_of(tmp_path, corrupted=[CORRUPTED_VOLUME])
    kept = remove_outliers(corrupted, score_pairs(corrupted, head(), 5.0))
    assert "n/a" not in select_repeats(kept, [0, 1]).contexts
    assert [t.n_averages for t in timings(select_repeats(kept, [0, 1]))] == [2, 2, 2]


def corrupted_scan(folder):
    voxels = volumes(5.0)
    voxels[..., CORRUPTED_VOLUME] += 40 * np.cos(1.3 * np.arange(SHAPE[0]))[:, None, None]
    return write_scan(folder, SIDECAR, CONTEXTS, voxels)


def test_the_command_prints_and_records_the_rejected_pairs(tmp_path):
    arguments = ["-i", str(corrupted_scan(tmp_path)), "-o", str(tmp_path / "cbf.nii.gz")]
    result = CliRunner().invoke(main, arguments, catch_exceptions=False)
    assert "rejected: volumes 4 and 5 of sub-01_asl.nii.gz (PLD 1 s)" in result.output
    sidecar = json.loads((tmp_path / "att.json").read_text())
    assert sidecar["OutlierThreshold"] == 5.0
    assert [r["Volumes"] for r in sidecar["RejectedVolumes"]] == [[3, 4]]
    assert sidecar["AveragedPairs"] == [2, 1, 2]
    header, *rows = [r.split("\t") for r in (tmp_path / "outliers.tsv").read_text().splitlines()]
    assert header[1:] == ["volumes", "label_duration", "pld", "worst_slice", "z", "rejected"]
    assert len(rows) == 6
    assert [(r[1], r[3]) for r in rows if r[-1] == "1"] == [("3,4", "1")]


def test_outlier_rejection_can_be_turned_off(tmp_path):
    arguments = ["-i", str(corrupted_scan(tmp_path)), "-o", str(tmp_path / "cbf.nii.gz")]
    result = CliRunner().invoke(main, [*arguments, "--outliers", "off"], catch_exceptions=False)
    assert "rejected" not in result.output
    sidecar = json.loads((tmp_path / "cbf.json").read_text())
    assert (sidecar["OutlierThreshold"], sidecar["AveragedPairs"]) == (None, [2, 2, 2])
    assert not (tmp_path / "outliers.tsv").exists()


def test_a_threshold_that_is_not_a_positive_number_is_refused(tmp_path):
    for wrong in ("-1", "many"):
        result = CliRunner().invoke(main, ["-i", "asl.nii.gz", "--outliers", wrong])
        assert result.exit_code == 2
        assert "--outliers" in result.output


def test_the_pipeline_rejects_and_records_outliers(tmp_path):
    prepared = prepare_runs([run_of(tmp_path, 4, [CORRUPTED_VOLUME])])
    (message,) = prepared.messages
    assert message.startswith("rejected: volumes 4 and 5 of sub-01_asl.nii.gz (PLD 1 s), z = ")
    assert prepared.fields["RejectedVolumes"][0]["Volumes"] == [3, 4]
    assert [t.n_averages for t in prepared.series.acquisition.timings] == [4, 3, 4]


def test_the_pipeline_keeps_all_pairs_without_a_threshold(tmp_path):
    run = run_of(tmp_path, 4, [CORRUPTED_VOLUME])
    prepared = prepare_runs([run], PreparationSettings(outlier_z=None))
    assert not prepared.messages and not prepared.scores
    np.testing.assert_array_equal(prepared.series.delta_m, series_from_runs([run]).delta_m)


def test_validation_in_vivo_splits_the_repeats_kept_by_outlier_rejection(tmp_path):
    result = validate_run(prepare_runs([run_of(tmp_path, 5, [CORRUPTED_VOLUME])]))
    assert [t.n_averages for t in result.scan.series.acquisition.timings] == [5, 4, 5]
    assert {r["n_repeats"] for r in result.benchmark.records} == {1, 2, 5}
    found = [r for r in result.benchmark.records if r["metric"] == "outlier pairs [%]"]
    assert found and all(r["value"] == pytest.approx(100 / 15) for r in found)


def test_no_pair_is_rejected_without_a_voxel_that_is_finite_in_all(tmp_path):
    scores = score_pairs(run_of(tmp_path), np.zeros_like(head()), 5.0)
    assert len(scores) == 18 and not any(s.is_rejected for s in scores)
    assert np.isnan([s.z for s in scores]).all()
