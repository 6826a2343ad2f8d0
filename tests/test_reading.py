"""Less common BIDS features in real data sets, and warnings about unusual values."""

import json
from concurrent.futures import ThreadPoolExecutor

import nibabel as nib
import numpy as np
import pytest
from faults import NO_M0, PASL
from nibabel import imageglobals
from scans import CONTEXTS, M0, PLDS_S, SHAPE, SIDECAR, head, save, volumes, write_m0, write_scan

from aslkit.bids.layout import find_acquisitions
from aslkit.bids.nifti import read_volumes
from aslkit.bids.overrides import Overrides
from aslkit.bids.reader import read_run
from aslkit.bids.run import timing_groups, timings
from aslkit.core.errors import InputError
from aslkit.core.series_and_maps import Flag
from aslkit.fit.least_squares import fit_least_squares
from aslkit.prepare.series import series_from_runs
from aslkit.prepare.timing_table import timing_table

PLDS = SIDECAR["PostLabelingDelay"]
ENTITIES = "sub-01_ses-2_acq-x_rec-y_dir-AP_run-03"


def warnings(image, overrides=None):
    """Return the warnings in the timing table of an image."""
    table = timing_table([read_run(image, overrides or Overrides())])
    return [line.removeprefix("  warning: ") for line in table.splitlines() if "warning" in line]


def write_session(folder, intended_for):
    """Write a scan with all entities in a session, and an m0scan linked to it."""
    perf = folder / "sub-01" / "ses-2" / "perf"
    (folder / "dataset_description.json").write_text("{}")
    image = save(perf / f"{ENTITIES}_asl.nii", volumes()[..., 1:])
    image.with_name(f"{ENTITIES}_aslcontext.tsv").write_text(
        "\n".join(["volume_type", *CONTEXTS[1:]])
    )
    (folder / "asl.json").write_text(json.dumps({**SIDECAR, **NO_M0}))
    write_m0(image, volumes()[..., 0], {"IntendedFor": intended_for}, name=f"{ENTITIES}_m0scan")
    return image


def test_a_valid_scan_has_no_warnings(tmp_path):
    assert warnings(write_scan(tmp_path)) == []


@pytest.mark.parametrize(
    "intended_for",
    [
        f"ses-2/perf/{ENTITIES}_asl.nii",
        f"bids::sub-01/ses-2/perf/{ENTITIES}_asl.nii",
        ["bids::sub-01/ses-2/perf/other_asl.nii", f"ses-2/perf/{ENTITIES}_asl.nii"],
    ],
)
def test_sessions_runs_and_all_entities_are_read_with_their_m0(tmp_path, intended_for):
    image = write_session(tmp_path, intended_for)
    assert find_acquisitions(tmp_path) == [(image,)]
    assert np.allclose(read_run(image).calibration.m0[head()], M0, atol=1)


def test_the_linked_m0_image_with_the_same_run_has_priority(tmp_path):
    image = write_session(tmp_path, f"ses-2/perf/{ENTITIES}_asl.nii")
    other = ENTITIES.replace("run-03", "run-04")
    fields = {"IntendedFor": f"ses-2/perf/{ENTITIES}_asl.nii"}
    write_m0(image, np.ones(SHAPE, np.float32), fields, name=f"{other}_m0scan")
    assert np.allclose(read_run(image).calibration.m0[head()], M0, atol=1)


def test_the_phase_image_of_an_m0scan_is_ignored(tmp_path):
    image = write_session(tmp_path, f"ses-2/perf/{ENTITIES}_asl.nii")
    fields = {"IntendedFor": f"ses-2/perf/{ENTITIES}_asl.nii"}
    write_m0(image, np.ones(SHAPE, np.float32), fields, name=f"{ENTITIES}_part-phase_m0scan")
    assert np.allclose(read_run(image).calibration.m0[head()], M0, atol=1)


