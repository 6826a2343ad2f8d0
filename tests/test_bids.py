"""BIDS files -> AslRun and series: timings, M0, efficiency, slice offsets, averages."""

import json
import shutil

import numpy as np
import pytest
from scans import (
    AFFINE,
    CONTEXTS,
    M0,
    PLDS_S,
    SHAPE,
    SIDECAR,
    head,
    save,
    select_repeats,
    volumes,
    write_m0,
    write_scan,
)

from aslkit.bids.overrides import Overrides
from aslkit.bids.reader import read_run
from aslkit.bids.run import timing_groups, timings
from aslkit.core.errors import InputError
from aslkit.prepare.noise import noise_from_repeats
from aslkit.prepare.series import brain_mask, repeat_counts, series_from_runs
from aslkit.prepare.timing_table import timing_table

SEPARATE = {"M0Type": "Separate", "PostLabelingDelay": SIDECAR["PostLabelingDelay"][1:]}


def separate_scan(folder, **sidecar):
    """Write a scan without m0scan volumes in the series."""
    return write_scan(
        folder, {**SEPARATE, **sidecar}, contexts=CONTEXTS[1:], voxels=volumes()[..., 1:]
    )


def deltam_scan(folder, n_repeats=1, **sidecar):
    plds = list(PLDS_S * n_repeats)
    voxels = np.ones((*SHAPE, len(plds)), dtype=np.float32)
    fields = {"PostLabelingDelay": plds, "M0Type": "Estimate", "M0Estimate": 800.0, **sidecar}
    return write_scan(folder, fields, contexts=["deltam"] * len(plds), voxels=voxels)


def test_repeats_are_grouped_by_timing_and_paired_label_first(tmp_path):
    run = read_run(write_scan(tmp_path))
    groups = timing_groups(run)
    assert list(groups) == [(1.8, 0.5), (1.8, 1.0), (1.8, 1.8)]
    assert [(p.plus, p.minus) for p in groups[1.8, 0.5]] == [(2, 1), (8, 7)]
    assert repeat_counts(run) == [2, 2, 2]


def test_a_perfusion_volume_with_a_delay_of_zero_is_not_treated_as_m0(tmp_path):
    plds = [0.0 if p == 0.5 else p for p in SIDECAR["PostLabelingDelay"]]
    run = read_run(write_scan(tmp_path, {"PostLabelingDelay": plds}))
    assert [t.pld_s for t in timings(run)] == [0.0, 1.0, 1.8]


def test_a_scalar_delay_applies_to_all_volumes_of_a_series_with_included_m0(tmp_path):
    run = read_run(write_scan(tmp_path, {"PostLabelingDelay": 1.8}))
    assert [(t.pld_s, t.n_averages) for t in timings(run)] == [(1.8, 6)]


def test_timings_are_sorted_by_label_duration_and_then_by_delay(tmp_path):
    durations = [0.0] + [1.8 if p < 1.8 else 1.2 for p in SIDECAR["PostLabelingDelay"][1:]]
    run = read_run(write_scan(tmp_path, {"LabelingDuration": durations}))
    found = [(t.label_duration_s, t.pld_s) for t in timings(run)]
    assert found == [(1.2, 1.8), (1.8, 0.5), (1.8, 1.0)]


def test_the_nearer_sidecar_has_priority_over_the_inherited_one(tmp_path):
    image = write_scan(tmp_path, {"LabelingDuration": None, "VascularCrushing": None})
    shared = {"LabelingDuration": 1.5, "VascularCrushing": True, "MRAcquisitionType": "3D"}
    (tmp_path / "asl.json").write_text(json.dumps(shared))
    run = read_run(image)
    assert run.has_crusher
    assert timings(run)[0].label_duration_s == 1.5
    assert len(run.slice_offsets_s) == 3  # 2D in the nearer sidecar


def test_the_volume_types_may_be_inherited(tmp_path):
    image = write_scan(tmp_path)
    beside = image.with_name("sub-01_aslcontext.tsv")
    shutil.move(beside, tmp_path / "aslcontext.tsv")
    assert read_run(image).contexts == CONTEXTS


