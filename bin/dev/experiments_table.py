"""results.tsv of asl_validate -> tables and figure of docs/background/experiments-details.md.

Usage: python bin/dev/experiments_table.py RESULTS.tsv [--into PAGE.md] [--figure FIGURE.png]
Prints the tables, or writes them between the two marks of a page.
"""

import argparse
import csv
from pathlib import Path

import numpy as np

from aslkit.report.charts import Panel, draw_panels
from aslkit.report.style import line_styles

MARKS = "<!-- tables -->", "<!-- end of tables -->"
FIGURES = "MAE", "bias", "win rate"
QUANTITIES = {"cbf": ("CBF [ml/100 g/min]", 2), "att": ("ATT [ms]", 0)}
Table = dict[tuple[str, ...], str]


def main() -> None:
    """Read the results and write the tables and the figure."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("results", type=Path)
    parser.add_argument("--into", type=Path)
    parser.add_argument("--figure", type=Path)
    options = parser.parse_args()
    rows = of_brains(options.results)
    if options.figure:
        options.figure.write_bytes(figure(rows))
    write(tables(rows), options.into)


def of_brains(results: Path) -> list[dict[str, str]]:
    """Select the rows about whole brains."""
    with results.open() as lines:
        rows = list(csv.DictReader(lines, delimiter="\t"))
    return [r for r in rows if r["stratum"] == "brain" and r["phantoms"] == "brain"]


def write(text: str, page: Path | None) -> None:
    """Print a text, or write it between the marks of a page."""
    if page is None:
        print(text)
        return
    before, rest = page.read_text().split(MARKS[0])
    after = rest.split(MARKS[1])[1]
    page.write_text(f"{before}{MARKS[0]}\n\n{text}\n{MARKS[1]}{after}")


def figure(rows: list[dict[str, str]]) -> bytes:
    """Plot the error divided by that of least squares against SNR, per track and quantity.

    Further seeds and members (names with a hyphen) are left out.
    """
    own = [r for r in rows if r["metric"] == "MAE / LS" and "-" not in r["estimator"]]
    panels = []
    for track, quantity in dict.fromkeys((r["track"], r["quantity"]) for r in own):
        lines: dict[str, list[list[float]]] = {}
        for r in own:
            if (r["track"], r["quantity"]) == (track, quantity):
                point = [
                    float(r[c].replace("n/a", "nan")) for c in ("snr", "value", "low", "high")
                ]
                lines.setdefault(r["estimator"], []).append(point)
        snrs = sorted({point[0] for points in lines.values() for point in points})
        panels.append(
            Panel(
                f"{quantity.upper()}, {track}",
                "SNR",
                "error / that of LS",
                {name: np.array(points) for name, points in lines.items()},
                snrs,
                "xy",
            )
        )
    return draw_panels(panels, line_styles(list(dict.fromkeys(r["estimator"] for r in own))), 2)


def tables(rows: list[dict[str, str]]) -> str:
    """Return tables of errors by track and quantity, amplitude, and field of view."""
    parts = [
        errors(rows, track, quantity)
        for track in dict.fromkeys(r["track"] for r in rows)
        for quantity in QUANTITIES
    ]
    return "\n".join([*parts, amplitudes(rows)])


def errors(rows: list[dict[str, str]], track: str, quantity: str) -> str:
    """Return MAE, bias and win rate over least squares of every method at every SNR."""
    own = [
        r
        for r in rows
        if r["track"] == track and r["quantity"] == quantity and r["metric"] in FIGURES
    ]
    found = {(r["estimator"], r["snr"], r["metric"]): r["value"] for r in own}
    snrs = sorted({r["snr"] for r in own}, key=float)
    heading, decimals = QUANTITIES[quantity]
    lines = []
    for name in dict.fromkeys(r["estimator"] for r in own if r["metric"] == "bias"):
        cells = []
        for snr in snrs:
            mae, bias = (float(found[name, snr, m]) for m in ("MAE", "bias"))
            wins = found.get((name, snr, "win rate"), "n/a")
            share = "" if wins == "n/a" else f", {float(wins):.0%}"
            cells.append(f"{mae:.{decimals}f} ({bias:+.{decimals}f}{share})")
        lines.append([name, *cells])
    title = f"{track}, {heading}: mean absolute error (bias, share of voxels nearer than LS)"
    return laid_out(title, ["method", *(f"SNR {s}" for s in snrs)], lines)


def amplitudes(rows: list[dict[str, str]]) -> str:
    """Return CBF for signals scaled by 0.1 to 10, and in other fields of view."""
    own = [r for r in rows if r["metric"].startswith(("scale", "FOV"))]
    found = {(r["estimator"], r["metric"]): float(r["value"]) for r in own}
    names = list(dict.fromkeys(r["estimator"] for r in own))
    slopes = [m for m in dict.fromkeys(r["metric"] for r in own) if m.endswith("slope")]
    fills = [m for m in dict.fromkeys(r["metric"] for r in own) if m.endswith("mean change")]
    lines = [
        [
            name,
            f"{found[name, 'scale 0.1 to 10 ratio']:.1f}",
            *(f"{found[name, m]:.3f}" for m in slopes),
            *(f"{found[name, m]:+.2%}" for m in fills),
        ]
        for name in names
    ]
    heads = ["method", "0.1 to 10 ratio", *(m.replace("scale ", "slope ")[:-6] for m in slopes)]
    heads += [m.replace(" mean change", "") for m in fills]
    title = (
        "CBF of a signal k times as strong (ratio 100 and slopes 1 are right), and change of its "
        "mean where the brain fills another share of the field of view"
    )
    return laid_out(title, heads, lines)


def laid_out(title: str, heads: list[str], lines: list[list[str]]) -> str:
    """Return a Markdown table below a line of text."""
    rows = [heads, ["---"] * len(heads), *lines]
    return f"{title}:\n\n" + "".join(f"| {' | '.join(r)} |\n" for r in rows)


if __name__ == "__main__":
    main()
