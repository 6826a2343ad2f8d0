"""Tasks -> results, by processes or by a dask cluster: what --n-jobs and --dask mean."""

from collections.abc import Generator, Sequence
from typing import TYPE_CHECKING, TypeVar

import click

from aslkit.cli.common import print_result

if TYPE_CHECKING:
    from aslkit.batch.processes import Stages

Task = TypeVar("Task")
State = TypeVar("State")
Result = TypeVar("Result")

n_jobs_option = click.option(
    "--n-jobs", type=click.IntRange(1), metavar="N", help="Scans at a time, in processes [1]."
)
dask_option = click.option(
    "--dask",
    metavar="local|slurm|ADDRESS",
    help="Let dask do the scans: --n-jobs workers of this machine, as many SLURM jobs, or "
    "the workers of the scheduler at this address.",
)


def check_n_jobs(n_jobs: int | None, dask: str | None) -> None:
    """Refuse a number of jobs where the cluster has its own."""
    if n_jobs and dask not in (None, "local", "slurm"):
        raise click.UsageError("--n-jobs goes with --dask local or slurm; ADDRESS has workers")


def run_tasks(
    tasks: Sequence[Task],
    stages: "Stages[Task, State, Result]",
    n_jobs: int | None,
    dask: str | None,
) -> Generator[Result, None, None]:
    """The result of every task, as they come."""
    if dask is None:
        from aslkit.batch.processes import run_in_processes

        return run_in_processes(tasks, stages, n_jobs or 1)
    from aslkit.batch.dask_cluster import run_on_cluster

    return run_on_cluster(tasks, stages, dask, n_jobs or 1, print_result)
