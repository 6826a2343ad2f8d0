"""The shape of the source: who may import whom, how long things are, what is documented."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import aslkit

PACKAGE = Path(aslkit.__file__).parent

# A module imports only from lines above its own.
LAYERS = """
    atomic errors pools progress
    workers
    clusters
    config.network_kinds config.plan_names textfiles
    acquisition config.adaptation
    config.one_protocol
    config.schema
    yamlfiles
    config resources
    images overrides
    nifti
    sidecars
    destinations
    bids_layout derivative_sets m0scans runs
    fingerprints
    physics noise metrics tiling resampling subjects references
    paired
    dispersion
    arrays cells scoring outliers motion preprocess calibration contexts delays efficiency tissue
    timing_table projection motion_report artefacts
    arterial chunks figures
    information
    relaxation
    gates vessels
    fields template
    lesions
    anatomy
    bids encoding fitting phantoms
    diagnostics intervals leftovers raw_encoding simulation
    quality
    lights
    derivatives
    bias_correction cards direct protocols scanner
    simulated_files scenes
    one_protocol
    balance encodings residual_nets schedules
    brain_unet losses
    spatial_nets
    networks
    datasets model_card weights
    ensembles loss_curve tasks
    early_stopping
    checkpoints inference
    ranks real_scans
    adversary
    adaptation
    training
    events members
    benchmark conditions drawing
    detection opponents repeats
    trials
    invariance
    agreement charts invivo pictures report validation
    overlays scatters
    findings sections
    example_sections invivo_tables methods_text phantom_sections robustness_sections
    invivo_sections phantom_report
    scan_files subject_report
    invivo_report
    cli.common
    cli.outcomes cli.pass_options cli.scan_options cli.work
    cli.data_set_options cli.preparation cli.sim_options
    cli.results
    cli.data_set cli.sim_subjects cli.validate_bids
    cli.fit_ls cli.predict cli.sim cli.train cli.validate
"""
RANKS = {name: rank for rank, line in enumerate(LAYERS.split("\n")) for name in line.split()}
MAY_IMPORT_TORCH = {
    "adaptation",
    "adversary",
    "balance",
    "bias_correction",
    "brain_unet",
    "checkpoints",
    "datasets",
    "early_stopping",
    "ensembles",
    "inference",
    "losses",
    "model_card",
    "ranks",
    "real_scans",
    "residual_nets",
    "spatial_nets",
    "tasks",
    "training",
    "weights",
}
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
    """Full names of the modules that the import statements among the nodes ask for."""
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
    """The packages that modules belong to."""
    return {name.partition(".")[0] for name in names}


def at_top(tree):
    """Every node that runs when the module is imported."""
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


def test_every_module_has_a_place_and_imports_only_from_layers_above():
    assert {*SOURCES, "config"} == set(RANKS)
    found = {name: imported(ast.walk(tree)) for name, tree in TREES.items()}
    own = [(n, f.removeprefix("aslkit.")) for n in found for f in found[n] if "aslkit." in f]
    assert [f"{n} imports {other}" for n, other in own if RANKS[other] >= RANKS[n]] == []
    assert len(own) > 5 * len(SOURCES) / 2


def test_torch_is_imported_at_the_top_of_few():
    found = {n for n, tree in TREES.items() if "torch" in packages(imported(at_top(tree)))}
    assert found == MAY_IMPORT_TORCH


def test_a_command_imports_only_light_modules_at_its_top():
    light = {"click", *sys.stdlib_module_names}
    for name in (n for n in SOURCES if n.startswith("cli.")):
        found = [f for f in imported(at_top(TREES[name])) if not f.startswith("aslkit.cli")]
        assert packages(f for f in found if f != "aslkit.errors") <= light, name


def test_functions_and_files_are_short():
    for name, tree in TREES.items():
        assert len(SOURCES[name].read_text().splitlines()) <= LONGEST_FILE, name
        for node in ast.walk(tree):
            if isinstance(node, ast.FunctionDef):
                length = node.end_lineno - node.lineno
                assert length < LONGEST_FUNCTION, f"{node.name} in {name}"


def lengths():
    """Lines of every function, and of every file."""
    nodes = (n for tree in TREES.values() for n in ast.walk(tree))
    functions = [n.end_lineno - n.lineno + 1 for n in nodes if isinstance(n, ast.FunctionDef)]
    return sorted(functions), sorted(len(p.read_text().splitlines()) for p in SOURCES.values())


def test_most_functions_and_files_are_much_shorter():
    """Prints the distribution: pytest -s -n 0 tests/test_layers.py -k much_shorter."""
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
from aslkit.acquisition import Acquisition, protocol
from aslkit.fitting import fit_least_squares
from aslkit.images import AslSeries
from aslkit.physics import kinetic_model, tissue_curve
import aslkit.bids, aslkit.derivatives, aslkit.preprocess
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
