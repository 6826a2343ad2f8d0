"""Wrong input ends with one sentence that names the file and the field, and leaves nothing."""

import gzip
import json

import nibabel as nib
import numpy as np
import pytest
from click.testing import CliRunner
from scans import (
    AFFINE,
    CONTEXTS,
    PLDS_S,
    SHAPE,
    SIDECAR,
    save,
    volumes,
    write_m0,
    write_scan,
)

from aslkit.cli.common import aslkit_command
from aslkit.cli.fit_ls import main
from aslkit.cli.predict import main as predict

JSON, TSV, NII = "sub-01_asl.json", "sub-01_aslcontext.tsv", "sub-01_asl.nii.gz"


def refusal(tmp_path, image, *options, code=3):
    """The one line on stderr of a command that has to fail with `code` and leave nothing."""
    out = tmp_path / "out"
    out.mkdir()
    arguments = ["-i", str(image), "-o", str(out / "cbf.nii.gz"), *map(str, options)]
    result = CliRunner().invoke(main, arguments)
    assert result.exit_code == code, result.output
    assert list(out.iterdir()) == []
    assert "Traceback" not in result.output
    lines = result.stderr.splitlines()
    assert len(lines) == 1
    assert lines[0].startswith("Error: ")
    return lines[0]


def without_m0(tmp_path, **fields):
    plds = SIDECAR["PostLabelingDelay"][1:]
    return write_scan(
        tmp_path,
        {"M0Type": "Separate", "PostLabelingDelay": plds, **fields},
        contexts=CONTEXTS[1:],
        voxels=volumes()[..., 1:],
    )


def test_a_missing_image(tmp_path):
    assert "nothing.nii.gz: found no such file" in refusal(tmp_path, tmp_path / "nothing.nii.gz")


def test_a_missing_sidecar(tmp_path):
    image = write_scan(tmp_path)
    image.with_name(JSON).unlink()
    message = refusal(tmp_path, image)
    assert f"{JSON}: ArterialSpinLabelingType: found no such file" in message
    assert "--labeling" in message


def test_missing_volume_types(tmp_path):
    message = refusal(tmp_path, write_scan(tmp_path, contexts=None))
    assert f"{TSV}: found no such file" in message
    assert "--order" in message


@pytest.mark.parametrize("field", ["PostLabelingDelay", "LabelingDuration"])
def test_a_missing_delay(tmp_path, field):
    assert f"{JSON}: {field}: found nothing" in refusal(
        tmp_path, write_scan(tmp_path, {field: None})
    )


@pytest.mark.parametrize("field", ["PostLabelingDelay", "LabelingDuration"])
def test_a_wrong_number_of_delays(tmp_path, field):
    message = refusal(tmp_path, write_scan(tmp_path, {field: list(PLDS_S)}))
    assert f"{JSON}: {field}: found 3 entries, expected 1 or {len(CONTEXTS)}" in message


def test_a_wrong_number_of_volume_types(tmp_path):
    message = refusal(tmp_path, write_scan(tmp_path, contexts=CONTEXTS[:-1]))
    assert f"{TSV}: volume_type: found 12 volumes, expected 13" in message


def test_an_unknown_volume_type(tmp_path):
    message = refusal(tmp_path, write_scan(tmp_path, contexts=["M0", *CONTEXTS[1:]]))
    assert f"{TSV}: volume_type of volume 1: found 'M0'" in message


def test_only_label_volumes(tmp_path):
    contexts = ["m0scan", *["label"] * (len(CONTEXTS) - 1)]
    message = refusal(tmp_path, write_scan(tmp_path, contexts=contexts))
    assert "found only label volumes, expected control and label" in message


def test_no_perfusion_volumes(tmp_path):
    message = refusal(tmp_path, write_scan(tmp_path, contexts=["m0scan"] * len(CONTEXTS)))
    assert f"{TSV}: volume_type: found only m0scan" in message


