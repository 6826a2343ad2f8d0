"""Simulated subjects -> a data set that may be there, each whole or not at all."""

import errno
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from aslkit.cli.common import logging_into, print_result, set_up_logging
from aslkit.cli.outcomes import Outcome, Tally, failed_outcome, lost_outcome
from aslkit.core.errors import InputError

if TYPE_CHECKING:
    from aslkit.simulate.scanner import ScanSettings


@dataclass(frozen=True)
class SubjectTask:
    """One participant: the phantom, and how it is scanned (None: it is written itself)."""

    folder: Path
    subject: str
    seed: int
    anatomy: str
    voxel_size_mm: float
    matrix: tuple[int, int, int] | None
    settings: "ScanSettings | None"
    is_raw: bool

    @property
    def fingerprint(self) -> str:
        """Of everything that the subject depends on."""
        from aslkit.outputs.fingerprints import fingerprint
        from aslkit.outputs.provenance import version

        own = {**asdict(self), "folder": ""}
        return fingerprint((), {"version": version(), "job": own})


@dataclass(frozen=True)
class OneByOne:
    """How each subject is simulated and put into its place."""

    simulate: Callable[[SubjectTask], str]
    skips_current: bool

    def run(self, job: SubjectTask) -> Outcome:
        """Simulate one subject, unless it is current, in any process."""
        from aslkit.outputs.atomic_write import folders_appear
        from aslkit.outputs.dataset import LOGS
        from aslkit.simulate.bids_writer import is_current, subject_folders, truth_root

        set_up_logging()
        began, name = time.perf_counter(), f"sub-{job.subject}"
        log = truth_root(job.folder) / LOGS / f"{name}.log"
        try:
            if self.skips_current and is_current(job.folder, job.subject, job.fingerprint):
                return Outcome(name, "skipped")
            folders = folders_appear(job.folder, subject_folders(job.subject))
            opened = log.open("w", encoding="utf-8")
            with opened as file, logging_into(file), folders as temporary:
                print_result(self.simulate(replace(job, folder=temporary)))
        except Exception as error:  # the other subjects are still wanted
            return failed_outcome(name, error, log)
        return Outcome(name, "done", time.perf_counter() - began)


def simulate_subjects(
    jobs: Sequence[SubjectTask],
    simulate: Callable[[SubjectTask], str],
    n_jobs: int,
    skips_current: bool,
) -> None:
    """Put the subjects into their data set; logs and failed.tsv go beside the truth.

    Raises
    ------
    InputError
        When the folder holds something else, or a subject that is not to be skipped.
    SubjectsFailedError
        After everything else is done, when some subjects failed.
    """
    from aslkit.batch.processes import SingleStep, run_in_processes
    from aslkit.outputs.dataset import open_logs
    from aslkit.simulate.bids_writer import check_is_simulated, truth_root

    if not jobs:
        return
    out = jobs[0].folder
    _begin(out)
    check_is_simulated(out)
    existing = [job.subject for job in jobs if (out / f"sub-{job.subject}").exists()]
    if existing and not skips_current:
        raise InputError(
            out / f"sub-{existing[0]}",
            "",
            found=f"{len(existing)} of {len(jobs)} subjects",
            expected="none",
            fix="give --skip-existing, or another --out",
        )
    truth = truth_root(out)
    open_logs(truth)
    tally = Tally(truth, len(jobs))
    stages = SingleStep(OneByOne(simulate, skips_current).run, _lost)
    with closing(run_in_processes(jobs, stages, n_jobs)) as outcomes:
        for _ in tally.recorded(outcomes):
            pass
    tally.finish()


@contextmanager
def explain_output_errors(out: Path) -> Iterator[None]:
    """Tell of the folder where something cannot be written, or is there already.

    Raises
    ------
    InputError
        For an OSError.
    """
    try:
        yield
    except OSError as error:
        if error.errno == errno.ENOTEMPTY:  # another run was faster
            raise existing_files_error(out) from error
        raise InputError(
            out,
            "",
            found=f"a place that cannot be written ({error.strerror})",
            expected="a writable folder with room for the scans",
            fix="make room, or give another --out",
        ) from error


def existing_files_error(out: Path) -> InputError:
    """The error of a folder that should have been new."""
    return InputError(
        out, "", found="existing files", expected="a new folder", fix="give another --out"
    )


def _begin(out: Path) -> None:
    """Describe the data set where it is new; several parts may begin at once."""
    from aslkit.outputs.atomic_write import folder_appears
    from aslkit.simulate.bids_writer import write_dataset_description

    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        return
    try:
        with folder_appears(out) as folder:
            write_dataset_description(folder)
    except OSError as error:
        if error.errno != errno.ENOTEMPTY:  # else another part was faster
            raise


def _lost(job: SubjectTask, reason: str) -> Outcome:
    return lost_outcome(f"sub-{job.subject}", reason)
