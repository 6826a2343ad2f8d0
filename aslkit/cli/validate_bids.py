"""The scans of a BIDS data set -> a page each, one for the group, and tables; failures apart."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import click

from aslkit.cli.common import message_of, progress, say
from aslkit.errors import InputError, SubjectsFailedError

if TYPE_CHECKING:
    from aslkit.benchmark import Benchmark


@dataclass(frozen=True)
class Study:
    """What to validate, and how."""

    folder: Path
    labels: tuple[str, ...]
    models: tuple[str, ...]
    reference: Path | None
    macrovascular: str
    kinetic: str
    seed: int
    n_jobs: int
    out: Path


@dataclass(frozen=True)
class Outcome:
    """What came of one scan: its findings, or why there are none."""

    name: str
    found: "Benchmark | None" = None
    reason: str = ""


def validate_study(study: Study) -> None:
    """Validate every scan, write the pages and tables, and print the group's table.

    Raises
    ------
    SubjectsFailedError
        After everything else is done, when some scans failed.
    """
    from aslkit.benchmark import merge, networks
    from aslkit.fitting import FitSettings
    from aslkit.invivo_report import invivo_report
    from aslkit.invivo_tables import headline_of_scans, scan_tables
    from aslkit.report import failure_table, provenance, write_benchmark

    scans = _scans(study)
    networks(study.models, FitSettings())  # a model that is not there concerns all scans
    outcomes = []
    for outcome in _run(study, scans):
        outcomes.append(outcome)
        if outcome.found is None:
            click.echo(f"{outcome.name}: {outcome.reason}", err=True)
    found = [o.found for o in outcomes if o.found is not None]
    failed = {o.name: o.reason for o in outcomes if o.found is None}
    if not found:
        raise InputError(
            study.folder,
            "",
            found="no scan that can be validated",
            expected="at least one",
            fix="see the errors above",
        )
    total = merge(found)
    report = invivo_report(total, provenance(), failed)
    files = write_benchmark(study.out, total, report, failure_table(failed))
    pages = [study.out / f"{o.name}.html" for o in outcomes if o.found is not None]
    tables = scan_tables(total.records)
    table = report.headline if len(tables) > 1 else headline_of_scans(tables, {})
    say(table.as_text())
    say("\n" + "\n".join(f"wrote {path}" for path in [*pages, *files]))
    if failed:
        raise SubjectsFailedError(
            f"{len(failed)} of {len(outcomes)} scans failed: {', '.join(failed)}."
        )


def validate_scan(study: Study, paths: tuple[Path, ...]) -> Outcome:
    """Validate one scan and write its page, in any process."""
    from aslkit.bids import read_run
    from aslkit.bids_layout import scan_name
    from aslkit.fitting import FitSettings
    from aslkit.invivo import validate_run
    from aslkit.overrides import Overrides
    from aslkit.report import provenance, write_page
    from aslkit.subject_report import subject_report

    name = scan_name(paths)
    try:
        result = validate_run(
            [read_run(path, Overrides(kinetic=study.kinetic)) for path in paths],
            models=study.models,
            settings=FitSettings(macrovascular=study.macrovascular),
            seed=study.seed,
            name=name,
            reference=study.reference,
            progress=progress if study.n_jobs == 1 else iter,
        )
        write_page(study.out / f"{name}.html", subject_report(result, provenance()))
    except Exception as error:  # whatever it is, the other scans are still worth a report
        return Outcome(name, reason=message_of(error))
    return Outcome(name, result.benchmark)


def _scans(study: Study) -> list[tuple[Path, ...]]:
    """The acquisitions of the wanted participants."""
    from aslkit.bids_layout import find_acquisitions, scan_name

    scans = {scan_name(paths): paths for paths in find_acquisitions(study.folder)}
    there = {name.partition("_")[0] for name in scans}
    wanted = {f"sub-{label.removeprefix('sub-')}" for label in study.labels} or there
    if wanted - there:
        raise InputError(
            "--participant-label",
            "",
            found=", ".join(sorted(wanted - there)),
            expected=f"participants with ASL: {', '.join(sorted(there))}",
            fix="correct the label",
        )
    return [paths for name, paths in scans.items() if name.partition("_")[0] in wanted]


def _run(study: Study, scans: Sequence[tuple[Path, ...]]) -> Iterator[Outcome]:
    """What came of every scan, in order."""
    if study.n_jobs == 1:
        yield from (validate_scan(study, paths) for paths in progress(scans))
        return
    from concurrent.futures.process import BrokenProcessPool

    from aslkit.bids_layout import scan_name
    from aslkit.pools import KILLED, process_pool

    with process_pool(min(study.n_jobs, len(scans))) as pool:
        jobs = {paths: pool.submit(validate_scan, study, paths) for paths in scans}
        for paths in progress(scans):
            try:
                yield jobs[paths].result()
            except BrokenProcessPool:
                yield Outcome(scan_name(paths), reason=f"Error: {KILLED}")
