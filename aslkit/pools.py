"""A number of jobs at a time -> processes that share the cores and end with the one they serve."""

import os
import signal
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context, parent_process
from threading import Thread

USUAL_REASON = "out of memory is the usual reason: fewer --n-jobs"  # of SIGKILL
GRACE_S = 30  # of background processes after SIGTERM
KILLED = f"a process was killed; {USUAL_REASON}"


def process_pool(n_jobs: int) -> ProcessPoolExecutor:
    """Processes that start afresh, with no more threads in all than cores."""
    return ProcessPoolExecutor(n_jobs, get_context("spawn"), _begin, (n_jobs,))


def begin(n_jobs: int) -> None:
    """What one of so many processes does before numpy and torch are imported."""
    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, (os.cpu_count() or 1) // n_jobs)))
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # whoever started the process stops it


def outlive_signals(number: int = 0) -> None:
    """What ends a whole process group leaves the main process time to end its helpers itself.

    The number of the helper, which DataLoader passes on, does not matter.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, lambda *_: signal.alarm(GRACE_S))


def _begin(n_jobs: int) -> None:
    begin(n_jobs)
    outlive_signals()
    Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    """A process that was not told to stop, as by `kill -9` of its parent, would wait for ever."""
    parent = parent_process()
    if parent is not None:
        parent.join()
    os._exit(1)
