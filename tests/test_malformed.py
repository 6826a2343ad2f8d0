"""Invalid input gives one error line with file and field, and no output is written."""

import json
import re
from pathlib import Path

import pytest
from click.testing import CliRunner
from faults import FAULTS, JSON, run
from scans import write_scan

from aslkit.cli.command import aslkit_command
from aslkit.cli.fit_ls import main
from aslkit.cli.predict import main as predict

ROOT = Path(__file__).parents[1]
ROW = re.compile(r"^\| (.*?) \| (.*) \|$", re.MULTILINE)
PAGE = dict(ROW.findall((ROOT / "docs" / "errors.md").read_text()))
SENTENCE = re.compile(r"^Error: [^ ]+.*: found .*, expected .*\. Fix: .*\.$")


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_is_named_as_documented_and_nothing_is_written(fault, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    options = FAULTS[fault](tmp_path)
    before = contents(tmp_path)
    result = run(tmp_path, options)
    assert result.exit_code == 3, result.output
    assert contents(tmp_path) == before
    (line,) = result.stderr.splitlines()
    assert SENTENCE.match(line) or line.startswith("Error: --")
    documented = line.removeprefix("Error: ").replace(f"{tmp_path}/", "").replace("|", "\\|")
    assert documented == PAGE.get(fault), "run bin/dev/list_faults.py"


def test_the_page_of_messages_lists_exactly_the_faults():
    assert set(PAGE) - {"what is wrong", "---"} == set(FAULTS)


def contents(folder):
    """Return the bytes of every file below a folder, by path."""
    return {p: p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def test_a_file_name_that_is_too_long_is_refused(tmp_path):
    result = run(tmp_path, ["-i", tmp_path / f"{'a' * 300}.nii.gz"])
    assert result.exit_code == 3
    assert ".nii.gz: found no such file" in result.stderr


@pytest.mark.parametrize(
    "options",
    [
        ["--att-bounds", "2,1"],
        ["--att-bounds", "1"],
        ["--att-bounds", "100,4000"],
        ["--t1b", "1650"],
        ["--m0-tr", "1e-9"],
        ["--lambda", "90"],
        ["--bolus-duration", "inf"],
        ["--smooth", "1e9"],
        ["--plds", "a,b"],
        ["--plds", "nan"],
        ["--alpha", "1.5"],
        ["--att", "1", "--macrovascular", "on"],
        ["--no-such-option"],
    ],
)
def test_invalid_options_are_a_usage_error(tmp_path, options):
    result = run(tmp_path, ["-i", write_scan(tmp_path), *options])
    assert result.exit_code == 2, result.output
    assert "Traceback" not in result.output
    assert not list((tmp_path / "out").iterdir())


def test_an_internal_error_is_one_line_unless_debugged():
    @aslkit_command("asl_read", epilog="")
    def broken():
        raise RuntimeError("the\nroof is on fire")

    result = CliRunner().invoke(broken, [])
    assert result.exit_code == 1
    assert result.stderr == (
        "Internal error: RuntimeError: the roof is on fire; "
        "run again with --debug for the traceback\n"
    )
    assert "Traceback" in CliRunner().invoke(broken, ["--debug"]).stderr


def test_an_unknown_model_is_refused(tmp_path):
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
    result = CliRunner().invoke(main, ["-i", str(image), "-o", str(tmp_path / "out/cbf.nii.gz")])
    assert result.exit_code == 3
    assert "No space left on device" in result.stderr
    assert list((tmp_path / "out").iterdir()) == []
