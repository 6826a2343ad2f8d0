"""asl_sim: simulated ASL scans as a BIDS data set, with their truth."""

import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import click

from aslkit.cli.common import aslkit_command, say
from aslkit.cli.scan_options import POSITIVE, NumberList
from aslkit.errors import InputError

if TYPE_CHECKING:
    from aslkit.phantoms import Phantom
    from aslkit.simulation import Protocol

ANATOMIES = ("brain", "uniform", "disc", "checker", "ramp", "plan")
DEFAULT_PROTOCOL = "joint6"
PROTOCOLS = "joint6 joint5 pcasl6 pcasl6-2d pcasl5 pasl8 vsasl6 pcasl1"

EXAMPLES = """Examples:
  asl_sim --out study --participants 3 --protocol joint6 --snr 10
  asl_sim --out study --labeling pcasl --plds 0.5,1,1.5,2 --label-duration 1.8 --repeats 4
  asl_sim --out phantoms --phantoms --participants 4 --seed 101    for asl_validate --phantoms"""


@aslkit_command(epilog=EXAMPLES)
@click.option("--out", type=click.Path(path_type=Path), required=True, help="New folder.")
@click.option("--participants", type=click.IntRange(1), default=1, show_default=True)
@click.option("--anatomy", type=click.Choice(ANATOMIES), default="brain", show_default=True)
@click.option(
    "--voxel-size", type=click.FloatRange(1, 10), default=3.5, show_default=True, help="[mm]"
)
@click.option("--protocol", metavar="NAME", help=f"One of {PROTOCOLS} [{DEFAULT_PROTOCOL}].")
@click.option("--plds", type=NumberList(), metavar="A,B,…", help="Own protocol: PLDs [s].")
@click.option("--labeling", type=click.Choice(["pcasl", "casl", "pasl", "vsasl"]), default="pcasl")
@click.option("--label-duration", type=POSITIVE, default=1.8, show_default=True, help="[s]")
@click.option("--repeats", type=click.IntRange(1), default=1, show_default=True)
@click.option(
    "--snr", type=POSITIVE, default=10.0, show_default=True, help="Of the average of the repeats."
)
@click.option("--macrovascular", is_flag=True, help="Add the signal of arteries.")
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True)
@click.option("--phantoms", "is_phantom_only", is_flag=True, help="Write the phantoms, no scans.")
def main(
    out: Path,
    participants: int,
    anatomy: str,
    voxel_size: float,
    protocol: str | None,
    plds: tuple[float, ...] | None,
    labeling: str,
    label_duration: float,
    repeats: int,
    snr: float,
    macrovascular: bool,
    seed: int,
    is_phantom_only: bool,
) -> None:
    """Simulate ASL scans of known CBF and arrival time.

    Writes a BIDS data set (control and label volumes, M0 image, sidecars) and the truth under
    derivatives/truth. The same seed gives the same bytes.
    """
    from tqdm import tqdm

    from aslkit.phantoms import save_phantom
    from aslkit.scanner import ScanSettings, scan_phantom, write_dataset_description

    chosen = _protocol(protocol, plds, labeling, label_duration)
    numbers = range(seed, seed + participants)
    with _new_folder(out) as folder:
        if not is_phantom_only:
            write_dataset_description(folder)
        for i in tqdm(numbers, desc="Simulating", disable=not sys.stderr.isatty()):
            phantom = _phantom(anatomy, i, voxel_size)
            if is_phantom_only:
                save_phantom(phantom, folder)
                continue
            scan = ScanSettings(chosen, repeats, snr, i, macrovascular)
            subject = f"{i - seed + 1:02d}"
            measured = scan_phantom(folder, subject, phantom, scan)
            say(f"sub-{subject}: {phantom.name}, SNR {measured:.2f} (asked for {snr:g})")
    say(f"written: {out}")


def _phantom(anatomy: str, seed: int, voxel_size_mm: float) -> "Phantom":
    from aslkit.phantoms import brain_phantom, shape_phantom

    if anatomy == "brain":
        return brain_phantom(f"brain-{seed:03d}", seed, voxel_size_mm)
    return shape_phantom(anatomy, seed)


def _protocol(
    name: str | None, plds: tuple[float, ...] | None, labeling: str, label_duration: float
) -> "Protocol":
    """A named protocol, or the one that the options spell out."""
    from aslkit.acquisition import protocol
    from aslkit.simulation import PROTOCOLS, Protocol

    if plds is not None and name is not None:
        raise click.UsageError("give --protocol or --plds, not both")
    if plds is not None:
        try:
            return Protocol((protocol(labeling, plds, label_duration),))
        except ValueError as error:
            raise InputError(
                "--plds", "", found=str(error), expected="seconds", fix="give --plds 0.5,1,1.5"
            ) from error
    if (name or DEFAULT_PROTOCOL) not in PROTOCOLS:
        raise InputError(
            "--protocol",
            "",
            found=name,
            expected=f"one of {', '.join(PROTOCOLS)}",
            fix="name one of them, or give --plds",
        )
    return PROTOCOLS[name or DEFAULT_PROTOCOL]


@contextmanager
def _new_folder(out: Path) -> Iterator[Path]:
    """A folder that becomes `out` when all is written, and vanishes when anything fails."""
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise InputError(
            out, "", found="existing files", expected="a new folder", fix="give another --out"
        )
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=out.parent, prefix=".asl_sim-") as temporary:
        folder = Path(temporary) / out.name
        folder.mkdir()
        yield folder
        if out.exists():
            out.rmdir()
        folder.rename(out)


if __name__ == "__main__":
    main()
