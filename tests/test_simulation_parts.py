"""asl_sim in parts and repeatedly: the same data set; other data sets are not changed."""

import os

import pytest
from click.testing import CliRunner

from aslkit.cli.sim import main as asl_sim
from aslkit.outputs.atomic_write import PREFIX, write_folders

SMALL = ("--anatomy", "disc", "--protocol", "pcasl1")


def run(out, *options, code=0):
    """Run the command and return its output."""
    done = CliRunner().invoke(asl_sim, [str(a) for a in ("--out", out, *SMALL, *options)])
    assert done.exit_code == code, done.output
    return done.output


def contents(folder):
    """Return the bytes of every file except the logs."""
    paths = (p for p in folder.rglob("*") if p.is_file() and "logs" not in p.parts)
    return {str(p.relative_to(folder)): p.read_bytes() for p in paths}


def test_parts_add_up_to_the_data_set_of_one_run(tmp_path):
    run(tmp_path / "whole", "--participants", 3)
    for part, n in (("1/2", 2), ("2/2", 1)):
        printed = run(tmp_path / "parts", "--participants", 3, "--part", part)
        noun = "subjects" if n > 1 else "subject"
        assert f"{n} {noun}: {n} done, 0 skipped, 0 failed" in printed
    assert contents(tmp_path / "parts") == contents(tmp_path / "whole") != {}
    assert (tmp_path / "parts" / "derivatives" / "truth" / "logs" / "sub-03.log").read_text()


def test_current_subjects_are_kept_and_all_others_are_made(tmp_path):
    run(tmp_path / "sim", "--participants", 2)
    assert "1 done, 2 skipped" in run(tmp_path / "sim", "--participants", 3, "--skip-existing")
    (tmp_path / "sim" / "derivatives" / "truth" / "sub-02" / "perf" / "sub-02_cbf.json").unlink()
    assert "1 done, 2 skipped" in run(tmp_path / "sim", "--participants", 3, "--skip-existing")
    run(tmp_path / "whole", "--participants", 3)
    assert contents(tmp_path / "sim") == contents(tmp_path / "whole")
    other = ("--participants", 3, "--snr", 5, "--skip-existing")
    assert "3 done, 0 skipped" in run(tmp_path / "sim", *other)
    assert not list((tmp_path / "sim").rglob(f"{PREFIX}*"))


def test_existing_subjects_and_other_data_sets_are_refused(tmp_path):
    run(tmp_path / "sim")
    assert "found the only subject" in run(tmp_path / "sim", "--part", "1/1", code=3)
    (tmp_path / "sim" / "dataset_description.json").write_text('{"Name": "patients"}')
    printed = run(tmp_path / "sim", "--skip-existing", code=3)
    assert "found patients, expected 'Simulated ASL'" in printed
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "mine").touch()
    assert "found no data set" in run(tmp_path / "notes", "--skip-existing", code=3)
    assert [p.name for p in (tmp_path / "notes").iterdir()] == ["mine"]
    assert "exclude --phantoms-only" in run(
        tmp_path / "p", "--phantoms-only", "--part", "1/2", code=2
    )


def test_one_failed_subject_does_not_stop_the_others(tmp_path):
    run(tmp_path / "sim", "--participants", 2)
    truth = tmp_path / "sim" / "derivatives" / "truth"
    (truth / "logs" / "sub-02.log").mkdir(parents=True)
    printed = run(tmp_path / "sim", "--participants", 3, "--snr", 5, "--skip-existing", code=4)
    assert "3 subjects: 2 done, 0 skipped, 1 failed" in printed
    assert "sub-02\t3\t" in (truth / "failed.tsv").read_text()


def test_failed_folders_leave_the_old_ones(tmp_path):
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
    with pytest.raises(ZeroDivisionError), write_folders(tmp_path, ["a", "b"]) as temporary:
        (temporary / "a").mkdir()
        raise ZeroDivisionError
    assert sorted(os.listdir(tmp_path)) == ["a", "b"]
