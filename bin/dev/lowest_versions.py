"""Requirements of setup.cfg -> constraints for pip at the lowest allowed versions.

python bin/dev/lowest_versions.py setup.cfg
"""

import sys
from configparser import ConfigParser
from pathlib import Path

from packaging.requirements import Requirement
from packaging.version import Version


def lowest_versions(path: Path) -> list[str]:
    """Return `name==version` of every requirement of the package, extras excluded.

    Raises
    ------
    ValueError
        If a requirement states no lower bound.
    """
    settings = ConfigParser()
    settings.read_string(path.read_text())
    lines = settings["options"]["install_requires"].split("\n")
    return [_lowest(Requirement(line)) for line in lines if line]


def _lowest(requirement: Requirement) -> str:
    bounds = [part.version for part in requirement.specifier if part.operator == ">="]
    if not bounds:
        raise ValueError(f"{requirement} of setup.cfg has no lower bound: write {requirement}>=…")
    return f"{requirement.name}=={max(bounds, key=Version)}"


if __name__ == "__main__":
    print("\n".join(lowest_versions(Path(sys.argv[1]))))
