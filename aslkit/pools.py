"""A number of jobs at a time -> processes that share the cores and end with the one they serve."""

import os
import signal
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context, parent_process
from threading import Thread

KILLED = "a process was killed; out of memory is the usual reason: fewer --n-jobs"


def process_pool(n_jobs: int) -> ProcessPoolExecutor:
    """Processes that start afresh, with no more threads in all than cores."""
    return ProcessPoolExecutor(n_jobs, get_context("spawn"), _begin, (n_jobs,))


def _begin(n_jobs: int) -> None:
    """Before numpy and torch are imported."""
    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, (os.cpu_count() or 1) // n_jobs)))
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # whoever started the process stops it
    Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    """A process that was not told to stop, as by `kill -9` of its parent, would wait for ever."""
    parent = parent_process()
    if parent is not None:
        parent.join()
    os._exit(1)
