"""Tasks -> results, computed by the workers of a dask cluster, like `processes`.

One worker reads, computes and writes a task. When a worker dies, dask assigns its tasks to another
worker. Tasks that killed several workers are retried one at a time at the end; a task that kills
workers again is lost.
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

LOCAL, SLURM = "local", "slurm"  # clusters that the command starts and stops
KILLED = (
    "its workers were killed; out of memory is the usual reason: start fewer workers per machine"
)
CONNECT_TIMEOUT_S = 20
RESTARTING = "can only join a started process"  # message of dask's worker processes
OWN_GROUP = "import os; os.setpgrp()"  # Ctrl-C ends only the command, which stops its workers
CLUSTER_SETTINGS = {
    "distributed.scheduler.allowed-failures": 1,  # a task may kill one worker
    "distributed.scheduler.worker-saturation": 1.0,  # a worker holds one task at a time
    "distributed.deploy.lost-worker-timeout": "365d",  # a worker that dies is restarted
    # dask's value returns every large array to the system, which makes networks a third slower
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
    """Yield the result of every task, in the order in which they end.

    Tasks that have not started are cancelled when the generator is closed.

    Parameters
    ----------
    where : str
        "local" or "slurm" for a cluster of `n_workers`, or the address of a scheduler.
    announce : callable
        Receives a line with the address of the dashboard.

    Raises
    ------
    UnavailableError
        When dask is not installed, or the scheduler does not answer or has ended.
    """
    with _silent_client(), _connected(where, n_workers) as client:
        from distributed import KilledWorker

        n_started = len(client.nthreads())
        announce(f"Dashboard of the cluster: {client.dashboard_link}; workers so far: {n_started}")
        pickled = _pickle(stages)
        suspects = []
        for task, found in _results(client, pickled, tasks):
            if isinstance(found, KilledWorker):
                suspects.append(task)
            else:
                yield _result_or_lost(stages, task, found)
        for suspect in suspects:  # another task of the same worker may have killed it
            for task, found in _results(client, pickled, [suspect]):
                yield _result_or_lost(stages, task, found)


def _result_or_lost(
    stages: Stages[Task, Any, Result], task: Task, found: Result | BaseException
) -> Result:
    """Return the result of a task, or its result as a lost task if there is none."""
    return stages.lost_result(task, _reason(found)) if isinstance(found, BaseException) else found


def _results(
    client: "Client", pickled: bytes, tasks: Sequence[Task]
) -> Iterator[tuple[Task, Any | BaseException]]:
    """Yield every task with its result or the error of dask."""
    from distributed import as_completed

    futures = client.map(_run_task, tasks, pickled=pickled, pure=False)
    waiting = dict(zip(futures, tasks, strict=True))
    del futures
    try:
        for future in as_completed(list(waiting)):
            try:
                found = future.result()
            except CancelledError:
                raise
            except Exception as error:  # dask may lose the result of a finished task
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
def _ignore_restart() -> Iterator[None]:
    """Ignore dask's error for a worker that is restarting while its cluster closes."""
    try:
        yield
    except AssertionError as error:
        if RESTARTING not in str(error):
            raise
        if error.__context__ is not None:  # the reason why the cluster closes
            raise error.__context__ from None


@contextmanager
def _connected(where: str, n_workers: int) -> Iterator["Client"]:
    try:
        import dask
        from distributed import Client
    except ImportError as error:
        raise not_installed("distributed", "cluster", "--dask") from error
    if where in _CLUSTERS:
        configured = dask.config.set(CLUSTER_SETTINGS)
        start = _CLUSTERS[where]
        with configured, _ignore_restart(), start(n_workers) as cluster, Client(cluster) as client:
            yield client
        return
    try:
        client = Client(where, timeout=CONNECT_TIMEOUT_S)
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
    cluster = SLURMCluster()  # with the settings in the user's dask configuration
    cluster.scale(n_workers)
    return cluster


def _pickle(stages: Stages[Task, Any, object]) -> bytes:
    buffer = io.BytesIO()
    _Pickler(buffer).dump(stages)
    return buffer.getvalue()


class _Pickler(pickle.Pickler):
    """Pickles classes of `__main__`, of a command started by `python -m`, by their module."""

    def reducer_override(self, obj: object) -> Any:
        """Return how to import a class of `__main__`; other objects are pickled as usual."""
        spec = sys.modules["__main__"].__spec__
        if isinstance(obj, type) and obj.__module__ == "__main__" and spec is not None:
            return resolve_name, (f"{spec.name}:{obj.__qualname__}",)
        return NotImplemented


def _run_task(task: object, pickled: bytes) -> object:
    """Read, compute and write a task in a worker."""
    stages = _unpickle(pickled)
    state = stages.compute(stages.read(task))
    with _writing:
        _finish_writing_at_exit()
        return stages.write(state)


@functools.cache
def _finish_writing_at_exit() -> None:
    """Make this worker process finish the task that it is writing before it exits."""
    atexit.register(_writing.acquire)


@functools.lru_cache(maxsize=1)
def _unpickle(pickled: bytes) -> Stages[Any, Any, object]:
    """Return the stages, the same object for all tasks of a worker."""
    stages: Stages[Any, Any, object] = pickle.loads(pickled)  # noqa: S301  # sent by this program
    return stages


def _reason(error: BaseException) -> str:
    from distributed import KilledWorker

    return KILLED if isinstance(error, KilledWorker) else f"{type(error).__name__}: {error}"


_CLUSTERS = {LOCAL: _local, SLURM: _slurm}