def test_runs_of_a_joint_acquisition_are_grouped_and_phase_images_ignored(tmp_path):
    for name in ("sub-01_acq-pcasl_run-1", "sub-01_acq-vsasl_run-1", "sub-01_part-phase"):
        write_scan(tmp_path, name=name)
    (found,) = find_acquisitions(tmp_path)
    assert [path.name for path in found] == [
        "sub-01_acq-pcasl_run-1_asl.nii.gz",
        "sub-01_acq-vsasl_run-1_asl.nii.gz",
    ]


def test_a_nifti_without_sidecars_is_read_with_the_options_of_the_user(tmp_path):
    image = save(tmp_path / "data.nii", volumes()[..., 1:])
    stated = {"plds_s": PLDS_S, "label_durations_s": (1.8,), "order": "tc", "labeling": "pcasl"}
    run = read_run(image, Overrides(**stated, m0="1000", slice_dt_s=0.05))
    assert [(t.label_duration_s, t.pld_s, t.n_averages) for t in timings(run)] == [
        (1.8, pld, 2) for pld in PLDS_S
    ]
    assert run.contexts == CONTEXTS[1:]


def test_repeats_in_any_order_and_of_unequal_number_are_grouped(tmp_path):
    order = [6, 5, 1, 2, 3, 4, 11, 12]  # volumes of the scan: 1.8, 0.5, 1.0 and 1.8 s
    contexts = [CONTEXTS[i] for i in order]
    fields = {**NO_M0, "M0Type": "Estimate", "M0Estimate": M0}
    fields["PostLabelingDelay"] = [PLDS[i] for i in order]
    run = read_run(write_scan(tmp_path, fields, contexts, volumes()[..., order]))
    found = {key[1]: [pair.indices for pair in pairs] for key, pairs in timing_groups(run).items()}
    assert found == {0.5: [(3, 2)], 1.0: [(5, 4)], 1.8: [(0, 1), (7, 6)]}
    assert (series_from_runs([run]).delta_m[head()] > 0).all()


def test_norf_and_n_a_volumes_are_ignored(tmp_path):
    contexts = ["m0scan", "noRF", "n/a", *CONTEXTS[3:]]
    plds = [0.0, 0.0, 0.0, *PLDS[3:]]
    run = read_run(write_scan(tmp_path, {"PostLabelingDelay": plds}, contexts))
    assert [(t.pld_s, t.n_averages) for t in timings(run)] == [(0.5, 1), (1.0, 2), (1.8, 2)]


def test_an_unpaired_volume_is_ignored_with_a_warning(tmp_path):
    contexts = [*CONTEXTS[:-1], "n/a"]
    image = write_scan(tmp_path, contexts=contexts)
    assert warnings(image) == ["volumes without a partner of equal timing are left out: 12"]


def test_the_m0scan_volumes_of_a_series_are_averaged(tmp_path):
    doubled = np.concatenate([3 * volumes()[..., :1], volumes()], axis=3)
    fields = {"PostLabelingDelay": [0.0, *PLDS]}
    image = write_scan(tmp_path, fields, ["m0scan", *CONTEXTS], doubled)
    assert np.allclose(read_run(image).calibration.m0[head()], 2 * M0, atol=1)


@pytest.mark.parametrize("text", ["\ufeff{}", "{{}}\r\n"])
def test_byte_order_marks_and_windows_line_ends_are_accepted(tmp_path, text):
    image = write_scan(tmp_path)
    sidecar = image.with_name("sub-01_asl.json")
    sidecar.write_text(
        text.replace("{}", sidecar.read_text()).replace("{{", "{").replace("}}", "}")
    )
    table = image.with_name("sub-01_aslcontext.tsv")
    rows = ["note\tvolume_type", *(f"a\t{c}" for c in CONTEXTS), "", ""]
    table.write_text("\r\n".join(rows), newline="")
    assert read_run(image).contexts == CONTEXTS


