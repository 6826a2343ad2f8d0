"""One scan, or all scans of a BIDS data set -> maps on disk, and what became of every scan."""

import logging
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

from aslkit.cli.common import (
    INTERNAL_ERROR,
    logging_into,
    message_and_code,
    print_result,
    set_up_logging,
)
from aslkit.cli.data_set_options import DataSetArguments, select_part
from aslkit.cli.outcomes import Outcome, Tally, failed_outcome, lost_outcome
from aslkit.cli.results import Clock, Estimate, Estimator, print_summary, write_results
from aslkit.cli.scan_options import ScanArguments, check_scan
from aslkit.cli.work import run_tasks
from aslkit.core.errors import InputError, SubjectsFailedError

if TYPE_CHECKING:
    from aslkit.bids.run import AslRun
    from aslkit.outputs.map_names import Destination


def run(scan: ScanArguments, data_set: DataSetArguments, estimator: Estimator) -> None:
    """Write the maps of a scan, or of all scans of a data set."""
    data_set.check(scan)
    if data_set.bids is not None:
        _run_data_set(scan, data_set, data_set.bids, estimator)
        return
    check_scan(scan)
    clock = Clock()
    with clock.timing("reading"):
        runs = estimator.read(scan)
    if scan.dry_run or scan.out is None:
        return
    from aslkit.outputs.map_names import Destination

    estimate = estimator.estimate(scan, runs, clock)
    with clock.timing("writing"):
        files = write_results(scan, estimate, Destination(scan.out))
    print_summary(estimate, files, clock)


@dataclass(frozen=True)
class ScanTask:
    """A scan of a data set: its name, its runs, and where its maps and its log go."""

    name: str
    scan: ScanArguments
    destination: "Destination"
    log: Path


@dataclass
class ScanState:
    """A scan on its way."""

    task: ScanTask
    clock: Clock = field(default_factory=Clock)
    destination: "Destination | None" = None
    runs: "list[AslRun]" = field(default_factory=list)
    estimate: Estimate | None = None
    outcome: Outcome | None = None


@dataclass(frozen=True)
class ScanStages:
    """Reading, estimating and writing of the scans of a data set, see `aslkit.batch.processes`."""

    estimator: Estimator
    parameters: Mapping[str, object]
    skips_current: bool
    is_verbose: bool

    def read(self, task: ScanTask) -> ScanState:
        """The runs of a scan, unless its maps are current."""
        set_up_logging(verbose=self.is_verbose)
        job = ScanState(task)
        try:
            self._find_current(job)
            if job.outcome is None:
                opened = task.log.open("w", encoding="utf-8")
                with opened as log, logging_into(log), job.clock.timing("reading"):
                    job.runs = self.estimator.read(task.scan)
        except Exception as error:  # a scan that fails must not end the others
            job.outcome = failed_outcome(job.task.name, error, job.task.log)
        return job

    def compute(self, job: ScanState) -> ScanState:
        """The maps of a scan."""
        if job.outcome is None:
            try:
                with job.task.log.open("a", encoding="utf-8") as log, logging_into(log):
                    scan, runs, job.runs = job.task.scan, job.runs, []
                    job.estimate = self.estimator.estimate(scan, runs, job.clock)
            except Exception as error:  # likewise
                job.outcome = failed_outcome(job.task.name, error, job.task.log)
        return job

    def write(self, job: ScanState) -> Outcome:
        """What became of the scan, after writing its maps."""
        if job.estimate is not None and job.destination is not None:
            try:
                with job.task.log.open("a", encoding="utf-8") as log, logging_into(log):
                    with job.clock.timing("writing"):
                        files = write_results(job.task.scan, job.estimate, job.destination)
                    print_summary(job.estimate, files, job.clock)
            except Exception as error:  # likewise
                job.outcome = failed_outcome(job.task.name, error, job.task.log)
        return job.outcome or Outcome(job.task.name, "done", sum(job.clock.seconds.values()))

    def lost_result(self, task: ScanTask, reason: str) -> Outcome:
        """What became of a scan whose process died."""
        return lost_outcome(task.name, reason)

    def _find_current(self, job: ScanState) -> None:
        from aslkit.outputs.dataset import is_current
        from aslkit.outputs.fingerprints import fingerprint

        found = fingerprint(job.task.scan.inputs, self.parameters)
        job.destination = replace(job.task.destination, fields={"Fingerprint": found})
        if self.skips_current and is_current(job.destination, found):
            job.outcome = Outcome(job.task.name, "skipped")


