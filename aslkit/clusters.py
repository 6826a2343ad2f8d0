"""Tasks -> results, by the workers of a dask cluster: as `aslkit.workers`, on many machines.

A task is read, computed and written by one worker. dask gives the tasks of a worker that died to
another one; a task that workers die of time and again is lost.
"""

import functools
import pickle
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TypeVar

from aslkit.errors import UnavailableError, not_installed
from aslkit.workers import Stages

if TYPE_CHECKING:
    from distributed import Client

Task = TypeVar("Task")
Result = TypeVar("Result")

LOCAL, SLURM = "local", "slurm"  # clusters that live as long as the command
PATIENCE_S = 20  # with a scheduler that does not answer


def work_through_cluster(
    tasks: Sequence[Task],
    stages: Stages[Task, Any, Result],
    where: str,
    n_workers: int,
    announce: Callable[[str], None],
) -> Generator[Result, None, None]:
    """The result of every task, as they come; what is not yet begun is cancelled at the end.

    Parameters
    ----------
    where : str
        "local" or "slurm" for a cluster of `n_workers`, or the address of a scheduler.
    announce : callable
        Is told where to watch the cluster.

    Raises
    ------
    UnavailableError
        When dask is not installed or the scheduler does not answer.
    """
    with _connected(where, n_workers) as client:
        import cloudpickle
        from distributed import as_completed

        announce(f"Dashboard of the cluster: {client.dashboard_link}")
        packed = cloudpickle.dumps(stages)
        futures = {client.submit(_do, packed, task, pure=False): task for task in tasks}
        try:
            for future in as_completed(list(futures)):
                task = futures.pop(future)
                error = future.exception()
                yield future.result() if error is None else stages.lose(task, _reason(error))
                future.release()
        finally:
            client.cancel(list(futures))


@contextmanager
def _connected(where: str, n_workers: int) -> Iterator["Client"]:
    try:
        from distributed import Client
    except ImportError as error:
        raise not_installed("distributed", "cluster", "--dask") from error
    if where in _CLUSTERS:
        with _CLUSTERS[where](n_workers) as cluster, Client(cluster) as client:
            yield client
        return
    try:
        client = Client(where, timeout=PATIENCE_S)
    except (OSError, ValueError) as error:
        raise UnavailableError(
            f"no dask scheduler answers at {where!r}. Fix: start one with `dask scheduler` and "
            "give the address that it prints, like tcp://host:8786, or --dask local."
        ) from error
    with client:
        yield client


def _local(n_workers: int):  # type: ignore[no-untyped-def]
    from distributed import LocalCluster

    return LocalCluster(n_workers=n_workers, threads_per_worker=1, silence_logs="ERROR")


def _slurm(n_workers: int):  # type: ignore[no-untyped-def]
    try:
        from dask_jobqueue.slurm import SLURMCluster
    except ImportError as error:
        raise not_installed("dask_jobqueue", "cluster", "--dask") from error
    cluster = SLURMCluster()  # as dask's own configuration has it
    cluster.scale(n_workers)
    return cluster


def _do(packed: bytes, task: object) -> object:
    """All of a task, in a worker."""
    stages = _unpacked(packed)
    return stages.write(stages.compute(stages.read(task)))


@functools.lru_cache(maxsize=1)
def _unpacked(packed: bytes) -> Stages[Any, Any, object]:
    """The stages, with the same objects for all tasks of a worker."""
    stages: Stages[Any, Any, object] = pickle.loads(packed)  # noqa: S301  # what this program sent itself
    return stages


def _reason(error: BaseException) -> str:
    from distributed import KilledWorker

    if isinstance(error, KilledWorker):
        return (
            "its workers were killed time and again; out of memory is the usual reason: fewer "
            "workers to a machine"
        )
    return f"{type(error).__name__}: {error}"


_CLUSTERS = {LOCAL: _local, SLURM: _slurm}
