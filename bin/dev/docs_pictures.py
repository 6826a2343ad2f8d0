"""Equations, imports, a table and reports -> the pictures of docs/images.

Usage: python bin/dev/docs_pictures.py [FOLDER]

Draws kinetics.png, packages.png, python.png, and ideas.png from a table of
docs/background/experiments-details.md. With FOLDER, where `python tests/test_docs.py FOLDER` has
run the commands of docs/tutorial.md, also copies the pictures of the tutorial from the reports.
"""

import ast
import base64
import re
import sys
import tempfile
from collections.abc import Iterator
from contextlib import chdir
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from aslkit.cli.sim import main as asl_sim
from aslkit.core.acquisition import Acquisition, protocol
from aslkit.kinetics.model import arterial_curve, kinetic_model, tissue_curve
from aslkit.report.style import (
    GRID_COLOUR,
    LABEL_SIZE,
    PAGE_WIDTH,
    TEXT_COLOUR,
    style_axes,
    to_png,
)

DOCS = Path(__file__).parents[2] / "docs"
IMAGES = DOCS / "images"
PACKAGE = DOCS.parent / "aslkit"
EXPERIMENTS = DOCS / "background" / "experiments-details.md"
PLDS_S = np.linspace(0.02, 4.0, 400)
CBF = 60.0  # ml/100 g/min
ABV = 0.01
ATTS_S = {0.7: "#0072b2", 1.3: "#d55e00", 2.0: "#009e73"}
PANELS = {
    "PCASL, label 1.8 s": ("pcasl", 1.8, tissue_curve),
    "PASL, bolus 0.7 s": ("pasl", 0.7, tissue_curve),
    "VSASL": ("vsasl", 0.0, tissue_curve),
    "arteries, PCASL, label 1.8 s": ("pcasl", 1.8, arterial_curve),
}
BASE = "seeds of exp09"
IDEAS = {  # columns of the table of experiments 10 to 20
    "CBF, matched": {"SNR 1": 0, "SNR 3": 1, "SNR 10": 2, "SNR 30": 3},
    "ATT, matched": {"SNR 1": 4, "SNR 3": 5, "SNR 10": 6, "SNR 30": 7},
    "mismatched, SNR 10": {"CBF": 8, "ATT": 9},
}
SHIFTS = 0.3, 0.1, -0.1, -0.3
COLOURS = "#56b4e9", "#009e73", "#e69f00", "#d55e00"
BOX = {"boxstyle": "round", "facecolor": "#e8f1fa", "edgecolor": "#0072b2"}
ARROW = {"arrowstyle": "-|>", "color": TEXT_COLOUR, "linewidth": 0.7}
PICTURES = {
    "tutorial-maps.png": ("simreport/sub-01.html", "Maps"),
    "tutorial-left-out.png": ("simreport/report.html", "Left-out repeats"),
}


def main() -> None:
    """Write the pictures."""
    (IMAGES / "kinetics.png").write_bytes(kinetics())
    (IMAGES / "packages.png").write_bytes(packages(imports()))
    (IMAGES / "ideas.png").write_bytes(ideas(EXPERIMENTS.read_text(encoding="utf-8")))
    (IMAGES / "python.png").write_bytes(python_page())
    for folder in map(Path, sys.argv[1:]):
        for name, (page, heading) in PICTURES.items():
            text = (folder / page).read_text(encoding="utf-8")
            (IMAGES / name).write_bytes(picture_below(heading, text))


def imports() -> dict[str, set[str]]:
    """Return, for every package of aslkit, the other packages that it imports."""
    found: dict[str, set[str]] = {}
    for path in PACKAGE.glob("*/**/*.py"):
        name = path.relative_to(PACKAGE).parts[0]
        modules = set(_imported(ast.parse(path.read_text(encoding="utf-8"))))
        parts = [module.split(".") for module in modules if module.startswith("aslkit.")]
        found.setdefault(name, set()).update({part[1] for part in parts} - {name})
    return found


def _imported(tree: ast.Module) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module:
            yield node.module
        elif isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)


def packages(edges: dict[str, set[str]]) -> bytes:
    """Draw each package above the packages that it imports, without redundant arrows."""
    below = {name: _reachable(name, edges) for name in edges}
    height = {name: len(_chain(name, edges)) - 1 for name in edges}
    n_rows = max(height.values()) + 1
    places: dict[str, tuple[float, int]] = {}
    for row in range(n_rows):
        names = sorted(name for name in edges if height[name] == row)
        names.sort(
            key=lambda name: sum(places[n][0] for n in edges[name]) / (len(edges[name]) or 1)
        )
        places |= {name: ((i + 1) / (len(names) + 1), row) for i, name in enumerate(names)}
    figure = Figure(figsize=(PAGE_WIDTH, 0.62 * n_rows), layout="constrained")
    ax = figure.subplots()
    for name, (x, y) in places.items():
        ax.text(x, y, name, ha="center", va="center", fontsize=LABEL_SIZE + 2, bbox=BOX)
        for other in edges[name]:
            if not any(other in below[between] for between in edges[name] - {other}):
                end = places[other]
                ax.annotate("", (end[0], end[1] + 0.24), (x, y - 0.24), arrowprops=ARROW)
    ax.set(xlim=(0, 1), ylim=(-0.5, n_rows - 0.5))
    ax.axis("off")
    return to_png(figure)