def _run_data_set(
    scan: ScanArguments, data_set: DataSetArguments, bids: Path, estimator: Estimator
) -> None:
    from aslkit.outputs.dataset import open_derivative
    from aslkit.outputs.provenance import version

    if scan.dry_run:
        _show(_tasks(scan, data_set, bids, ""), estimator)
        return
    desc, parameters = estimator.desc(), _parameters(scan, estimator)
    tasks = _tasks(scan, data_set, bids, desc)
    if not data_set.skip_existing and not data_set.overwrite:
        _refuse_existing(tasks)
    folder = tasks[0].log.parents[1] if tasks else Path()
    if tasks:
        open_derivative(folder, bids.absolute(), version())
    is_verbose = logging.getLogger("aslkit").isEnabledFor(logging.DEBUG)
    stages = ScanStages(estimator, parameters, data_set.skip_existing, is_verbose)
    tally = Tally(folder, len(tasks))
    with closing(run_tasks(tasks, stages, data_set.n_jobs, data_set.dask)) as outcomes:
        for _ in tally.recorded(outcomes, f"_desc-{desc}"):
            pass
    tally.finish()


def _tasks(
    scan: ScanArguments, data_set: DataSetArguments, bids: Path, desc: str
) -> Sequence[ScanTask]:
    """The scans of the part that is asked for."""
    from aslkit.bids.layout import find_acquisitions, scan_name
    from aslkit.outputs.dataset import LOGS
    from aslkit.outputs.map_names import Destination

    bids, folder = bids.absolute(), (data_set.derivatives or Path()).absolute()
    tasks: dict[Path, ScanTask] = {}
    for runs in find_acquisitions(bids, data_set.participants, data_set.sessions):
        name = scan_name(runs)
        cbf = folder / runs[0].parent.relative_to(bids) / f"{name}_desc-{desc}_cbf.nii.gz"
        if cbf in tasks:
            raise InputError(
                runs[0],
                "",
                found=f"the name of {tasks[cbf].scan.inputs[0].name}",
                expected="a name of its own",
                fix="remove one of the two",
            )
        own = replace(scan, inputs=runs, out=None if scan.dry_run else cbf)
        log = folder / LOGS / f"{name}_desc-{desc}.log"
        tasks[cbf] = ScanTask(name, own, Destination(cbf, desc, bids), log)
    return select_part(list(tasks.values()), data_set.part)


def _parameters(scan: ScanArguments, estimator: Estimator) -> dict[str, object]:
    """Everything but the files that the maps depend on."""
    from aslkit.outputs.provenance import version

    shared = asdict(replace(scan, inputs=(), out=None))
    return {"version": version(), "scan": shared, "estimator": estimator.parameters()}


def _refuse_existing(tasks: Sequence[ScanTask]) -> None:
    existing = [task.destination.cbf for task in tasks if task.destination.cbf.exists()]
    if existing:
        raise InputError(
            existing[0],
            "",
            found=f"maps of {len(existing)} of {len(tasks)} scans",
            expected="none",
            fix="give --skip-existing or --overwrite",
        )


def _show(tasks: Sequence[ScanTask], estimator: Estimator) -> None:
    """Print what is understood of every scan."""
    n_failed = 0
    for task in tasks:
        try:
            estimator.read(task.scan)
        except Exception as error:  # the others are still worth a look
            text, code = message_and_code(error)
            if code == INTERNAL_ERROR:
                raise
            n_failed += 1
            logging.getLogger("aslkit").error(text)
    print_result(f"{len(tasks)} scans, {n_failed} of them with errors")
    if n_failed:
        raise SubjectsFailedError(f"{n_failed} of {len(tasks)} scans cannot be read")
