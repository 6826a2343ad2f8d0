"""asl_predict: CBF and ATT maps by a trained network that corrects least squares."""

import functools
import re
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import click

from aslkit.cli.command import aslkit_command, listing_option
from aslkit.cli.data_set import run
from aslkit.cli.data_set_options import DataSetArguments, data_set_options
from aslkit.cli.pass_options import PassArguments, pass_options
from aslkit.cli.preparation import prepare
from aslkit.cli.results import Clock, Estimate
from aslkit.cli.scan_options import ScanArguments, read_runs, scan_options
from aslkit.cli.terminal import print_result, print_warning, progress
from aslkit.core.constants import ASSUMED_ATT_HALF_WIDTH_S, TYPICAL_ATT_S
from aslkit.core.errors import InputError

if TYPE_CHECKING:
    from aslkit.bids.run import AslRun
    from aslkit.core.series_and_maps import AslSeries, FloatImage, ParameterMaps
    from aslkit.nets.model_store import Model

EXAMPLES = """Examples:
  asl_predict -i sub-01_asl.nii.gz -o cbf.nii.gz
  asl_predict -i sub-01_acq-pcasl_asl.nii.gz -i sub-01_acq-vsasl_asl.nii.gz -o cbf.nii.gz
  asl_predict -i sub-01_asl.nii.gz -o cbf.nii.gz --model my_training/model --device cuda
  asl_predict -i sub-01_asl.nii.gz -o cbf.nii.gz --tta --ood
  asl_predict --bids study --derivatives study/derivatives/aslkit --n-jobs 4 --skip-existing
  asl_predict study study/derivatives/aslkit participant --n-jobs 4
  asl_predict --list-models"""


def _models() -> dict[str, str | Path]:
    """Return a description of every model."""
    from aslkit.nets.card_text import describe_card
    from aslkit.nets.model_store import list_models, read_card

    def text(folder: Path) -> str:
        try:
            return "\n  ".join([str(folder), *describe_card(read_card(folder))])
        except InputError as error:  # the other models are listed nevertheless
            return str(error)

    return {name: text(folder) for name, folder in list_models().items()}


@aslkit_command("asl_predict", epilog=EXAMPLES)
@scan_options
@click.option(
    "--model", "model_name", metavar="NAME|DIR", help="Trained model [the default model]."
)
@listing_option("--list-models", _models, "Print the available models and exit.")
@pass_options
@click.option(
    "--ood",
    is_flag=True,
    help="Also write a map and a score of residual structure (ood.nii.gz), which motion, ghosts, "
    "spikes or wrong delays cause.",
)
@data_set_options
def main(
    scan: ScanArguments,
    data_set: DataSetArguments,
    model_name: str | None,
    pass_arguments: PassArguments,
    ood: bool,
) -> None:
    """Estimate CBF and ATT of an ASL scan by a network that corrects least squares.

    Writes maps of CBF [ml/100 g/min], ATT [s], their standard deviations and flags, and a table
    of quality figures, each with a JSON sidecar. With --bids, all scans of a data set are
    processed. If the network runs several times (--tta, --mc-dropout, a model with several
    members), the standard deviations due to the data and to the network are written as well.
    Some models also write a confidence map (0-1).
    """
    run(scan, data_set, NetworkEstimator(model_name, pass_arguments, ood))


@functools.cache
def _load_once(name: str | None) -> "Model":
    """Load a model once in each process."""
    from aslkit.nets.model_store import DEFAULT_MODEL, load_model

    return load_model(name or DEFAULT_MODEL)


