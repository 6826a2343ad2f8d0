"""asl_validate --bids with --part and --skip-existing: which scans are validated again."""

import json

import numpy as np
import pytest
from click.testing import CliRunner
from scans import SHAPE, save

from aslkit.cli.validate import main as asl_validate

pytestmark = pytest.mark.slow

N_SCANS = 3  # two subjects


def run(study, out, *options, subjects=("02", "03"), code=0):
    """Run the command and return its output."""
    line = ("--bids", study, "--out", out, "--participant-label", *subjects, *options)
    done = CliRunner().invoke(asl_validate, [str(word) for word in line])
    assert done.exit_code == code, done.output
    return done.output


def test_parts_give_the_results_of_one_run(study, tmp_path):
    subjects = ["03"]  # with two sessions
    for part in ("1/2", "2/2"):
        printed = run(study, tmp_path / "parts", "--part", part, subjects=subjects)
        assert "0 skipped, 0 failed" in printed and "--skip-existing and without --part" in printed
        assert not (tmp_path / "parts" / "report.html").exists()
    printed = run(study, tmp_path / "parts", "--skip-existing", subjects=subjects)
    assert "2 scans: 0 done, 2 skipped, 0 failed" in printed
    run(study, tmp_path / "whole", subjects=subjects)
    parts, whole = (tmp_path / name / "results.tsv" for name in ("parts", "whole"))
    assert parts.read_bytes() == whole.read_bytes() and len(parts.read_bytes()) > 1000
    pages = [(tmp_path / n / "report.html").read_text() for n in ("parts", "whole")]
    assert pages[0].count("<img") == pages[1].count("<img") > 2
    assert gallery(pages[0]) == gallery(pages[1]) != ""


def gallery(page):
    return page.partition('class="gallery"')[2].partition("</div>")[0]


def test_only_missing_or_changed_scans_are_validated_again(study, tmp_path):
    run(study, tmp_path)
    (tmp_path / "sub-02.html").unlink()
    sidecar = study / "sub-03" / "ses-a" / "perf" / "sub-03_ses-a_asl.json"
    fields = json.loads(sidecar.read_text()) | {"MagneticFieldStrength": 1.5}
    sidecar.write_text(json.dumps(fields))
    printed = run(study, tmp_path, "--skip-existing")
    assert "2 done, 1 skipped" in printed and "sub-03_ses-b: skipped" in printed
    (tmp_path / "sub-03_ses-b.json").write_text("{")
    assert "1 done, 2 skipped" in run(study, tmp_path, "--skip-existing")
    seeded = ("--seed", 1)
    assert "1 done, 0 skipped" in run(study, tmp_path, "--skip-existing", *seeded, subjects=["02"])
    assert "1 done, 0 skipped" in run(study, tmp_path, *seeded, subjects=["02"])


def test_another_reference_repeats_the_validation(study, tmp_path):
    for cbf, printed in ((60, "1 done, 0 skipped"), (60, "1 skipped"), (50, "1 done, 0 skipped")):
        save(tmp_path / "maps" / "sub-02_cbf.nii.gz", np.full(SHAPE, cbf, np.float32))
        unit = json.dumps({"Units": "mL/100 g/min"})
        (tmp_path / "maps" / "sub-02_cbf.json").write_text(unit)
        more = ("--reference", tmp_path / "maps", "--skip-existing")
        assert printed in run(study, tmp_path / "out", *more, subjects=["02"])


def test_a_repaired_scan_is_removed_from_the_failures(study, tmp_path):
    sidecar = study / "sub-02" / "perf" / "sub-02_asl.json"
    whole = sidecar.read_text()
    sidecar.write_text("no JSON")
    printed = run(study, tmp_path, code=4)
    assert f"{N_SCANS} scans: {N_SCANS - 1} done, 0 skipped, 1 failed" in printed
    assert "sub-02\t3\t" in (tmp_path / "failed.tsv").read_text()
    assert "Scans that failed" in (tmp_path / "report.html").read_text()
    sidecar.write_text(whole)
    assert f"1 done, {N_SCANS - 1} skipped" in run(study, tmp_path, "--skip-existing")
    assert not (tmp_path / "failed.tsv").exists()
    assert "Scans that failed" not in (tmp_path / "report.html").read_text()


@pytest.mark.parametrize("part", ["0/2", "3/2", "half"])
def test_an_invalid_part_is_refused(study, tmp_path, part):
    assert "is not like 2/8" in run(study, tmp_path, "--part", part, code=2)
