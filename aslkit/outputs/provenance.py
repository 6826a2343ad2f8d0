"""The running program -> its version and command line, as written to results."""

import shlex
import sys
from importlib import metadata
from pathlib import Path


def version() -> str:
    """Return the version of the installed package, or "not installed"."""
    try:
        return metadata.version("aslkit")
    except metadata.PackageNotFoundError:
        return "not installed"


def command_line() -> str:
    """Return the command line; absolute paths are shortened to their last part."""
    words = [word.rpartition("=") for word in sys.argv[1:]]
    words = [(a, b, Path(c).name if Path(c).is_absolute() else c) for a, b, c in words]
    return shlex.join([Path(sys.argv[0]).name, *map("".join, words)])
