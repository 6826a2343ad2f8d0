"""The pages hold what they promise: links lead somewhere, commands parse, examples run."""

import importlib
import re
import shlex
import subprocess
import sys
from pathlib import Path

import click
import pytest

from aslkit.config import load_config

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
PAGES = [*sorted(DOCS.rglob("*.md")), *(ROOT / f"{n}.md" for n in ("README", "CONTRIBUTING"))]
PAGES.append(ROOT / "CHANGELOG.md")
FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
HEADING = re.compile(r"^#{1,6} (.+)$", re.MULTILINE)
LINK = re.compile(r"\]\(([^)\s]+)\)")
INDENTED = re.compile(r"^ {4}((?:asl_|torchrun ).*(?:\\\n.*)*)", re.MULTILINE)
INLINE = re.compile(r"`(asl_\w+ -[^`]*)`")
MODULE = re.compile(r"^torchrun .* -m aslkit\.cli\.(\w+)")
PLACEHOLDERS = ("…", "NAME|")  # a command line with these is not meant to be typed


def name_of(path):
    return path.relative_to(ROOT).as_posix()


def prose(page):
    return FENCE.sub("", page.read_text())


def anchors(page):
    """Anchors of the headings, as code hosts and Sphinx make them."""
    titles = (re.sub(r"[`*]|\[([^]]*)\]\([^)]*\)", r"\1", t) for t in HEADING.findall(prose(page)))
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


def blocks(language):
    for page in PAGES:
        found = [text for name, text in FENCE.findall(page.read_text()) if name == language]
        if found:
            yield pytest.param(found, id=name_of(page))


def command_lines(page):
    """Command lines of a page, and whether each stands alone, so that nothing may be missing."""
    text = page.read_text()
    fenced = [t for name, t in FENCE.findall(text) if name in ("", "bash")]
    for block in ["\n".join(f"    {line}" for line in t.splitlines()) for t in fenced] + [text]:
        for line in INDENTED.findall(block):
            yield re.split(r" {3,}(?!-)", line.replace("\\\n", " "))[0], True
    for span in INLINE.findall(prose(page)):
        yield " ".join(span.split()), False


def parsed(line):
    """The command and its arguments: those of asl_train, where torchrun starts it."""
    line = MODULE.sub(r"asl_\1", line)
    name, *arguments = shlex.split(line, comments=True)
    command = importlib.import_module(f"aslkit.cli.{name.removeprefix('asl_')}").main
    return command, name, arguments


LINES = [
    pytest.param(*found, id=f"{name_of(page)}: {found[0]}")
    for page in PAGES
    if page.name != "commands.md"
    for found in command_lines(page)
    if not any(mark in found[0] for mark in PLACEHOLDERS)
]


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_links_lead_to_files_and_headings_that_are_there(page):
    for link in LINK.findall(prose(page)):
        if "://" not in link:
            path, _, anchor = link.partition("#")
            target = page.parent / path if path else page
            assert target.is_file(), link
            assert not anchor or anchor in anchors(target), link


@pytest.mark.parametrize(("line", "stands_alone"), LINES)
def test_command_lines_have_the_options_of_the_commands(line, stands_alone, monkeypatch):
    monkeypatch.setattr(click.Path, "convert", lambda self, value, *_: Path(value))
    command, name, arguments = parsed(line)
    listings = [p for p in command.params if p.is_eager]
    monkeypatch.setattr(command, "params", [p for p in command.params if p not in listings])
    shown = {flag for p in listings for flag in p.opts}
    if shown.isdisjoint(arguments):
        try:
            command.make_context(name, arguments)
        except click.MissingParameter:
            assert not stands_alone, line


@pytest.mark.parametrize("texts", blocks("yaml"))
def test_yaml_blocks_are_configurations(texts, tmp_path):
    for text in texts:
        path = tmp_path / "own.yaml"
        path.write_text(text)
        load_config(str(path))


@pytest.mark.parametrize("texts", blocks("python"))
def test_python_blocks_run_from_top_to_bottom(texts, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    scope = {}
    for text in texts:
        exec(compile(text, "page", "exec"), scope)


def test_the_pages_build_without_a_warning(tmp_path):
    pytest.importorskip("sphinx_click", reason="needs the extra docs")
    line = [sys.executable, "-m", "sphinx", "-W", "--keep-going", "-q", str(DOCS), str(tmp_path)]
    done = subprocess.run(line, capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    keys = (tmp_path / "configuration.html").read_text()
    assert "<code" in keys and "plds_s" in keys
    assert 'id="cmdoption-asl_predict-tta"' in (tmp_path / "commands.html").read_text()
