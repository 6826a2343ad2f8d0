"""Tasks -> results, by the workers of a dask cluster: as `processes`, on many machines.

A task is read, computed and written by one worker. dask gives the tasks of a worker that died to
another one. Tasks that workers died of time and again are tried alone at the end; those that
workers die of even then are lost.
"""

import atexit
import functools
import io
import logging
import pickle
import sys
import warnings
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import CancelledError
from contextlib import contextmanager
from pkgutil import resolve_name
from threading import Lock
from typing import TYPE_CHECKING, Any, TypeVar

from aslkit.batch.processes import Stages
from aslkit.core.errors import UnavailableError, not_installed

if TYPE_CHECKING:
    from distributed import Client
    from distributed.deploy.cluster import Cluster

Task = TypeVar("Task")
Result = TypeVar("Result")

LOCAL, SLURM = "local", "slurm"  # clusters that live as long as the command
KILLED = "its workers were killed; out of memory is the usual reason: fewer workers to a machine"
PATIENCE_S = 20  # with a scheduler that does not answer
OWN_GROUP = "import os; os.setpgrp()"  # Ctrl-C reaches the command alone, which stops its workers
OF_OWN_CLUSTERS = {
    "distributed.scheduler.allowed-failures": 1,  # deaths that a task survives
    "distributed.scheduler.worker-saturation": 1.0,  # a worker is given no task ahead
    "distributed.deploy.lost-worker-timeout": "365d",  # for one that dies and begins anew
    # dask's value gives every large array back to the system, which makes networks a third slower
    "distributed.nanny.pre-spawn-environ.MALLOC_TRIM_THRESHOLD_": None,
}

_writing = Lock()


def run_on_cluster(
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
        When dask is not installed, or the scheduler does not answer or ends.
    """
    with _silent_client(), _connected(where, n_workers) as client:
        from distributed import KilledWorker

        n_there = len(client.nthreads())
        announce(f"Dashboard of the cluster: {client.dashboard_link}; workers so far: {n_there}")
        packed = _packed(stages)
        accused = []
        for task, found in _results(client, packed, tasks):
            if isinstance(found, KilledWorker):
                accused.append(task)
            else:
                yield _result_or_lost(stages, task, found)
        for alone in accused:  # a task beside it may have done it
            for task, found in _results(client, packed, [alone]):
                yield _result_or_lost(stages, task, found)


def _result_or_lost(
    stages: Stages[Task, Any, Result], task: Task, found: Result | BaseException
) -> Result:
    """The result of a task, of which there may be none."""
    return stages.lost_result(task, _reason(found)) if isinstance(found, BaseException) else found


def _results(
    client: "Client", packed: bytes, tasks: Sequence[Task]
) -> Iterator[tuple[Task, Any | BaseException]]:
    """Every task with its result, or with why there is none."""
    from distributed import as_completed

    futures = client.map(_do, tasks, packed=packed, pure=False)
    waiting = dict(zip(futures, tasks, strict=True))
    del futures
    try:
        for future in as_completed(list(waiting)):
            try:
                found = future.result()
            except CancelledError:
                raise
            except Exception as error:  # even of a task that was done, if the result is lost
                found = error
            yield waiting.pop(future), found
    except CancelledError as error:
        raise UnavailableError(
            "the dask scheduler has ended. Fix: start it and its workers, and give the same "
            "command again with --skip-existing."
        ) from error
    finally:
        client.cancel(list(waiting))


@contextmanager
def _silent_client() -> Iterator[None]:
    """Suppress the log of the dask client; errors are reported by this module."""
    logger = logging.getLogger("distributed.client")
    level = logger.level
    logger.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        logger.setLevel(level)


@contextmanager
def _connected(where: str, n_workers: int) -> Iterator["Client"]:
    try:
        import dask
        from distributed import Client
    except ImportError as error:
        raise not_installed("distributed", "cluster", "--dask") from error
    if where in _CLUSTERS:
        configured = dask.config.set(OF_OWN_CLUSTERS)
        with configured, _CLUSTERS[where](n_workers) as cluster, Client(cluster) as client:
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


def _local(n_workers: int) -> "Cluster":
    from distributed import LocalCluster

    with warnings.catch_warnings():
        # The default port of the dashboard may be in use; the actual address is printed.
        warnings.filterwarnings("ignore", r"Port \d+ is already in use")
        return LocalCluster(
            n_workers=n_workers, threads_per_worker=1, silence_logs="CRITICAL", preload=[OWN_GROUP]
        )


def _slurm(n_workers: int) -> "Cluster":
    try:
        from dask_jobqueue.slurm import SLURMCluster
    except ImportError as error:
        raise not_installed("dask_jobqueue", "cluster", "--dask") from error
    cluster = SLURMCluster()  # as dask's own configuration has it
    cluster.scale(n_workers)
    return cluster


def _packed(stages: Stages[Task, Any, object]) -> bytes:
    buffer = io.BytesIO()
    _Pickler(buffer).dump(stages)
    return buffer.getvalue()


class _Pickler(pickle.Pickler):
    """Names the classes of a command that runs by `python -m` as others import them."""

    def reducer_override(self, obj: object) -> Any:
        """How to find a class."""
        spec = sys.modules["__main__"].__spec__
        if isinstance(obj, type) and obj.__module__ == "__main__" and spec is not None:
            return resolve_name, (f"{spec.name}:{obj.__qualname__}",)
        return NotImplemented


def _do(task: object, packed: bytes) -> object:
    """All of a task, in a worker."""
    stages = _unpacked(packed)
    job = stages.compute(stages.read(task))
    with _writing:
        _finish_writing_at_exit()
        return stages.write(job)


@functools.cache
def _finish_writing_at_exit() -> None:
    """Have this worker process wait at its exit for the end of the task that it writes."""
    atexit.register(_writing.acquire)


@functools.lru_cache(maxsize=1)
def _unpacked(packed: bytes) -> Stages[Any, Any, object]:
    """The stages, with the same objects for all tasks of a worker."""
    stages: Stages[Any, Any, object] = pickle.loads(packed)  # noqa: S301  # what this program sent itself
    return stages


def _reason(error: BaseException) -> str:
    from distributed import KilledWorker

    return KILLED if isinstance(error, KilledWorker) else f"{type(error).__name__}: {error}"


_CLUSTERS = {LOCAL: _local, SLURM: _slurm}
