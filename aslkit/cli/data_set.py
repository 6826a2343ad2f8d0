"""One scan, or all scans of a BIDS data set -> maps on disk."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from aslkit.cli.data_set_options import DataSetArguments, select_part
from aslkit.cli.results import Clock, Estimate, Estimator, print_summary, write_results
from aslkit.cli.scan_options import ScanArguments, check_scan
from aslkit.cli.terminal import console, print_result
from aslkit.core.errors import InputError, SubjectsFailedError

if TYPE_CHECKING:
    from aslkit.bids.run import AslRun
    from aslkit.outputs.map_names import Destination


def run(scan: ScanArguments, data_set: DataSetArguments, estimator: Estimator) -> None:
    """Write the maps of a scan, or of all scans of a data set."""
    data_set = data_set.with_bids_app_arguments()
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
    """A scan of a data set: its name, its options, and the paths of its maps."""

    name: str
    scan: ScanArguments
    destination: "Destination"


@dataclass
class ScanState:
    """A scan between reading and writing."""

    task: ScanTask
    destination: "Destination"
    clock: Clock
    runs: "list[AslRun]"
    estimate: Estimate | None = None


@dataclass(frozen=True)
class ScanWork:
    """Maps of one scan of a data set, for `aslkit.batch.driver`."""

    estimator: Estimator
    parameters: Mapping[str, object]

    def name(self, task: ScanTask) -> str:
        """Return the name of the scan."""
        return task.name

    def fingerprint(self, task: ScanTask) -> str:
        """Return the hash of the files of the scan, the options and the version."""
        from aslkit.outputs.fingerprints import fingerprint

        return fingerprint(task.scan.inputs, self.parameters)

    def is_current(self, task: ScanTask, fingerprint: str) -> bool:
        """Whether the maps exist with this fingerprint."""
        from aslkit.outputs.dataset import is_current

        return is_current(task.destination, fingerprint)

    def read(self, task: ScanTask, fingerprint: str) -> ScanState:
        """Read the runs of the scan."""
        destination = replace(task.destination, fields={"Fingerprint": fingerprint})
        state = ScanState(task, destination, Clock(), [])
        with state.clock.timing("reading"):
            state.runs = self.estimator.read(task.scan)
        return state

    def compute(self, state: ScanState) -> ScanState:
        """Estimate the maps of the scan."""
        runs, state.runs = state.runs, []  # the estimator may free the volumes
        state.estimate = self.estimator.estimate(state.task.scan, runs, state.clock)
        return state

    def write(self, state: ScanState) -> None:
        """Write the maps and print the summary."""
        assert state.estimate is not None
        with state.clock.timing("writing"):
            files = write_results(state.task.scan, state.estimate, state.destination)
        print_summary(state.estimate, files, state.clock)


def _run_data_set(
    scan: ScanArguments, data_set: DataSetArguments, bids: Path, estimator: Estimator
) -> None:
    """Write the maps of the scans of a data set."""
    from aslkit.batch.driver import BatchSettings, run_batch
    from aslkit.outputs.dataset import open_derivative
    from aslkit.outputs.provenance import version

    if scan.dry_run:
        _show(_tasks(scan, data_set, bids, ""), estimator)
        return
    desc, parameters = estimator.desc(), _parameters(scan, estimator)
    tasks = _tasks(scan, data_set, bids, desc)
    if not data_set.skip_existing and not data_set.overwrite:
        _refuse_existing(tasks)
    folder = (data_set.derivatives or Path()).absolute()
    if tasks:
        open_derivative(folder, bids.absolute(), version())
    settings = BatchSettings(
        folder,
        skip_current=data_set.skip_existing,
        n_jobs=data_set.n_jobs,
        dask=data_set.dask,
        suffix=f"_desc-{desc}",
    )
    run_batch(tasks, ScanWork(estimator, parameters), settings, console())


def _tasks(
    scan: ScanArguments, data_set: DataSetArguments, bids: Path, desc: str
) -> Sequence[ScanTask]:
    """Return the scans of the requested participants, sessions and part."""
    from aslkit.bids.layout import find_acquisitions, scan_name
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
        tasks[cbf] = ScanTask(name, own, Destination(cbf, desc, bids))
    return select_part(list(tasks.values()), data_set.part)


def _parameters(scan: ScanArguments, estimator: Estimator) -> dict[str, object]:
    """Return the options that the maps depend on."""
    from aslkit.outputs.provenance import version

    shared = asdict(replace(scan, inputs=(), out=None))
    return {"version": version(), "scan": shared, "estimator": estimator.parameters()}


def _refuse_existing(tasks: Sequence[ScanTask]) -> None:
    from aslkit.batch.outcomes import share

    existing = [task.destination.cbf for task in tasks if task.destination.cbf.exists()]
    if existing:
        raise InputError(
            existing[0],
            "",
            found=f"maps of {share(len(existing), len(tasks), 'scan')}",
            expected="none",
            fix="give --skip-existing or --overwrite",
        )


def _show(tasks: Sequence[ScanTask], estimator: Estimator) -> None:
    """Print the metadata of every scan."""
    from aslkit.batch.outcomes import count, share
    from aslkit.core.exit_codes import INTERNAL_ERROR, message_and_code

    n_failed = 0
    for task in tasks:
        try:
            estimator.read(task.scan)
        except Exception as error:  # the other scans are shown nevertheless
            text, code = message_and_code(error)
            if code == INTERNAL_ERROR:
                raise
            n_failed += 1
            logging.getLogger("aslkit").error(text)
    print_result(f"{count(len(tasks), 'scan')}, {n_failed} with errors")
    if n_failed:
        raise SubjectsFailedError(f"{share(n_failed, len(tasks), 'scan')} cannot be read")
