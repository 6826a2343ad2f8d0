"""A BIDS folder -> its ASL acquisitions, the runs of a joint one together."""

import re
from pathlib import Path

from aslkit.errors import InputError
from aslkit.nifti import EXTENSIONS
from aslkit.sidecars import is_magnitude

JOINT = re.compile(r"_acq-(pcasl|vsasl)(?=_)")  # see bids-asl: one run each, otherwise equal names


def find_acquisitions(bids_dir: Path) -> list[tuple[Path, ...]]:
    """The magnitude *_asl images of a data set, sorted; those of a joint acquisition together.

    Raises
    ------
    InputError
        When there is none.
    """
    images = [
        path
        for extension in EXTENSIONS
        for path in bids_dir.glob(f"sub-*/**/perf/*_asl{extension}")
        if is_magnitude(path)
    ]
    groups: dict[Path, list[Path]] = {}
    for path in sorted(images):
        groups.setdefault(path.with_name(JOINT.sub("", path.name)), []).append(path)
    if not groups:
        raise InputError(
            bids_dir,
            "",
            found="no ASL image",
            expected="sub-*/[ses-*/]perf/*_asl.nii.gz",
            fix="give the top folder of a BIDS data set",
        )
    return [tuple(groups[key]) for key in sorted(groups)]


def scan_name(runs: tuple[Path, ...]) -> str:
    """What the runs' file names have in common, without suffix and extension."""
    return JOINT.sub("", runs[0].name).partition("_asl.")[0]
