"""asl_validate --bids: agreement statistics, reference maps, thresholds, pages, failed scans."""

import csv
import json
import re
import shutil
import subprocess

import nibabel as nib
import numpy as np
import pytest
from click.testing import CliRunner
from scipy import stats

from aslkit.bids.reference_maps import read_reference
from aslkit.cli.sim import main as asl_sim
from aslkit.cli.validate import main as asl_validate
from aslkit.core.errors import InputError
from aslkit.quality.thresholds import CHECK, GOOD, SUSPECT, THRESHOLDS, UNKNOWN
from aslkit.report.scan_tables import Column, scan_tables, subject_values
from aslkit.validate.agreement_stats import (
    agreement,
    assign_blocks,
    intraclass_correlation,
    limits_of_agreement,
    mean_interval,
)
from aslkit.validate.metrics import concordance
from aslkit.validate.split_half import choose_pairs, random_halves

pytestmark = pytest.mark.slow

BROWSER = shutil.which("chromium") or shutil.which("google-chrome")
SHAPE = (4, 4, 2)
AFFINE = np.diag([3.0, 3, 3, 1])
# Shrout and Fleiss 1979 (doi:10.1037/0033-2909.86.2.420), judges 3 and 4 of six targets
JUDGES = np.array([[5, 8], [3, 2], [2, 6], [4, 7], [1, 5], [6, 9]], dtype=float)


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    """Simulate four subjects with true maps, and remove the timing of one of them."""
    folder = tmp_path_factory.mktemp("study")
    command = ["--out", folder / "sim", "--protocol", "pcasl6", "--repeats", 2, "--snr", 5]
    command += ["--voxel-size", 10, "--participants", 4]
    simulated = CliRunner().invoke(asl_sim, [*map(str, command)])
    assert simulated.exit_code == 0, simulated.output
    sidecar = folder / "sim" / "sub-03" / "perf" / "sub-03_asl.json"
    fields = json.loads(sidecar.read_text())
    del fields["PostLabelingDelay"]
    sidecar.write_text(json.dumps(fields))
    return folder / "sim"


@pytest.fixture(scope="module")
def validated(study, tmp_path_factory):
    out = tmp_path_factory.mktemp("out") / "report"
    truth = study / "derivatives" / "truth"
    command = ["--bids", study, "--model", "voxelwise", "--reference", truth, "--n-jobs", 2]
    return out, CliRunner().invoke(asl_validate, [*map(str, command), "--out", str(out)])


def rows(out):
    with (out / "results.tsv").open() as file:
        return list(csv.DictReader(file, delimiter="\t"))


def write_map(folder, name, value, unit, shape=SHAPE):
    image = np.full(shape, value, dtype=np.float32)
    image[0] = 0
    folder.mkdir(parents=True, exist_ok=True)
    nib.Nifti1Image(image, AFFINE).to_filename(folder / f"{name}.nii.gz")
    (folder / f"{name}.json").write_text(json.dumps({"Units": unit} if unit else {}))


