"""Files of one result -> their folder, all or none, even if the process is killed."""

import errno
import fcntl
import os
import shutil
import signal
import tempfile
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

PREFIX = ".aslkit-"


@contextmanager
def write_together(folder: Path, last: str, gone: Sequence[str] = ()) -> Iterator[Path]:
    """Yield a temporary folder whose files move into `folder` if the block succeeds.

    Every file is on the disk before the first one moves. A single file replaces its predecessor
    in one step. For several files, the predecessors are removed first, `last` before the others,
    and `last` is moved last: if it exists, the set is complete, and two sets are never mixed.
    Processes that write into one folder wait for each other. Files of killed processes are
    removed.

    Parameters
    ----------
    folder : Path
        Created if it does not exist.
    last : str
        Name of the file that marks a complete set.
    gone : sequence of str
        Names in an earlier set that this set does not have.

    Raises
    ------
    OSError
        When a file cannot be written; nothing has changed then.
    """
    with _temporary_in(folder) as temporary:
        yield temporary
        names = sorted(path.name for path in temporary.iterdir() if path.name != last)
        for name in (*names, last):
            _sync(temporary / name)
            if (folder / name).is_dir():
                raise IsADirectoryError(errno.EISDIR, "there is a folder", str(folder / name))
        with locked(folder), _undisturbed():
            for name in (last, *names, *gone) if names else ():
                (folder / name).unlink(missing_ok=True)
            for name in (*names, last):
                os.replace(temporary / name, folder / name)
            _sync_names(folder)


@contextmanager
def write_folder(out: Path) -> Iterator[Path]:
    """Yield a temporary folder that becomes `out` on success and is removed on failure.

    Raises
    ------
    OSError
        When a file cannot be written, or `out` is not empty; nothing has changed then.
    """
    out = Path(os.path.realpath(out))
    with _temporary_in(out.parent) as temporary:
        folder = temporary / out.name
        folder.mkdir()
        yield folder
        _sync_all(folder)
        with _undisturbed():
            os.rename(folder, out)  # replaces an empty folder, never files
            _sync_names(out.parent)


@contextmanager
def write_folders(root: Path, names: Sequence[str]) -> Iterator[Path]:
    """Yield a temporary folder whose subfolders `names` replace those of `root` on success.

    The last name marks a complete set: it is removed first and moved last.

    Raises
    ------
    OSError
        When a file cannot be written.
    """
    with _temporary_in(root) as temporary:
        yield temporary
        _sync_all(temporary)
        with locked(root), _undisturbed():
            for i, name in enumerate(reversed(names)):
                if (root / name).exists():
                    os.rename(root / name, temporary / f"old-{i}")
            for name in names:
                (root / name).parent.mkdir(parents=True, exist_ok=True)
                os.rename(temporary / name, root / name)
                _sync_names((root / name).parent)


@contextmanager
def _temporary_in(folder: Path) -> Iterator[Path]:
    """Yield a locked temporary folder; abandoned (unlocked) ones are removed."""
    folder.mkdir(parents=True, exist_ok=True)
    with locked(folder):
        _remove_abandoned(folder)
        temporary = Path(tempfile.mkdtemp(dir=folder, prefix=PREFIX))
        in_use = os.open(temporary, os.O_RDONLY)
        with suppress(OSError):  # some network file systems have no locks
            fcntl.flock(in_use, fcntl.LOCK_EX)
    try:
        yield temporary
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
        os.close(in_use)


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Hold a lock on a folder; other processes and threads wait for it."""
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


def _sync_all(folder: Path) -> None:
    """Wait until everything below a folder is on the disk."""
    for path in folder.rglob("*"):
        _sync_names(path) if path.is_dir() else _sync(path)


def _sync_names(folder: Path) -> None:
    """Wait until the names in a folder are on the disk."""
    with suppress(OSError):  # some network file systems cannot
        _sync(folder)


def _remove_abandoned(folder: Path) -> None:
    """Remove temporary folders of ended processes, which hold no lock."""
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
    """Delay SIGINT and SIGTERM to the end of the block; their handlers are restored.

    Python calls signal handlers in the main thread only; other threads are not interrupted.
    """
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
            signal.signal(number, signal.SIG_DFL if handler is None else handler)
        for missed in waiting:
            signal.raise_signal(missed)