def test_sidecars_are_found_beside_a_symbolic_link(tmp_path):
    image = write_scan(tmp_path)
    stored = tmp_path / "store" / "MD5E-s1"
    stored.parent.mkdir()
    shutil.move(image, stored.with_suffix(".nii.gz"))
    image.symlink_to(stored.with_suffix(".nii.gz"))
    assert read_run(image).contexts == CONTEXTS


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"SliceTiming": [0.3, 0.4, 0.5]}, (0, 0.1, 0.2)),
        ({"SliceTiming": [0.0, 0.1, 0.2], "SliceEncodingDirection": "k-"}, (0.2, 0.1, 0)),
        ({"SliceTiming": [0.1, 0.0, 0.1], "SliceEncodingDirection": "k"}, (0.1, 0, 0.1)),
        ({"MRAcquisitionType": "3D"}, (0,)),
    ],
)
def test_slice_offsets_are_in_array_order_and_start_at_zero(tmp_path, fields, expected):
    run = read_run(write_scan(tmp_path, fields))
    assert run.slice_offsets_s == pytest.approx(expected)


def test_a_2d_readout_without_slice_timing_gives_a_warning(tmp_path):
    image = write_scan(tmp_path, {"SliceTiming": None})
    assert "--slice-dt" in timing_table([read_run(image)])
    offsets = read_run(image, Overrides(slice_dt_s=0.04)).slice_offsets_s
    assert offsets == pytest.approx((0, 0.04, 0.08))


def test_the_repetition_time_replaces_a_preparation_time_of_zero(tmp_path):
    fields = {"RepetitionTimePreparation": 0, "RepetitionTime": 4.0}
    run = read_run(write_scan(tmp_path, fields))
    assert run.calibration.recovery == pytest.approx(1 - np.exp(-4 / 1.3))
    assert "RepetitionTimePreparation is unknown" in timing_table([run])


def test_m0_is_not_corrected_if_the_repetition_time_is_unknown(tmp_path):
    run = read_run(write_scan(tmp_path, {"RepetitionTimePreparation": 0}))
    assert run.calibration.recovery == 1
    assert "TR of M0 is unknown" in timing_table([run])


@pytest.mark.parametrize(
    ("tr_s", "overrides", "recovery"),
    [
        (4.0, Overrides(), 1 - np.exp(-4 / 1.3)),
        (4.0, Overrides(t1_tissue_s=1.0), 1 - np.exp(-4)),
        (4.0, Overrides(correct_m0_tr=False), 1),
        (4.0, Overrides(m0_tr_s=6.0), 1),
        (6.0, Overrides(), 1),
    ],
)
def test_m0_with_a_short_tr_is_corrected(tmp_path, tr_s, overrides, recovery):
    image = write_scan(tmp_path, {"RepetitionTimePreparation": tr_s})
    calibration = read_run(image, overrides).calibration
    assert calibration.recovery == pytest.approx(recovery)
    assert np.allclose(calibration.equilibrium * recovery, calibration.m0)


def test_a_given_tr_of_m0_replaces_the_values_of_the_sidecar(tmp_path):
    image = separate_scan(tmp_path)
    several = np.stack([np.full(SHAPE, v, np.float32) for v in (90, 110)], axis=3)
    write_m0(image, several, {"RepetitionTimePreparation": [2.0, 3.0]})
    with pytest.raises(InputError, match="give --m0-tr S"):
        read_run(image)
    assert read_run(image, Overrides(m0_tr_s=2.0)).calibration.recovery < 1


def test_a_separate_m0_of_several_volumes_is_averaged(tmp_path):
    image = separate_scan(tmp_path)
    write_m0(image, np.stack([np.full(SHAPE, v, np.float32) for v in (90, 110)], axis=3))
    assert np.allclose(read_run(image).calibration.m0, 100)


def test_an_m0_image_in_fmap_is_not_used(tmp_path):
    image = separate_scan(tmp_path)
    path = write_m0(image, np.ones(SHAPE, np.float32))
    fmap = tmp_path / "sub-01" / "fmap"
    fmap.mkdir()
    for file in (path, path.with_name("sub-01_m0scan.json")):
        shutil.move(file, fmap / file.name)
    with pytest.raises(InputError, match="no m0scan image"):
        read_run(image)