def test_voxels_with_no_finite_repeat_at_a_delay_are_flagged(tmp_path):
    voxels = volumes()
    voxels[7, 7, 1, [3, 9]], voxels[6, 6, 1, [4, 10]] = np.nan, np.inf  # both repeats
    voxels[7, 6, 1, 3] = np.nan  # one repeat
    series = series_from_runs([read_run(write_scan(tmp_path, voxels=voxels))])
    flags = fit_least_squares(series).flags
    assert (flags[7, 7, 1], flags[6, 6, 1]) == (Flag.NOT_FINITE, Flag.NOT_FINITE)
    assert flags[7, 6, 1] == Flag.OK


@pytest.mark.parametrize(
    ("fields", "warning"),
    [
        ({"M0Type": None}, "M0Type is not stated: read as Included"),
        (
            {"M0Type": "Estimate", "M0Estimate": 900},
            "the m0scan volumes of the series are not used",
        ),
        ({"FlipAngle": [90.0, *[40.0] * 12]}, "FlipAngle of M0 is 90° and of ASL 40°"),
        ({"EchoTime": [0.012, *[0.014] * 12]}, "EchoTime of M0 is 0.012 s and of ASL 0.014 s"),
        ({"MultibandAccelerationFactor": 2}, "SliceTiming has 3 different times for 3 slices"),
        ({"MRAcquisitionType": "3D"}, "SliceTiming is ignored: the readout is 3D"),
        ({"MRAcquisitionType": None, "SliceTiming": None}, "MRAcquisitionType is not stated"),
        ({"PostLabelingDelay": [p + 2 for p in PLDS]}, "are they inflow times"),
        ({"MagneticFieldStrength": 7}, "the default T1 of blood is for 3 T"),
        ({**PASL, "BolusCutOffDelayTime": 0.8}, "0.5 s is shorter than the bolus of 0.8 s"),
        ({**PASL, "BolusCutOffFlag": False}, "no bolus cut-off"),
        (
            {**PASL, "BolusCutOffDelayTime": 0.4, "BolusCutOffTechnique": "QUIPSS"},
            "read as QUIPSSII",
        ),
    ],
)
def test_an_unusual_value_gives_a_warning(tmp_path, fields, warning):
    (found,) = warnings(write_scan(tmp_path, fields))
    assert warning in found


@pytest.mark.parametrize(
    "fields",
    [
        {"MagneticFieldStrength": 2.5},
        {"MagneticFieldStrength": 3.5},
        {"PostLabelingDelay": [p + 1.3 for p in PLDS]},  # from 1.8 s, the label duration
        {"PostLabelingDelay": [0.0, *[2.0, 2.0, 2.5, 2.5] * 3]},  # only two delays
        {"LabelingDuration": 0.99, "PostLabelingDelay": [p + 2 for p in PLDS]},
        {"LabelingDuration": [1.8, *[1.8, 1.8, 1.5, 1.5, 1.2, 1.2] * 2],
         "PostLabelingDelay": [p + 2 for p in PLDS]},
        {**PASL, "BolusCutOffDelayTime": 0.5},  # the shortest inversion time
        {"TotalAcquiredPairs": 6},
        {"LookLocker": False, "HadamardEncoding": False},
        {"ArterialSpinLabelingType": "pCASL"},
    ],
)  # fmt: skip
def test_a_value_at_the_limit_of_the_usual_range_gives_no_warning(tmp_path, fields):
    assert warnings(write_scan(tmp_path, fields)) == []


def test_a_given_t1_of_blood_gives_no_warning_at_7_t(tmp_path):
    image, stated = write_scan(tmp_path, {"MagneticFieldStrength": 7}), Overrides(t1_blood_s=2.1)
    assert warnings(image, stated) == []
    assert series_from_runs([read_run(image, stated)]).acquisition.t1_blood_s == 2.1


@pytest.mark.parametrize("volume", [3, 4])
def test_a_label_or_control_volume_of_zeros_is_refused(tmp_path, volume):
    voxels = volumes()
    voxels[..., volume] = 0
    image = write_scan(tmp_path, voxels=voxels)
    with pytest.raises(
        InputError, match=rf"volume {volume + 1} of 13 \({CONTEXTS[volume]}\): fou"
    ):
        read_run(image)