def _reachable(name: str, edges: dict[str, set[str]]) -> set[str]:
    """Return the packages that a package imports, directly or through others."""
    return edges[name].union(*(_reachable(other, edges) for other in edges[name]))


def _chain(name: str, edges: dict[str, set[str]]) -> list[str]:
    """Return the longest chain of imports that begins at a package."""
    return [name, *max((_chain(other, edges) for other in edges[name]), key=len, default=[])]


def python_page() -> bytes:
    """Run the simulation and the code of docs/python.md; return the picture that they save."""
    page = (DOCS / "python.md").read_text(encoding="utf-8")
    blocks = re.findall(r"^```python\n(.*?)^```$", page, re.MULTILINE | re.DOTALL)
    with tempfile.TemporaryDirectory() as folder, chdir(folder):
        for options in re.findall(r"^    asl_sim (.*)$", page, re.MULTILINE):
            asl_sim(options.split(), standalone_mode=False)
        scope: dict[str, object] = {}
        for block in blocks:
            exec(compile(block, "docs/python.md", "exec"), scope)
        return Path("maps.png").read_bytes()


def kinetics() -> bytes:
    """Draw ΔM/M0 over the delay: a panel per kind of signal, a line per arrival time."""
    figure = Figure(figsize=(PAGE_WIDTH, 3.0), layout="constrained")
    axes = figure.subplots(1, len(PANELS))
    for ax, (title, (labeling, duration_s, curve)) in zip(axes, PANELS.items(), strict=True):
        model = kinetic_model(Acquisition(protocol(labeling, PLDS_S.tolist(), duration_s)))
        amount, symbol = (CBF, "ATT") if curve is tissue_curve else (ABV, "aBAT")
        for att_s, colour in ATTS_S.items():
            signal = 100 * amount * curve(model, np.array([[att_s]]))[0, :, 0]
            ax.plot(PLDS_S, signal, color=colour, label=f"{symbol} {att_s:g} s")
        ax.set(title=title, xlabel="TI [s]" if labeling == "pasl" else "PLD [s]")
        ax.legend(frameon=False, fontsize=LABEL_SIZE)
        style_axes(ax)
    axes[0].set_ylabel("ΔM/M0 [%]")
    return to_png(figure)


def ideas(page: str) -> bytes:
    """Draw the errors of experiments 10 to 20, divided by those of exp09; grey: its five seeds."""
    text = page.partition("### What was measured of them")[2].partition("\n## ")[0]
    rows = [line.replace("`", "").split("|")[1:-1] for line in text.splitlines() if "|" in line]
    errors = {name.strip(): cells for name, *cells in rows}
    names = [name for name in errors if name.startswith("exp")]
    seeds = np.array([[float(end) for end in cell.split("-")] for cell in errors[BASE]])
    places = np.arange(len(names))[::-1]
    figure = Figure(figsize=(PAGE_WIDTH, 0.22 * len(names) + 1.4), layout="constrained")
    axes = figure.subplots(1, len(IDEAS), sharey=True)
    for ax, (title, columns) in zip(axes, IDEAS.items(), strict=True):
        for shift, colour, (label, i) in zip(SHIFTS, COLOURS, columns.items(), strict=False):
            middle = seeds[i].mean()
            low, high = seeds[i] / middle
            ax.barh(places + shift, high - low, 0.2, low, color=GRID_COLOUR)
            values = [float(errors[name][i]) / middle for name in names]
            ax.plot(values, places + shift, "o", color=colour, label=label, markersize=4.5)
        ax.axvline(1, color=TEXT_COLOUR, linewidth=0.8)
        ax.use_sticky_edges = False
        ax.autoscale_view()
        ax.set(title=title, xlabel="error / that of exp09", yticks=places, yticklabels=names)
        ax.legend(frameon=False, fontsize=LABEL_SIZE)
        style_axes(ax)
    return to_png(figure)


def picture_below(heading: str, page: str) -> bytes:
    """Return the first picture of a report below a heading."""
    below = page.partition(f">{heading}</h2>")[2]
    found = re.search(r"data:image/png;base64,([^\"]+)", below)
    if found is None:
        sys.exit(f"no picture below {heading!r}")
    return base64.b64decode(found[1])


if __name__ == "__main__":
    main()
