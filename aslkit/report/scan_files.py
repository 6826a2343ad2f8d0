"""What was found on one scan -> its page, and a JSON beside it that tells the same to programs.

The page of a group is made from these files, whichever run wrote them.
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

Lines = list[Mapping[str, str | float | None]]


@dataclass(frozen=True)
class ScanResults:
    """Figures of one scan, and a small PNG of its maps."""

    benchmark: Benchmark
    picture: bytes


def write_scan_files(
    folder: Path, name: str, page: Page, found: ScanResults, fingerprint: str
) -> None:
    """Write NAME.html and NAME.json, both or none.

    Parameters
    ----------
    fingerprint : str
        Of all that the findings depend on.

    Raises
    ------
    InputError
        When the folder cannot be written.
    """
    more = {"Fingerprint": fingerprint, "Picture": base64.b64encode(found.picture).decode()}
    text = benchmark_json(found.benchmark, page, more)
    write_page(folder / f"{name}.html", page, {f"{name}.json": text})


def is_current(folder: Path, name: str, fingerprint: str) -> bool:
    """Whether the files of a scan are there, with this fingerprint."""
    page = folder / f"{name}.html"
    return page.is_file() and has_fingerprint(folder / f"{name}.json", fingerprint)


def read_scan_results(folder: Path, name: str) -> ScanResults:
    """What NAME.json tells.

    Raises
    ------
    InputError
        When it is no JSON object.
    """
    content = read_json(folder / f"{name}.json")
    records, speeds = (
        [_record(line) for line in cast(Lines, content[key])] for key in ("records", "speeds")
    )
    benchmark = Benchmark(records, [], [], [_speed(line) for line in speeds])
    return ScanResults(benchmark, base64.b64decode(str(content["Picture"])))


def _record(line: Mapping[str, str | float | None]) -> Record:
    """The line with NaN for null."""
    return {k: float("nan") if v is None else v for k, v in line.items()}


def _speed(line: Record) -> Speed:
    name, *numbers = (line[f.name] for f in fields(Speed))
    seconds, n_voxels, peak_mib = map(float, numbers)
    return Speed(str(name), seconds, int(n_voxels), peak_mib)
