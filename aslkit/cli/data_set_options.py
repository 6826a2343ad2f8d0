"""Options for data sets -> the scans to process and how."""

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import TypeVar

import click

from aslkit.cli.command import LABELS, options_as_dataclass
from aslkit.cli.option_types import Part
from aslkit.cli.scan_options import ScanArguments

Item = TypeVar("Item")

LEVEL = "participant"  # the only analysis level
BIDS_APP = f"BIDS_DIR OUTPUT_DIR {LEVEL}"

participants_option = click.option(
    "--participant-label",
    "participants",
    multiple=True,
    metavar=LABELS,
    help="Process only these participants; the prefix sub- may be omitted.",
)
sessions_option = click.option(
    "--session-label",
    "sessions",
    multiple=True,
    metavar=LABELS,
    help="Process only these sessions; the prefix ses- may be omitted.",
)
part_option = click.option(
    "--part", type=Part(), help="Process the K-th of N parts, for job arrays."
)
skip_existing_option = click.option(
    "--skip-existing",
    is_flag=True,
    help="Skip results that exist with the same input, options and version.",
)
n_jobs_option = click.option(
    "--n-jobs",
    type=click.IntRange(1),
    metavar="N",
    help="Number of scans processed in parallel [1].",
)
dask_option = click.option(
    "--dask",
    metavar="local|slurm|ADDRESS",
    help="Process the scans with dask: --n-jobs workers on this machine, --n-jobs SLURM jobs, or "
    "the workers of the scheduler at this address.",
)


def check_n_jobs(n_jobs: int | None, dask: str | None) -> None:
    """Refuse --n-jobs for a cluster that has its own workers."""
    if n_jobs and dask not in (None, "local", "slurm"):
        raise click.UsageError(
            "--n-jobs goes with --dask local or slurm; a scheduler at ADDRESS has its workers"
        )


def select_part(items: Sequence[Item], part: tuple[int, int] | None) -> Sequence[Item]:
    """Return the items of a part, or all items without a part."""
    k, n = part or (1, 1)
    return items[k - 1 :: n]


@dataclass(frozen=True)
class DataSetArguments:
    """Values of the options; `bids` is None for a single scan."""

    bids_app: tuple[str, ...]
    bids: Path | None
    derivatives: Path | None
    participants: tuple[str, ...]
    sessions: tuple[str, ...]
    part: tuple[int, int] | None
    n_jobs: int | None
    dask: str | None
    skip_existing: bool
    overwrite: bool

    def with_bids_app_arguments(self) -> "DataSetArguments":
        """Return the same with the arguments of BIDS Apps as `bids` and `derivatives`."""
        if not self.bids_app:
            return self
        if len(self.bids_app) != 3:
            raise click.UsageError(
                f"found the arguments {' '.join(self.bids_app)!r}, expected {BIDS_APP}, or "
                "-i FILE -o FILE for a single scan"
            )
        if self.bids is not None or self.derivatives is not None:
            raise click.UsageError(f"give either {BIDS_APP} or --bids DIR --derivatives DIR")
        bids, derivatives, level = self.bids_app
        if level != LEVEL:
            raise click.UsageError(f"the analysis level must be {LEVEL!r}, not {level!r}")
        if not Path(bids).is_dir():
            raise click.UsageError(f"BIDS_DIR: found no folder {bids!r}")
        return replace(self, bids_app=(), bids=Path(bids), derivatives=Path(derivatives))

    def check(self, scan: ScanArguments) -> None:
        """Refuse options that exclude each other."""
        given = [f.name for f in fields(self) if getattr(self, f.name)]
        if self.bids is None:
            if given:
                raise click.UsageError(f"{_flag(given[0])} needs --bids DIR")
            return
        if self.derivatives is None and not scan.dry_run:
            raise click.UsageError("give the folder to write: --derivatives DIR")
        if self.skip_existing and self.overwrite:
            raise click.UsageError("give either --skip-existing or --overwrite")
        check_n_jobs(self.n_jobs, self.dask)
        single_scan_values = {
            "-i": scan.inputs,
            "-o": scan.out,
            "-m": scan.mask,
            "--gm": scan.gm,
            "--wm": scan.wm,
            "--m0 FILE": scan.m0 if scan.m0 and not _is_number(scan.m0) else None,
        }
        for flag, value in single_scan_values.items():
            if value:
                raise click.UsageError(f"{flag} is for a single scan and excludes --bids")


def _flag(name: str) -> str:
    renamed = {"participants": "participant-label", "sessions": "session-label"}
    return "--" + renamed.get(name, name).replace("_", "-")


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


_OPTIONS = (
    click.argument("bids_app", nargs=-1, metavar=f"[{BIDS_APP}]"),
    click.option(
        "--bids",
        type=click.Path(path_type=Path, exists=True, file_okay=False),
        metavar="DIR",
        help="BIDS data set; all of its ASL scans are processed.",
    ),
    click.option(
        "--derivatives",
        type=click.Path(path_type=Path, file_okay=False),
        metavar="DIR",
        help="Output folder, a BIDS derivative with logs and failed.tsv.",
    ),
    participants_option,
    sessions_option,
    part_option,
    n_jobs_option,
    dask_option,
    skip_existing_option,
    click.option("--overwrite", is_flag=True, help="Compute all maps again."),
)
data_set_options = options_as_dataclass(_OPTIONS, DataSetArguments, "data_set")
