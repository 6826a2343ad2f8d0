"""Errors that users see -> one sentence and an exit code."""


class AslkitError(Exception):
    """Base class of all errors that the commands report without traceback."""

    exit_code = 1


class InputError(AslkitError):
    """Invalid input. The message states the file, the field, the fault and the fix.

    Parameters
    ----------
    source : str
        File or command-line option.
    field : str
        Field, column or property; empty for the whole file.
    found, expected, fix : str
        What was found, what is expected, and how to correct it.
    """

    exit_code = 3

    def __init__(
        self, source: object, field: str, *, found: object, expected: str, fix: str
    ) -> None:
        where = f"{source}: {field}" if field else str(source)
        super().__init__(f"{where}: found {found}, expected {expected}. Fix: {fix}.")


class UnavailableError(AslkitError):
    """A requested device, model or package is not available."""

    exit_code = 5


def not_installed(package: str, extra: str, option: str) -> UnavailableError:
    """Return the error for a missing optional package.

    Its message names the extra that installs the package and the option that needs it.
    """
    return UnavailableError(
        f"{package} is not installed. Fix: pip install 'aslkit[{extra}]', or leave out {option}."
    )


class DivergenceError(AslkitError):
    """The loss of a training run is not finite."""

    def __init__(self, step: int, learning_rate: float) -> None:
        super().__init__(
            f"the loss of step {step} is not finite; the last checkpoint and model stay. "
            f"Fix: train with a learning_rate below {learning_rate:g} in another --out, from the "
            "start or with --init-from from that model."
        )


class SubjectsFailedError(AslkitError):
    """At least one subject of a data set failed."""

    exit_code = 4
