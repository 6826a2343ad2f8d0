"""asl_sim: simulated ASL scans as a BIDS data set, with their truth."""

import errno
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import click

from aslkit.cli.common import aslkit_command, say
from aslkit.cli.scan_options import POSITIVE, NumberList
from aslkit.cli.sim_options import (
    ANATOMIES,
    DEFAULT_PROTOCOL,
    NOISES,
    PROTOCOLS,
    VOXEL_SIZE_MM,
    Matrix,
    SnrRange,
    noises_of,
    protocol_of,
)
from aslkit.errors import AslkitError, InputError

if TYPE_CHECKING:
    from aslkit.phantoms import Phantom
    from aslkit.scanner import ScanSettings

EXAMPLES = """Examples:
  asl_sim --out study --participants 20 --protocol joint6 --snr 3,30 --n-jobs 4
  asl_sim --out study --track mismatched --noise coil,physio,drift,motion,spikes --repeats 8
  asl_sim --out study --labeling pcasl --plds 0.5,1,1.5,2 --label-duration 1.8 --deltam
  asl_sim --out phantoms --phantoms --participants 4 --seed 101    for asl_validate --phantoms"""


@aslkit_command(epilog=EXAMPLES)
@click.option("--out", type=click.Path(path_type=Path), required=True, help="New folder.")
@click.option("--participants", type=click.IntRange(1), default=1, show_default=True)
@click.option("--anatomy", type=click.Choice(ANATOMIES), default="brain", show_default=True)
@click.option(
    "--voxel-size",
    type=click.FloatRange(1, 10),
    default=VOXEL_SIZE_MM,
    show_default=True,
    help="Of the brain [mm].",
)
@click.option(
    "--matrix", type=Matrix(3), help="Voxels around the centre of the brain [the whole head]."
)
@click.option("--protocol", metavar="NAME", help=f"One of {PROTOCOLS} [{DEFAULT_PROTOCOL}].")
@click.option("--plds", type=NumberList(), metavar="A,B,…", help="Own protocol: PLDs [s].")
@click.option("--labeling", type=click.Choice(["pcasl", "casl", "pasl", "vsasl"]), default="pcasl")
@click.option("--label-duration", type=POSITIVE, default=1.8, show_default=True, help="[s]")
@click.option(
    "--n-bs",
    type=click.IntRange(0, 10),
    default=0,
    show_default=True,
    help="Background-suppression pulses; none: no suppression.",
)
@click.option("--repeats", type=click.IntRange(1), default=1, show_default=True)
@click.option("--raw/--deltam", "is_raw", default=True, help="Control and label [default], or ΔM.")
@click.option(
    "--snr",
    type=SnrRange(),
    default=(10.0, 10.0),
    help="Of the average of the repeats; a range: drawn for every participant [10].",
)
@click.option(
    "--track",
    type=click.Choice(["matched", "mismatched"]),
    default="matched",
    show_default=True,
    help="Mismatched: subjects differ from the constants, with arteries and dispersion.",
)
@click.option(
    "--noise",
    metavar="A,B,…",
    default="thermal",
    show_default=True,
    help=f"Of {NOISES}.",
)
@click.option(
    "--kinetic",
    type=click.Choice(["single", "tissue"]),
    default="single",
    show_default=True,
    help="T1 of the label after arrival: of blood, or of tissue.",
)
@click.option("--macrovascular", is_flag=True, help="Add the signal of arteries.")
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True)
@click.option("--n-jobs", type=click.IntRange(1), default=1, show_default=True)
@click.option("--phantoms", "is_phantom_only", is_flag=True, help="Write the phantoms, no scans.")
def main(
    out: Path,
    participants: int,
    anatomy: str,
    voxel_size: float,
    matrix: tuple[int, int, int] | None,
    protocol: str | None,
    plds: tuple[float, ...] | None,
    labeling: str,
    label_duration: float,
    n_bs: int,
    repeats: int,
    is_raw: bool,
    snr: tuple[float, float],
    track: str,
    noise: str,
    kinetic: str,
    macrovascular: bool,
    seed: int,
    n_jobs: int,
    is_phantom_only: bool,
) -> None:
    """Simulate ASL scans of known CBF and arrival time.

    Writes a BIDS data set (control and label volumes, or differences, M0 image, sidecars) and the
    truth under derivatives/truth. The same seed gives the same bytes, whatever --n-jobs.
    """
    from tqdm import tqdm

    from aslkit.scanner import ScanSettings
    from aslkit.simulated_files import write_dataset_description

    if matrix is not None and anatomy != "brain":
        raise click.UsageError("--matrix is for --anatomy brain")
    settings = ScanSettings(
        protocol=protocol_of(protocol, plds, labeling, label_duration),
        repeats=repeats,
        snr=snr,
        track=track,
        noises=noises_of(noise, n_bs),
        kinetic=kinetic,
        n_pulses=n_bs,
        has_arterial=macrovascular,
    )
    started, is_silent = time.perf_counter(), not sys.stderr.isatty()
    with _new_folder(out) as folder:
        if not is_phantom_only:
            write_dataset_description(folder)
        jobs = [
            Job(
                folder=folder,
                subject=f"{i + 1:02d}",
                seed=seed + i,
                anatomy=anatomy,
                voxel_size_mm=voxel_size,
                matrix=matrix,
                settings=None if is_phantom_only else settings,
                is_raw=is_raw,
            )
            for i in range(participants)
        ]
        for line in tqdm(_run(jobs, n_jobs), "Simulating", participants, disable=is_silent):
            with tqdm.external_write_mode():
                say(line)
    seconds = (time.perf_counter() - started) / participants
    say(f"written: {out} ({seconds:.1f} s per participant)")


