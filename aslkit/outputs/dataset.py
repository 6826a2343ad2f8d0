"""A folder -> a BIDS derivative: description, current results, and failed.tsv."""

import csv
import io
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from aslkit.bids.json_files import read_json, read_text
from aslkit.bids.nifti import stem
from aslkit.bids.sidecar import BIDS_VERSION
from aslkit.core.errors import InputError
from aslkit.core.tables import rows_text
from aslkit.outputs.atomic_write import locked, write_together
from aslkit.outputs.map_names import MAP_KINDS, Destination

DESCRIPTION, IGNORED, FAILED, LOGS = (
    "dataset_description.json",
    ".bidsignore",
    "failed.tsv",
    "logs",
)
FAILED_COLUMNS = ("scan", "exit_code", "message")


def open_derivative(folder: Path, raw: Path, version: str) -> None:
    """Make a folder a BIDS derivative of a data set.

    Raises
    ------
    InputError
        When the folder holds another data set, or cannot be written.
    """
    description = folder / DESCRIPTION
    if description.exists():
        _check_is_ours(description)
    else:
        _describe(folder, raw, version)
    open_logs(folder)


def open_logs(folder: Path) -> None:
    """Create the log folder and check failed.tsv.

    Raises
    ------
    InputError
        When the folder cannot be written, or failed.tsv is not from aslkit.
    """
    with _writing(folder):
        (folder / LOGS).mkdir(parents=True, exist_ok=True)
    _failures(folder / FAILED)  # checked before the first scan


def is_current(destination: Destination, fingerprint: str) -> bool:
    """Whether the maps exist, are complete, and have this fingerprint."""
    cbf = destination.cbf
    sidecar = cbf.with_name(f"{stem(cbf)}.json")
    is_there = cbf.is_file() and destination.path("att").is_file()
    return is_there and has_fingerprint(sidecar, fingerprint)


def has_fingerprint(path: Path, fingerprint: str) -> bool:
    """Whether a JSON file exists, is complete, and has this fingerprint."""
    try:
        return path.is_file() and read_json(path).get("Fingerprint") == fingerprint
    except InputError:  # a damaged file is written again
        return False


def record_outcome(folder: Path, scan: str, exit_code: int, message: str) -> None:
    """Update failed.tsv; the file exists only if a scan has failed.

    Raises
    ------
    InputError
        When the file cannot be written.
    """
    path = folder / FAILED
    with _writing(folder), locked(folder / LOGS):
        rows = _failures(path)
        before = dict(rows)
        rows.pop(scan, None)
        if exit_code:
            rows[scan] = {"scan": scan, "exit_code": str(exit_code), "message": message}
        if rows == before:
            return
        if not rows:
            path.unlink()
            return
        found = ([rows[name][c] for c in FAILED_COLUMNS] for name in sorted(rows))
        text = rows_text(FAILED_COLUMNS, found)
        with write_together(folder, FAILED) as temporary:
            (temporary / FAILED).write_text(text, encoding="utf-8")


def _failures(path: Path) -> dict[str, dict[str, str]]:
    """Return the rows of failed.tsv by scan; empty if the file does not exist."""
    if not path.exists():
        return {}
    rows = list(csv.DictReader(io.StringIO(read_text(path)), delimiter="\t"))
    if any(set(row) != set(FAILED_COLUMNS) or None in row.values() for row in rows):
        raise InputError(
            path,
            "",
            found="other columns",
            expected=", ".join(FAILED_COLUMNS),
            fix="remove the file; it lists the scans that failed so far",
        )
    return {row["scan"]: row for row in rows}


def _describe(folder: Path, raw: Path, version: str) -> None:
    """Write dataset_description.json and .bidsignore."""
    source = read_json(raw / DESCRIPTION) if (raw / DESCRIPTION).is_file() else {}
    doi = source.get("DatasetDOI")
    link = os.path.relpath(raw, folder)
    fields = {
        "Name": "aslkit: CBF and arrival time",
        "BIDSVersion": BIDS_VERSION,
        "DatasetType": "derivative",
        "GeneratedBy": [{"Name": "aslkit", "Version": version}],
        "SourceDatasets": [{"DOI": doi} if isinstance(doi, str) else {"URL": link}],
        "DatasetLinks": {"raw": link},
    }
    suffixes = dict.fromkeys(
        kind.partition("-")[0] for kind in (*MAP_KINDS, "quality", "outliers")
    )
    ignored = [*(f"*_{suffix}.*" for suffix in (*suffixes, "motion")), FAILED, f"{LOGS}/"]
    with _writing(folder), write_together(folder, DESCRIPTION) as temporary:
        (temporary / IGNORED).write_text("\n".join(ignored) + "\n", encoding="utf-8")
        text = json.dumps(fields, indent=2, ensure_ascii=False)
        (temporary / DESCRIPTION).write_text(text + "\n", encoding="utf-8")


def _check_is_ours(description: Path) -> None:
    fields = read_json(description)
    generators = fields.get("GeneratedBy")
    names = [g.get("Name") for g in generators] if isinstance(generators, list) else []
    if fields.get("DatasetType") != "derivative" or "aslkit" not in names:
        what = f"derivatives of {names[0]}" if names else "another data set"
        raise InputError(
            description,
            "GeneratedBy",
            found=what,
            expected="a new folder, or derivatives of aslkit",
            fix="give a --derivatives folder of its own, like derivatives/aslkit",
        )


@contextmanager
def _writing(folder: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise InputError(
            folder,
            "",
            found=f"a folder that cannot be written ({error.strerror})",
            expected="a writable folder with room for the maps",
            fix="make room, or give another --derivatives",
        ) from error