def test_agreement_equals_the_textbook_example():
    rng = np.random.default_rng(1)
    a = rng.normal(50, 10, 400)
    b = a + rng.normal(2, 3, 400)
    found = agreement(b, a, np.arange(400) // 10)
    difference = b - a
    assert found["difference"].value == pytest.approx(difference.mean())
    assert found["upper limit"].value == pytest.approx(difference.mean() + 1.96 * difference.std())
    assert found["absolute difference"].value == pytest.approx(np.abs(difference).mean())
    assert found["CCC"].value == pytest.approx(concordance(a, b))
    assert found["ICC(A,1)"].value == pytest.approx(intraclass_correlation(a, b).value)
    assert all(f.low < f.value < f.high for f in found.values())


def test_the_intraclass_correlation_equals_that_of_an_analysis_of_variance():
    rows_mean, columns_mean = JUDGES.mean(axis=1, keepdims=True), JUDGES.mean(axis=0)
    n, k = JUDGES.shape
    rest = JUDGES - rows_mean - columns_mean + JUDGES.mean()
    msr = k * ((rows_mean - JUDGES.mean()) ** 2).sum() / (n - 1)
    msc = n * ((columns_mean - JUDGES.mean()) ** 2).sum() / (k - 1)
    mse = (rest**2).sum() / ((n - 1) * (k - 1))
    found = intraclass_correlation(*JUDGES.T.copy())
    assert found.value == pytest.approx((msr - mse) / (msr + mse + k * (msc - mse) / n))
    assert found.low < found.value < found.high < 1


def test_the_interval_of_the_icc_covers_the_true_value_in_95_percent_of_studies():
    rng = np.random.default_rng(2)
    truth, n_studies = 0.8, 400
    inside = 0
    for _ in range(n_studies):
        subject = rng.normal(0, np.sqrt(truth), 15)
        one, two = subject + rng.normal(0, np.sqrt(1 - truth), (2, 15))
        found = intraclass_correlation(one, two)
        inside += found.low <= truth <= found.high
    assert 0.92 <= inside / n_studies <= 0.985


def test_block_intervals_are_wider_for_correlated_neighbours():
    rng = np.random.default_rng(3)
    of_block = rng.normal(0, 1, 40)
    difference = np.repeat(of_block, 50)
    found = agreement(difference, np.zeros_like(difference), np.arange(2000) // 50)
    expected = 2 * 1.96 * of_block.std() / np.sqrt(40)
    width = found["difference"].high - found["difference"].low
    assert width == pytest.approx(expected, rel=0.1)


def test_blocks_are_cubes_of_two_centimetres():
    mask = np.ones((8, 4, 4), dtype=bool)
    assert np.bincount(assign_blocks(mask, (5.0, 5.0, 5.0))).tolist() == [64, 64]


def test_few_subjects_have_no_interval():
    assert np.isnan(mean_interval(np.array([3.0, 4])).low)
    assert np.isnan(intraclass_correlation(np.array([1.0, 2]), np.array([1.0, 2])).value)
    assert np.isnan(intraclass_correlation(np.full(4, 2.0), np.full(4, 2.0)).value)
    three = mean_interval(np.array([1.0, 2, 3]))
    assert three.high - 2 == pytest.approx(stats.t.ppf(0.975, 2) / np.sqrt(3))


def test_limits_of_agreement_are_wider_for_few_subjects():
    few = limits_of_agreement(np.array([1.0, 2, 3, 2]))[1]
    many = limits_of_agreement(np.array([1.0, 2, 3, 2] * 20))[1]
    assert few.high - few.low > 3 * (many.high - many.low)


@pytest.mark.parametrize(
    ("unit", "value", "expected"),
    [("mL/100 g/min", 60, 60), ("l/kg/min", 0.6, 60), ("ml/g/min", 0.6, 60)],
)
def test_a_reference_is_converted_by_the_units_of_its_sidecar(tmp_path, unit, value, expected):
    write_map(tmp_path / "sub-01" / "perf", "sub-01_desc-basil_cbf", value, unit)
    write_map(tmp_path / "sub-01" / "perf", "sub-01_arrival", 1300, "ms")
    write_map(tmp_path / "sub-010" / "perf", "sub-010_cbf", 1, "ml/100g/min")
    images = read_reference(tmp_path, "sub-01", SHAPE, AFFINE).images
    np.testing.assert_allclose(images["cbf"][1:], expected, rtol=1e-5)
    np.testing.assert_allclose(images["att"][1:], 1.3, rtol=1e-5)
    assert np.isnan(images["cbf"][0]).all() and np.isnan(images["att"][0]).all()


def test_the_map_with_the_exact_name_of_the_scan_has_priority(tmp_path):
    for name, value in (("sub-01_cbf", 50), ("sub-01_desc-score_cbf", 40)):
        write_map(tmp_path, name, value, "ml/100g/min")
    assert read_reference(tmp_path, "sub-01", SHAPE, AFFINE).images["cbf"][1, 0, 0] == 50


@pytest.mark.parametrize(
    ("scan", "folder"),
    [
        ("sub-01", "sub-01"),
        ("sub-01_ses-1", "sub-01/ses-1"),
        ("sub-01_ses-1", "basil/sub-01_ses-1/oxford_asl"),
    ],
)
def test_the_folders_of_oxford_asl_are_read_without_changes(tmp_path, scan, folder):
    for place, scale in ((tmp_path / folder, 1), (tmp_path / "sub-02", 2)):
        write_map(place / "native_space", "perfusion_calib", 55 * scale, None)
        write_map(place / "native_space", "perfusion", 4000, None)
        write_map(place / "native_space", "arrival", 1.2 * scale, None)
        write_map(place / "native_space" / "pvcorr", "perfusion_calib", 80, None)
        for json_file in (place / "native_space").rglob("*.json"):
            json_file.unlink()
    for top in (tmp_path, tmp_path / "sub-01"):
        if top.is_dir():
            found = read_reference(top, scan, SHAPE, AFFINE)
            assert found.images["cbf"][1, 0, 0] == 55
            np.testing.assert_allclose(found.images["att"][1, 0, 0], 1.2)
            assert [f.name for f in found.files] == ["perfusion_calib.nii.gz", "arrival.nii.gz"]


def test_the_derivatives_of_aslprep_are_read_without_changes(tmp_path):
    folder = tmp_path / "aslprep" / "sub-01" / "ses-1" / "perf"
    for name, value, unit in (
        ("sub-01_ses-1_cbf", 52, "mL/100 g/min"),
        ("sub-01_ses-1_att", 1.1, "s"),
        ("sub-01_ses-1_desc-basil_cbf", 48, "mL/100 g/min"),
        ("sub-01_ses-1_desc-scrub_cbf", 47, "mL/100 g/min"),
    ):
        write_map(folder, name, value, unit)
    write_map(folder, "sub-01_ses-1_space-T1w_cbf", 50, "mL/100 g/min", shape=(9, 9, 9))
    found = read_reference(tmp_path, "sub-01_ses-1", SHAPE, AFFINE)
    assert found.images["cbf"][1, 0, 0] == 52
    np.testing.assert_allclose(found.images["att"][1, 0, 0], 1.1)


def test_two_programs_in_one_folder_are_not_mixed(tmp_path):
    write_map(tmp_path / "sub-01" / "native_space", "perfusion_calib", 55, None)
    write_map(tmp_path / "sub-01" / "perf", "sub-01_cbf", 50, "ml/100g/min")
    with pytest.raises(InputError, match="expected one map"):
        read_reference(tmp_path, "sub-01", SHAPE, AFFINE)


@pytest.mark.parametrize(
    ("maps", "message"),
    [
        ([], "found no such map, expected sub-01_cbf.nii.gz"),
        ([("sub-01_run-1_cbf", 50, "l/kg/min"), ("sub-01_run-2_cbf", 50, "")], "expected one map"),
        ([("sub-01_cbf", 50, None)], "Units: found no such file, expected one of ml/100g/min"),
        ([("sub-01_cbf", 50, "%")], 'found "%"'),
        ([("sub-01_cbf", 6000, "ml/100g/min")], "found 6000 after conversion"),
        ([("sub-01_cbf", 0, "ml/100g/min")], "found no value"),
        ([("sub-01_cbf", 50, "ml/100g/min"), ("sub-01_att", 1300, "s")], "at most 10 s"),
    ],
)  # fmt: skip
def test_an_invalid_reference_is_refused(tmp_path, maps, message):
    for m in maps:
        write_map(tmp_path, *m)
    with pytest.raises(InputError, match=re.escape(message)):
        read_reference(tmp_path, "sub-01", SHAPE, AFFINE)


def test_a_reference_on_another_grid_is_refused(tmp_path):
    write_map(tmp_path, "sub-01_cbf", 50, "ml/100g/min", shape=(5, 4, 2))
    with pytest.raises(InputError, match="found 5 x 4 x 2 voxels, expected the grid of the ASL"):
        read_reference(tmp_path, "sub-01", SHAPE, AFFINE)


def test_verdicts_change_at_the_thresholds():
    negative = THRESHOLDS["percentage_negative_brain_cbf"]
    verdicts = [negative.rating(v) for v in (0, 10, 10.1, 25, 26, None)]
    assert verdicts == [GOOD, GOOD, CHECK, CHECK, SUSPECT, UNKNOWN]
    assert THRESHOLDS["signal"].rating(-3) == SUSPECT  # label and control swapped
    for thresholds in THRESHOLDS.values():
        assert thresholds.fair[0] <= thresholds.good[0] < thresholds.good[1] <= thresholds.fair[1]


def test_one_failed_scan_does_not_stop_the_others(validated):
    out, done = validated
    assert done.exit_code == 4, done.output
    pages = sorted(p.name for p in out.glob("sub-*.html"))
    assert pages == ["sub-01.html", "sub-02.html", "sub-04.html"]
    lines = (out / "failed.tsv").read_text().splitlines()
    assert lines[0] == "scan\texit_code\tmessage" and len(lines) == 2
    assert lines[1].startswith("sub-03\t3\t") and "PostLabelingDelay" in lines[1]
    assert "4 scans: 3 done, 0 skipped, 1 failed" in done.output
    assert "FAILED" in (out / "logs" / "sub-03.log").read_text()


def test_pages_are_complete_and_need_no_internet(validated):
    for page in validated[0].glob("*.html"):
        text = page.read_text()
        assert not re.search(r"(src|href)=\"(https?:)?//", text)
        assert "data:image/png;base64," in text and text.rstrip().endswith("</html>")
    subject = (validated[0] / "sub-01.html").read_text()
    for needed in ("T1 of arterial blood", "Text for a methods section", "● good", "Command"):
        assert needed in subject
    group = (validated[0] / "report.html").read_text()
    assert '<a href="sub-02.html">' in group and "Scans that failed" in group
    gallery = group.partition('class="gallery"')[2].partition("</div>")[0]
    leads = re.findall(r'<a href="(sub-\d+).html"><figure><img alt="(sub-\d+)" width', gallery)
    assert leads == [(s, s) for s in ("sub-01", "sub-02", "sub-04")]


def test_the_truth_as_reference_shows_the_error(validated, study):
    table = {(r["scan"], r["estimator"], r["metric"]): r for r in rows(validated[0])
             if r["quantity"] == "cbf" and r["n_repeats"] == "2"}  # fmt: skip
    for scan in ("sub-01", "sub-02", "sub-04"):
        own, ls = (
            float(table[scan, e, "CCC with reference"]["value"]) for e in ("voxelwise", "LS")
        )
        assert own > ls
        found = table[scan, "voxelwise", "difference from reference"]
        assert float(found["low"]) < float(found["value"]) < float(found["high"])
        assert abs(float(found["value"])) < 8
        errors = [
            float(table[scan, e, "mean absolute difference from reference"]["value"])
            for e in ("voxelwise", "LS")
        ]
        assert errors[0] < errors[1]
        assert 0.7 < float(table[scan, "voxelwise", "coverage 95 % of reference"]["value"]) <= 1


@pytest.mark.parametrize(("n", "n_splits"), [(1, 0), (2, 1), (3, 3), (4, 3), (5, 4), (12, 4)])
def test_halves_are_disjoint_and_splits_are_distinct(n, n_splits):
    found = random_halves(n, seed=0)
    assert all(len(a) == len(b) == len({*a, *b}) // 2 == n // 2 for a, b in found)
    assert all({*a, *b} <= set(range(n)) for a, b in found)
    assert len({frozenset(map(frozenset, halves)) for halves in found}) == len(found) == n_splits


@pytest.mark.parametrize("n", [2, 3, 5, 8])
def test_a_timing_with_fewer_repeats_is_in_both_halves(n):
    for halves in random_halves(n, seed=1):
        chosen = [choose_pairs(halves, is_second, n, range(n)) for is_second in (False, True)]
        assert chosen == [*map(list, halves)]
        for fewer in range(2, n):
            one, two = (choose_pairs(halves, s, n, range(fewer)) for s in (False, True))
            assert one and two and not {*one} & {*two}
            assert len(one) == fewer // 2 and len(two) <= n // 2
            assert choose_pairs(halves, False, 1, range(fewer)) == one[:1]


def test_subjects_have_equal_weight_for_any_number_of_scans():
    line = {"n_repeats": 4, "estimator": "LS", "stratum": "mask", "quantity": "cbf"}
    values = {"sub-01_ses-1": 1.0, "sub-01_ses-2": 3.0, "sub-02": 6.0}
    records = [
        {**line, "scan": s, "metric": "mean", "value": v, "low": v, "high": v}
        for s, v in values.items()
    ]
    found = subject_values(scan_tables(records), "LS", Column("", "mean", repeats="all"))
    assert found.tolist() == [2.0, 6.0]


def test_a_label_chooses_participants(study, tmp_path):
    command = ["--bids", study, "--participant-label", "02", "--out", tmp_path / "out"]
    done = CliRunner().invoke(asl_validate, [*map(str, command)])
    assert done.exit_code == 0, done.output
    assert {r["scan"] for r in rows(tmp_path / "out")} == {"sub-02"}
    assert not (tmp_path / "out" / "failed.tsv").exists()


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["--bids", "{study}", "--participant-label", "9"], 3, "sub-9: found no ASL image"),
        (["--bids", "{study}", "--model", "best"], 5, "model 'best' is not there"),
        (["--phantoms", "{study}", "--n-jobs", "2"], 2, "are for --bids"),
        (["--phantoms", "{study}", "--part", "1/2"], 2, "are for --bids"),
    ],
)  # fmt: skip
def test_wrong_options_are_refused_and_write_nothing(study, tmp_path, arguments, code, message):
    given = [a.format(study=study) for a in arguments]
    done = CliRunner().invoke(asl_validate, [*given, "--out", str(tmp_path / "report")])
    assert done.exit_code == code and message in done.output, done.output
    assert not (tmp_path / "report").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--participant-label", "03"], "PostLabelingDelay"),
        (["--reference", "{study}/sub-03"], "no such map"),
    ],
)
def test_no_report_is_written_if_no_scan_can_be_validated(study, tmp_path, arguments, message):
    given = ["--bids", str(study), *(a.format(study=study) for a in arguments)]
    done = CliRunner().invoke(asl_validate, [*given, "--out", str(tmp_path)])
    assert done.exit_code == 4 and message in done.output, done.output
    assert {p.name for p in tmp_path.iterdir()} == {"failed.tsv", "logs"}


@pytest.mark.skipif(BROWSER is None, reason="no Chromium is installed")
@pytest.mark.parametrize("page", ["report.html", "sub-01.html"])
def test_a_browser_shows_the_page(validated, tmp_path, page):
    picture, printed = tmp_path / "page.png", tmp_path / "page.pdf"
    command = [BROWSER, "--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars"]
    command += [f"--user-data-dir={tmp_path / 'profile'}", "--window-size=1300,3000"]
    address = f"file://{validated[0] / page}"
    for task in (f"--screenshot={picture}", f"--print-to-pdf={printed}"):
        subprocess.run([*command, task, address], check=True, capture_output=True, timeout=120)
    from matplotlib.image import imread

    shown = imread(picture)[..., :3]
    assert shown.shape[:2] == (3000, 1300)
    inked = (shown.min(axis=2) < 0.95).any(axis=1)
    assert inked[:1500].mean() > 0.3 and inked[1500:].mean() > 0.3
    assert printed.read_bytes().startswith(b"%PDF") and printed.stat().st_size > 50_000
