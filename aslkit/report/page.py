"""Texts, tables and pictures of a page -> HTML, with results.tsv and results.json.

`phantom_report`, `scan_report` and `group_report` make the `Page`. All files of a page are written
together or not at all.
"""

import base64
import json
import math
import os
import platform
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from importlib import metadata
from pathlib import Path
from types import MappingProxyType

from jinja2 import Environment, PackageLoader, StrictUndefined

from aslkit.core.errors import InputError
from aslkit.core.tables import tsv_text
from aslkit.outputs.atomic_write import write_together
from aslkit.outputs.provenance import command_line
from aslkit.report.style import PIXELS_PER_INCH
from aslkit.validate.estimators import Benchmark
from aslkit.validate.records import Record
from aslkit.validate.self_checks import SelfCheck

RESULTS_FOOTER = (
    "All scores, with their numbers of voxels, are in results.tsv and results.json in this folder."
)


@dataclass(frozen=True)
class Table:
    """Column headings and formatted cells; the first `n_text` columns hold text.

    `links` maps the text of a cell to an address.
    """

    columns: Sequence[str]
    rows: Sequence[Sequence[str]]
    n_text: int = 1
    caption: str = ""
    links: Mapping[str, str] = field(default_factory=dict)

    @property
    def grouped_rows(self) -> list[list[str]]:
        """The rows, with leading text cells that repeat the row above left blank."""
        grouped = []
        above: Sequence[str] = ()
        for row in self.rows:
            n = 0
            while n < self.n_text - 1 and row[n : n + 1] == above[n : n + 1]:
                n += 1
            grouped.append([*[""] * n, *row[n:]])
            above = row
        return grouped

    def as_text(self) -> str:
        """Return the table with aligned columns for a terminal."""
        lines = [self.columns, *self.grouped_rows]
        widths = [max(len(line[i]) for line in lines) for i in range(len(self.columns))]
        text = [
            "  ".join(
                cell.ljust(width) if i < self.n_text else cell.rjust(width)
                for i, (cell, width) in enumerate(zip(line, widths, strict=True))
            ).rstrip()
            for line in lines
        ]
        return "\n".join([self.caption, "", *text] if self.caption else text)


@dataclass(frozen=True)
class Thumbnail:
    """A small PNG picture with a caption and a link to a page."""

    caption: str
    image: bytes
    address: str


@dataclass(frozen=True)
class Section:
    """A heading, an explanation, and a PNG picture, a table or thumbnails."""

    heading: str
    text: str
    image: bytes | None = None
    table: Table | None = None
    thumbnails: Sequence[Thumbnail] = ()


@dataclass(frozen=True)
class Page:
    """The contents of a page, in their order."""

    title: str
    lead: Sequence[str]
    headline: Table
    glossary: Mapping[str, str]
    sections: Sequence[Section]
    self_checks: Sequence[SelfCheck] = ()
    facts: Mapping[str, str] = field(default_factory=dict)
    footer: str = ""


def write_benchmark(out: Path, benchmark: Benchmark, report: Page) -> list[Path]:
    """Write report.html, results.tsv and results.json into a folder, all or none.

    Raises
    ------
    InputError
        When the folder cannot be written.
    """
    tables = {"results.tsv": _tsv(benchmark), "results.json": benchmark_json(benchmark, report)}
    return _write(out, {**tables, "report.html": render_page(report)})


def write_page(path: Path, report: Page, beside: Mapping[str, str]) -> None:
    """Write one page and the text files beside it, all or none.

    Parameters
    ----------
    beside : mapping of file name to text

    Raises
    ------
    InputError
        When the folder cannot be written.
    """
    _write(path.parent, {**beside, path.name: render_page(report)})


def benchmark_json(
    benchmark: Benchmark, report: Page, more: Mapping[str, str] = MappingProxyType({})
) -> str:
    """Return facts, self-checks, speeds and records as JSON, with null for NaN."""
    speeds = [{**asdict(s), "voxels_per_second": s.voxels_per_second} for s in benchmark.speeds]
    content = {
        **report.facts,
        **more,
        "has_passed_self_checks": all(g.has_passed for g in benchmark.self_checks),
        "self_checks": [asdict(g) for g in benchmark.self_checks],
        "speeds": [_finite(s) for s in speeds],
        "records": [_finite(r) for r in benchmark.records],
    }
    return json.dumps(content, indent=1, ensure_ascii=False, allow_nan=False) + "\n"


def render_page(report: Page) -> str:
    """Return the page as one HTML document that includes its pictures."""
    environment = Environment(
        loader=PackageLoader("aslkit"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
    )
    environment.filters["base64"] = lambda image: base64.b64encode(image).decode()
    environment.filters["css_width"] = _css_width
    failed = sum(not g.has_passed for g in report.self_checks)
    return environment.get_template("report.html").render(report=report, failed=failed)


def provenance() -> dict[str, str]:
    """Return the command, version and machine of a result."""
    return {
        "Command": command_line(),
        "aslkit": metadata.version("aslkit"),
        "Machine": machine(),
    }


def machine() -> str:
    """Return processor, threads, accelerator and operating system as text."""
    parts = [f"{_processor()}, {_n_cores()} cores"]
    if "OMP_NUM_THREADS" in os.environ:
        parts.append(f"OMP_NUM_THREADS={os.environ['OMP_NUM_THREADS']}")
    torch = sys.modules.get("torch")
    if torch is not None:
        parts.append(f"torch {torch.__version__} on {torch.get_num_threads()} threads")
        if torch.cuda.is_available():
            parts.append(torch.cuda.get_device_name())
    return ", ".join([*parts, f"{platform.system()}, Python {platform.python_version()}"])


def _write(out: Path, files: Mapping[str, str]) -> list[Path]:
    """Write the files into the folder, all or none; the last one appears last."""
    try:
        with write_together(out, list(files)[-1]) as folder:
            for name, text in files.items():
                (folder / name).write_text(text, encoding="utf-8")
    except OSError as error:
        raise InputError(
            out,
            "",
            found=f"a folder that cannot be written ({error.strerror})",
            expected="a writable folder",
            fix="give another --out",
        ) from error
    return [out / name for name in files]


def _css_width(image: bytes) -> int:
    """Return the width of a PNG, from its header, in CSS pixels (96 per inch)."""
    return int.from_bytes(image[16:20]) * 96 // PIXELS_PER_INCH


def _n_cores() -> int:
    """Return the number of cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _processor() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.is_file() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def _tsv(benchmark: Benchmark) -> str:
    """Format the table as TSV; the column `self_checks` states whether all of them passed."""
    verdict = "passed" if all(c.has_passed for c in benchmark.self_checks) else "failed"
    table = benchmark.table.assign(self_checks=verdict).replace([math.inf, -math.inf], math.nan)
    return tsv_text(table)


def _finite(record: Record) -> dict[str, str | float | None]:
    """Return the record with null for values that are not finite."""
    return {
        k: None if isinstance(v, float) and not math.isfinite(v) else v for k, v in record.items()
    }
