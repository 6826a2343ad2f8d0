"""An exception -> the message for the user and the exit code of the command."""

from aslkit.core.errors import InputError

INTERNAL_ERROR = 1
OUT_OF_MEMORY = 6


def message_and_code(error: BaseException) -> tuple[str, int]:
    """Return the message of an exception for the user, and the exit code of the command.

    An exception with an integer `exit_code`, like those of aslkit and click, keeps its code.
    """
    text = " ".join(str(error).split())
    code = getattr(error, "exit_code", None)
    if isinstance(code, int):
        return text, code
    if isinstance(error, OSError) and error.errno:
        return (
            f"{error.filename or 'the disk'}: found {error.strerror!r}, expected a place with "
            "room and permission. Fix: make room, or give another place.",
            InputError.exit_code,
        )
    if isinstance(error, MemoryError):
        return (
            f"out of memory{f' ({text})' if text else ''}. Fix: process fewer scans at a time, "
            "give a smaller --batch, or use a machine with more memory.",
            OUT_OF_MEMORY,
        )
    return f"{type(error).__name__}: {text}", INTERNAL_ERROR
