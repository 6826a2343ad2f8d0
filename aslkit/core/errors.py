"""A fault in what the user gave -> one clear sentence and an exit code."""


class AslkitError(Exception):
    """Base of every error that aslkit reports without a traceback."""

    exit_code = 1


class InputError(AslkitError):
    """Invalid input: names the file, the field, what was found and expected, and the fix.

    Parameters
    ----------
    source : str
        File (or command-line option) that carries the fault.
    field : str
        Field, column or property at fault; empty for the file as a whole.
    found, expected, fix : str
        What stands there, what should, and what to do about it.
    """

    exit_code = 3

    def __init__(
        self, source: object, field: str, *, found: object, expected: str, fix: str
    ) -> None:
        where = f"{source}: {field}" if field else str(source)
        super().__init__(f"{where}: found {found}, expected {expected}. Fix: {fix}.")


class UnavailableError(AslkitError):
    """A requested device or model is not there."""

    exit_code = 5


def not_installed(package: str, extra: str, option: str) -> UnavailableError:
    """An optional package is missing: the extra that brings it, and the option that needs it."""
    return UnavailableError(
        f"{package} is not installed. Fix: pip install 'aslkit[{extra}]', or leave out {option}."
    )


class DivergenceError(AslkitError):
    """A training run whose loss is no longer finite."""

    def __init__(self, step: int, learning_rate: float) -> None:
        super().__init__(
            f"the loss of step {step} is not finite; the last checkpoint and model stay. "
            f"Fix: train with a learning_rate below {learning_rate:g} in another --out, from the "
            "start or with --init-from from that model."
        )


class SubjectsFailedError(AslkitError):
    """At least one subject of a data set failed."""

    exit_code = 4