def test_delays_in_milliseconds_are_refused_with_the_line_to_write(tmp_path):
    plds = [1000 * p for p in SIDECAR["PostLabelingDelay"]]
    message = refusal(tmp_path, write_scan(tmp_path, {"PostLabelingDelay": plds}))
    assert f"{JSON}: PostLabelingDelay: found 1800, expected seconds" in message
    assert '"PostLabelingDelay": [0.5, 1, 1.8' in message


def test_a_label_duration_in_milliseconds_is_refused_with_the_line_to_write(tmp_path):
    message = refusal(tmp_path, write_scan(tmp_path, {"LabelingDuration": 1800}))
    assert f"{JSON}: LabelingDuration: found 1800" in message
    assert '"LabelingDuration": 1.8 ' in message


def test_stated_delays_in_milliseconds(tmp_path):
    message = refusal(tmp_path, write_scan(tmp_path), "--plds", "500,1000,1800")
    assert "--plds: found 1800, expected seconds" in message


def test_a_stated_number_of_delays_that_does_not_fit(tmp_path):
    message = refusal(tmp_path, write_scan(tmp_path), "--plds", "0.5,1,1.5,2")
    assert "--plds: found 4 values" in message


def test_a_negative_delay(tmp_path):
    message = refusal(tmp_path, write_scan(tmp_path, {"PostLabelingDelay": -1.8}))
    assert f"{JSON}: PostLabelingDelay: found -1.8" in message


def test_a_delay_that_is_text(tmp_path):
    message = refusal(tmp_path, write_scan(tmp_path, {"PostLabelingDelay": "1.8"}))
    assert f"{JSON}: PostLabelingDelay: found 1.8, expected a number" in message


def test_a_volume_without_numbers(tmp_path):
    voxels = volumes()
    voxels[..., 4] = np.nan
    message = refusal(tmp_path, write_scan(tmp_path, voxels=voxels))
    assert f"{NII}: volume 5 of 13 (control): found no finite voxel" in message


def test_an_m0_without_signal(tmp_path):
    voxels = volumes()
    voxels[..., 0] = 0
    message = refusal(tmp_path, write_scan(tmp_path, voxels=voxels))
    assert f"{NII}: M0: found no voxel above 0" in message


@pytest.mark.parametrize("kept", [0, 20, 200, 4000])
def test_a_truncated_gz(tmp_path, kept):
    image = write_scan(tmp_path)
    image.write_bytes(image.read_bytes()[:kept])
    assert f"{NII}: found a file that cannot be read" in refusal(tmp_path, image)


@pytest.mark.parametrize("kept", [0, 100, 348, 2000])
def test_a_truncated_image(tmp_path, kept):
    image = write_scan(tmp_path)
    plain = image.with_name("sub-01_asl.nii")
    plain.write_bytes(gzip.decompress(image.read_bytes())[:kept])
    assert "sub-01_asl.nii: found a file that cannot be read" in refusal(tmp_path, plain)


def test_a_truncated_m0(tmp_path):
    image = without_m0(tmp_path)
    m0 = write_m0(image, volumes()[..., 0])
    m0.write_bytes(m0.read_bytes()[:500])
    assert "sub-01_m0scan.nii.gz: found a file that cannot be read" in refusal(tmp_path, image)


def test_an_image_of_complex_numbers(tmp_path):
    image = write_scan(tmp_path)
    nib.Nifti1Image(volumes().astype(np.complex64), AFFINE).to_filename(image)
    assert f"{NII}: found complex64 voxels" in refusal(tmp_path, image)


def test_an_image_of_two_dimensions(tmp_path):
    image = write_scan(tmp_path, voxels=volumes()[:, :, 0, 0])
    assert f"{NII}: found an image of 14 x 14 voxels" in refusal(tmp_path, image)


@pytest.mark.parametrize("shape", [(7, 7, 3), (14, 14, 2), (16, 16, 3)])
def test_an_m0_of_another_grid_at_the_same_place(tmp_path, shape):
    image = without_m0(tmp_path)
    write_m0(image, np.ones(shape, dtype=np.float32))
    message = refusal(tmp_path, image)
    assert "sub-01_m0scan.nii.gz: image grid: found" in message
    assert "the grid of sub-01_asl.nii.gz, 14 x 14 x 3 voxels" in message


