"""Losses of a training run -> its metrics.csv and loss.png."""

import csv
from collections.abc import Sequence
from pathlib import Path

from aslkit.outputs.atomic_write import write_together

METRICS = "metrics.csv"
COLUMNS = ("step", "minutes", "loss")


def log_losses(out: Path, step: int, seconds: float, losses: Sequence[float]) -> None:
    """Append a line with the mean of the last losses to metrics.csv."""
    is_new = not (out / METRICS).is_file()
    with (out / METRICS).open("a", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        if is_new:
            writer.writerow(COLUMNS)
        mean = sum(losses) / len(losses)
        writer.writerow([step, f"{seconds / 60:.2f}", f"{mean:.4f}"])


def drop_losses_after(out: Path, step: int) -> None:
    """Remove the lines of metrics.csv after the step from which a run starts or resumes."""
    if not (out / METRICS).is_file():
        return
    lines = (out / METRICS).read_text().splitlines()[1:]
    kept = [line for line in lines if int(line.partition(",")[0]) <= step]
    with write_together(out, METRICS) as temporary:
        (temporary / METRICS).write_text("\n".join([",".join(COLUMNS), *kept, ""]))


def plot_losses(out: Path) -> None:
    """Plot metrics.csv, if it exists, as loss.png."""
    if not (out / METRICS).is_file():
        return
    from matplotlib.figure import Figure

    with (out / METRICS).open(newline="") as file:
        rows = list(csv.DictReader(file))
    figure = Figure(figsize=(6, 3.5), layout="constrained")
    axes = figure.subplots()
    axes.plot([int(r["step"]) for r in rows], [float(r["loss"]) for r in rows], linewidth=1)
    axes.set(xlabel="step", ylabel="loss (LS standard errors)")
    figure.savefig(out / "loss.png", dpi=120)
