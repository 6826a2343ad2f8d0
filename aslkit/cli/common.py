"""A function -> a click command with the messages and exit codes that all commands share."""

import functools
import logging
import sys
import traceback
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TypeVar

import click

from aslkit.errors import AslkitError

INTERNAL_ERROR = 1

Step = TypeVar("Step")
Decorated = TypeVar("Decorated", bound=Callable[..., object])


def aslkit_command(
    epilog: str | None = None, short_help: str | None = None
) -> Callable[[Callable[..., None]], click.Command]:
    """Decorator that makes a function a command: -h, -q, -v, --debug, logging and error lines.

    Parameters
    ----------
    epilog : str, optional
        Examples, shown at the end of the help as they are written.
    short_help : str, optional
        One line for lists of commands.
    """

    def decorate(function: Callable[..., None]) -> click.Command:
        command = click.command(
            epilog=epilog and f"\b\n{epilog}",
            short_help=short_help,
            context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 99},
        )(_run_safely(function))
        command.params += _common_options()
        return command

    return decorate


def listing_option(
    flag: str, entries: Callable[[], Mapping[str, str | Path]], help_text: str
) -> Callable[[Decorated], Decorated]:
    """An option that prints names and what there is to say of each, and stops."""

    def show(context: click.Context, _: click.Parameter, is_wanted: bool) -> None:
        if is_wanted and not context.resilient_parsing:
            for name, text in entries().items():
                click.echo(f"{name}\t{text}")
            context.exit()

    return click.option(
        flag, is_flag=True, is_eager=True, expose_value=False, callback=show, help=help_text
    )


def say(text: str) -> None:
    """Print a result, unless the user asked for quiet."""
    if logging.getLogger("aslkit").isEnabledFor(logging.INFO):
        click.echo(text)


def progress(steps: Sequence[Step]) -> Iterable[Step]:
    """A bar on stderr, on a terminal only."""
    from tqdm import tqdm

    return tqdm(steps, disable=not sys.stderr.isatty(), leave=False, file=sys.stderr, delay=1)


def _common_options() -> list[click.Option]:
    return [
        click.Option(["-q", "--quiet"], is_flag=True, help="Print errors only."),
        click.Option(["-v", "--verbose"], is_flag=True, help="Print details of every step."),
        click.Option(["--debug"], is_flag=True, help="Show the traceback of an error."),
    ]


def _run_safely(function: Callable[..., None]) -> Callable[..., None]:
    """Consume the common options, and turn exceptions into one line and an exit code."""

    @functools.wraps(function)
    def run(quiet: bool, verbose: bool, debug: bool, **arguments: object) -> None:
        _set_up_logging(quiet, verbose or debug)
        try:
            function(**arguments)
        except (click.exceptions.Exit, click.Abort, click.ClickException):
            raise
        except Exception as error:  # the one place where every fault becomes a message
            if debug:
                traceback.print_exc()
            click.echo(message_of(error), err=True)
            sys.exit(error.exit_code if isinstance(error, AslkitError) else INTERNAL_ERROR)

    return run


def message_of(error: Exception) -> str:
    """An exception as one line."""
    text = " ".join(str(error).split())
    if isinstance(error, AslkitError):
        return f"Error: {text}"
    return (
        f"Internal error: {type(error).__name__}: {text}; run again with --debug for the traceback"
    )


class _EchoHandler(logging.Handler):
    """Log records as plain lines on whatever stderr is at the time."""

    def emit(self, record: logging.LogRecord) -> None:
        prefix = f"{record.levelname.title()}: " if record.levelno >= logging.WARNING else ""
        click.echo(prefix + record.getMessage(), err=True)


def _set_up_logging(quiet: bool, verbose: bool) -> None:
    logger = logging.getLogger("aslkit")
    logger.handlers = [_EchoHandler()]
    logger.setLevel(logging.ERROR if quiet else logging.DEBUG if verbose else logging.INFO)
