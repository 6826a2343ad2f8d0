"""Signal model, a table, and the tutorial's output folder -> pictures of docs/images.

Usage: python bin/dev/docs_pictures.py [FOLDER]

Draws kinetics.png, and ideas.png from the table of docs/experiments.md. With FOLDER, in which the
commands of docs/tutorial.md have run, it also extracts the tutorial's pictures from the reports.
"""

import base64
import re
import sys
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from aslkit.core.acquisition import Acquisition, protocol
from aslkit.kinetics.model import arterial_curve, kinetic_model, tissue_curve
from aslkit.report.style import FAINT, INK, LABEL_SIZE, PAGE_WIDTH, tidy, to_png

DOCS = Path(__file__).parents[2] / "docs"
IMAGES = DOCS / "images"
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
PICTURES = {
    "tutorial-maps.png": ("report/sub-01.html", "Maps"),
    "tutorial-left-out.png": ("report/report.html", "Left-out repeats"),
}


def main() -> None:
    """Write the pictures."""
    (IMAGES / "kinetics.png").write_bytes(kinetics())
    experiments = (DOCS / "experiments.md").read_text(encoding="utf-8")
    (IMAGES / "ideas.png").write_bytes(ideas(experiments))
    for folder in map(Path, sys.argv[1:]):
        for name, (page, heading) in PICTURES.items():
            text = (folder / page).read_text(encoding="utf-8")
            (IMAGES / name).write_bytes(picture_below(heading, text))


def kinetics() -> bytes:
    """Plot ΔM/M0 against the delay: a panel per kind of signal, a line per arrival time."""
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
        tidy(ax)
    axes[0].set_ylabel("ΔM/M0 [%]")
    return to_png(figure)


def ideas(page: str) -> bytes:
    """Plot errors of experiments 10-20 divided by those of exp09; grey bands: seeds of exp09."""
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
            ax.barh(places + shift, high - low, 0.2, low, color=FAINT)
            values = [float(errors[name][i]) / middle for name in names]
            ax.plot(values, places + shift, "o", color=colour, label=label, markersize=4.5)
        ax.axvline(1, color=INK, linewidth=0.8)
        ax.use_sticky_edges = False
        ax.autoscale_view()
        ax.set(title=title, xlabel="error / that of exp09", yticks=places, yticklabels=names)
        ax.legend(frameon=False, fontsize=LABEL_SIZE)
        tidy(ax)
    return to_png(figure)


def picture_below(heading: str, page: str) -> bytes:
    """Return the first picture below a heading of a report."""
    below = page.partition(f">{heading}</h2>")[2]
    found = re.search(r"data:image/png;base64,([^\"]+)", below)
    if found is None:
        sys.exit(f"no picture below {heading!r}")
    return base64.b64decode(found[1])


if __name__ == "__main__":
    main()
