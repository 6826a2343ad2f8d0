"""A BIDS folder -> its ASL acquisitions; the runs of a joint acquisition are grouped."""

import re
from collections.abc import Sequence
from pathlib import Path

from aslkit.bids.nifti import EXTENSIONS
from aslkit.bids.sidecar import entities, is_magnitude
from aslkit.core.errors import InputError

JOINT = re.compile(
    r"_acq-(pcasl|vsasl)(?=_)"
)  # the runs of a joint acquisition have otherwise equal names


def find_acquisitions(
    bids_dir: Path, participants: Sequence[str] = (), sessions: Sequence[str] = ()
) -> list[tuple[Path, ...]]:
    """Return the magnitude *_asl images of a data set, sorted and grouped by acquisition.

    `participants` and `sessions` are labels, with or without `sub-` and `ses-`; empty means
    all.

    Raises
    ------
    InputError
        When there is no ASL image, or none with a requested label.
    """
    images = [
        path
        for folder in ("sub-*/perf", "sub-*/ses-*/perf")
        for extension in EXTENSIONS
        for path in bids_dir.glob(f"{folder}/*_asl{extension}")
        if is_magnitude(path)
    ]
    for key, labels in (("sub", participants), ("ses", sessions)):
        images = _chosen(bids_dir, images, key, labels)
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
    return [runs for key in sorted(groups) for runs in _acquisitions(groups[key])]


def scan_name(runs: tuple[Path, ...]) -> str:
    """Return the common part of the runs' file names, without suffix and extension."""
    name = runs[0].name if len(runs) == 1 else JOINT.sub("", runs[0].name)
    return name.partition("_asl.")[0]


def _chosen(bids_dir: Path, images: list[Path], key: str, labels: Sequence[str]) -> list[Path]:
    """Select the images whose entity has one of the labels."""
    wanted = [label.removeprefix(f"{key}-") for label in labels]
    found = {path: entities(path)[0].get(key, "") for path in images}
    missing = [label for label in wanted if label not in found.values()]
    if missing:
        known = ", ".join(sorted({label for label in found.values() if label})[:8])
        raise InputError(
            bids_dir,
            f"{key}-{missing[0]}",
            found="no ASL image",
            expected=f"one of its labels, like {known or 'none'}",
            fix="correct the label",
        )
    return [path for path, label in found.items() if not wanted or label in wanted]


def _acquisitions(runs: list[Path]) -> list[tuple[Path, ...]]:
    """Group runs that differ in `acq` only into a joint acquisition, if each kind exists once."""
    kinds = {found[1] for run in runs if (found := JOINT.search(run.name))}
    if len(runs) == len(kinds):
        return [tuple(runs)]
    return [(run,) for run in runs]
