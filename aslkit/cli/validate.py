"""asl_validate: a report on least squares and models, on phantoms or in vivo."""

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import click

from aslkit.cli.command import aslkit_command, options_as_dataclass
from aslkit.cli.data_set_options import (
    check_n_jobs,
    dask_option,
    n_jobs_option,
    part_option,
    participants_option,
    sessions_option,
    skip_existing_option,
)
from aslkit.cli.option_types import KINETIC, MACROVASCULAR, NumberList
from aslkit.cli.scan_options import moco_option, outliers_option
from aslkit.cli.terminal import print_result, progress
from aslkit.cli.validate_bids import InVivoArguments, Study, validate_study

if TYPE_CHECKING:
    from aslkit.report.page import Page
    from aslkit.validate.design import Design
    from aslkit.validate.estimators import Benchmark

EXAMPLES = """Examples:
  asl_validate --phantoms shipped --model small --out validation
  asl_validate --phantoms shipped --model small --quick --out first_look
  asl_validate --phantoms shipped --track matched --protocol pcasl6 --out ls_alone
  asl_validate --bids /data/study --model small --model my_training/model --out in_vivo
  asl_validate --bids sim --model small --reference sim/derivatives/truth --n-jobs 4 --out vivo"""

SHIPPED = "shipped"
_FOLDER = click.Path(path_type=Path, exists=True, file_okay=False)


in_vivo_options = options_as_dataclass(
    (
        outliers_option,
        moco_option,
        participants_option,
        sessions_option,
        click.option(
            "--reference",
            type=_FOLDER,
            metavar="DIR",
            help="Reference maps in vivo: <scan>_cbf.nii.gz and _att or _arrival, on the grid of "
            "the scan, with Units in their sidecars (BASIL, ASLPrep, the truth of asl_sim).",
        ),
        part_option,
        n_jobs_option,
        dask_option,
        skip_existing_option,
    ),
    InVivoArguments,
    "in_vivo",
)


