"""Simulated subjects -> folders of a new or existing data set, complete or absent."""

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
    """One participant to simulate.

    Attributes
    ----------
    settings : ScanSettings or None
        Settings of the scan; None writes the phantom itself.
    """

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
        """Return a hash of everything that the subject depends on."""
        from aslkit.outputs.fingerprints import fingerprint
        from aslkit.outputs.provenance import version

        own = {**asdict(self), "folder": ""}
        return fingerprint((), {"version": version(), "job": own})


def simulate_subject(task: SubjectTask) -> str:
    """Simulate a subject and write its files; return a line that describes them."""
    from aslkit.simulate.bids_writer import write_scan
    from aslkit.simulate.phantoms import save_phantom
    from aslkit.simulate.scanner import scan_phantom

    phantom = _phantom(task)
    if task.settings is None:
        save_phantom(phantom, task.folder)
        return phantom.name
    scan = scan_phantom(phantom, task.settings, task.seed)
    write_scan(
        *(task.folder, task.subject, phantom, task.settings, scan),
        is_deltam=not task.is_raw,
        fingerprint=task.fingerprint,
    )
    voxels = scan.m0.size * sum(run.volumes.shape[3] for run in scan.runs)
    measured = scan.measured_snr
    snr = f"SNR {measured:.2f} (requested {scan.snr:.4g})" if measured else "no thermal noise"
    return f"sub-{task.subject}: {phantom.name}, {voxels / 1e6:.1f} million voxels, {snr}"


def _phantom(task: SubjectTask) -> "Phantom":
    from aslkit.simulate.phantoms import brain_phantom, shape_phantom

    if task.anatomy != "brain":
        return shape_phantom(task.anatomy, task.seed)
    name = f"brain-{task.seed:03d}"
    return brain_phantom(name, task.seed, task.voxel_size_mm, task.matrix)


def simulate_subjects(tasks: Sequence[SubjectTask], n_jobs: int, skip_current: bool) -> None:
    """Add the subjects to their data set; logs and failed.tsv go to the folder of the truth.

    Raises
    ------
    InputError
        When the folder holds other files, or subjects that must not be skipped.
    SubjectsFailedError
        When at least one subject failed, after all others are done.
    """
    from aslkit.batch.driver import BatchSettings, OneStepWork, run_batch
    from aslkit.batch.outcomes import share
    from aslkit.outputs.dataset import open_logs
    from aslkit.simulate.bids_writer import check_is_simulated, truth_root

    if not tasks:
        return
    out = tasks[0].folder
    _create_data_set(out)
    check_is_simulated(out)
    existing = [task.subject for task in tasks if (out / f"sub-{task.subject}").exists()]
    if existing and not skip_current:
        raise InputError(
            out / f"sub-{existing[0]}",
            "",
            found=share(len(existing), len(tasks), "subject"),
            expected="none",
            fix="give --skip-existing, or another --out",
        )
    truth = truth_root(out)
    open_logs(truth)
    settings = BatchSettings(truth, skip_current, n_jobs, noun="subject")
    work = OneStepWork(_name, _fingerprint, _is_current, _add_subject)
    run_batch(tasks, work, settings, console())


def _name(task: SubjectTask) -> str:
    return f"sub-{task.subject}"


def _fingerprint(task: SubjectTask) -> str:
    return task.fingerprint


def _is_current(task: SubjectTask, fingerprint: str) -> bool:
    """Whether the subject exists with this fingerprint."""
    from aslkit.simulate.bids_writer import is_current

    return is_current(task.folder, task.subject, fingerprint)


def _add_subject(task: SubjectTask, _: str) -> None:
    """Simulate a subject; its folders appear when they are complete."""
    from aslkit.outputs.atomic_write import write_folders
    from aslkit.simulate.bids_writer import subject_folders

    with write_folders(task.folder, subject_folders(task.subject)) as temporary:
        print_result(simulate_subject(replace(task, folder=temporary)))


@contextmanager
def explain_output_errors(out: Path) -> Iterator[None]:
    """Turn an OSError into an error that names the output folder.

    Raises
    ------
    InputError
        When the folder cannot be written or has files already.
    """
    try:
        yield
    except OSError as error:
        if error.errno == errno.ENOTEMPTY:  # another run has written the folder
            raise existing_files_error(out) from error
        raise InputError(
            out,
            "",
            found=f"a place that cannot be written ({error.strerror})",
            expected="a writable folder with room for the scans",
            fix="make room, or give another --out",
        ) from error


def existing_files_error(out: Path) -> InputError:
    """Return the error for an output folder that has files already."""
    return InputError(
        out, "", found="existing files", expected="a new folder", fix="give another --out"
    )


def _create_data_set(out: Path) -> None:
    """Create the data set if it does not exist; several parts may do so at the same time."""
    from aslkit.outputs.atomic_write import write_folder
    from aslkit.simulate.bids_writer import write_dataset_description

    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        return
    try:
        with write_folder(out) as folder:
            write_dataset_description(folder)
    except OSError as error:
        if error.errno != errno.ENOTEMPTY:  # another part has created it
            raise
