"""asl_sim: simulated ASL scans as a BIDS data set, with their truth."""

import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import replace
from pathlib import Path

import click

from aslkit.cli.command import aslkit_command
from aslkit.cli.data_set_options import part_option, select_part, skip_existing_option
from aslkit.cli.option_types import KINETIC, LABELING, POSITIVE, MatrixSize, NumberList, SnrRange
from aslkit.cli.sim_options import (
    ANATOMIES,
    DEFAULT_PROTOCOL,
    NOISES,
    PROTOCOLS,
    VOXEL_SIZE_MM,
    choose_protocol,
    parse_noises,
)
from aslkit.cli.sim_subjects import (
    SubjectTask,
    existing_files_error,
    explain_output_errors,
    simulate_subject,
    simulate_subjects,
)
from aslkit.cli.terminal import print_result
from aslkit.core.errors import AslkitError

EXAMPLES = """Examples:
  asl_sim --out study --participants 20 --protocol joint6 --snr 3,30 --n-jobs 4
  asl_sim --out study --track mismatched --noise coil,physio,drift,motion,spikes --repeats 8
  asl_sim --out study --labeling pcasl --plds 0.5,1,1.5,2 --label-duration 1.8 --deltam
  asl_sim --out study --participants 500 --skip-existing --part 3/20
  asl_sim --out phantoms --phantoms --participants 4 --seed 101    for asl_validate --phantoms"""


@aslkit_command("asl_sim", epilog=EXAMPLES)
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
    "--matrix", type=MatrixSize(3), help="Voxels around the centre of the brain [the whole head]."
)
@click.option("--protocol", metavar="NAME", help=f"One of {PROTOCOLS} [{DEFAULT_PROTOCOL}].")
@click.option("--plds", type=NumberList(), metavar="A,B,…", help="Own protocol: PLDs [s].")
@click.option("--labeling", type=LABELING, default="pcasl")
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
    type=KINETIC,
    default="single",
    show_default=True,
    help="T1 of the label after arrival: of blood, or of tissue.",
)
@click.option("--macrovascular", is_flag=True, help="Add the signal of arteries.")
@click.option(
    "--seed",
    type=click.IntRange(0),
    default=0,
    show_default=True,
    help="Of the first participant; the next has one more, and so on.",
)
@click.option("--n-jobs", type=click.IntRange(1), default=1, show_default=True)
@part_option
@skip_existing_option
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
    part: tuple[int, int] | None,
    skip_existing: bool,
    is_phantom_only: bool,
) -> None:
    """Simulate ASL scans of known CBF and arrival time.

    Writes a BIDS data set (control and label volumes, or differences, M0 image, sidecars) and the
    truth under derivatives/truth. The same seed gives the same bytes, whatever --n-jobs. With
    --part or --skip-existing, into a data set that may be there, subject by subject.
    """
    from aslkit.simulate.scanner import ScanSettings

    if matrix is not None and anatomy != "brain":
        raise click.UsageError("--matrix is for --anatomy brain")
    if is_phantom_only and (part or skip_existing):
        raise click.UsageError("--part and --skip-existing are for scans, not for --phantoms")
    settings = ScanSettings(
        protocol=choose_protocol(protocol, plds, labeling, label_duration),
        repeats=repeats,
        snr=snr,
        track=track,
        noises=parse_noises(noise, n_bs),
        kinetic=kinetic,
        n_pulses=n_bs,
        has_arterial=macrovascular,
    )
    jobs = [
        SubjectTask(
            folder=out,
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
    if part or skip_existing:
        with explain_output_errors(out):
            simulate_subjects(select_part(jobs, part), n_jobs, skip_existing)
    else:
        _simulate_data_set(jobs, out, n_jobs)


def _simulate_data_set(jobs: Sequence[SubjectTask], out: Path, n_jobs: int) -> None:
    """All of a new data set, or nothing."""
    from tqdm import tqdm

    from aslkit.simulate.bids_writer import write_dataset_description

    started, is_silent = time.perf_counter(), not sys.stderr.isatty()
    with _new_folder(out) as folder:
        if jobs[0].settings is not None:
            write_dataset_description(folder)
        here = [replace(job, folder=folder) for job in jobs]
        for line in tqdm(_run(here, n_jobs), "Simulating", len(jobs), disable=is_silent):
            with tqdm.external_write_mode():
                print_result(line)
    seconds = (time.perf_counter() - started) / len(jobs)
    print_result(f"written: {out} ({seconds:.1f} s per participant)")


def _run(jobs: Sequence[SubjectTask], n_jobs: int) -> Iterator[str]:
    """What came out of every job, as they come."""
    if n_jobs == 1:
        yield from map(simulate_subject, jobs)
        return
    from aslkit.batch.processes import SingleStep, run_in_processes

    with closing(run_in_processes(jobs, SingleStep(_try, _lost), n_jobs)) as found:
        for line in found:
            if isinstance(line, Exception):
                raise line
            yield line


def _try(job: SubjectTask) -> str | Exception:
    """What came out of a job, or why nothing did."""
    try:
        return simulate_subject(job)
    except Exception as error:  # whatever it is, it is raised where the job came from
        return error


def _lost(_: SubjectTask, reason: str) -> Exception:
    return AslkitError(f"{reason}.")


@contextmanager
def _new_folder(out: Path) -> Iterator[Path]:
    """A folder that becomes `out` when all is written, and vanishes when anything fails."""
    from aslkit.outputs.atomic_write import folder_appears

    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise existing_files_error(out)
    with explain_output_errors(out), folder_appears(out) as folder:
        yield folder


if __name__ == "__main__":
    main()