def test_an_m0_of_another_place(tmp_path):
    image = without_m0(tmp_path)
    elsewhere = AFFINE.copy()
    elsewhere[0, 3] += 25
    write_m0(image, np.ones(SHAPE, dtype=np.float32), affine=elsewhere)
    assert "sub-01_m0scan.nii.gz: image grid: found" in refusal(tmp_path, image)


def test_a_missing_separate_m0(tmp_path):
    message = refusal(tmp_path, without_m0(tmp_path))
    assert f"{JSON}: M0Type: found Separate and no m0scan image" in message


def test_a_missing_included_m0(tmp_path):
    message = refusal(tmp_path, without_m0(tmp_path, M0Type="Included"))
    assert f"{JSON}: M0Type: found Included, expected an m0scan line" in message


def test_an_m0_volume_although_it_is_absent(tmp_path):
    message = refusal(tmp_path, write_scan(tmp_path, {"M0Type": "Absent"}))
    assert f"{JSON}: M0Type: found Absent, although" in message


@pytest.mark.parametrize("value", [None, 0, "large"])
def test_an_m0_estimate_that_is_none(tmp_path, value):
    message = refusal(tmp_path, without_m0(tmp_path, M0Type="Estimate", M0Estimate=value))
    assert f"{JSON}: M0Estimate: found" in message


@pytest.mark.parametrize("value", ["0", "-5", "nan", "nowhere.nii.gz"])
def test_a_stated_m0_that_is_none(tmp_path, value):
    assert f"{value}" in refusal(tmp_path, write_scan(tmp_path), "--m0", value)


@pytest.mark.parametrize(
    "timing", [[0.0, 0.05], [0.0, 50.0, 100.0], [-0.1, 0.0, 0.1], "ascending"]
)
def test_a_slice_timing_that_does_not_fit(tmp_path, timing):
    message = refusal(tmp_path, write_scan(tmp_path, {"SliceTiming": timing}))
    assert f"{JSON}: SliceTiming: found" in message


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("ArterialSpinLabelingType", "VENC"),
        ("ArterialSpinLabelingType", 3),
        ("LookLocker", True),
        ("HadamardMatrixSize", 8),
        ("BackgroundSuppression", "yes"),
        ("BackgroundSuppressionNumberPulses", 1.5),
        ("LabelingEfficiency", 85),
        ("M0Type", "separate"),
        ("RepetitionTimePreparation", 4100),
        ("RepetitionTimePreparation", -1),
        ("SliceEncodingDirection", "j"),
    ],
)
def test_a_field_out_of_its_range(tmp_path, field, value):
    fields = {"BackgroundSuppression": True, field: value}
    assert f"{JSON}: {field}: found" in refusal(tmp_path, write_scan(tmp_path, fields))


@pytest.mark.parametrize("value", [None, 0, 800, []])
def test_a_bolus_cut_off_without_a_time(tmp_path, value):
    fields = {"ArterialSpinLabelingType": "PASL", "BolusCutOffFlag": True}
    message = refusal(tmp_path, write_scan(tmp_path, {**fields, "BolusCutOffDelayTime": value}))
    assert f"{JSON}: BolusCutOffDelayTime: found" in message


def test_difference_images_besides_control_images(tmp_path):
    contexts = [*CONTEXTS[:-2], "deltam", "deltam"]
    assert f"{NII}: volume types" in refusal(tmp_path, write_scan(tmp_path, contexts=contexts))


@pytest.mark.parametrize("text", ['{"PostLabelingDelay": 1.8,,}', "[]", "", "[" * 10_000])
def test_a_sidecar_that_is_no_json_object(tmp_path, text):
    image = write_scan(tmp_path)
    image.with_name(JSON).write_text(text)
    assert JSON in refusal(tmp_path, image)


