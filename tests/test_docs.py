"""The pages hold what they promise: links lead somewhere, commands parse, examples run."""

import importlib
import json
import re
import shlex
import subprocess
import sys
from pathlib import Path

import click
import pytest
import yaml

from aslkit.config import load_config

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
PAGES = [*sorted(DOCS.rglob("*.md")), *(ROOT / f"{n}.md" for n in ("README", "CONTRIBUTING"))]
PAGES.append(ROOT / "CHANGELOG.md")
FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
HEADING = re.compile(r"^#{1,6} (.+)$", re.MULTILINE)
LINK = re.compile(r"\]\(([^)\s]+)\)")
TYPED = re.compile(r"^ {2,4}((?:asl_|torchrun )(?:\\\n|.)*)", re.MULTILINE)
INLINE = re.compile(r"`(asl_\w+ -[^`]*)`")
MODULE = re.compile(r"^torchrun .* -m aslkit\.cli\.(\w+)")


def name_of(path):
    return path.relative_to(ROOT).as_posix()


def prose(page):
    return FENCE.sub("", page.read_text())


def anchors(page):
    """Anchors of the headings, as code hosts and Sphinx make them."""
    titles = (re.sub(r"[`*]|\[([^]]*)\]\([^)]*\)", r"\1", t) for t in HEADING.findall(prose(page)))
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


def blocks(language):
    """The blocks of every page that has some, top to bottom."""
    found = {
        page: [t for n, t in FENCE.findall(page.read_text()) if n == language] for page in PAGES
    }
    return [pytest.param(texts, id=name_of(page)) for page, texts in found.items() if texts]


def command_lines(page):
    """Command lines of a page, and whether each stands alone, so that nothing may be missing."""
    for line in TYPED.findall(page.read_text()):
        joined = " ".join(part.strip() for part in line.split("\\\n"))
        yield joined.partition("   ")[0], True
    for span in INLINE.findall(prose(page)):
        if "…" not in span:
            yield " ".join(span.split()), False


def parsed(line):
    """The command and its arguments: those of asl_train, where torchrun starts it."""
    line = re.sub(r"\$\([^)]*\)", "", MODULE.sub(r"asl_\1", line))
    name, *arguments = shlex.split(line, comments=True)
    command = importlib.import_module(f"aslkit.cli.{name.removeprefix('asl_')}").main
    return command, name, arguments


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_links_lead_to_files_and_headings_that_are_there(page):
    for link in LINK.findall(prose(page)):
        if "://" not in link:
            path, _, anchor = link.partition("#")
            target = page.parent / path if path else page
            assert target.is_file(), link
            assert not anchor or anchor in anchors(target), link


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_command_lines_have_the_options_of_the_commands(page, monkeypatch):
    monkeypatch.setattr(click.Path, "convert", lambda self, value, *_: Path(value))
    for line, stands_alone in command_lines(page):
        command, name, arguments = parsed(line)
        listings = {flag for p in command.params if p.is_eager for flag in p.opts}
        try:
            if listings.isdisjoint(arguments):
                command.make_context(name, arguments)
        except (click.MissingParameter, click.BadOptionUsage) as error:
            assert not stands_alone, f"{line}: {error}"
        except click.UsageError as error:
            pytest.fail(f"{line}: {error}")


@pytest.mark.parametrize("texts", blocks("yaml"))
def test_yaml_blocks_are_configurations(texts, tmp_path):
    for text in texts:
        path = tmp_path / "own.yaml"
        path.write_text(text)
        load_config(str(path))


@pytest.mark.parametrize("texts", blocks("json"))
def test_json_blocks_are_json(texts):
    for text in texts:
        json.loads(text)


@pytest.mark.parametrize("texts", blocks("python"))
def test_python_blocks_run_from_top_to_bottom(texts, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    scope = {}
    for text in texts:
        exec(compile(text, "page", "exec"), scope)


@pytest.mark.slow
def test_the_pages_build_without_a_warning(tmp_path):
    pytest.importorskip("sphinx_click", reason="needs the extra docs")
    line = [sys.executable, "-m", "sphinx", "-W", "--keep-going", "-q", str(DOCS), str(tmp_path)]
    done = subprocess.run(line, capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    assert "Of every labeling." in (tmp_path / "configuration.html").read_text()
    assert 'id="cmdoption-asl_predict-tta"' in (tmp_path / "commands.html").read_text()


def test_the_citation_names_the_version_of_the_package():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert f"version = {citation['version']}\n" in (ROOT / "setup.cfg").read_text()
