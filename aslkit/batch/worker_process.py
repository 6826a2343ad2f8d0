"""Settings of worker processes: garbage collection, number of threads, signals."""

import gc
import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager

USUAL_REASON = "out of memory is the usual reason: give fewer --n-jobs"  # of SIGKILL
GRACE_S = 30  # from SIGTERM to the end of a background process
GC_THRESHOLD = 100_000  # new objects between garbage collections; Python's default is 700


def collect_garbage_rarely() -> None:
    """Collect garbage rarely, because collection takes a fifth of the import time in vain."""
    gc.set_threshold(GC_THRESHOLD)


@contextmanager
def rare_garbage_collection() -> Iterator[None]:
    """Collect garbage rarely, and restore the thresholds at the end."""
    thresholds = gc.get_threshold()
    collect_garbage_rarely()
    try:
        yield
    finally:
        gc.set_threshold(*thresholds)


def prepare_worker(n_jobs: int) -> None:
    """Set up a worker process, one of `n_jobs`, before it imports numpy or torch.

    The main process handles SIGINT, and stops the worker.
    """
    collect_garbage_rarely()
    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, (os.cpu_count() or 1) // n_jobs)))
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def defer_termination(worker: int = 0) -> None:
    """Ignore SIGINT and end `GRACE_S` seconds after SIGTERM, in a background process.

    A signal to the whole process group also reaches the main process, which then has the time to
    end its background processes itself.

    Parameters
    ----------
    worker : int
        Number of the process, as `DataLoader` passes it; unused.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, lambda *_: signal.alarm(GRACE_S))
