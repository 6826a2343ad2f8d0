"""The scans of a BIDS data set -> a page each, one for the group, and tables; failures apart."""

from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import click

from aslkit.cli.common import message_of, progress, say
from aslkit.cli.work import work
from aslkit.errors import InputError, SubjectsFailedError

if TYPE_CHECKING:
    from aslkit.benchmark import Benchmark

Scan = tuple[Path, ...]  # the runs of one acquisition


@dataclass(frozen=True)
class Study:
    """What to validate, and how."""

    folder: Path
    participants: tuple[str, ...]
    sessions: tuple[str, ...]
    models: tuple[str, ...]
    reference: Path | None
    macrovascular: str
    kinetic: str
    seed: int
    n_jobs: int | None
    dask: str | None
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
    from aslkit.bids_layout import find_acquisitions
    from aslkit.fitting import FitSettings
    from aslkit.invivo_report import invivo_report
    from aslkit.invivo_tables import headline_of_scans, scan_tables
    from aslkit.report import failure_table, provenance, write_benchmark

    scans = find_acquisitions(study.folder, study.participants, study.sessions)
    networks(study.models, FitSettings())  # a model that is not there concerns all scans
    outcomes = []
    for outcome in _run(study, scans):
        outcomes.append(outcome)
        if outcome.found is None:
            click.echo(f"{outcome.name}: {outcome.reason}", err=True)
    outcomes.sort(key=lambda outcome: outcome.name)
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


def validate_scan(study: Study, paths: Scan) -> Outcome:
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
            progress=progress if study.n_jobs is None and study.dask is None else iter,
        )
        write_page(study.out / f"{name}.html", subject_report(result, provenance()))
    except Exception as error:  # whatever it is, the other scans are still worth a report
        return Outcome(name, reason=message_of(error))
    return Outcome(name, result.benchmark)


def _run(study: Study, scans: Sequence[Scan]) -> Iterator[Outcome]:
    """What came of every scan, as they come."""
    if study.n_jobs is None and study.dask is None:
        yield from (validate_scan(study, paths) for paths in progress(scans))
        return
    from aslkit.workers import WholeTask

    stages = WholeTask(partial(validate_scan, study), _lost)
    with closing(work(scans, stages, study.n_jobs, study.dask)) as outcomes:
        yield from (outcome for _, outcome in zip(progress(scans), outcomes, strict=True))


def _lost(paths: Scan, reason: str) -> Outcome:
    from aslkit.bids_layout import scan_name

    return Outcome(scan_name(paths), reason=f"Error: {reason}")