@aslkit_command("asl_validate", epilog=EXAMPLES)
@click.option(
    "--phantoms",
    metavar="shipped|DIR",
    help="Simulate scans of phantoms and compare estimates with the truth. shipped: the phantoms "
    "of this installation.",
)
@click.option(
    "--bids",
    type=_FOLDER,
    metavar="DIR",
    help="BIDS data set; estimates are evaluated in vivo, without truth.",
)
@click.option(
    "--model",
    "models",
    multiple=True,
    metavar="NAME|DIR",
    help="Trained model; repeat the option for several models [least squares only].",
)
@click.option(
    "--estimator",
    "estimators",
    multiple=True,
    metavar="NAME|MOD:FUNC",
    help="Function from AslSeries to ParameterMaps, evaluated beside the models: an installed "
    "entry point of aslkit.estimators, or MODULE:FUNCTION; repeat the option for several.",
)
@click.option(
    "--snr", "snrs", type=NumberList(), metavar="A,B,…", help="SNRs to simulate [1,3,10,30]."
)
@click.option(
    "--protocol",
    "protocols",
    multiple=True,
    metavar="NAME",
    help="Protocol to simulate; repeat the option for several protocols [all].",
)
@click.option(
    "--track",
    "tracks",
    type=click.Choice(["matched", "mismatched"]),
    multiple=True,
    help="matched: known physical constants, no arteries; mismatched: random constants and "
    "arteries, which the estimators do not know [both].",
)
@click.option(
    "--quick",
    is_flag=True,
    help="Two protocols, SNR 3 and 30, two phantoms of each kind; takes a minute.",
)
@click.option(
    "--mc-dropout",
    type=click.IntRange(2),
    metavar="N",
    help="Also evaluate each model as the mean of N runs with MC dropout (NAME MC).",
)
@click.option(
    "--kinetic",
    type=KINETIC,
    default="single",
    show_default=True,
    help="T1 of the label after its arrival: of blood (single) or tissue.",
)
@click.option(
    "--macrovascular",
    type=MACROVASCULAR,
    default="auto",
    show_default=True,
    help="Arterial compartment in vivo; auto: if the protocol supports it.",
)
@in_vivo_options
@click.option(
    "--seed",
    type=click.IntRange(min=0),
    default=0,
    show_default=True,
    metavar="N",
    help="Seed of the noise, or of the random halves in vivo.",
)
@click.option(
    "-o",
    "--out",
    type=click.Path(path_type=Path, file_okay=False),
    required=True,
    metavar="DIR",
    help="Output folder: report.html, results.tsv, results.json; in vivo also a page per scan, "
    "logs and failed.tsv.",
)
def main(
    phantoms: str | None,
    bids: Path | None,
    models: tuple[str, ...],
    estimators: tuple[str, ...],
    snrs: tuple[float, ...] | None,
    protocols: tuple[str, ...],
    tracks: tuple[str, ...],
    quick: bool,
    mc_dropout: int | None,
    kinetic: str,
    macrovascular: str,
    in_vivo: InVivoArguments,
    seed: int,
    out: Path,
) -> None:
    """Measure how well least squares, trained models and functions estimate CBF and ATT.

    On phantoms, all methods get the same noisy data and are compared with the truth. In vivo,
    maps from some repeats of a scan are compared with its other repeats. Prints a table and
    writes a report; in vivo also a page per scan.
    """
    if (phantoms is None) == (bids is None):
        raise click.UsageError("give either --phantoms shipped|DIR or --bids DIR")
    if phantoms is not None:
        _check_snrs(snrs)
        if in_vivo != InVivoArguments():
            raise click.UsageError(
                "--participant-label, --session-label, --reference, --part, --n-jobs, --dask, "
                "--skip-existing, --outliers and --moco are for --bids"
            )
        from aslkit.validate.design import FULL, QUICK

        design = QUICK if quick else FULL
        chosen = replace(
            design,
            tracks=tracks or design.tracks,
            protocols=protocols or design.protocols,
            snrs=snrs or design.snrs,
            kinetic=kinetic,
            seed=seed,
            mc_dropout=mc_dropout or 0,
        )
        _validate_phantoms(_phantoms_of(phantoms), models, estimators, chosen, out)
    elif bids is not None:
        if snrs or protocols or tracks or quick or mc_dropout:
            raise click.UsageError(
                "--snr, --protocol, --track, --quick and --mc-dropout are for --phantoms"
            )
        check_n_jobs(in_vivo.n_jobs, in_vivo.dask)
        validate_study(
            Study(
                folder=bids,
                models=models,
                estimators=estimators,
                macrovascular=macrovascular,
                kinetic=kinetic,
                seed=seed,
                out=out,
                in_vivo=in_vivo,
            )
        )


def _check_snrs(snrs: tuple[float, ...] | None) -> None:
    if snrs and min(snrs) <= 0:
        raise click.UsageError(f"--snr must be positive, not {min(snrs):g}")


def _phantoms_of(given: str) -> Path:
    """Return the folder of the phantoms; "shipped" is that of this installation."""
    if given != SHIPPED:
        return Path(given)
    from aslkit.simulate.resources import phantoms_folder

    folder = phantoms_folder()
    print_result(f"phantoms: {folder}")
    return folder


def _validate_phantoms(
    folder: Path,
    models: tuple[str, ...],
    estimators: tuple[str, ...],
    design: "Design",
    out: Path,
) -> None:
    from aslkit.report.page import provenance
    from aslkit.report.phantom_report import phantom_report
    from aslkit.validate.custom_estimators import load_estimators
    from aslkit.validate.on_phantoms import validate_phantoms
    from aslkit.validate.self_checks import require_passed

    found = validate_phantoms(folder, models, design, progress, load_estimators(estimators))
    _publish(out, found, phantom_report(found, provenance()))
    require_passed(found.self_checks)


def _publish(out: Path, found: "Benchmark", report: "Page") -> None:
    from aslkit.report.page import write_benchmark

    files = write_benchmark(out, found, report)
    print_result(report.headline.as_text())
    print_result("\n" + "\n".join(f"wrote {path}" for path in files))


if __name__ == "__main__":
    main()