def test_the_error_names_an_m0_image_without_a_link(tmp_path):
    image = separate_scan(tmp_path)
    write_m0(image, np.ones(SHAPE, np.float32), {"IntendedFor": "bids::sub-01/perf/other.nii.gz"})
    with pytest.raises(InputError, match='sub-01_m0scan.nii.gz is not.*"IntendedFor": "bids::sub'):
        read_run(image)


def test_an_m0_image_with_smaller_voxels_is_resampled_to_the_series(tmp_path):
    image = separate_scan(tmp_path)
    fine = AFFINE @ np.diag([0.5, 0.5, 0.5, 1])
    fine[:3, 3] -= 0.25 * AFFINE[:3, :3].sum(
        axis=1
    )  # both fields of view begin at the same corner
    x = np.arange(2 * SHAPE[0]) + 100.0
    shape = tuple(2 * n for n in SHAPE)
    ramp = np.broadcast_to(x[:, None, None], shape).astype(np.float32)
    write_m0(image, ramp, affine=fine)
    expected = 2 * np.arange(SHAPE[0]) + 100.5  # the middle of two fine voxels
    assert np.allclose(read_run(image).calibration.m0, expected[:, None, None], atol=1e-3)


def test_an_m0_estimate_or_number_applies_to_all_voxels(tmp_path):
    image = separate_scan(tmp_path, M0Type="Estimate", M0Estimate=800.0)
    assert read_run(image).calibration.m0 == 800
    assert read_run(image, Overrides(m0="500")).calibration.m0 == 500


def test_the_mean_control_is_used_as_m0_only_without_background_suppression(tmp_path):
    image = separate_scan(tmp_path, M0Type="Absent")
    run = read_run(image)
    assert np.allclose(run.calibration.m0[head()], 0.8 * M0, rtol=1e-3)
    assert "mean control" in timing_table([run])
    image = separate_scan(tmp_path, M0Type="Absent", BackgroundSuppression=True)
    with pytest.raises(InputError, match="M0Type: found Absent"):
        read_run(image)


@pytest.mark.parametrize(
    ("fields", "total"),
    [
        ({}, 0.85),
        ({"LabelingEfficiency": 0.7}, 0.7),
        ({"BackgroundSuppression": True, "BackgroundSuppressionNumberPulses": 2}, 0.85 * 0.9025),
        ({"BackgroundSuppression": True}, 0.85),
        ({"ArterialSpinLabelingType": "CASL"}, 0.68),
    ],
)
def test_the_efficiency_includes_labeling_and_background_suppression(tmp_path, fields, total):
    assert read_run(write_scan(tmp_path, fields)).efficiency.total == pytest.approx(total)


def test_an_unknown_number_of_suppression_pulses_gives_a_warning(tmp_path):
    run = read_run(write_scan(tmp_path, {"BackgroundSuppression": True}))
    assert "number of pulses unknown" in timing_table([run])
    assert read_run(run.source, Overrides(n_bs=2)).efficiency.n_pulses == 2


@pytest.mark.parametrize(
    ("fields", "duration"),
    [
        ({"BolusCutOffFlag": True, "BolusCutOffDelayTime": [0.7, 1.6]}, 0.7),
        ({"BolusCutOffFlag": True, "BolusCutOffDelayTime": 0.8}, 0.8),
        ({"BolusCutOffFlag": False}, np.inf),
    ],
)
def test_the_label_duration_of_pasl_is_its_bolus_cut_off(tmp_path, fields, duration):
    fields = {"ArterialSpinLabelingType": "PASL", "LabelingDuration": None, **fields}
    run = read_run(write_scan(tmp_path, fields))
    assert {t.label_duration_s for t in timings(run)} == {duration}
    assert {t.labeling for t in timings(run)} == {"pasl"}


def test_n_averages_includes_the_pairs_averaged_by_the_scanner(tmp_path):
    run = read_run(deltam_scan(tmp_path, TotalAcquiredPairs=12))
    assert [t.n_averages for t in timings(run)] == [4, 4, 4]


def test_a_single_3d_difference_image_is_a_series(tmp_path):
    image = write_scan(
        tmp_path,
        {"PostLabelingDelay": 1.8, "M0Type": "Estimate", "M0Estimate": 800.0},
        contexts=["deltam"],
        voxels=np.ones(SHAPE, dtype=np.float32),
    )
    series = series_from_runs([read_run(image)])
    assert series.delta_m.shape == (*SHAPE, 1)
    assert np.allclose(series.delta_m, 1 / 800)


