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
    """Print a result, unless --quiet was given."""
    if logging.getLogger("aslkit").isEnabledFor(logging.INFO):
        try:
            click.echo(text, file=_LOG.get())
        except BrokenPipeError:  # the reader of the output has ended; the command goes on
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def print_warning(text: str) -> None:
    """Print a warning."""
    logging.getLogger("aslkit").warning(text)


@contextmanager
def logging_into(log: TextIO) -> Iterator[None]:
    """Write the results, warnings and log lines of this thread to a file."""
    token = _LOG.set(log)
    try:
        yield
    finally:
        _LOG.reset(token)


def progress(steps: Sequence[Step]) -> Iterable[Step]:
    """Show a progress bar on stderr if it is a terminal."""
    from tqdm import tqdm

    is_shown = _LOG.get() is None and sys.stderr.isatty()
    return tqdm(steps, disable=not is_shown, leave=False, file=sys.stderr, delay=1)


def console() -> "Console":
    """Return the printing functions for the batch driver, with the verbosity of this process."""
    from aslkit.batch.driver import Console

    is_verbose = logging.getLogger("aslkit").isEnabledFor(logging.DEBUG)
    set_up_worker = functools.partial(set_up_logging, verbose=is_verbose)
    return Console(print_result, logging_into, set_up_worker)


class _EchoHandler(logging.Handler):
    """Print log records as plain lines to the log of this thread, or to stderr."""

    def emit(self, record: logging.LogRecord) -> None:
        prefix = f"{record.levelname.title()}: " if record.levelno >= logging.WARNING else ""
        click.echo(prefix + record.getMessage(), file=_LOG.get() or sys.stderr)


def set_up_logging(quiet: bool = False, verbose: bool = False) -> None:
    """Print errors only (quiet), results and warnings (default), or also details (verbose)."""
    logger = logging.getLogger("aslkit")
    logger.handlers = [_EchoHandler()]
    logger.setLevel(logging.ERROR if quiet else logging.DEBUG if verbose else logging.INFO)


@contextmanager
def logging_set_up(quiet: bool, verbose: bool) -> Iterator[None]:
    """Set up logging, and restore the handlers and the level at the end."""
    logger = logging.getLogger("aslkit")
    handlers, level = logger.handlers, logger.level
    set_up_logging(quiet, verbose)
    try:
        yield
    finally:
        logger.handlers = handlers
        logger.setLevel(level)
