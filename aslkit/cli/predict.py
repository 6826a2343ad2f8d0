"""asl_predict: CBF and ATT maps of one scan by a trained network on top of least squares."""

import time
from pathlib import Path
from typing import TYPE_CHECKING

import click

from aslkit.cli.common import aslkit_command, listing_option, say
from aslkit.cli.preparation import prepare
from aslkit.cli.results import print_summary, write_results
from aslkit.cli.scan_options import ScanArguments, read_runs, scan_options
from aslkit.errors import InputError

if TYPE_CHECKING:
    from aslkit.images import AslSeries

EXAMPLES = """Examples:
  asl_predict -i sub-01_asl.nii.gz -o cbf.nii.gz
  asl_predict -i sub-01_acq-pcasl_asl.nii.gz -i sub-01_acq-vsasl_asl.nii.gz -o cbf.nii.gz
  asl_predict -i sub-01_asl.nii.gz -o cbf.nii.gz --model my_training/model --device cuda
  asl_predict --list-models"""


def _models() -> "dict[str, Path]":
    from aslkit.weights import list_models

    return list_models()


@aslkit_command(epilog=EXAMPLES)
@scan_options
@click.option("--model", "model_name", metavar="NAME|DIR", help="Trained model [the shipped one].")
@listing_option("--list-models", _models, "Print the names of the models that are there; stop.")
@click.option("--device", default="auto", show_default=True, help="auto, cpu, cuda, cuda:N, mps.")
def main(scan: ScanArguments, model_name: str | None, device: str) -> None:
    """CBF and arrival time of an ASL scan by a network that corrects least squares.

    Writes CBF [ml/100 g/min], ATT [s], their standard deviations, flags, and a table of quality
    figures, each with a JSON sidecar.
    """
    started = time.perf_counter()
    runs = read_runs(scan)
    if scan.dry_run:
        return
    from aslkit.weights import DEFAULT_MODEL, load_model

    model = load_model(model_name or DEFAULT_MODEL)
    from aslkit.fitting import FitSettings
    from aslkit.inference import check_range, predict
    from aslkit.quality import quality_figures

    prepared = prepare(scan, runs)
    series = prepared.series
    _refuse_single_delay(scan, series)
    macrovascular = scan.macrovascular if model.corrects_least_squares else "off"
    settings = FitSettings(macrovascular=macrovascular)
    has_arterial = settings.has_arterial(series.acquisition)
    say(f"arterial compartment: {'on' if has_arterial else 'off'} ({macrovascular})")
    warnings = check_range(series, model)
    for warning in warnings:
        click.echo(f"Warning: {warning}", err=True)
    maps = predict(series, model, settings, device)
    estimator = {
        "Estimator": f"{model.kind} network",
        "Model": model.name,
        "ModelSha256": model.sha256,
        "ArterialCompartment": has_arterial,
        "ATTBounds": list(settings.att_bounds_s),
        "Warnings": warnings,
    }
    figures = quality_figures(series, maps, settings, prepared.tissue)
    files = write_results(scan, prepared, maps, settings, estimator, figures)
    print_summary(series, maps, figures, files, time.perf_counter() - started)


def _refuse_single_delay(scan: ScanArguments, series: "AslSeries") -> None:
    if series.acquisition.n_timings < 2:
        raise InputError(
            scan.inputs[0],
            "PostLabelingDelay",
            found="a single delay",
            expected="at least two",
            fix="run asl_fit_ls, which holds ATT fixed",
        )


if __name__ == "__main__":
    main()
