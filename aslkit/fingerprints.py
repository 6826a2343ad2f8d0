"""Files of a scan and parameters -> one hash, which says whether maps are still those of both."""

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from aslkit.m0scans import m0_candidates
from aslkit.sidecars import absolute, dataset_root, inherited


def fingerprint(runs: Sequence[Path], parameters: Mapping[str, object]) -> str:
    """SHA-256 of the contents of all files that may bear on the runs, and of the parameters.

    Raises
    ------
    OSError
        When a file cannot be read.
    """
    inputs = {}
    for run in runs:
        root = dataset_root(run)
        for path in _inputs(run):
            with absolute(path).open("rb") as file:
                digest = hashlib.file_digest(file, "sha256").hexdigest()
            inputs[str(absolute(path).relative_to(root))] = digest
    text = json.dumps({"inputs": inputs, "parameters": parameters}, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()


def _inputs(run: Path) -> Iterator[Path]:
    yield run
    yield from inherited(run, "asl", ".json")
    yield from inherited(run, "aslcontext", ".tsv")
    for m0scan in m0_candidates(run):
        yield m0scan
        yield from inherited(m0scan, "m0scan", ".json")
