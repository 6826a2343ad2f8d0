"""asl_sim: a BIDS data set of simulated ASL scans, with the true maps."""

import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import replace
from pathlib import Path

import click

from aslkit.cli.command import aslkit_command
from aslkit.cli.data_set_options import (
    n_jobs_option,
    part_option,
    select_part,
    skip_existing_option,
)
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
  asl_sim --out phantoms --phantoms-only --participants 4 --seed 101"""


@aslkit_command("asl_sim", epilog=EXAMPLES, renamed={"--phantoms": "--phantoms-only"})
@click.option(
    "-o",
    "--out",
    type=click.Path(path_type=Path),
    required=True,
    metavar="DIR",
    help="New folder for the data set.",
)
@click.option(
    "--participants",
    type=click.IntRange(1),
    default=1,
    show_default=True,
    metavar="N",
    help="Number of participants.",
)
@click.option(
    "--anatomy",
    type=click.Choice(ANATOMIES),
    default="brain",
    show_default=True,
    help="Brain or geometric phantom.",
)
@click.option(
    "--voxel-size",
    type=click.FloatRange(1, 10),
    default=VOXEL_SIZE_MM,
    show_default=True,
    metavar="MM",
    help="Voxel size of the brain.",
)
@click.option(
    "--matrix",
    type=MatrixSize(3),
    help="Number of voxels, around the centre of the brain [the whole head].",
)
@click.option("--protocol", metavar="NAME", help=f"Protocol: {PROTOCOLS} [{DEFAULT_PROTOCOL}].")
@click.option(
    "--plds",
    type=NumberList(),
    metavar="A,B,…",
    help="Post-labeling delays of your own protocol [s].",
)
@click.option(
    "--labeling",
    type=LABELING,
    default="pcasl",
    show_default=True,
    help="Labeling method of your own protocol.",
)
@click.option(
    "--label-duration",
    type=POSITIVE,
    default=1.8,
    show_default=True,
    metavar="S",
    help="Label duration of your own protocol.",
)
@click.option(
    "--n-bs",
    type=click.IntRange(0, 10),
    default=0,
    show_default=True,
    metavar="N",
    help="Number of background-suppression pulses; 0: no background suppression.",
)
@click.option(
    "--repeats",
    type=click.IntRange(1),
    default=1,
    show_default=True,
    metavar="N",
    help="Number of repeats of each delay.",
)
@click.option(
    "--raw/--deltam",
    "is_raw",
    default=True,
    help="Write control and label volumes [default], or ΔM volumes.",
)
@click.option(
    "--snr",
    type=SnrRange(),
    default=(10.0, 10.0),
    help="SNR of the average over the repeats; a range A,B: drawn for each participant [10].",
)
@click.option(
    "--track",
    type=click.Choice(["matched", "mismatched"]),
    default="matched",
    show_default=True,
    help="matched: physical constants as in the sidecars; mismatched: random constants, "
    "arteries and dispersion.",
)
@click.option(
    "--noise",
    metavar="A,B,…",
    default="thermal",
    show_default=True,
    help=f"Noise and artefacts: {NOISES}.",
)
@click.option(
    "--kinetic",
    type=KINETIC,
    default="single",
    show_default=True,
    help="T1 of the label after its arrival: of blood (single) or tissue.",
)
@click.option("--macrovascular", is_flag=True, help="Add the arterial signal.")
@click.option(
    "--seed",
    type=click.IntRange(0),
    default=0,
    show_default=True,
    metavar="N",
    help="Seed of the first participant; participant k has seed N + k - 1.",
)
@n_jobs_option
@part_option
@skip_existing_option
@click.option(
    "--phantoms-only", is_flag=True, help="Write phantoms for asl_validate, and no scans."
)
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
    n_jobs: int | None,
    part: tuple[int, int] | None,
    skip_existing: bool,
    phantoms_only: bool,
) -> None:
    """Simulate ASL scans with known CBF and ATT.

    Writes a BIDS data set (control and label or ΔM volumes, M0 image, sidecars) and the true maps
    under derivatives/truth. The same seed gives the same bytes for any --n-jobs. With --part or
    --skip-existing, participants are added to an existing data set.
    """
    from aslkit.simulate.scanner import ScanSettings

    if matrix is not None and anatomy != "brain":
        raise click.UsageError("--matrix is for --anatomy brain")
    if phantoms_only and (part or skip_existing):
        raise click.UsageError("--part and --skip-existing exclude --phantoms-only")
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
    tasks = [
        SubjectTask(
            folder=out,
            subject=f"{i + 1:02d}",
            seed=seed + i,
            anatomy=anatomy,
            voxel_size_mm=voxel_size,
            matrix=matrix,
            settings=None if phantoms_only else settings,
            is_raw=is_raw,
        )
        for i in range(participants)
    ]
    if part or skip_existing:
        with explain_output_errors(out):
            simulate_subjects(select_part(tasks, part), n_jobs or 1, skip_existing)
    else:
        _simulate_data_set(tasks, out, n_jobs or 1)


def _simulate_data_set(tasks: Sequence[SubjectTask], out: Path, n_jobs: int) -> None:
    """Write a new data set; it appears when it is complete."""
    from tqdm import tqdm

    from aslkit.simulate.bids_writer import write_dataset_description

    start, is_silent = time.perf_counter(), not sys.stderr.isatty()
    with _new_folder(out) as folder:
        if tasks[0].settings is not None:
            write_dataset_description(folder)
        tasks = [replace(task, folder=folder) for task in tasks]
        for line in tqdm(
            _simulate_all(tasks, n_jobs), "Simulating", len(tasks), disable=is_silent
        ):
            with tqdm.external_write_mode():
                print_result(line)
    seconds = (time.perf_counter() - start) / len(tasks)
    print_result(f"written: {out} ({seconds:.1f} s per participant)")


def _simulate_all(tasks: Sequence[SubjectTask], n_jobs: int) -> Iterator[str]:
    """Simulate all subjects, and yield a line for each in the order in which they end."""
    if n_jobs == 1:
        yield from map(simulate_subject, tasks)
        return
    from aslkit.batch.processes import SingleStep, run_in_processes

    with closing(run_in_processes(tasks, SingleStep(_line_or_error, _lost), n_jobs)) as results:
        for result in results:
            if isinstance(result, Exception):
                raise result
            yield result


def _line_or_error(task: SubjectTask) -> str | Exception:
    """Simulate a subject, and return its line or the error."""
    try:
        return simulate_subject(task)
    except Exception as error:  # raised in the main process
        return error


def _lost(_: SubjectTask, reason: str) -> Exception:
    return AslkitError(f"{reason}.")


@contextmanager
def _new_folder(out: Path) -> Iterator[Path]:
    """Yield a temporary folder that is renamed to `out`, or removed after an error."""
    from aslkit.outputs.atomic_write import write_folder

    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise existing_files_error(out)
    with explain_output_errors(out), write_folder(out) as folder:
        yield folder


if __name__ == "__main__":
    main()
