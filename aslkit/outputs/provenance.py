"""The running program -> its version and command line, as results state them."""

import shlex
import sys
from importlib import metadata
from pathlib import Path


def version() -> str:
    """Version of the installed package; a checkout that is not installed has none."""
    try:
        return metadata.version("aslkit")
    except metadata.PackageNotFoundError:
        return "not installed"


def command_line() -> str:
    """The command as it was typed, but for the folders that absolute paths begin with."""
    words = [word.rpartition("=") for word in sys.argv[1:]]
    words = [(a, b, Path(c).name if Path(c).is_absolute() else c) for a, b, c in words]
    return shlex.join([Path(sys.argv[0]).name, *map("".join, words)])
