"""YAML text -> plain values, without the parts of YAML that surprise, run code or never end."""

from collections.abc import Hashable
from typing import Any

import yaml

from aslkit.core.errors import InputError

# What PyYAML raises for a wrong value of a tag (!!int x, 2020-13-45) or for too deep a nesting.
_UNREADABLE = (ValueError, KeyError, AttributeError, RecursionError)


def parse_yaml(source: object, text: str) -> Any:
    """The value that a YAML text holds.

    Parameters
    ----------
    source : object
        The file or option that the text is from, for messages.

    Raises
    ------
    InputError
        When it is no YAML, names a key twice, or has tags that run code, aliases (of which a few
        lines make millions of values), or values that cannot be read.
    """
    try:
        return yaml.load(text, _PlainLoader)  # noqa: S506  # a SafeLoader
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        field = f"line {mark.line + 1}" if mark else ""
        reason = getattr(error, "problem", None) or str(error).splitlines()[0]
        raise _refused(source, field, reason.removeprefix("found ")) from error
    except _UNREADABLE as error:
        raise _refused(source, "", "a value that cannot be read, or nested too deeply") from error


class _PlainLoader(yaml.SafeLoader):
    """Refuses aliases and repeated keys."""

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        if self.check_event(yaml.AliasEvent):
            mark = self.peek_event().start_mark
            raise yaml.composer.ComposerError(None, None, "an alias (*)", mark)
        return super().compose_node(parent, index)

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        names = set()
        for name, _ in node.value:
            if str(name.value) in names:
                problem = f"the key {name.value} twice"
                raise yaml.constructor.ConstructorError(None, None, problem, name.start_mark)
            names.add(str(name.value))
        return super().construct_mapping(node, deep)


def _refused(source: object, field: str, found: str) -> InputError:
    return InputError(
        source,
        field,
        found=found,
        expected="YAML, plain and every key once",
        fix="correct it, see docs/training.md",
    )
