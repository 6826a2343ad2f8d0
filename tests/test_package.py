"""Contents of wheel and sdist, and the places of files after installation."""

import importlib
import re
import subprocess
import sys
import tarfile
import zipfile
from email import message_from_bytes
from pathlib import Path

import pytest
import yaml

from aslkit.core.errors import UnavailableError
from aslkit.simulate.resources import phantoms_folder

ROOT = Path(__file__).parents[1]
SHIPPED = ("config/experiments/*.yaml", "templates/*", "models/*/*")
FOLDERS = ("aslkit", "bin", "data", "docs", "tests")
BUILD = "from setuptools import build_meta as b; b.build_wheel({0!r}); b.build_sdist({0!r})"


@pytest.fixture(scope="module")
def tracked():
    """Return the files of a release, relative to the root of the checkout."""
    files = [path for folder in FOLDERS for path in (ROOT / folder).rglob("*")]
    files += [path for path in ROOT.iterdir() if path.suffix in (".cff", ".cfg", ".md", ".toml")]
    files += [ROOT / "LICENSE", ROOT / "MANIFEST.in"]
    return [
        path.relative_to(ROOT)
        for path in files
        if path.is_file() and path.suffix not in (".pyc", ".pyo")
    ]


@pytest.fixture(scope="module")
def built(tmp_path_factory, tracked):
    """Build wheel and sdist from a copy of the checkout, and return their folder."""
    folder = tmp_path_factory.mktemp("built")
    for path in tracked:
        copy = folder / "source" / path
        copy.parent.mkdir(parents=True, exist_ok=True)
        copy.write_bytes((ROOT / path).read_bytes())
    script = BUILD.format(str(folder))
    subprocess.run(
        [sys.executable, "-c", script], cwd=folder / "source", check=True, capture_output=True
    )
    return folder


@pytest.fixture(scope="module")
def wheel(built):
    (path,) = built.glob("*.whl")
    return zipfile.ZipFile(path)


@pytest.fixture
def lowest_versions(monkeypatch):
    """Return the function of the script in bin/dev."""
    monkeypatch.syspath_prepend(str(ROOT / "bin" / "dev"))
    return importlib.import_module("lowest_versions").lowest_versions


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


def test_the_sdist_holds_all_files_of_a_release(built, tracked):
    (path,) = built.glob("*.tar.gz")
    with tarfile.open(path) as sdist:
        names = {Path(*Path(name).parts[1:]) for name in sdist.getnames()}
    assert set(tracked) <= names


def test_license_and_version_are_the_same_wherever_they_stand(wheel):
    (metadata,) = (n for n in wheel.namelist() if n.endswith(".dist-info/METADATA"))
    fields = message_from_bytes(wheel.read(metadata))
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert citation["version"] == fields["Version"]
    assert citation["license"] == fields["License-Expression"]
    assert fields.get_all("License-File") == ["LICENSE"]


def test_every_dependency_is_tried_at_its_lowest_version(lowest_versions, tmp_path):
    pins = lowest_versions(ROOT / "setup.cfg")
    assert all(re.fullmatch(r"[\w-]+==[\d.]+", pin) for pin in pins)
    settings = tmp_path / "setup.cfg"
    settings.write_text("[options]\ninstall_requires =\n  a-b>=1.10,!=2.9.*\n  c>=1.9,>=1.10\n")
    assert lowest_versions(settings) == ["a-b==1.10", "c==1.10"]


def test_a_dependency_without_lower_bound_is_refused(lowest_versions, tmp_path):
    settings = tmp_path / "setup.cfg"
    settings.write_text("[options]\ninstall_requires =\n  numpy<3\n")
    with pytest.raises(ValueError, match="numpy<3 of setup.cfg has no lower bound"):
        lowest_versions(settings)


def test_phantoms_are_found_from_the_checkout():
    assert phantoms_folder() == ROOT / "data" / "phantoms"


def test_phantoms_are_found_in_the_prefix_of_an_installed_wheel(tmp_path, monkeypatch):
    package = tmp_path / "lib" / "python3.11" / "site-packages" / "aslkit"
    shared = tmp_path / "share" / "aslkit" / "phantoms"
    shared.mkdir(parents=True)
    monkeypatch.setattr("aslkit.simulate.resources.__file__", str(package / "resources.py"))
    assert phantoms_folder() == shared


def test_missing_phantoms_are_reported(tmp_path, monkeypatch):
    monkeypatch.setattr(
        "aslkit.simulate.resources.__file__", str(tmp_path / "aslkit" / "resources.py")
    )
    with pytest.raises(UnavailableError, match="The benchmark phantoms are missing"):
        phantoms_folder()
