"""The pages are right: links lead to a heading, commands parse, examples run.

`python tests/test_docs.py` writes the printed output of the tutorial again, from a real run.
"""

import contextlib
import importlib
import json
import re
import shlex
import subprocess
import sys
import tempfile
from pathlib import Path

import click
import pytest
import yaml
from click.testing import CliRunner

from aslkit.config import load_config
from aslkit.report.scan_tables import HEADLINE

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
PACKAGE = ROOT / "aslkit"
PAGES = [*sorted(DOCS.rglob("*.md")), *(ROOT / f"{n}.md" for n in ("README", "CONTRIBUTING"))]
PAGES.append(ROOT / "CHANGELOG.md")
FENCE = re.compile(r"^```([\w{}-]*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
HEADING = re.compile(r"^#{1,6} (.+)$", re.MULTILINE)
LINK = re.compile(r"\]\(([^)\s]+)\)")
TYPED = re.compile(r"^ {2,4}((?:asl_|torchrun )(?:\\\n|.)*)", re.MULTILINE)
INLINE = re.compile(r"`(asl_\w+ -[^`]*)`")
TUTORIAL = DOCS / "tutorial.md"
PRINTED = re.compile(r"^<!-- printed(?: from: (.+))? -->\n\n((?:(?: {4}.*)?\n)+?)(?=\S|\Z)", re.M)
NUMBER = re.compile(r"\d+(?:\.\d+)?")
VARIES = re.compile(r"(?<=aslkit )\d+\.\d+\.\d+")
DURATION = re.compile(r"\d[\d.]* (?:s|min|h)\b")
MODULE = re.compile(r"^torchrun .* -m aslkit\.cli\.(\w+)")


def name_of(path):
    return path.relative_to(ROOT).as_posix()


def prose(page):
    return FENCE.sub("", page.read_text())


def anchors(page):
    """Return the anchors of all headings, as code hosts and Sphinx make them."""
    titles = (re.sub(r"[`*]|\[([^]]*)\]\([^)]*\)", r"\1", t) for t in HEADING.findall(prose(page)))
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


def blocks(language):
    """Return a parameter set (page, code blocks of the language) for each page that has any."""
    found = {
        page: [t for n, t in FENCE.findall(page.read_text()) if n == language] for page in PAGES
    }
    return [pytest.param(page, t, id=name_of(page)) for page, t in found.items() if t]


def command_lines(page):
    """Yield each command line of a page, and whether it is complete: inline ones may be parts."""
    for line in TYPED.findall(page.read_text()):
        joined = " ".join(part.strip() for part in line.split("\\\n"))
        yield joined.partition("   ")[0], True
    for span in INLINE.findall(prose(page)):
        if "…" not in span:
            yield " ".join(span.split()), False


def parsed(line):
    """Return the command, its name and its arguments; torchrun counts as asl_train."""
    line = re.sub(r"\$\([^)]*\)", "", MODULE.sub(r"asl_\1", line))
    name, *arguments = shlex.split(line, comments=True)
    command = importlib.import_module(f"aslkit.cli.{name.removeprefix('asl_')}").main
    return command, name, arguments


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_links_lead_to_existing_files_and_headings(page):
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


@pytest.mark.parametrize(("page", "texts"), blocks("yaml"))
def test_yaml_blocks_are_configurations(page, texts, tmp_path):
    for text in texts:
        path = tmp_path / "own.yaml"
        path.write_text(text)
        load_config(str(path))


@pytest.mark.parametrize(("page", "texts"), blocks("json"))
def test_json_blocks_are_json(page, texts):
    for text in texts:
        json.loads(text)


@pytest.mark.parametrize(("page", "texts"), blocks("python"))
def test_python_blocks_run_from_top_to_bottom(page, texts, tmp_path, monkeypatch):
    """The blocks of a page run in one folder, after the simulation that the page may contain."""
    monkeypatch.chdir(tmp_path)
    for line, _ in command_lines(page):
        if line.startswith("asl_sim"):
            printed_by(line, None)
    scope = {}
    for text in texts:
        exec(compile(text, "page", "exec"), scope)


@pytest.mark.slow
def test_the_pages_build_without_a_warning(tmp_path):
    pytest.importorskip("sphinx_click", reason="needs the extra docs")
    line = [sys.executable, "-m", "sphinx", "-W", "--keep-going", "-q", str(DOCS), str(tmp_path)]
    done = subprocess.run(line, capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    assert (
        "Labeling types of the protocol, in this order."
        in (tmp_path / "configuration.html").read_text()
    )
    assert 'id="cmdoption-asl_predict-tta"' in (tmp_path / "commands.html").read_text()


def test_the_architecture_names_every_package_and_only_modules_that_exist():
    page = (DOCS / "architecture.md").read_text()
    modules = re.findall(r"`([a-z]\w*(?:\.\w+)+)`", page)
    missing = [m for m in modules if not (PACKAGE / f"{m.replace('.', '/')}.py").is_file()]
    packages = sorted(path.parent.name for path in PACKAGE.glob("*/__init__.py"))
    assert missing == [] and len(modules) > 10
    assert sorted(re.findall(r"^\| `(\w+)` \|", page, re.MULTILINE)) == packages


def test_the_picture_of_the_packages_is_drawn_from_the_imports(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "bin" / "dev"))
    pictures = importlib.import_module("docs_pictures")
    edges = pictures.imports()
    assert edges["core"] == set() and {"fit", "nets"} <= edges["predict"]
    assert pictures.packages(edges).startswith(b"\x89PNG")


def test_the_citation_names_the_version_of_the_package():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert f"version = {citation['version']}\n" in (ROOT / "setup.cfg").read_text()


def tutorial_steps():
    """Yield every command line of the tutorial and, where the page shows its output, the match."""
    page = TUTORIAL.read_text()
    found = sorted([*TYPED.finditer(page), *PRINTED.finditer(page)], key=lambda m: m.start())
    for step, following in zip(found, [*found[1:], None], strict=True):
        if step.re is TYPED:
            line = " ".join(part.strip() for part in step[1].split("\\\n"))
            yield line, following if following and following.re is PRINTED else None


def printed_by(line, start):
    """Run a command line; return its output lines from the first one that begins with `start`."""
    command, name, arguments = parsed(line)
    result = CliRunner().invoke(command, arguments, prog_name=name)
    assert result.exit_code == 0, result.output
    lines = [text.rstrip() for text in result.output.splitlines()]
    first = next((i for i, text in enumerate(lines) if text.startswith(start or "")), None)
    assert first is not None, f"no line of the output begins with {start!r}"
    return lines[first:]


def block(lines):
    """Indent lines, so that they are a code block of a page."""
    return "".join(f"    {line}".rstrip() + "\n" for line in lines) + "\n"


def comparable(text):
    """Mask times and the version, and make all spaces single."""
    lines = [VARIES.sub("VERSION", line) for line in text.splitlines()]
    has_time = re.compile(r" *(\[\d+/\d+\]|time:|\d+ scans:)")
    lines = [DURATION.sub("TIME", line) if has_time.match(line) else line for line in lines]
    return "\n".join(" ".join(line.split()) for line in lines).strip()


@pytest.mark.slow
def test_the_tutorial_shows_what_its_commands_print(tmp_path, monkeypatch):
    """Numbers with a decimal point may differ by 2 % or two units of the last digit."""
    monkeypatch.chdir(tmp_path)
    for line, shown in tutorial_steps():
        if line.startswith("asl_validate"):  # takes a minute; see the next test
            continue
        found = printed_by(line, shown and shown[1])
        if shown:
            now, page = comparable(block(found)), comparable(shown[2])
            assert NUMBER.sub("#", now) == NUMBER.sub("#", page), "run python tests/test_docs.py"
            for a, b in zip(NUMBER.findall(now), NUMBER.findall(page), strict=True):
                last_digit = 10.0 ** -len(b.partition(".")[2]) if "." in b else 0.0
                assert float(a) == pytest.approx(float(b), rel=0.02, abs=2 * last_digit), line


def test_the_table_of_the_tutorial_has_the_figures_of_the_report():
    (shown,) = [m for line, m in tutorial_steps() if line.startswith("asl_validate")]
    title, *rows = [re.split(r" {2,}", row.strip())[0] for row in shown[2].splitlines() if row]
    assert (title, rows[: len(HEADLINE)]) == ("measure", list(HEADLINE))


def write_tutorial():
    """Run the commands of the tutorial; where more than a time has changed, change the page.

    Usage: python tests/test_docs.py [FOLDER]. With FOLDER, where the commands then write, also run
    asl_validate, which takes a minute.
    """
    page, parts, end = TUTORIAL.read_text(), [], 0
    with contextlib.chdir(sys.argv[1] if sys.argv[1:] else tempfile.mkdtemp()):
        for line, shown in tutorial_steps():
            if line.startswith("asl_validate") and not sys.argv[1:]:
                continue
            print(line)
            lines = printed_by(line, shown and shown[1])
            if shown and comparable(block(lines)) != comparable(shown[2]):
                parts += [page[end : shown.start(2)], block(lines)]
                end = shown.end(2)
    TUTORIAL.write_text("".join([*parts, page[end:]]))


if __name__ == "__main__":
    write_tutorial()
