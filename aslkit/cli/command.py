"""A function -> a click command with the common options, messages and exit codes."""

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

from aslkit.cli.terminal import logging_set_up
from aslkit.core.errors import AslkitError

LABELS = "L …"  # metavar of options that take one or more labels
KILLED = 128  # exit code of a command stopped by signal n: 128 + n

Decorated = TypeVar("Decorated", bound=Callable[..., object])


def aslkit_command(
    name: str, epilog: str, renamed: Mapping[str, str] | None = None
) -> Callable[[Callable[..., None]], click.Command]:
    """Decorate a function to make it a command with the options and messages of all commands.

    Parameters
    ----------
    name : str
        Name of the command, like "asl_predict".
    epilog : str
        Examples, printed unchanged at the end of the help.
    renamed : mapping, optional
        New names of options by their old names, which are accepted with a warning.
    """

    def decorate(function: Callable[..., None]) -> click.Command:
        command: _Command = click.command(
            name,
            cls=_Command,
            epilog=f"\b\n{epilog}",
            context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 99},
        )(_run_safely(function))
        command.params += _common_options(name)
        command.renamed = renamed or {}
        return command

    return decorate


class _Command(click.Command):
    """A command that accepts `--participant-label 01 02` like BIDS Apps, and renamed options."""

    renamed: Mapping[str, str]

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Replace old names of options, and repeat the option before each further label."""
        args = [self._current_name(arg) for arg in args]
        options = [p for p in self.params if isinstance(p, click.Option)]
        label_flags = {flag for p in options if p.metavar == LABELS for flag in p.opts}
        repeated: list[str] = []
        current = ""
        for arg in args:
            if arg.startswith("-"):
                current = arg if arg in label_flags else ""
            elif current and repeated[-1] != current:
                repeated.append(current)
            repeated.append(arg)
        return super().parse_args(ctx, repeated)

    def _current_name(self, arg: str) -> str:
        old, equals, value = arg.partition("=")
        if old not in self.renamed:
            return arg
        new = self.renamed[old]
        click.echo(f"Warning: {old} is now {new}; the next release removes {old}", err=True)
        return f"{new}{equals}{value}"


def listing_option(
    flag: str, entries: Callable[[], Mapping[str, str | Path]], help_text: str
) -> Callable[[Decorated], Decorated]:
    """Make an option that prints a line for every entry and exits."""

    def show(context: click.Context, _: click.Parameter, is_requested: bool) -> None:
        if is_requested and not context.resilient_parsing:
            for name, text in entries().items():
                click.echo(f"{name}\t{text}")
            context.exit()

    return click.option(
        flag, is_flag=True, is_eager=True, expose_value=False, callback=show, help=help_text
    )


def options_as_dataclass(
    options: Sequence[Callable[[Decorated], Decorated]], kind: Callable[..., object], name: str
) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Decorate a command to add options, which it receives as one dataclass argument.

    Parameters
    ----------
    options : sequence of decorators
        Results of `click.option` or `click.argument`.
    kind : dataclass
        Has one field for each option.
    name : str
        Name of the argument.
    """

    def decorate(function: Callable[..., None]) -> Callable[..., None]:
        @functools.wraps(function)
        def run(**arguments: object) -> None:
            values = {f.name: arguments.pop(f.name) for f in fields(kind)}  # type: ignore[arg-type]
            function(**{name: kind(**values)}, **arguments)

        decorated: Callable[..., None] = run
        for option in reversed(options):
            decorated = option(decorated)
        return decorated

    return decorate


def _common_options(name: str) -> list[click.Option]:
    return [
        click.Option(["-q", "--quiet"], is_flag=True, help="Print errors only."),
        click.Option(["-v", "--verbose"], is_flag=True, help="Print details of every step."),
        click.Option(["--debug"], is_flag=True, help="Show the traceback of an error."),
        click.Option(
            ["--version"],
            is_flag=True,
            is_eager=True,
            expose_value=False,
            callback=functools.partial(_print_version, name),
            help="Print the version and exit.",
        ),
    ]


def _print_version(
    name: str, context: click.Context, _: click.Parameter, is_requested: bool
) -> None:
    if is_requested and not context.resilient_parsing:
        from aslkit.outputs.provenance import version

        click.echo(f"{name}, aslkit {version()}")
        context.exit()


class _Terminated(BaseException):
    """SIGTERM was received."""


def _run_safely(function: Callable[..., None]) -> Callable[..., None]:
    """Consume the common options, and turn exceptions into one line and an exit code."""

    @functools.wraps(function)
    def run(quiet: bool, verbose: bool, debug: bool, **arguments: object) -> None:
        from aslkit.batch.worker_process import rare_garbage_collection

        try:
            with (
                rare_garbage_collection(),
                logging_set_up(quiet, verbose or debug),
                _stopped_by_sigterm(),
            ):
                function(**arguments)
        except (click.exceptions.Exit, click.Abort, click.ClickException):
            raise
        except (KeyboardInterrupt, _Terminated) as error:
            number = signal.SIGTERM if isinstance(error, _Terminated) else signal.SIGINT
            click.echo(f"Stopped by {number.name}; files written so far are complete", err=True)
            sys.exit(KILLED + number)
        except Exception as error:  # the one place where every error becomes a message
            if debug:
                traceback.print_exc()
            message, code = _message_and_code(error)
            click.echo(message, err=True)
            sys.exit(code)

    return run


@contextmanager
def _stopped_by_sigterm() -> Iterator[None]:
    """Raise an exception on SIGTERM, so that temporary files are removed."""

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
