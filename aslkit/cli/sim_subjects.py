"""Simulated subjects -> a data set that may be there, each whole or not at all."""

import errno
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from aslkit.cli.terminal import console, print_result
from aslkit.core.errors import InputError

if TYPE_CHECKING:
    from aslkit.simulate.phantoms import Phantom
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


def simulate_subject(job: SubjectTask) -> str:
    """Do the job, in any process; returns a line that says what came out."""
    from aslkit.simulate.bids_writer import write_scan
    from aslkit.simulate.phantoms import save_phantom
    from aslkit.simulate.scanner import scan_phantom

    phantom = _phantom(job)
    if job.settings is None:
        save_phantom(phantom, job.folder)
        return phantom.name
    scan = scan_phantom(phantom, job.settings, job.seed)
    write_scan(
        *(job.folder, job.subject, phantom, job.settings, scan),
        is_deltam=not job.is_raw,
        fingerprint=job.fingerprint,
    )
    voxels = scan.m0.size * sum(run.volumes.shape[3] for run in scan.runs)
    measured = scan.measured_snr
    snr = f"SNR {measured:.2f} (asked for {scan.snr:.4g})" if measured else "no thermal noise"
    return f"sub-{job.subject}: {phantom.name}, {voxels / 1e6:.1f} million voxels, {snr}"


def _phantom(job: SubjectTask) -> "Phantom":
    from aslkit.simulate.phantoms import brain_phantom, shape_phantom

    if job.anatomy != "brain":
        return shape_phantom(job.anatomy, job.seed)
    name = f"brain-{job.seed:03d}"
    return brain_phantom(name, job.seed, job.voxel_size_mm, job.matrix)


@dataclass(frozen=True)
class SimulationWork:
    """Simulation of one subject of a data set, for `aslkit.batch.driver`."""

    def name(self, task: SubjectTask) -> str:
        """Return the name of the subject."""
        return f"sub-{task.subject}"

    def fingerprint(self, task: SubjectTask) -> str:
        """Return the hash of the options and the version."""
        return task.fingerprint

    def is_current(self, task: SubjectTask, fingerprint: str) -> bool:
        """Whether the subject exists with this fingerprint."""
        from aslkit.simulate.bids_writer import is_current

        return is_current(task.folder, task.subject, fingerprint)

    def read(self, task: SubjectTask, fingerprint: str) -> SubjectTask:
        """Return the task, which needs no input files."""
        return task

    def compute(self, state: SubjectTask) -> SubjectTask:
        """Simulate the subject; its folders appear when they are complete."""
        from aslkit.outputs.atomic_write import folders_appear
        from aslkit.simulate.bids_writer import subject_folders

        with folders_appear(state.folder, subject_folders(state.subject)) as temporary:
            print_result(simulate_subject(replace(state, folder=temporary)))
        return state

    def write(self, state: SubjectTask) -> None:
        """Do nothing: `compute` has written the files."""


def simulate_subjects(jobs: Sequence[SubjectTask], n_jobs: int, skip_current: bool) -> None:
    """Add the subjects to their data set; logs and failed.tsv go to the folder of the truth.

    Raises
    ------
    InputError
        When the folder holds other files, or subjects that must not be skipped.
    SubjectsFailedError
        When at least one subject failed, after all others are done.
    """
    from aslkit.batch.driver import BatchSettings, run_batch
    from aslkit.batch.outcomes import share
    from aslkit.outputs.dataset import open_logs
    from aslkit.simulate.bids_writer import check_is_simulated, truth_root

    if not jobs:
        return
    out = jobs[0].folder
    _create_data_set(out)
    check_is_simulated(out)
    existing = [job.subject for job in jobs if (out / f"sub-{job.subject}").exists()]
    if existing and not skip_current:
        raise InputError(
            out / f"sub-{existing[0]}",
            "",
            found=share(len(existing), len(jobs), "subject"),
            expected="none",
            fix="give --skip-existing, or another --out",
        )
    truth = truth_root(out)
    open_logs(truth)
    settings = BatchSettings(truth, skip_current, n_jobs, noun="subject")
    run_batch(jobs, SimulationWork(), settings, console())


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


def _create_data_set(out: Path) -> None:
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
