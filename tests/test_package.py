"""What a wheel of this checkout contains, and how its files are found after installation."""

import importlib
import re
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from click.testing import CliRunner

from aslkit.errors import UnavailableError
from aslkit.resources import phantoms_folder

ROOT = Path(__file__).parents[1]
SHIPPED = ("config/*.yaml", "templates/*", "models/*/*")
BUILD = "from setuptools import build_meta; build_meta.build_wheel({!r})"


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """A wheel of a copy of the checkout (building leaves files behind)."""
    folder = tmp_path_factory.mktemp("wheel")
    tracked = [*ROOT.glob("aslkit/**/*"), *ROOT.glob("data/phantoms/*")]
    tracked += [ROOT / name for name in ("setup.cfg", "pyproject.toml", "README.md", "LICENSE")]
    for path in tracked:
        if path.is_file() and path.suffix != ".pyc":
            copy = folder / "source" / path.relative_to(ROOT)
            copy.parent.mkdir(parents=True, exist_ok=True)
            copy.write_bytes(path.read_bytes())
    script = BUILD.format(str(folder))
    subprocess.run(
        [sys.executable, "-c", script], cwd=folder / "source", check=True, capture_output=True
    )
    (path,) = folder.glob("*.whl")
    return zipfile.ZipFile(path)


@pytest.mark.parametrize("pattern", SHIPPED)
def test_the_wheel_holds_every_shipped_file(wheel, pattern):
    shipped = {str(path.relative_to(ROOT)) for path in (ROOT / "aslkit").glob(pattern)}
    assert shipped and shipped <= set(wheel.namelist())


def test_the_wheel_holds_every_module_and_the_phantoms(wheel):
    names = set(wheel.namelist())
    assert {str(path.relative_to(ROOT)) for path in ROOT.glob("aslkit/**/*.py")} <= names
    phantoms = {path.name for path in ROOT.glob("data/phantoms/*")}
    shared = "data/share/aslkit/phantoms/"
    assert phantoms and phantoms == {n.partition(shared)[2] for n in names if shared in n}


def test_the_wheel_installs_the_five_commands(wheel):
    (entry_points,) = (n for n in wheel.namelist() if n.endswith("entry_points.txt"))
    text = wheel.read(entry_points).decode()
    for command in ("fit_ls", "predict", "sim", "train", "validate"):
        assert f"asl_{command} = aslkit.cli.{command}:main" in text


def test_phantoms_are_found_from_the_checkout():
    assert phantoms_folder() == ROOT / "data" / "phantoms"


def test_phantoms_are_found_in_the_prefix_of_an_installed_wheel(tmp_path, monkeypatch):
    package = tmp_path / "lib" / "python3.11" / "site-packages" / "aslkit"
    shared = tmp_path / "share" / "aslkit" / "phantoms"
    shared.mkdir(parents=True)
    monkeypatch.setattr("aslkit.resources.__file__", str(package / "resources.py"))
    assert phantoms_folder() == shared


def test_missing_phantoms_are_reported(tmp_path, monkeypatch):
    monkeypatch.setattr("aslkit.resources.__file__", str(tmp_path / "aslkit" / "resources.py"))
    with pytest.raises(UnavailableError, match="The benchmark phantoms are missing"):
        phantoms_folder()


@pytest.mark.parametrize("command", ["fit_ls", "predict", "sim", "train", "validate"])
def test_the_manual_lists_the_options_that_the_command_has(command):
    module = importlib.import_module(f"aslkit.cli.{command}")
    help_text = CliRunner().invoke(module.main, ["--help"]).output
    manual = (ROOT / "docs" / "commands.md").read_text()
    section = manual.partition(f"## asl_{command}\n")[2].partition("\n## ")[0]
    option = re.compile(r"^ +(-.*?)(?:  |$)", re.MULTILINE)
    assert option.findall(section) == option.findall(help_text) != []
