"""Results, warnings and progress -> the terminal, or the log of a scan."""

import functools
import logging
import os
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING, TextIO, TypeVar

import click

if TYPE_CHECKING:
    from aslkit.batch.driver import Console

_LOG: ContextVar[TextIO | None] = ContextVar("log", default=None)

Step = TypeVar("Step")


def print_result(text: str) -> None:
    """Print a result, unless the user asked for quiet."""
    if logging.getLogger("aslkit").isEnabledFor(logging.INFO):
        try:
            click.echo(text, file=_LOG.get())
        except BrokenPipeError:  # whoever read the output has gone; the results are still wanted
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def print_warning(text: str) -> None:
    """Print a warning."""
    logging.getLogger("aslkit").warning(text)


@contextmanager
def logging_into(log: TextIO) -> Iterator[None]:
    """Have this thread's results, warnings and log lines in a file instead of the terminal."""
    token = _LOG.set(log)
    try:
        yield
    finally:
        _LOG.reset(token)


def progress(steps: Sequence[Step]) -> Iterable[Step]:
    """A bar on stderr, on a terminal only."""
    from tqdm import tqdm

    is_seen = _LOG.get() is None and sys.stderr.isatty()
    return tqdm(steps, disable=not is_seen, leave=False, file=sys.stderr, delay=1)


class _EchoHandler(logging.Handler):
    """Log records as plain lines in the log of the thread, or on whatever stderr is."""

    def emit(self, record: logging.LogRecord) -> None:
        prefix = f"{record.levelname.title()}: " if record.levelno >= logging.WARNING else ""
        click.echo(prefix + record.getMessage(), file=_LOG.get() or sys.stderr)


def set_up_logging(quiet: bool = False, verbose: bool = False) -> None:
    """Show errors, or also results and warnings, or also details."""
    logger = logging.getLogger("aslkit")
    logger.handlers = [_EchoHandler()]
    logger.setLevel(logging.ERROR if quiet else logging.DEBUG if verbose else logging.INFO)


def console() -> "Console":
    """Return how the batch driver prints, with the verbosity of this process."""
    from aslkit.batch.driver import Console

    is_verbose = logging.getLogger("aslkit").isEnabledFor(logging.DEBUG)
    set_up_worker = functools.partial(set_up_logging, verbose=is_verbose)
    return Console(print_result, logging_into, set_up_worker)