def test_a_sidecar_that_is_no_text(tmp_path):
    image = write_scan(tmp_path)
    image.with_name(JSON).write_bytes(b"\xff\xfe\x00")
    assert f"{JSON}: found a file that cannot be read" in refusal(tmp_path, image)


def test_volume_types_without_a_column_name(tmp_path):
    image = write_scan(tmp_path)
    image.with_name(TSV).write_text("\n".join(CONTEXTS))
    assert f"{TSV}: first line: found m0scan" in refusal(tmp_path, image)


def test_a_mask_of_another_grid(tmp_path):
    mask = save(tmp_path / "mask.nii.gz", np.ones((5, 5, 5), np.uint8))
    message = refusal(tmp_path, write_scan(tmp_path), "-m", mask)
    assert "mask.nii.gz: found 5 x 5 x 5" in message


def test_an_empty_mask(tmp_path):
    mask = save(tmp_path / "mask.nii.gz", np.zeros(SHAPE, np.uint8))
    assert "mask.nii.gz: found no voxel above 0" in refusal(
        tmp_path, write_scan(tmp_path), "-m", mask
    )


def test_an_output_that_is_no_image(tmp_path):
    result = CliRunner().invoke(
        main, ["-i", str(write_scan(tmp_path)), "-o", str(tmp_path / "cbf.txt")]
    )
    assert result.exit_code == 3
    assert "cbf.txt: found another kind of file" in result.stderr


def test_an_output_below_a_file(tmp_path):
    (tmp_path / "file").write_text("")
    out = tmp_path / "file" / "cbf.nii.gz"
    result = CliRunner().invoke(main, ["-i", str(write_scan(tmp_path)), "-o", str(out)])
    assert result.exit_code == 3
    assert "expected a writable folder" in result.stderr


@pytest.mark.parametrize(
    "options",
    [
        ["--att-bounds", "2,1"],
        ["--att-bounds", "1"],
        ["--plds", "a,b"],
        ["--plds", "nan"],
        ["--alpha", "1.5"],
        ["--att", "1", "--macrovascular", "on"],
        ["--no-such-option"],
    ],
)
def test_wrong_usage(tmp_path, options):
    out = tmp_path / "cbf.nii.gz"
    arguments = ["-i", str(write_scan(tmp_path)), "-o", str(out), *options]
    result = CliRunner().invoke(main, arguments)
    assert result.exit_code == 2, result.output
    assert "Traceback" not in result.output
    assert not out.exists()


def test_an_internal_error_is_one_line_unless_debugged():
    @aslkit_command()
    def broken():
        raise RuntimeError("the\nroof is on fire")

    result = CliRunner().invoke(broken, [])
    assert result.exit_code == 1
    assert result.stderr == (
        "Internal error: RuntimeError: the roof is on fire; "
        "run again with --debug for the traceback\n"
    )
    assert "Traceback" in CliRunner().invoke(broken, ["--debug"]).stderr


def test_an_arterial_compartment_of_too_few_delays(tmp_path):
    message = refusal(tmp_path, write_scan(tmp_path), "--macrovascular", "on")
    assert "--macrovascular on: found 3 delays" in message


def test_an_unknown_model(tmp_path):
    out = tmp_path / "cbf.nii.gz"
    arguments = ["-i", str(write_scan(tmp_path)), "-o", str(out), "--model", "no-such-model"]
    result = CliRunner().invoke(predict, arguments)
    assert result.exit_code == 5, result.output
    assert len(result.stderr.splitlines()) == 1
    assert "no-such-model" in result.stderr
    assert not out.exists()


def test_a_failing_write_leaves_no_map_behind(tmp_path, monkeypatch):
    def fail(path, text, **_):
        raise OSError(28, "No space left on device")

    image = write_scan(tmp_path)
    assert json.loads(image.with_name(JSON).read_text())  # the scan itself is complete
    monkeypatch.setattr("pathlib.Path.write_text", fail)
    assert "No space left on device" in refusal(tmp_path, image)
