"""Small text files -> text and JSON objects, with a clear error for every fault."""

import json
import os
from pathlib import Path

from aslkit.core.errors import InputError

LARGEST_BYTES = 10_000_000  # sidecars hold kilobytes


def read_text(path: Path) -> str:
    """Read the UTF-8 text of a file, without a byte-order mark.

    Raises
    ------
    InputError
        When it is not a regular file, too large, or not UTF-8.
    """
    fix = "save it as UTF-8 text and check its permissions"
    if not os.path.isfile(path):
        raise InputError(path, "", found="no regular file", expected="a text file", fix=fix)
    try:
        size = path.stat().st_size
        if size > LARGEST_BYTES:
            raise InputError(
                path,
                "",
                found=f"{size / 1e6:.0f} MB",
                expected=f"a text file of at most {LARGEST_BYTES / 1e6:.0f} MB",
                fix="keep the metadata fields only",
            )
        return path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        found = f"bytes that are not UTF-8 text (at {error.start})"
        raise InputError(path, "", found=found, expected="a text file", fix=fix) from error
    except OSError as error:
        found = f"a file that cannot be read ({error.strerror})"
        raise InputError(path, "", found=found, expected="a text file", fix=fix) from error


def read_json(path: Path) -> dict[str, object]:
    """Read the fields of a JSON object.

    Raises
    ------
    InputError
        When the file is not a JSON object, or names a field twice.
    """
    text = read_text(path)
    try:
        content = json.loads(text, object_pairs_hook=_without_duplicates)
    except json.JSONDecodeError as error:
        raise InputError(
            path,
            f"line {error.lineno}",
            found=f"invalid JSON ({error.msg})",
            expected="a JSON object",
            fix="correct the line; a missing or surplus comma is the usual cause",
        ) from error
    except _DuplicateFieldError as error:
        raise InputError(
            path,
            str(error),
            found="the field twice",
            expected="every field once",
            fix="remove one of them",
        ) from error
    except (RecursionError, ValueError) as error:  # ValueError: a number of thousands of digits
        raise InputError(
            path,
            "",
            found="JSON nested too deeply, or a number of thousands of digits",
            expected="a flat JSON object",
            fix="rewrite it",
        ) from error
    if not isinstance(content, dict):
        raise InputError(
            path,
            "",
            found=f"a JSON {type(content).__name__}",
            expected='a JSON object, {"Field": value, …}',
            fix="write the fields inside braces",
        )
    return content


class _DuplicateFieldError(Exception):
    """A JSON object that names a field twice."""


def _without_duplicates(pairs: list[tuple[str, object]]) -> dict[str, object]:
    fields = dict(pairs)
    if len(fields) < len(pairs):
        names = [name for name, _ in pairs]
        raise _DuplicateFieldError(next(name for name in names if names.count(name) > 1))
    return fields
