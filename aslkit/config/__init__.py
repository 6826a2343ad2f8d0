"""YAML -> a checked training configuration; an unknown key is an error."""

import logging
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError
from pydantic_core import ErrorDetails

from aslkit.config.plan_names import PLAN_NAMES, rename
from aslkit.config.schema import KINDS, SECTIONS, DataConfig, TrainingConfig
from aslkit.errors import InputError
from aslkit.textfiles import read_text
from aslkit.yamlfiles import parse_yaml

__all__ = ["DataConfig", "TrainingConfig", "dump_config", "list_configs", "load_config"]

logger = logging.getLogger(__name__)

FOLDER = Path(__file__).parent


def list_configs() -> dict[str, Path]:
    """Name and file of every configuration inside the package."""
    return {p.stem: p for p in sorted(FOLDER.glob("*.yaml"))}


def load_config(name_or_file: str, changes: tuple[str, ...] = ()) -> TrainingConfig:
    """A configuration by name or file, with changes of the form "section.key=value".

    Keys of the founding plan are converted, and what was made of them is logged.

    Raises
    ------
    InputError
        When there is no such configuration, or a key or value is not allowed.
    """
    path = list_configs().get(name_or_file, Path(name_or_file))
    if not path.is_file():
        raise InputError(
            "--config",
            "",
            found=name_or_file,
            expected=f"a YAML file or one of {', '.join(list_configs())}",
            fix="see asl_train --list-configs",
        )
    try:
        values = parse_yaml(path, read_text(path))
        if not isinstance(values, dict):
            raise _refused(path, "", type(values).__name__, "keys and values")
        notes = rename(values, _set)
        for change in changes:
            _change(values, change)
        for note in notes + rename(values, _set):
            logger.warning("%s: %s", path.name, note)
        return TrainingConfig.model_validate(values)
    except ValidationError as error:
        raise _explained(path, error.errors()[0]) from error


def dump_config(config: TrainingConfig) -> str:
    """The resolved configuration as YAML."""
    return yaml.safe_dump(config.model_dump(mode="json", exclude_none=True), sort_keys=False)


def _explained(path: Path, error: ErrorDetails) -> InputError:
    """The first fault in a configuration; for an unknown key, the known ones like it."""
    parts = [str(part) for part in error["loc"] if part not in KINDS]
    found, expected = repr(error["input"]), error["msg"].removeprefix("Value error, ")
    if error["type"] == "value_error":
        found = "other sections" if not parts else found
    if error["type"] == "extra_forbidden":
        known = [*SECTIONS, *PLAN_NAMES]
        near = get_close_matches(".".join(parts), known) or get_close_matches(
            parts[-1], [name.rpartition(".")[2] for name in known]
        )
        expected = f"a known key{', like ' + ' or '.join(near) if near else ''}"
    return _refused(path, ".".join(parts), found, expected)


def _refused(source: object, field: str, found: str, expected: str) -> InputError:
    return InputError(
        source,
        field,
        found=found,
        expected=expected,
        fix="correct the value or the name of the key, see docs/training.md",
    )


def _change(values: dict[str, Any], change: str) -> None:
    """Apply "section.key=value"."""
    key, sign, value = change.partition("=")
    if not sign:
        raise _refused("--set", change, change, "section.key=value")
    _set(values, key, parse_yaml("--set", value))


def _set(values: dict[str, Any], key: str, value: Any) -> None:
    """Set "section.key" of nested mappings."""
    *sections, last = key.split(".")
    target = values
    for section in sections:
        target = target.setdefault(section, {})
        if not isinstance(target, dict):
            raise _refused("--set", key, section, "section.key=value")
    target[last] = value
