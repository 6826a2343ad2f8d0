"""Pages as written -> pages as built, with tables that are made from the package.

A function in `BUILDERS` makes what replaces the mark `<!-- built: NAME -->`. A directive of
sphinx-click replaces the help text of each command, and adds a link target for each option.
"""

import re
from collections.abc import Iterator, Mapping
from typing import Any

from pydantic import BaseModel
from sphinx.pycode import ModuleAnalyzer

from aslkit.config.adaptation import AdaptationConfig
from aslkit.config.schema import (
    AmplitudeAwareConfig,
    AnyProtocolConfig,
    BrainUNetConfig,
    FixedProtocolConfig,
    LossConfig,
    RawEncodingConfig,
    ResidualConfig,
    TrainingConfig,
    ValidationConfig,
    VoxelwiseConfig,
)
from aslkit.nets.card_text import describe_card
from aslkit.nets.model_store import DEFAULT_MODEL, list_models, read_card

MARK = re.compile(r"<!-- built: (\w+) -->")
PRINTED_HELP = re.compile(r"## asl_\w+\n\n```text\nUsage: asl_(\w+) .*?```", re.DOTALL)
CLICK = "```{{eval-rst}}\n.. click:: aslkit.cli.{0}:main\n   :prog: asl_{0}\n```"
SECTIONS: Mapping[str, type[BaseModel]] = {
    "The run": TrainingConfig,
    "`network` of kind `physics_residual`": ResidualConfig,
    "`network` of kind `voxelwise`": VoxelwiseConfig,
    "`network` of kind `spatial` or `dual_encoder`": BrainUNetConfig,
    "`network` of kind `amplitude_aware`": AmplitudeAwareConfig,
    "`encoding` of kind `raw`": RawEncodingConfig,
    "`loss`": LossConfig,
    "`data` of kind `any_protocol`": AnyProtocolConfig,
    "`data` of kind `fixed_protocol`": FixedProtocolConfig,
    "`validation`": ValidationConfig,
    "`adaptation`": AdaptationConfig,
}
KEYS_WITHOUT_ROW = {  # sections with a table of their own, and `kind`, which is in their titles
    "kind",
    "network",
    "encoding",
    "loss",
    "data",
    "validation",
    "adaptation",
}
UNITS = {"_s": "s", "_minutes": "min"}
LIMITS = {
    "minimum": "≥ {}",
    "exclusiveMinimum": "> {}",
    "maximum": "≤ {}",
    "exclusiveMaximum": "< {}",
    "multipleOf": "multiple of {}",
    "minItems": "{} or more",
}


def fill(_: object, __: str, source: list[str]) -> None:
    """Replace help texts and marks in the text of a page (event `source-read`)."""
    text = PRINTED_HELP.sub(lambda found: CLICK.format(found[1]), source[0])
    source[0] = MARK.sub(lambda found: BUILDERS[found[1]](), text)


def configuration() -> str:
    """Return a table of keys per section, from the schema and the docstrings of its fields."""
    return "\n\n".join("\n".join(_section(*item)) for item in SECTIONS.items())


def model_cards() -> str:
    """Return the card of every model as a list."""
    parts = []
    for name, folder in list_models().items():
        lines = [line.replace(": ", ":** ", 1) for line in describe_card(read_card(folder))]
        default = ", the default" if name == DEFAULT_MODEL else ""
        parts.append("\n".join([f"## {name}{default}", "", *(f"- **{line}" for line in lines)]))
    return "\n\n".join(parts)


def _section(title: str, config: type[BaseModel]) -> Iterator[str]:
    """Yield the lines of a section: its title, its docstring and its table."""
    yield f"## {title}"
    yield f"\n{config.__doc__}\n"
    yield "| key | unit | values | default | meaning |"
    yield "|---|---|---|---|---|"
    schema, meanings = config.model_json_schema(), _meanings(config)
    for key, field in schema["properties"].items():
        if key not in KEYS_WITHOUT_ROW:
            default = "" if key in schema.get("required", ()) else _shown(field.get("default"))
            unit = next((u for end, u in UNITS.items() if key.endswith(end)), "")
            yield f"| `{key}` | {unit} | {_values(field)} | {default} | {meanings[key]} |"


def _meanings(config: type[BaseModel]) -> dict[str, str]:
    """Return the docstring below every field of a class and of its base classes."""
    found: dict[str, str] = {}
    for owner in (c for c in config.__mro__ if c.__module__.startswith("aslkit")):
        texts = ModuleAnalyzer.for_module(owner.__module__).find_attr_docs()
        own = {
            key: " ".join(t).strip() for (name, key), t in texts.items() if name == owner.__name__
        }
        found = own | found
    return found


def _values(field: Mapping[str, Any]) -> str:
    """Return the choices or the type of a field, and its limits."""
    (field,) = (o for o in field.get("anyOf", [field]) if o.get("type") != "null")
    items = field.get("items", field)
    names = items.get("enum") or ([items["const"]] if "const" in items else [])
    kind = ", ".join(f"`{name}`" for name in names) or TYPES[items["type"]]
    limits = [text.format(field[name]) for name, text in LIMITS.items() if name in field]
    return ", ".join([f"list of: {kind}" if "items" in field else kind, *limits])


def _shown(value: object) -> str:
    """Return a default value as it is written in YAML."""
    if value is None:
        return "–"
    if isinstance(value, list):
        return ", ".join(map(_shown, value)) or "none"
    return str(value).lower() if isinstance(value, bool) else f"{value}"


TYPES = {
    "array": "two numbers, low and high",
    "boolean": "true, false",
    "integer": "whole number",
    "number": "number",
    "string": "text",
}
BUILDERS = {"configuration": configuration, "model_cards": model_cards}
