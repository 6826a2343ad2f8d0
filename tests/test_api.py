"""The public functions and types of docs/api.md are those of the snapshot tests/api.txt.

`python tests/test_api.py` updates the snapshot after an intended change.
"""

import ast
import re
from pathlib import Path

ROOT = Path(__file__).parents[1]
SNAPSHOT = Path(__file__).with_name("api.txt")
PROMISED = re.compile(r"^\.\. auto(module|function):: (\S+)$", re.MULTILINE)


def tree_of(module):
    path = ROOT / Path(*module.split("."))
    source = path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
    return ast.parse(source.read_text())


def signature(node):
    """Return the names of the arguments; optional ones end with =."""
    own = node.args
    required = len(own.posonlyargs + own.args) - len(own.defaults)
    names = [a.arg + "=" * (i >= required) for i, a in enumerate(own.posonlyargs + own.args)]
    names += [f"*{own.vararg.arg}"] if own.vararg else ["*"] if own.kwonlyargs else []
    pairs = zip(own.kwonlyargs, own.kw_defaults, strict=True)
    return ", ".join([*names, *(a.arg + "=" * (d is not None) for a, d in pairs)])


def members(node):
    """Yield the public fields and methods of a class."""
    for part in node.body:
        if isinstance(part, ast.AnnAssign) and part.target.id[0] != "_":
            yield f".{part.target.id}" + "=" * (part.value is not None)
        elif isinstance(part, ast.Assign):
            yield from (f".{target.id}" for target in part.targets if target.id[0] != "_")
        elif isinstance(part, ast.FunctionDef) and part.name[0] != "_":
            is_property = any("property" in ast.unparse(d) for d in part.decorator_list)
            yield f".{part.name}" + ("" if is_property else f"({signature(part)})")


def promised():
    """Yield a line for every public name of the page, with its arguments."""
    for kind, name in PROMISED.findall((ROOT / "docs" / "api.md").read_text()):
        module, _, only = (name, "", "") if kind == "module" else name.rpartition(".")
        for node in tree_of(module).body:
            is_public = isinstance(node, ast.FunctionDef | ast.ClassDef) and node.name[0] != "_"
            if is_public and only in ("", node.name):
                yield from lines(f"{module}.{node.name}", node)


def lines(name, node):
    if isinstance(node, ast.FunctionDef):
        yield f"{name}({signature(node)})"
    else:
        yield name
        yield from (f"{name}{member}" for member in members(node))


def test_the_public_names_and_their_arguments_are_those_of_the_snapshot():
    assert list(promised()) == SNAPSHOT.read_text().splitlines()


if __name__ == "__main__":
    SNAPSHOT.write_text("\n".join(promised()) + "\n")
