"""Files of a scan and parameters -> one hash, by which current maps are recognised."""

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from aslkit.bids.m0scan import m0_candidates
from aslkit.bids.sidecar import absolute, entities, inherited_files, path_in_dataset


def fingerprint(
    runs: Sequence[Path], parameters: Mapping[str, object], others: Sequence[Path] = ()
) -> str:
    """Return the SHA-256 of all files that may affect the runs, and of the parameters.

    Parameters
    ----------
    others : sequence of Path
        Further images that are included, with their JSON files.

    Raises
    ------
    OSError
        When a file cannot be read.
    """
    found = [path for run in runs for path in _inputs(run)]
    for image in others:
        found += [image, *inherited_files(image, entities(image)[1], ".json")]
    inputs = {}
    for path in found:
        with absolute(path).open("rb") as file:
            inputs[path_in_dataset(path)] = hashlib.file_digest(file, "sha256").hexdigest()
    text = json.dumps({"inputs": inputs, "parameters": parameters}, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()


def _inputs(run: Path) -> Iterator[Path]:
    yield run
    yield from inherited_files(run, "asl", ".json")
    yield from inherited_files(run, "aslcontext", ".tsv")
    for m0scan in m0_candidates(run):
        yield m0scan
        yield from inherited_files(m0scan, "m0scan", ".json")
