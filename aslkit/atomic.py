"""Files of one result -> a folder, all of them or none, whatever ends the process."""

import errno
import fcntl
import os
import shutil
import signal
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

PREFIX = ".aslkit-"


@contextmanager
def appear_together(folder: Path, last: str) -> Iterator[Path]:
    """A temporary folder whose files move into `folder` when the block succeeds.

    Every file is on the disk before the first one moves, and each replaces its predecessor in
    one step. Of several, `last` is removed first and moved last: where it stands, the set is
    complete. Processes that write into one folder take turns. What killed processes left behind
    is removed.

    Parameters
    ----------
    folder : Path
        Made where it is missing.
    last : str
        Name of the file that says that the others are there.

    Raises
    ------
    OSError
        When something cannot be written; then nothing has changed.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with locked(folder):
        _remove_abandoned(folder)
        temporary = Path(tempfile.mkdtemp(dir=folder, prefix=PREFIX))
        in_use = os.open(temporary, os.O_RDONLY)
        with suppress(OSError):  # some network file systems have no locks
            fcntl.flock(in_use, fcntl.LOCK_EX)
    try:
        yield temporary
        names = sorted(path.name for path in temporary.iterdir() if path.name != last)
        for name in (*names, last):
            _sync(temporary / name)
            if (folder / name).is_dir():
                raise IsADirectoryError(errno.EISDIR, "there is a folder", str(folder / name))
        with locked(folder), _undisturbed():
            if names:
                (folder / last).unlink(missing_ok=True)
            for name in (*names, last):
                os.replace(temporary / name, folder / name)
            with suppress(OSError):  # some network file systems cannot
                _sync(folder)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
        os.close(in_use)


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Other processes and threads wait here for the same folder."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        with suppress(OSError):  # some network file systems have no locks
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _sync(path: Path) -> None:
    """Wait until a file or folder is on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _remove_abandoned(folder: Path) -> None:
    """Remove temporary folders whose process, and with it the lock, is gone."""
    for path in folder.glob(f"{PREFIX}*"):
        with suppress(OSError):
            descriptor = os.open(path, os.O_RDONLY)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(path)
            finally:
                os.close(descriptor)


@contextmanager
def _undisturbed() -> Iterator[None]:
    """Hold SIGINT and SIGTERM back; Python handles them in the main thread only."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    waiting: list[int] = []
    numbers = (signal.SIGINT, signal.SIGTERM)
    handlers = [signal.signal(n, lambda number, _: waiting.append(number)) for n in numbers]
    try:
        yield
    finally:
        for number, handler in zip(numbers, handlers, strict=True):
            signal.signal(number, handler)
        for missed in waiting:
            signal.raise_signal(missed)
