"""YAML text -> plain values; repeated keys, aliases and tags that run code are refused."""

from collections.abc import Hashable
from typing import Any

import yaml

from aslkit.core.errors import InputError

# PyYAML raises these for an invalid value of a tag (!!int x, 2020-13-45) and for deep nesting.
_UNREADABLE = (ValueError, KeyError, AttributeError, RecursionError)


def parse_yaml(source: object, text: str) -> Any:
    """Parse a YAML text.

    Parameters
    ----------
    source : object
        File or option that contains the text, for messages.

    Raises
    ------
    InputError
        When the text is not YAML, repeats a key, or has tags that run code, aliases (a few lines
        can expand to millions of values) or values that cannot be read.
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
    """SafeLoader that refuses aliases and repeated keys."""

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
