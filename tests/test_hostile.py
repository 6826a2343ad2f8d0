"""Malicious files are refused with one error line, without filling the memory."""

import gzip
import json
import re
import shutil

import nibabel as nib
import numpy as np
import pytest
from click.testing import CliRunner
from scans import SHAPE, save, write_scan

from aslkit.cli.fit_ls import main as fit_ls
from aslkit.cli.train import main as train
from aslkit.config import load_config
from aslkit.core.errors import InputError
from aslkit.simulate.phantoms import find_phantoms, load_phantom, save_phantom, shape_phantom

BOMB = "a: &a [x, x]\n" + "".join(
    f"{new}: &{new} [{', '.join(8 * [f'*{old}'])}]\n"
    for old, new in zip("abcdefghi", "bcdefghij", strict=True)
)


def refusal(command, *arguments):
    """Run a command that exits with code 3 and return its only line on stderr."""
    result = CliRunner().invoke(command, [str(a) for a in arguments])
    assert result.exit_code == 3, result.output
    (line,) = result.stderr.splitlines()
    return line


@pytest.mark.parametrize(
    ("text", "found"),
    [
        (BOMB, "line 2: found an alias"),
        ("steps: &a [*a]", "line 1: found an alias"),
        ("a: {steps: 1}\nb: {steps: 2, steps: 3}", "line 2: found the key steps twice"),
        ("!!python/object/apply:os.system ['true']", "line 1: found could not determine a con"),
        ("steps: !!python/name:os.system", "line 1: found could not determine a constructor"),
        ("[" * 3000, "found a value that cannot be read, or nested too deeply"),
        ("steps: 2020-13-45", "found a value that cannot be read"),
        (f"steps: {'9' * 5000}", "found a value that cannot be read"),
        ("steps: !!int x", "found a value that cannot be read"),
        ("steps: !!bool x", "found a value that cannot be read"),
        ("steps: !!timestamp x", "found a value that cannot be read"),
        ("{[1]: 2}", "line 1: found unhashable key"),
        ("a: 1\n---\nb: 2", "line 2: found but found another document"),
        ("steps: \0", "found unacceptable character #x0000"),
        ("steps: 1".encode("utf-16"), "found bytes that are not UTF-8 text"),
        ("#" * 11_000_000, "found 11 MB, expected a text file of at most 10 MB"),
        ("[]", "found list, expected keys and values"),
    ],
    ids=lambda value: repr(value)[:30],
)
def test_a_malicious_configuration_is_refused(tmp_path, text, found):
    path = tmp_path / "own.yaml"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    line = refusal(train, "--config", path, "--out", tmp_path / "out")
    assert line.startswith(f"Error: {path}: {found}")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("value", ["*a", "[[", "!!int x", "2020-13-45", "[" * 3000])
def test_a_malicious_value_of_set_is_refused(value):
    with pytest.raises(InputError, match="^--set: "):
        load_config("small", (f"steps={value}",))


def test_the_shipped_configurations_can_be_written_in_plain_yaml():
    assert load_config("small").name == "small"


def cut(path):
    path.write_bytes(path.read_bytes()[:300])


def huge(path):
    """Write dimensions of 4e15 voxels into the header."""
    raw = bytearray(gzip.decompress(path.read_bytes()))
    raw[42:48] = b"\xff\x7f" * 3
    path.write_bytes(gzip.compress(bytes(raw)))


def not_finite(path):
    image = nib.load(path)
    save(path, np.full(image.shape, np.nan, np.float32), image.affine)


@pytest.mark.parametrize(
    ("damage", "found"),
    [
        (cut, "a header for 64 x 64 x 4 x 11 voxels in a file of 300 bytes"),
        (lambda path: path.write_bytes(b""), "a file that cannot be read (no NIfTI header)"),
        (huge, "a header for 32767 x 32767 x 32767 x 11 voxels"),
        (not_finite, "values that are not finite, or an empty mask"),
        (lambda path: save(path, np.ones(SHAPE, np.float32)), "1 volumes"),
        (lambda path: path.with_suffix("").with_suffix(".json").write_text("{,"), "invalid JSON"),
        (lambda path: path.with_suffix("").with_suffix(".json").write_text("[]"), "a JSON list"),
    ],
)
def test_a_damaged_phantom_is_refused(tmp_path, damage, found):
    save_phantom(shape_phantom("disc", 0), tmp_path)
    (path,) = find_phantoms(tmp_path)
    damage(path)
    with pytest.raises(InputError, match=re.escape(found)):
        load_phantom(path)


@pytest.mark.parametrize("content", [b"scan\tx\nsub-01\t3\n", b"\xff\xfe\x00", b"scan\n\n\nsub\n"])
def test_an_invalid_list_of_failures_is_refused_before_any_scan(tmp_path, content):
    study, out = tmp_path / "study", tmp_path / "out"
    write_scan(study)
    line = ("--bids", study, "--derivatives", out, "--overwrite")
    assert CliRunner().invoke(fit_ls, [str(a) for a in line]).exit_code == 0
    (out / "failed.tsv").write_bytes(content)
    shutil.rmtree(out / "sub-01")
    assert "failed.tsv: found" in refusal(fit_ls, *line)
    assert (out / "failed.tsv").read_bytes() == content and not (out / "sub-01").exists()


def test_circular_links_of_folders_do_not_repeat_a_scan(tmp_path):
    write_scan(tmp_path)
    for link in ("sub-01/perf/again", "sub-01/ses-a", "sub-02"):
        (tmp_path / link).symlink_to(tmp_path)
    json_link = tmp_path / "sub-01" / "sub-01_asl.json"
    json_link.symlink_to(json_link)
    line = refusal(fit_ls, "-i", tmp_path / "sub-01/perf/sub-01_asl.nii.gz", "-o", "cbf.nii.gz")
    assert line.startswith(f"Error: {json_link}: found no regular file")
    json_link.unlink()
    done = CliRunner().invoke(fit_ls, ["--bids", str(tmp_path), "--dry-run"])
    assert done.exit_code == 0 and "1 scan, 0 with errors" in done.output


def test_no_command_unpickles_a_file(tmp_path, monkeypatch):
    """Check that pickle, torch.load and numpy.load are never called."""

    def refuse(*_, **__):
        raise AssertionError("unpickled")

    for name in ("pickle.load", "pickle.loads", "pickle.Unpickler", "torch.load", "numpy.load"):
        monkeypatch.setattr(name, refuse)
    write_scan(tmp_path)
    arguments = ["-i", str(tmp_path / "sub-01/perf/sub-01_asl.nii.gz"), "-o"]
    from aslkit.cli.predict import main as predict

    done = CliRunner().invoke(predict, [*arguments, str(tmp_path / "out" / "cbf.nii.gz")])
    assert done.exit_code == 0, done.output
    assert json.loads((tmp_path / "out" / "cbf.json").read_text())["Model"] == "aslnet"