@dataclass(frozen=True)
class Job:
    """One participant: the phantom, and how it is scanned (None: it is written itself)."""

    folder: Path
    subject: str
    seed: int
    anatomy: str
    voxel_size_mm: float
    matrix: tuple[int, int, int] | None
    settings: "ScanSettings | None"
    is_raw: bool


def simulate(job: Job) -> str:
    """Do the job, in any process; returns a line that says what came out."""
    from aslkit.phantoms import save_phantom
    from aslkit.scanner import scan_phantom
    from aslkit.simulated_files import write_scan

    phantom = _phantom(job)
    if job.settings is None:
        save_phantom(phantom, job.folder)
        return phantom.name
    scan = scan_phantom(phantom, job.settings, job.seed)
    write_scan(job.folder, job.subject, phantom, job.settings, scan, not job.is_raw)
    voxels = scan.m0.size * sum(run.volumes.shape[3] for run in scan.runs)
    measured = scan.measured_snr
    snr = f"SNR {measured:.2f} (asked for {scan.snr:.4g})" if measured else "no thermal noise"
    return f"sub-{job.subject}: {phantom.name}, {voxels / 1e6:.1f} million voxels, {snr}"


def _run(jobs: Sequence[Job], n_jobs: int) -> Iterator[str]:
    """What came out of every job, as they come."""
    if n_jobs == 1:
        yield from map(simulate, jobs)
        return
    from aslkit.workers import WholeTask, work_through

    with closing(work_through(jobs, WholeTask(_try, _lost), n_jobs)) as found:
        for line in found:
            if isinstance(line, Exception):
                raise line
            yield line


def _try(job: Job) -> str | Exception:
    """What came out of a job, or why nothing did."""
    try:
        return simulate(job)
    except Exception as error:  # whatever it is, it is raised where the job came from
        return error


def _lost(_: Job, reason: str) -> Exception:
    return AslkitError(f"{reason}.")


def _phantom(job: Job) -> "Phantom":
    from aslkit.phantoms import brain_phantom, shape_phantom

    if job.anatomy != "brain":
        return shape_phantom(job.anatomy, job.seed)
    name = f"brain-{job.seed:03d}"
    return brain_phantom(name, job.seed, job.voxel_size_mm, job.matrix)


@contextmanager
def _new_folder(out: Path) -> Iterator[Path]:
    """A folder that becomes `out` when all is written, and vanishes when anything fails."""
    from aslkit.atomic import folder_appears

    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise _in_use(out)
    try:
        with folder_appears(out) as folder:
            yield folder
    except OSError as error:
        if error.errno == errno.ENOTEMPTY:  # another run was faster
            raise _in_use(out) from error
        raise InputError(
            out,
            "",
            found=f"a place that cannot be written ({error.strerror})",
            expected="a writable folder with room for the scans",
            fix="make room, or give another --out",
        ) from error


def _in_use(out: Path) -> InputError:
    return InputError(
        out, "", found="existing files", expected="a new folder", fix="give another --out"
    )


if __name__ == "__main__":
    main()
