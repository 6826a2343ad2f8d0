"""The scans of a BIDS data set -> a page each, one for the group, and tables; failures apart."""

import logging
import time
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from aslkit.cli.common import logging_into, print_result, set_up_logging
from aslkit.cli.data_set_options import select_part
from aslkit.cli.outcomes import Outcome, Tally, failed_outcome, lost_outcome
from aslkit.cli.work import run_tasks

RunPaths = tuple[Path, ...]  # the runs of one acquisition


@dataclass(frozen=True)
class Study:
    """What to validate, and how."""

    folder: Path
    participants: tuple[str, ...]
    sessions: tuple[str, ...]
    part: tuple[int, int] | None
    models: tuple[str, ...]
    reference: Path | None
    macrovascular: str
    kinetic: str
    seed: int
    n_jobs: int | None
    dask: str | None
    skip_existing: bool
    out: Path


@dataclass(frozen=True)
class Validation:
    """The study, all but the files that its findings depend on, and whether to be wordy."""

    study: Study
    parameters: Mapping[str, object]
    is_verbose: bool

    def run(self, paths: RunPaths) -> Outcome:
        """Validate one scan and write its page, in any process."""
        from aslkit.bids.layout import scan_name
        from aslkit.bids.reference_maps import reference_files
        from aslkit.outputs.dataset import LOGS
        from aslkit.outputs.fingerprints import fingerprint
        from aslkit.report.scan_files import is_current

        set_up_logging(verbose=self.is_verbose)
        began, study, name = time.perf_counter(), self.study, scan_name(paths)
        log = study.out / LOGS / f"{name}.log"
        try:
            maps = reference_files(study.reference, name).values() if study.reference else ()
            found = fingerprint(paths, self.parameters, tuple(maps))
            if study.skip_existing and is_current(study.out, name, found):
                return Outcome(name, "skipped")
            with log.open("w", encoding="utf-8") as file, logging_into(file):
                _write_findings(study, paths, name, found)
        except Exception as error:  # whatever it is, the other scans are still worth a report
            return failed_outcome(name, error, log)
        return Outcome(name, "done", time.perf_counter() - began)


def validate_study(study: Study) -> None:
    """Validate every scan, write the pages and tables, and print the group's table.

    Raises
    ------
    SubjectsFailedError
        After everything else is done, when some scans failed.
    """
    from aslkit.batch.processes import SingleStep
    from aslkit.bids.layout import find_acquisitions
    from aslkit.outputs.dataset import open_logs

    found = find_acquisitions(study.folder, study.participants, study.sessions)
    scans = select_part(found, study.part)
    is_verbose = logging.getLogger("aslkit").isEnabledFor(logging.DEBUG)
    validation = Validation(study, _parameters(study), is_verbose)
    open_logs(study.out)
    stages = SingleStep(validation.run, _lost)
    tally = Tally(study.out, len(scans))
    with closing(run_tasks(scans, stages, study.n_jobs, study.dask)) as outcomes:
        all_of_them = sorted(tally.recorded(outcomes), key=lambda outcome: outcome.name)
    if study.part is None:
        _write_group(study.out, all_of_them)
    else:
        print_result(
            "For the page of the group, give the command with --skip-existing, without --part."
        )
    tally.finish()


def _parameters(study: Study) -> dict[str, object]:
    """Everything but files of the scan that the findings depend on; models have to be there."""
    from aslkit.fit.least_squares import FitSettings
    from aslkit.outputs.provenance import version
    from aslkit.validate.estimators import networks

    models = {n: own.model.sha256 for n, own in networks(study.models, FitSettings()).items()}
    device = ""
    if models:
        from aslkit.nets.device import select_device

        device = str(select_device("auto"))
    return {
        "version": version(),
        "models": list(models.items()),
        "device": device,
        "macrovascular": study.macrovascular,
        "kinetic": study.kinetic,
        "seed": study.seed,
    }


def _write_findings(study: Study, paths: RunPaths, name: str, fingerprint: str) -> None:
    from aslkit.bids.overrides import Overrides
    from aslkit.bids.reader import read_run
    from aslkit.fit.least_squares import FitSettings
    from aslkit.report.page import provenance
    from aslkit.report.scan_files import ScanFindings, write_scan_files
    from aslkit.report.scan_report import slice_picture, subject_report
    from aslkit.validate.in_vivo import validate_run

    result = validate_run(
        [read_run(path, Overrides(kinetic=study.kinetic)) for path in paths],
        models=study.models,
        settings=FitSettings(macrovascular=study.macrovascular),
        seed=study.seed,
        name=name,
        reference=study.reference,
    )
    findings = ScanFindings(result.benchmark, slice_picture(result))
    page = subject_report(result, provenance())
    write_scan_files(study.out, name, page, findings, fingerprint)


def _write_group(out: Path, outcomes: Sequence[Outcome]) -> None:
    """Write the page and tables of all scans that did not fail, and print the table."""
    from aslkit.report.group_report import invivo_report
    from aslkit.report.page import provenance, write_benchmark
    from aslkit.report.scan_files import read_scan_findings
    from aslkit.report.scan_tables import headline_of_scans, scan_tables
    from aslkit.validate.estimators import merge

    failed = {o.name: o.message for o in outcomes if o.exit_code}
    found = {o.name: read_scan_findings(out, o.name) for o in outcomes if not o.exit_code}
    if not found:
        return
    total = merge([one.benchmark for one in found.values()])
    pictures = {name: one.picture for name, one in found.items()}
    report = invivo_report(total, provenance(), failed, pictures)
    files = write_benchmark(out, total, report)
    tables = scan_tables(total.records)
    table = report.headline if len(tables) > 1 else headline_of_scans(tables, {})
    print_result(table.as_text())
    print_result("\n" + "\n".join(f"wrote {path}" for path in files))


def _lost(paths: RunPaths, reason: str) -> Outcome:
    from aslkit.bids.layout import scan_name

    return lost_outcome(scan_name(paths), reason)
