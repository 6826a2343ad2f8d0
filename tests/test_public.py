"""`import aslkit` is fast and gives the public names."""

import subprocess
import sys
from importlib.metadata import version

import pytest

import aslkit


def test_every_public_name_is_imported_from_its_module():
    names = {name: getattr(aslkit, name) for name in aslkit.__all__}
    assert dir(aslkit) == sorted(names)
    assert names.pop("__version__") == version("aslkit")
    for name, value in names.items():
        assert value.__name__ == name
        assert value.__module__.startswith("aslkit.")


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="module 'aslkit' has no attribute 'estimate'"):
        aslkit.estimate  # noqa: B018


def test_importing_aslkit_loads_no_other_package():
    script = "import sys, aslkit; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    loaded = set(done.stdout.split())
    assert not loaded & {"numpy", "scipy", "nibabel", "torch", "matplotlib", "pandas", "click"}
