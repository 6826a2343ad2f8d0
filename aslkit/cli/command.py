"""A function -> a click command with the messages and exit codes that all commands share."""

import functools
import signal
import sys
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import fields
from pathlib import Path
from typing import TypeVar

import click

from aslkit.cli.terminal import set_up_logging
from aslkit.core.errors import AslkitError

LABELS = "L …"  # metavar of options that take one value or more
KILLED = 128  # plus the number of the signal, as shells count

Decorated = TypeVar("Decorated", bound=Callable[..., object])


def aslkit_command(epilog: str) -> Callable[[Callable[..., None]], click.Command]:
    """Decorator that makes a function a command: -h, -q, -v, --debug, logging and error lines.

    Parameters
    ----------
    epilog : str
        Examples, shown at the end of the help as they are written.
    """

    def decorate(function: Callable[..., None]) -> click.Command:
        command = click.command(
            cls=_Command,
            epilog=f"\b\n{epilog}",
            context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 99},
        )(_run_safely(function))
        command.params += _common_options()
        return command

    return decorate


class _Command(click.Command):
    """Takes `--participant-label 01 02`, as BIDS apps do, like the option given twice."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Repeat the option before each further label."""
        options = [p for p in self.params if isinstance(p, click.Option)]
        of_labels = {flag for p in options if p.metavar == LABELS for flag in p.opts}
        spread: list[str] = []
        current = ""
        for arg in args:
            if arg.startswith("-"):
                current = arg if arg in of_labels else ""
            elif current and spread[-1] != current:
                spread.append(current)
            spread.append(arg)
        return super().parse_args(ctx, spread)


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


def options_as_dataclass(
    options: Sequence[Callable[[Decorated], Decorated]], kind: Callable[..., object], name: str
) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Decorator that adds options and passes them on as one argument.

    Parameters
    ----------
    options : sequence of decorators
        By `click.option`.
    kind : dataclass
        Has a field for each of them.
    name : str
        Of the argument.
    """

    def decorate(function: Callable[..., None]) -> Callable[..., None]:
        @functools.wraps(function)
        def run(**arguments: object) -> None:
            own = {f.name: arguments.pop(f.name) for f in fields(kind)}  # type: ignore[arg-type]
            function(**{name: kind(**own)}, **arguments)

        decorated: Callable[..., None] = run
        for option in reversed(options):
            decorated = option(decorated)
        return decorated

    return decorate


def _common_options() -> list[click.Option]:
    return [
        click.Option(["-q", "--quiet"], is_flag=True, help="Print errors only."),
        click.Option(["-v", "--verbose"], is_flag=True, help="Print details of every step."),
        click.Option(["--debug"], is_flag=True, help="Show the traceback of an error."),
    ]


class _Terminated(BaseException):
    """SIGTERM came."""


def _run_safely(function: Callable[..., None]) -> Callable[..., None]:
    """Consume the common options, and turn exceptions into one line and an exit code."""

    @functools.wraps(function)
    def run(quiet: bool, verbose: bool, debug: bool, **arguments: object) -> None:
        from aslkit.batch.worker_process import collect_garbage_rarely

        collect_garbage_rarely()
        set_up_logging(quiet, verbose or debug)
        try:
            with _stopped_by_sigterm():
                function(**arguments)
        except (click.exceptions.Exit, click.Abort, click.ClickException):
            raise
        except (KeyboardInterrupt, _Terminated) as error:
            number = signal.SIGTERM if isinstance(error, _Terminated) else signal.SIGINT
            click.echo(f"Stopped by {number.name}; what was written is whole", err=True)
            sys.exit(KILLED + number)
        except Exception as error:  # the one place where every fault becomes a message
            if debug:
                traceback.print_exc()
            message, code = _message_and_code(error)
            click.echo(message, err=True)
            sys.exit(code)

    return run


@contextmanager
def _stopped_by_sigterm() -> Iterator[None]:
    """Turn SIGTERM into an exception, so that nothing is left behind."""

    def stop(*_: object) -> None:
        raise _Terminated

    previous = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, previous)


def _message_and_code(error: Exception) -> tuple[str, int]:
    """Return the line that is printed for an exception, and the exit code."""
    from aslkit.core.exit_codes import INTERNAL_ERROR, message_and_code

    text, code = message_and_code(error)
    if code != INTERNAL_ERROR or isinstance(error, AslkitError):
        return f"Error: {text}", code
    return f"Internal error: {text}; run again with --debug for the traceback", code
