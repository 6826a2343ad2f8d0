"""What all commands share: version, help pages, arguments of BIDS Apps, and process state.

`python tests/test_commands.py` writes the help texts of docs/commands.md anew.
"""

import atexit
import gc
import logging
import os
import re
import signal
import subprocess
import sys
import warnings
from importlib import import_module, metadata
from pathlib import Path

import click
import pytest
from click.testing import CliRunner
from scans import write_scan

NAMES = ("asl_fit_ls", "asl_predict", "asl_sim", "asl_train", "asl_validate")
PAGE = Path(__file__).parents[1] / "docs" / "commands.md"
HELP = re.compile(r"^## (asl_\w+)\n(.*?)^```text\n(.*?)^```$", re.MULTILINE | re.DOTALL)
TINY_SIM = ("--anatomy", "disc", "--protocol", "pcasl1")
TINY_NETWORK = (
    "network.widths=[8,16]",
    "data.patch_size=16",
    "data.protocols_per_step=1",
    "steps=1",
)


def command(name):
    return import_module(f"aslkit.cli.{name.removeprefix('asl_')}").main


def run(name, *arguments, code=0):
    """Output of the command in this process."""
    done = CliRunner().invoke(command(name), [str(a) for a in arguments], prog_name=name)
    assert done.exit_code == code, done.output
    return done.output


def help_text(name):
    """Help of the command in a terminal of 80 columns, which click fills up to the 78th."""
    context = click.Context(command(name), info_name=name, terminal_width=78)
    context.help_option_names = ["-h", "--help"]
    return "".join(f"{line.rstrip()}\n" for line in context.get_help().splitlines())


@pytest.mark.parametrize("name", NAMES)
def test_version_names_the_command_and_the_package(name):
    assert run(name, "--version") == f"{name}, aslkit {metadata.version('aslkit')}\n"


@pytest.mark.parametrize("name", NAMES)
def test_version_loads_no_heavy_module(name):
    module = f"aslkit.cli.{name.removeprefix('asl_')}"
    script = f"""
import sys
from {module} import main
main(["--version"], standalone_mode=False)
sys.exit(", ".join({{"numpy", "scipy", "nibabel", "torch"}} & set(sys.modules)))
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.stderr.strip() == ""


def test_the_page_of_the_commands_shows_their_help():
    shown = {name: text for name, _, text in HELP.findall(PAGE.read_text())}
    assert tuple(shown) == NAMES
    for name, text in shown.items():
        assert text == help_text(name), "run `python tests/test_commands.py`"


@pytest.mark.parametrize("name", ["asl_fit_ls", "asl_predict"])
def test_arguments_of_bids_apps_are_those_of_bids_and_derivatives(study, derivatives, name):
    printed = run(name, study, derivatives, "participant", "--participant-label", "01")
    assert "1 scan: 1 done" in printed
    again = ("--bids", study, "--derivatives", derivatives, "--participant-label", "01")
    assert "0 done, 1 skipped" in run(name, *again, "--skip-existing")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["scan.nii.gz"], "found the arguments 'scan.nii.gz', expected BIDS_DIR OUTPUT_DIR"),
        ([".", "out"], "found the arguments '. out', expected BIDS_DIR OUTPUT_DIR participant"),
        ([".", "out", "group"], "the analysis level must be 'participant', not 'group'"),
        (["none", "out", "participant"], "BIDS_DIR: found no folder 'none'"),
        ([".", "out", "participant", "--bids", "."], "give either BIDS_DIR OUTPUT_DIR"),
        ([".", "out", "participant", "-o", "cbf.nii"], "-o is for a single scan"),
    ],
)
def test_wrong_arguments_of_bids_apps_are_refused(arguments, message):
    assert message in run("asl_fit_ls", *arguments, code=2)


def test_an_old_name_of_an_option_is_accepted_with_a_warning(tmp_path):
    arguments = ("--anatomy", "disc", "--phantoms", "--out", tmp_path / "phantoms")
    printed = run("asl_sim", *arguments)
    assert "Warning: --phantoms is now --phantoms-only" in printed
    assert "--phantoms " not in help_text("asl_sim")
    assert list((tmp_path / "phantoms").iterdir())


def process_state():
    """Settings of this process that belong to the program that calls a command."""
    loggers = [logging.getLogger(name) for name in ("", "aslkit", "distributed.client")]
    return {
        "garbage collection": (gc.isenabled(), gc.get_threshold()),
        "warning filters": list(warnings.filters),
        "environment": dict(os.environ),
        "signal handlers": {n: signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM)},
        "exit functions": atexit._ncallbacks(),
        "logging": [(logger.level, list(logger.handlers)) for logger in loggers],
        "working directory": os.getcwd(),
    }


def command_lines(folder):
    """A small run of every command, and one that fails."""
    scan = write_scan(folder / "study")
    small = [part for change in TINY_NETWORK for part in ("--set", change)]
    single = ("-i", scan, "-o")
    data_set = ("--bids", folder / "study", "--derivatives")
    return {
        "asl_fit_ls": (*single, folder / "ls" / "cbf.nii.gz", "--diagnostics"),
        "asl_fit_ls --bids": (*data_set, folder / "derivatives", "-v"),
        "asl_fit_ls --dask": (*data_set, folder / "dask", "--dask", "local"),
        "asl_fit_ls that fails": ("-i", folder / "none.nii.gz", "-o", folder / "cbf.nii.gz"),
        "asl_predict": (*single, folder / "net" / "cbf.nii.gz", "--ood", "-q"),
        "asl_sim": ("--out", folder / "sim", *TINY_SIM),
        "asl_train": ("--config", "small", "--out", folder / "model", *small),
        "asl_validate": ("--bids", folder / "study", "--out", folder / "validation"),
    }


def run_all(folder):
    """What each command line changes in the process, of those that change something."""
    changed = {}
    for line, arguments in command_lines(folder).items():
        before = process_state()
        done = CliRunner().invoke(command(line.split()[0]), [str(a) for a in arguments])
        after = process_state()
        assert done.exit_code == (3 if "fails" in line else 0), done.output
        if before != after:
            changed[line] = {k: (before[k], after[k]) for k in before if before[k] != after[k]}
    return changed


@pytest.mark.slow
@pytest.mark.usefixtures("own_batches")
@pytest.mark.filterwarnings("default")  # dask warns
def test_commands_leave_the_process_as_they_found_it(tmp_path):
    pytest.importorskip("distributed")
    run_all(tmp_path / "first")  # imports libraries, which may change the process
    assert run_all(tmp_path / "second") == {}


if __name__ == "__main__":
    page = HELP.sub(
        lambda found: f"## {found[1]}\n{found[2]}```text\n{help_text(found[1])}```",
        PAGE.read_text(),
    )
    PAGE.write_text(page)
