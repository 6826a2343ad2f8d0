"""Measure experiment 14: errors in new subjects after adaptation to a few others.

Usage: python bin/dev/benchmark_adaptation.py [--seed 1] [--adapt-to 2] [--steps 80] [--folder DIR]

Simulates ten subjects of the mismatched track (pcasl6, 4 repeats, SNR 5, the twelve slices in the
middle), adapts exp21 to the first of them in every way of `WAYS`, and measures the errors in the
other subjects where the true CBF is above 3. Files that exist in the folder are used again.
"""

import argparse
import shutil
import tempfile
from pathlib import Path

import numpy as np

from aslkit.bids.reader import read_run
from aslkit.bids.reference_maps import read_reference
from aslkit.cli.sim import main as asl_sim
from aslkit.cli.train import main as asl_train
from aslkit.core.series_and_maps import AslSeries, FloatImage
from aslkit.prepare.series import series_from_runs
from aslkit.report.page import machine
from aslkit.validate.estimators import Estimator, least_squares, load_networks
from aslkit.validate.metrics import coverage

SCANS = "--protocol pcasl6 --repeats 4 --snr 5 --track mismatched --matrix 56,68,12"
BUDGET = (
    "warmup_steps=10 ema_decay=0.9 data.patch_size=32 data.protocols_per_step=1"
    " learning_rate=0.0003"
)
SUBJECTS = [f"sub-{i:02}" for i in range(1, 11)]
MODEL = "exp21"
LOWEST_CBF = 3.0  # of the truth [ml/100 g/min]
WAYS = {  # name of a row of the table: configuration and changes
    "as many steps without real scans": "exp21",
    "as many steps without real scans, seed 1": "exp21 seed=1",
    "real scans judge CBF": "exp14",
    "real scans judge CBF, seed 1": "exp14 seed=1",
    "adversarial 0.1": "exp14 adaptation.adversarial_weight=0.1",
    "bias correction alone": "exp14 adaptation.bias_correction=true learning_rate=0.01",
}


def main() -> None:
    """Simulate the subjects, adapt the model and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--adapt-to", type=int, default=2)
    parser.add_argument("--steps", type=int, default=80)
    parser.add_argument("--folder", type=Path)
    options = parser.parse_args()
    own, others = SUBJECTS[: options.adapt_to], SUBJECTS[options.adapt_to :]
    print(
        f"machine: {machine()}, seed {options.seed}, {options.steps} steps on {len(own)} subjects"
    )
    with tempfile.TemporaryDirectory() as temporary:
        folder = options.folder or Path(temporary)
        simulate(folder, options.seed, own)
        models = {MODEL: MODEL}
        for i, (name, way) in enumerate(WAYS.items()):
            models[name] = str(folder / f"way-{i}")
            if not (folder / f"way-{i}").exists():
                adapt(way, options.steps, folder / "own", folder / f"way-{i}")
        judge(folder / "scans", others, models)


def simulate(folder: Path, seed: int, chosen: list[str]) -> None:
    """Simulate data set `scans` (all subjects) and `own` (the subjects to adapt to)."""
    scans, own = folder / "scans", folder / "own"
    if not scans.exists():
        options = f"{SCANS} --participants {len(SUBJECTS)} --seed {seed} --out {scans} -q"
        asl_sim(options.split(), standalone_mode=False)
    if not own.exists():
        for subject in chosen:
            shutil.copytree(scans / subject, own / subject)
        shutil.copy(scans / "dataset_description.json", own)


def adapt(way: str, steps: int, scans: Path, out: Path) -> None:
    """Continue the training of the model with the options of `way`."""
    config, *changes = way.split()
    options = ["--config", config, "--init-from", MODEL, "--out", str(out), "-q"]
    options += ["--finetune-bids", str(scans)] if config == "exp14" else []
    for change in (f"steps={steps}", *BUDGET.split(), *changes):
        options += ["--set", change]
    asl_train(options, standalone_mode=False)


def judge(scans: Path, subjects: list[str], models: dict[str, str]) -> None:
    """Print a row for least squares and each model.

    "lower in" counts the subjects with a smaller error than before adaptation.
    """
    estimators: dict[str, Estimator] = {"least squares": least_squares("auto")}
    estimators |= zip(models, load_networks([*models.values()]).values(), strict=True)
    read = [subject(scans, name) for name in subjects]
    found = {
        name: np.array([figures(estimator, *s) for s in read])
        for name, estimator in estimators.items()
    }
    before = found[MODEL]
    print("| model | CBF error | lower in | bias | size | ATT error [ms] | lower in | coverage |")
    print("|" + "---|" * 8)
    for name, of_subjects in found.items():
        error, bias, late, held = of_subjects.mean(axis=0)
        size = abs(of_subjects[:, 1]).mean()
        lower = [f"{(of_subjects < before)[:, i].sum()} of {len(read)}" for i in (0, 2)]
        print(
            f"| {name} | {error:.2f} | {lower[0]} | {bias:+.2f} | {size:.2f} "
            f"| {1000 * late:.0f} | {lower[1]} | {held:.0%} |"
        )


def subject(scans: Path, name: str) -> tuple[AslSeries, dict[str, FloatImage]]:
    """Return the scan of a subject and its true maps."""
    series = series_from_runs([read_run(scans / name / "perf" / f"{name}_asl.nii.gz")])
    truth = scans / "derivatives" / "truth"
    return series, read_reference(truth, name, series.mask.shape, series.affine).images


def figures(estimator: Estimator, series: AslSeries, truth: dict[str, FloatImage]) -> list[float]:
    """Return MAE and bias of CBF, MAE of ATT, and coverage of the CBF intervals."""
    maps, inside = estimator(series), series.usable & (truth["cbf"] > LOWEST_CBF)
    cbf, att = ((getattr(maps, q) - truth[q])[inside] for q in ("cbf", "att"))
    held = coverage(cbf, maps.cbf_std[inside], 0.95)
    return [float(v) for v in (abs(cbf).mean(), cbf.mean(), abs(att).mean(), held)]


if __name__ == "__main__":
    main()