def test_a_wrong_total_of_pairs_gives_a_warning(tmp_path):
    run = read_run(write_scan(tmp_path, {"TotalAcquiredPairs": 60}))
    assert "TotalAcquiredPairs is 60, but the file holds 6 pairs" in timing_table([run])


def test_given_delays_are_repeated_over_the_pairs(tmp_path):
    image = write_scan(tmp_path, {"PostLabelingDelay": None})
    run = read_run(image, Overrides(plds_s=(0.2, 0.4, 0.6)))
    assert list(run.plds_s[1:7]) == [0.2, 0.2, 0.4, 0.4, 0.6, 0.6]
    assert [t.n_averages for t in timings(run)] == [2, 2, 2]


def test_the_mean_over_single_repeats_equals_the_average_of_all(tmp_path):
    run = read_run(write_scan(tmp_path))
    parts = [series_from_runs([select_repeats(run, [n])]) for n in range(2)]
    both = series_from_runs([run])
    assert [t.n_averages for t in parts[0].acquisition.timings] == [1, 1, 1]
    assert parts[0].noise_sd is None
    mean = (parts[0].delta_m + parts[1].delta_m) / 2
    assert np.allclose(mean[head()], both.delta_m[head()], atol=1e-7)


def test_the_noise_from_repeats_is_that_of_the_mean_number_of_averages():
    rng = np.random.default_rng(3)
    sd, mask = 0.02, np.ones((40, 40, 2), dtype=bool)
    groups = [rng.normal(0, sd, (*mask.shape, n)) for n in (2, 6)]
    noise = noise_from_repeats(groups, [2, 6], mask, (3.0, 3.0, 5.0))
    assert noise.mean() == pytest.approx(sd / np.sqrt(4), rel=0.03)
    assert noise_from_repeats([g[..., :1] for g in groups], [1, 1], mask, (3.0, 3.0, 5.0)) is None


def test_the_mask_is_the_largest_bright_region_with_holes_filled():
    image = np.zeros((40, 40, 6), dtype=np.float32)
    image[8:32, 8:32] = 1000
    image[18:20, 18:20] = 0  # a hole
    image[36:38, 2:4] = 1000  # an eye
    mask = brain_mask(image, (3.5, 3.5, 5.0))
    assert mask[19, 19].all()
    assert not mask[36:38, 2:4].any()
    assert mask.sum() == pytest.approx(24 * 24 * 6, rel=0.1)


def test_low_m0_is_raised_to_a_quarter_of_the_brain_mean_and_missing_m0_gives_nan(tmp_path):
    voxels = volumes(noise_sd=0.0)
    voxels[..., 0] = np.where(head(), M0, 0.001 * M0)  # air
    voxels[0, 0, :, 0], voxels[0, 1, :, 0] = 0.0, np.nan
    voxels[0, 2, :, 1::2] -= 1.0  # the labels of one voxel in air: a difference of 1
    series = series_from_runs([read_run(write_scan(tmp_path, voxels=voxels))], head())
    assert np.isnan(series.delta_m[0, :2]).all()
    assert np.allclose(series.delta_m[0, 2], 1 / (0.25 * M0))
    assert np.allclose(series.m0[head()], M0)


def test_smoothing_reduces_the_noise_and_its_estimate(tmp_path):
    run = read_run(write_scan(tmp_path, voxels=volumes(noise_sd=5.0)))
    rough, smooth = (series_from_runs([run], smoothing_sigma_mm=s) for s in (0.0, 3.5))
    inner = (slice(5, 9), slice(5, 9), 1)
    assert smooth.noise_sd[inner].mean() < 0.5 * rough.noise_sd[inner].mean()
    assert smooth.delta_m[inner].std() < 0.7 * rough.delta_m[inner].std()


def test_runs_on_different_grids_are_refused(tmp_path):
    runs = [read_run(write_scan(tmp_path, name="sub-01_run-1"))]
    other = write_scan(tmp_path, name="sub-01_run-2")
    save(other, volumes(), AFFINE @ np.diag([1.1, 1, 1, 1]))
    with pytest.raises(InputError, match="another grid than that of sub-01_run-1_asl.nii.gz"):
        series_from_runs([*runs, read_run(other)])
