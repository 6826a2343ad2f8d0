"""How a process among several behaves: it shares the cores, and others tell it when to end."""

import gc
import os
import signal

USUAL_REASON = "out of memory is the usual reason: fewer --n-jobs"  # of SIGKILL
GRACE_S = 30  # of background processes after SIGTERM
NEW_OBJECTS = 100_000  # after which garbage is looked for; Python's 700 is made for less memory


def collect_garbage_rarely() -> None:
    """Look for garbage seldom: imports, of whose time that took a fifth, leave none."""
    gc.set_threshold(NEW_OBJECTS)


def prepare_worker(n_jobs: int) -> None:
    """What one of so many processes does before numpy and torch are imported."""
    collect_garbage_rarely()
    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, (os.cpu_count() or 1) // n_jobs)))
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # whoever started the process stops it


def defer_termination(number: int = 0) -> None:
    """What ends a whole process group leaves the main process time to end its helpers itself.

    The number of the helper, which DataLoader passes on, does not matter.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, lambda *_: signal.alarm(GRACE_S))