@pytest.mark.parametrize("field", ["HadamardMatrixSize", "TimeEncodedSteps"])
def test_a_time_encoded_series_without_decoding_is_refused(tmp_path, field):
    image = write_scan(tmp_path, {field: 8})
    with pytest.raises(InputError, match=f"{field}: found 8, expected decoded deltam volumes"):
        read_run(image)


@pytest.mark.parametrize(
    ("n_pairs", "n_averages", "warning"),
    [
        (1, 1, "TotalAcquiredPairs is 1, but the file holds 3 pairs"),
        (3, 1, None),
        (7, 1, "TotalAcquiredPairs is 7, but the file holds 3 pairs"),
        (12, 4, None),
    ],
)
def test_averaged_and_decoded_difference_images_are_read(tmp_path, n_pairs, n_averages, warning):
    voxels = np.ones((*SHAPE, 3), np.float32)
    voxels[..., 1] = 0  # no perfusion, or masked by the scanner
    fields = {"PostLabelingDelay": list(PLDS_S), "M0Type": "Estimate", "M0Estimate": M0}
    fields |= {"TotalAcquiredPairs": n_pairs, "TimeEncodedMatrixSize": 4}
    image = write_scan(tmp_path, fields, ["deltam"] * 3, voxels)
    assert [t.n_averages for t in timings(read_run(image))] == [n_averages] * 3
    assert warnings(image) == ([] if warning is None else [warning])


def test_the_sources_of_a_run_are_all_files_read(tmp_path):
    image = write_session(tmp_path, f"ses-2/perf/{ENTITIES}_asl.nii")
    perf = image.parent
    assert set(read_run(image).sources) == {
        image,
        tmp_path / "asl.json",
        perf / f"{ENTITIES}_aslcontext.tsv",
        perf / f"{ENTITIES}_m0scan.nii.gz",
        perf / f"{ENTITIES}_m0scan.json",
    }


def test_simultaneously_excited_slices_have_the_same_offset(tmp_path):
    fields = {"SliceTiming": [0.0, 0.05, 0.0], "MultibandAccelerationFactor": 1.5}
    image = write_scan(tmp_path, fields)
    assert read_run(image).slice_offsets_s == pytest.approx((0, 0.05, 0))
    assert "mixed order, 2 excitations" in timing_table([read_run(image)])


def test_a_separate_m0_with_another_echo_time_gives_a_warning(tmp_path):
    image = write_scan(tmp_path, {**NO_M0, "EchoTime": 0.014}, CONTEXTS[1:], volumes()[..., 1:])
    write_m0(image, volumes()[..., 0], {"EchoTime": 0.03})
    for overrides in (Overrides(), Overrides(m0_tr_s=4.0)):
        (found,) = warnings(image, overrides)
        assert "EchoTime of M0 is 0.03 s and of ASL 0.014 s" in found


@pytest.mark.parametrize(
    ("fields", "contexts", "refused"),
    [
        ({}, None, "aslcontext.tsv: found no such file"),
        (NO_M0, CONTEXTS[1:], "M0Type: found Separate and no m0scan image"),
        ({"M0Type": "Absent"}, CONTEXTS, "M0Type: found Absent, although"),
        ({"PostLabelingDelay": [1000 * p for p in PLDS]}, CONTEXTS, "not milliseconds"),
        ({"RepetitionTimePreparation": 0}, CONTEXTS, None),
        ({"SliceTiming": [0.0, 0.1]}, CONTEXTS, "SliceTiming: found 2 entries, expected 3"),
        ({"TotalAcquiredPairs": 7}, CONTEXTS, None),
    ],
)
def test_errors_missed_by_the_bids_validator_are_found(tmp_path, fields, contexts, refused):
    voxels = volumes()[..., -len(contexts or CONTEXTS) :]
    image = write_scan(tmp_path, fields, contexts, voxels)
    if refused is None:
        assert len(warnings(image)) == 1
        return
    with pytest.raises(InputError, match=refused):
        read_run(image)


