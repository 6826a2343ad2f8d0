"""YAML -> a checked training configuration; an unknown key is an error.

The default model uses `schema`, `network_kinds` and `adaptation`. `fixed_protocol` serves the
experiments and models for one protocol; `old_keys` reads configurations of earlier versions.
"""

import logging
import reprlib
from difflib import get_close_matches
from pathlib import Path
from textwrap import shorten
from typing import Any

import yaml
from pydantic import ValidationError
from pydantic_core import ErrorDetails

from aslkit.bids.json_files import read_text
from aslkit.config.old_keys import PLAN_KEYS, update_keys
from aslkit.config.schema import SECTION_KINDS, SECTIONS, AnyProtocolConfig, TrainingConfig
from aslkit.config.yaml_files import parse_yaml
from aslkit.core.errors import InputError

__all__ = [
    "AnyProtocolConfig",
    "TrainingConfig",
    "describe_configs",
    "dump_config",
    "is_dump_of",
    "list_configs",
    "load_config",
]

logger = logging.getLogger(__name__)

MAX_SHOWN = 80  # characters of a wrong value in messages
FOR_USERS = {
    "aslnet": "any protocol, with neighbouring slices: the default model",
    "small": "any protocol, one slice at a time: trains faster than aslnet",
    "own_protocol": "one protocol of your own: a base for docs/how-to/own-protocol.md",
}
FOLDER = Path(__file__).parent / "experiments"


def list_configs() -> dict[str, Path]:
    """Return name and file of every configuration in the package."""
    return {p.stem: p for p in sorted(FOLDER.glob("*.yaml"))}


def describe_configs() -> dict[str, str]:
    """Return a line about each configuration for users, and one with the names of the others."""
    others = [name for name in list_configs() if name not in FOR_USERS]
    return {**FOR_USERS, "experiments of docs/experiments.md": " ".join(others)}


def load_config(name_or_file: str, changes: tuple[str, ...] = ()) -> TrainingConfig:
    """Load a configuration by name or file, with changes of the form "section.key=value".

    With `base: NAME|FILE`, a file holds only what differs from that configuration. Keys of earlier
    versions are converted, with a logged message.

    Raises
    ------
    InputError
        When there is no such configuration, or a key or value is not allowed.
    """
    path = _find(name_or_file)
    try:
        values = _read(path)
        for change in changes:
            _change(values, change)
        _convert(path, values)
        return TrainingConfig.model_validate(values)
    except ValidationError as error:
        raise _explained(path, error.errors()[0]) from error


def dump_config(config: TrainingConfig) -> str:
    """Return the resolved configuration as YAML."""
    return yaml.safe_dump(config.model_dump(mode="json", exclude_none=True), sort_keys=False)


def is_dump_of(text: str, config: TrainingConfig) -> bool:
    """Check that `dump_config` of this or the last version wrote this text for `config`."""
    values = yaml.safe_load(text)
    update_keys(values, _set)
    try:
        return TrainingConfig.model_validate(values) == config
    except ValidationError:
        return False


def _find(name_or_file: str) -> Path:
    path = list_configs().get(name_or_file, Path(name_or_file))
    if not path.is_file():
        raise InputError(
            "--config",
            "",
            found=name_or_file,
            expected=f"a YAML file or one of {', '.join(list_configs())}",
            fix="see asl_train --list-configs",
        )
    return path


def _read(path: Path, above: tuple[Path, ...] = ()) -> dict[str, Any]:
    """Read the values of a file, merged with those of its base."""
    values = parse_yaml(path, read_text(path))
    if not isinstance(values, dict):
        raise _refused(path, "", type(values).__name__, "keys and values")
    _convert(path, values)
    if "base" not in values:
        return values
    base = _find(str(values.pop("base")))
    if base in (path, *above):
        raise _refused(path, "base", str(base), "a configuration that is not based on this one")
    return _merged(_read(base, (path, *above)), values)


def _convert(path: Path, values: dict[str, Any]) -> None:
    """Convert earlier keys to those of the schema, with one message each."""
    for note in update_keys(values, _set):
        logger.warning("%s: %s", path.name, note)


def _merged(base: dict[str, Any], values: dict[str, Any]) -> dict[str, Any]:
    """Merge values with those of a base; a section of another kind replaces that of the base."""
    sections = {
        key: {**base[key], **given}
        for key, given in values.items()
        if isinstance(given, dict)
        and isinstance(base.get(key), dict)
        and given.get("kind", base[key].get("kind")) == base[key].get("kind")
    }
    return base | values | sections


def _explained(path: Path, error: ErrorDetails) -> InputError:
    """Return the first error in a configuration; for an unknown key, with similar known keys."""
    parts = [str(part) for part in error["loc"] if part not in SECTION_KINDS]
    found = shorten(reprlib.repr(error["input"]), MAX_SHOWN)
    expected = error["msg"].removeprefix("Value error, ")
    if error["type"] == "value_error" and not parts:
        found = "other sections"
    if error["type"] == "extra_forbidden":
        known = [*SECTIONS, *PLAN_KEYS]
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
