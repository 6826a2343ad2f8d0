"""Structure of the source: imports between packages, lengths, docstrings."""

import ast
import subprocess
import sys
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

import aslkit

PACKAGE = Path(aslkit.__file__).parent

# A package imports only from itself and from packages below it in this list.
PACKAGES = [
    "cli",
    "report",
    "validate",
    "train",
    "predict",
    "nets",
    "simulate",
    "batch",
    "outputs",
    "anatomy",
    "quality",
    "fit",
    "prepare",
    "config",
    "bids",
    "kinetics",
    "core",
]
MAY_IMPORT_TORCH = {"nets", "predict", "train"}
LIGHT = {"aslkit.core.errors", "aslkit.core.constants"}
COMMANDS = ("fit_ls", "predict", "sim", "train", "validate")
LONGEST_FUNCTION = 80
LONGEST_FILE = 300
TYPICAL = {"functions": 12, "files": 150}
MOST = {"functions": 30, "files": 260}  # of nine in ten


def module_name(path):
    return ".".join(path.relative_to(PACKAGE).with_suffix("").parts)


SOURCES = {module_name(path): path for path in PACKAGE.rglob("*.py") if path.name != "__init__.py"}
TREES = {name: ast.parse(path.read_text()) for name, path in SOURCES.items()}


def imported(nodes):
    """Yield the full names of the modules that the nodes import."""
    for node in nodes:
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute"
            for alias in node.names:
                full = f"{node.module}.{alias.name}"
                is_module = full.removeprefix("aslkit.") in SOURCES
                yield full if is_module else node.module


def packages(names):
    """Return the packages of modules."""
    return {name.partition(".")[0] for name in names}


def at_top(tree):
    """Yield every node that runs when the module is imported."""
    pending = list(tree.body)
    while pending:
        node = pending.pop()
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            continue
        yield node
        if not is_typing_only(node):
            pending += ast.iter_child_nodes(node)


def is_typing_only(node):
    return isinstance(node, ast.If) and ast.unparse(node.test).endswith("TYPE_CHECKING")


def test_packages_import_only_downwards():
    assert packages(SOURCES) <= set(PACKAGES)
    edges = [
        (name, other.removeprefix("aslkit."))
        for name, tree in TREES.items()
        for other in imported(ast.walk(tree))
        if other.startswith("aslkit.")
    ]
    depth = PACKAGES.index
    found = [(n, o) for n, o in edges if depth(n.split(".")[0]) > depth(o.split(".")[0])]
    assert [f"{name} imports {other}" for name, other in found] == []
    assert len(edges) > 2 * len(SOURCES)


def test_main_modules_import_experiments_in_few_places():
    found = {
        name
        for name, tree in TREES.items()
        if ".experimental" not in name
        and any(".experimental" in other for other in imported(ast.walk(tree)))
    }
    assert found == {
        "nets.encoding_registry",
        "nets.registry",
        "predict.inference",
        "train.registry",
    }


def test_modules_do_not_import_each_other_in_a_circle():
    own = {n: {f.removeprefix("aslkit.") for f in imported(ast.walk(t))} for n, t in TREES.items()}
    TopologicalSorter({n: found & set(SOURCES) for n, found in own.items()}).prepare()


def test_torch_is_imported_at_the_top_of_few_packages():
    found = {n for n, tree in TREES.items() if "torch" in packages(imported(at_top(tree)))}
    assert packages(found) == MAY_IMPORT_TORCH


def test_a_command_imports_only_light_modules_at_its_top():
    light = {"click", *sys.stdlib_module_names}
    for name in (n for n in SOURCES if n.startswith("cli.")):
        found = [f for f in imported(at_top(TREES[name])) if not f.startswith("aslkit.cli")]
        assert packages(f for f in found if f not in LIGHT) <= light, name


def test_functions_and_files_are_short():
    for name, tree in TREES.items():
        assert len(SOURCES[name].read_text().splitlines()) <= LONGEST_FILE, name
        for node in ast.walk(tree):
            if isinstance(node, ast.FunctionDef):
                length = node.end_lineno - node.lineno
                assert length < LONGEST_FUNCTION, f"{node.name} in {name}"


def lengths():
    """Return the sorted lengths of all functions and of all files, in lines."""
    nodes = (n for tree in TREES.values() for n in ast.walk(tree))
    functions = [n.end_lineno - n.lineno + 1 for n in nodes if isinstance(n, ast.FunctionDef)]
    return sorted(functions), sorted(len(p.read_text().splitlines()) for p in SOURCES.values())


def test_most_functions_and_files_are_much_shorter():
    """Print the distribution: pytest -s -n 0 tests/test_layers.py -k much_shorter."""
    for name, found in zip(("functions", "files"), lengths(), strict=True):
        shares = {q: found[int(q / 100 * (len(found) - 1))] for q in (10, 25, 50, 75, 90, 99, 100)}
        print(f"\n{len(found)} {name}, lines:", *(f"{q} % {n}," for q, n in shares.items()))
        assert shares[50] <= TYPICAL[name] and shares[90] <= MOST[name]


def test_every_public_name_is_documented():
    for name, tree in TREES.items():
        assert ast.get_docstring(tree), f"aslkit/{name}.py has no docstring"
        classes = [node for node in tree.body if isinstance(node, ast.ClassDef)]
        for scope in (tree, *(c for c in classes if not c.name.startswith("_"))):
            for node in scope.body:
                if isinstance(node, ast.FunctionDef | ast.ClassDef) and node.name[0] != "_":
                    assert ast.get_docstring(node), f"{node.name} in {name}"


def test_least_squares_runs_without_torch():
    script = """
import sys
import numpy as np
from aslkit.core.acquisition import Acquisition, protocol
from aslkit.fit.least_squares import fit_least_squares
from aslkit.core.series_and_maps import AslSeries
from aslkit.kinetics.model import kinetic_model, tissue_curve
import aslkit.bids.reader, aslkit.outputs.maps, aslkit.prepare.series
acquisition = Acquisition(protocol("pcasl", [0.5, 1.0, 1.5, 2.0], 1.8))
signal = 60 * tissue_curve(kinetic_model(acquisition), np.full((1, 8), 1.2))[0]
delta_m = signal.T.reshape(2, 2, 2, 4).astype(np.float32)
maps = fit_least_squares(AslSeries(delta_m, acquisition, np.ones((2, 2, 2), bool)))
np.testing.assert_allclose(maps.cbf, 60, rtol=1e-3)
print("torch" in sys.modules)
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, "False\n"), done.stderr


@pytest.mark.parametrize("command", COMMANDS)
def test_the_help_of_each_command_shows_an_example_and_loads_no_heavy_module(command):
    script = f"""
import sys
from aslkit.cli.{command} import main
main(["--help"], prog_name="asl_{command}", standalone_mode=False)
heavy = {{"numpy", "scipy", "nibabel", "nilearn", "torch", "matplotlib", "pydantic"}}
sys.exit(str(heavy & set(sys.modules)) if heavy & set(sys.modules) else 0)
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert f"  asl_{command} -" in done.stdout.partition("Options")[2]
