"""Training in a process -> the same process afterwards: its signals and random numbers."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import torch


class StopFlag:
    """Whether SIGTERM has been received."""

    is_set = False


@contextmanager
def catch_sigterm() -> Iterator[StopFlag]:
    """Set a flag on SIGTERM; afterwards the previous handler is back.

    Python handles signals in the main thread only. In another thread the flag stays unset.
    """
    stop = StopFlag()
    if threading.current_thread() is not threading.main_thread():
        yield stop
        return

    def set_flag(*_: object) -> None:
        stop.is_set = True

    previous = signal.signal(signal.SIGTERM, set_flag)
    try:
        yield stop
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL if previous is None else previous)


@contextmanager
def keep_random_state() -> Iterator[None]:
    """Restore the state of torch's global random generators afterwards."""
    with torch.random.fork_rng(devices=range(torch.cuda.device_count())):
        yield