@dataclass(frozen=True)
class NetworkEstimator:
    """A trained network that corrects least squares, with the options of asl_predict."""

    model_name: str | None
    pass_arguments: PassArguments
    ood: bool

    def desc(self) -> str:
        """Return the name of the model in file names."""
        return re.sub("[^A-Za-z0-9]", "", _load_once(self.model_name).name)

    def parameters(self) -> dict[str, object]:
        """Return the options of the estimator that the maps depend on; checks the device."""
        from aslkit.nets.device import select_device

        model = _load_once(self.model_name)
        self.pass_arguments.passes(model)
        device = str(select_device(self.pass_arguments.device))
        passing = {**asdict(self.pass_arguments), "device": device}
        return {"model": model.name, "sha256": model.sha256, "passing": passing, "ood": self.ood}

    def read(self, scan: ScanArguments) -> "list[AslRun]":
        """Read the runs of a scan."""
        return read_runs(scan)

    def estimate(self, scan: ScanArguments, runs: "list[AslRun]", clock: Clock) -> Estimate:
        """Estimate the maps of a scan."""
        with clock.timing("model"):
            model = _load_once(self.model_name)
            from aslkit.fit.settings import FixedAtt, choose_settings
            from aslkit.nets.card_text import list_deviations_from_training
            from aslkit.nets.device import select_device
            from aslkit.predict.inference import fit_base, noise_level, predict_maps
            from aslkit.quality.figures import quality_figures

            passes = self.pass_arguments.passes(model)
            device = select_device(self.pass_arguments.device)
        with clock.timing("preparation"):
            prepared = prepare(scan, runs)
            series = prepared.series
            _check_delays(scan, series, model)
            macrovascular = scan.macrovascular if model.corrects_least_squares else "off"
            settings = choose_settings(series.acquisition, macrovascular)
            base = fit_base(series, settings) if model.corrects_least_squares else None
            noise = base.noise if base else noise_level(series, settings)
            measured = replace(series, noise_sd=noise)
        state = "on" if settings.has_arterial else "off"
        print_result(f"arterial compartment: {state} ({macrovascular})")
        print_result(f"model: {model.name}, {self.pass_arguments.describe(model)}, on {device}")
        print_result(_citation(model))
        warnings = list_deviations_from_training(model.card, measured)
        for warning in warnings:
            print_warning(warning)
        with clock.timing("prediction"):
            maps = predict_maps(measured, model, settings, str(device), passes, progress, base)
        images = _std_components(maps)
        fields: dict[str, object] = {
            "Estimator": f"{model.kind} network",
            "Model": model.name,
            "ModelSha256": model.sha256,
            "Passes": self.pass_arguments.describe(model),
            "Device": str(device),
            "ArterialCompartment": settings.has_arterial,
            "AssumedATT": settings.att_s if isinstance(settings, FixedAtt) else None,
            "ATTBounds": list(settings.att_bounds_s),
            "Warnings": warnings,
        }
        with clock.timing("quality"):
            if self.ood:
                images["ood"], fields["OODScore"] = _residual_structure(measured, maps)
            figures = quality_figures(series, maps, settings, prepared.tissue)
        return Estimate(prepared, maps, settings, fields, figures, images)


def _std_components(maps: "ParameterMaps") -> "dict[str, FloatImage]":
    """Return the standard deviations due to the data and due to the network."""
    import numpy as np

    images: dict[str, FloatImage] = {}
    for name in ("cbf", "att"):
        total, network = getattr(maps, f"{name}_std"), getattr(maps, f"{name}_std_network")
        if network is not None:
            images[f"{name}-std-network"] = network
            images[f"{name}-std-data"] = np.sqrt(np.maximum(total**2 - network**2, 0))
    return images


def _residual_structure(
    series: "AslSeries", maps: "ParameterMaps"
) -> "tuple[FloatImage, float | None]":
    """Return the map and the score of residual structure, and print the score."""
    from aslkit.quality.residual_structure import residual_structure

    found = residual_structure(series, maps)
    score = "unknown" if found.score is None else f"{found.score:.1f}"
    print_result(
        f"residual structure: {score} (2.7-7.4 in clean simulated scans with white noise)"
    )
    return found.structure, found.score


def _citation(model: "Model") -> str:
    from aslkit.outputs.provenance import version

    return (
        f"cite: aslkit {version()}, model {model.name} ({model.sha256[:12]}); signal model of "
        "Alsop et al. 2015, doi:10.1002/mrm.25197"
    )


def _check_delays(scan: ScanArguments, series: "AslSeries", model: "Model") -> None:
    """Check that the model accepts single-delay data, and print a note on their limits."""

    if series.acquisition.n_timings > 1:
        return
    if model.corrects_least_squares and not model.covers(series.acquisition):
        raise InputError(
            scan.inputs[0],
            "PostLabelingDelay",
            found=f"a single delay, for which model {model.name} was not trained",
            expected="at least two",
            fix="use the default model, or asl_fit_ls, which fixes ATT",
        )
    print_result(
        "note: single-delay data do not determine ATT. The CBF error bars assume ATT = "
        f"{TYPICAL_ATT_S:g} ± {ASSUMED_ATT_HALF_WIDTH_S:g} s; the ATT map shows the network's "
        "prior."
    )


if __name__ == "__main__":
    main()
