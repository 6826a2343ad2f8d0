"""Results of one scan <-> its page and a JSON file for programs.

The page of the group is made from the JSON files, which may come from several runs.
"""

import base64
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import cast

from aslkit.bids.json_files import read_json
from aslkit.outputs.dataset import has_fingerprint
from aslkit.report.page import Page, benchmark_json, write_page
from aslkit.validate.estimators import Benchmark, Speed
from aslkit.validate.records import Record

JsonRecord = Mapping[str, str | float | None]


@dataclass(frozen=True)
class ScanResults:
    """Scores of one scan, and a thumbnail of its CBF (PNG)."""

    benchmark: Benchmark
    picture: bytes


def write_scan_files(
    folder: Path, name: str, page: Page, results: ScanResults, fingerprint: str
) -> None:
    """Write NAME.html and NAME.json, both or neither.

    Parameters
    ----------
    fingerprint : str
        Fingerprint of all inputs and settings of the results.

    Raises
    ------
    InputError
        When the folder cannot be written.
    """
    more = {"Fingerprint": fingerprint, "Picture": base64.b64encode(results.picture).decode()}
    text = benchmark_json(results.benchmark, page, more)
    write_page(folder / f"{name}.html", page, {f"{name}.json": text})


def is_current(folder: Path, name: str, fingerprint: str) -> bool:
    """Check that the files of a scan exist and have this fingerprint."""
    page = folder / f"{name}.html"
    return page.is_file() and has_fingerprint(folder / f"{name}.json", fingerprint)


def read_scan_results(folder: Path, name: str) -> ScanResults:
    """Read the results of a scan from NAME.json.

    Raises
    ------
    InputError
        When the file is not a JSON object.
    """
    content = read_json(folder / f"{name}.json")
    records, speeds = (
        [_record(line) for line in cast(list[JsonRecord], content[key])]
        for key in ("records", "speeds")
    )
    benchmark = Benchmark(records, [], [], [_speed(line) for line in speeds])
    return ScanResults(benchmark, base64.b64decode(str(content["Picture"])))


def _record(line: JsonRecord) -> Record:
    """Return the record with NaN for null."""
    return {k: float("nan") if v is None else v for k, v in line.items()}


def _speed(line: Record) -> Speed:
    name, *numbers = (line[f.name] for f in fields(Speed))
    seconds, n_voxels, peak_mib = map(float, numbers)
    return Speed(str(name), seconds, int(n_voxels), peak_mib)