def test_the_timing_table_shows_every_property_of_a_run(tmp_path):
    suppressed = {"BackgroundSuppression": True, "BackgroundSuppressionNumberPulses": 2}
    fields = {**suppressed, "RepetitionTimePreparation": 4.0, "SliceEncodingDirection": "k-"}
    image = write_scan(tmp_path, fields)
    assert timing_table([read_run(image, Overrides(m0_scale=2.0))]).splitlines() == [
        str(image),
        "  volumes     13: 1 m0scan, 6 label, 6 control; the signal is control - label",
        "  labeling    PCASL, efficiency 0.767 = 0.85 (default of PCASL) x 0.95^2 "
        "(2 background-suppression pulses)",
        "  readout     2D, 3 slices over 0.1 s, descending order",
        "  M0          m0scan volumes of sub-01_asl.nii.gz, scale 2, TR 4 s, divided by its "
        "recovery 0.954 (--no-m0-tr-correction turns this off)",
        "  noise       from the scatter of the repeats",
        "  arterial    compartment off with --macrovascular auto (3 delays from 0.5 s)",
        "  group   label [s]   PLD [s]   in slice 1 to last [s]   pairs   volumes",
        "      1         1.8       0.5               0.6 to 0.5       2   3-2 9-8",
        "      2         1.8         1                 1.1 to 1       2   5-4 11-10",
        "      3         1.8       1.8               1.9 to 1.8       2   7-6 13-12",
    ]


def test_the_noise_of_a_joint_acquisition_comes_from_the_run_with_repeats(tmp_path):
    repeated = write_scan(tmp_path, name="sub-01_acq-pcasl")
    contexts = [c if i < 7 else "n/a" for i, c in enumerate(CONTEXTS)]
    fields = {"ArterialSpinLabelingType": "VSASL"}
    single = write_scan(tmp_path, fields, contexts, name="sub-01_acq-vsasl")
    table = timing_table([read_run(repeated), read_run(single)])
    assert table.count("noise       from the scatter of the repeats") == 2
    assert "residuals" in timing_table([read_run(single)])


def test_the_timing_table_lists_difference_volumes(tmp_path):
    fields = {"PostLabelingDelay": 1.8, "M0Type": "Estimate", "M0Estimate": M0}
    image = write_scan(tmp_path, fields, ["deltam"], np.ones(SHAPE, np.float32))
    table = timing_table([read_run(image)])
    assert "1: 1 deltam; the signal is differences" in table
    assert "residuals of the fit (no repeats)" in table
    assert table.splitlines()[-1].split() == ["1", "1.8", "1.8", "1.8", "to", "1.9", "1", "1"]


def test_reading_an_image_does_not_change_the_settings_of_nibabel(tmp_path, monkeypatch):
    monkeypatch.setattr(imageglobals.logger, "disabled", True)
    level = imageglobals.error_level
    read_volumes(write_scan(tmp_path))
    assert imageglobals.logger.disabled is True
    assert imageglobals.error_level == level


def test_several_threads_can_read_images_at_once(tmp_path, monkeypatch):
    monkeypatch.setattr(imageglobals, "error_level", 40)
    good = write_scan(tmp_path)
    damaged = tmp_path / "damaged.nii"
    content = bytearray(nib.load(good).header.binaryblock)
    content[70:72] = b"\xff\x7f"  # no such data type
    damaged.write_bytes(content + bytes(4))

    def read(path):
        try:
            return read_volumes(path)[0].sum()
        except InputError as error:
            return str(error)

    with ThreadPoolExecutor(8) as pool:
        results = list(pool.map(read, [good, damaged] * 40))
    assert set(results[::2]) == {read(good)}
    assert all("wrong NIfTI header" in message for message in results[1::2])
    assert imageglobals.error_level == 40
    assert imageglobals.logger.disabled is False
