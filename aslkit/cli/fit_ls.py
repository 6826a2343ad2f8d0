"""asl_fit_ls: CBF and ATT maps of one scan by voxel-wise least squares."""

import time
from pathlib import Path
from typing import TYPE_CHECKING

import click

from aslkit.cli.common import aslkit_command, progress, say
from aslkit.cli.preparation import prepare
from aslkit.cli.results import print_summary, write_results
from aslkit.cli.scan_options import (
    NumberList,
    ScanArguments,
    read_runs,
    scan_options,
)
from aslkit.errors import InputError

if TYPE_CHECKING:
    from aslkit.fitting import FitSettings
    from aslkit.images import AslSeries, FloatImage
    from aslkit.runs import AslRun

SINGLE_DELAY_ATT_S = 1.3  # grey matter of healthy adults, where a single delay cannot tell
LONGEST_ATT_S = 20.0
ATT_BOUNDS_S = (0.1, 4.0)

EXAMPLES = """Examples:
  asl_fit_ls -i sub-01_asl.nii.gz -o cbf.nii.gz
  asl_fit_ls -i sub-01_asl.nii.gz --dry-run
  asl_fit_ls -i sub-01_acq-pcasl_asl.nii.gz -i sub-01_acq-vsasl_asl.nii.gz -o cbf.nii.gz
  asl_fit_ls -i asl.nii.gz --order tc --labeling pcasl --label-duration 1.8 \\
             --plds 0.5,1,1.5,2 --m0 m0.nii.gz -o out/cbf.nii.gz"""


@aslkit_command(epilog=EXAMPLES)
@scan_options
@click.option(
    "--smooth",
    "sigma_mm",
    type=click.FloatRange(0, 50, min_open=True),
    help="In-plane smoothing, sigma [mm].",
)
@click.option("--att", metavar="FILE|S", help="Known ATT: fit CBF alone.")
@click.option("--cbf-bounds", type=NumberList(2), metavar="A,B", help="Bounds of CBF [none].")
@click.option(
    "--att-bounds",
    type=NumberList(2),
    metavar="A,B",
    default=ATT_BOUNDS_S,
    help=f"Bounds of ATT [{ATT_BOUNDS_S[0]:g},{ATT_BOUNDS_S[1]:g} s].",
)
def main(
    scan: ScanArguments,
    sigma_mm: float | None,
    att: str | None,
    cbf_bounds: tuple[float, float] | None,
    att_bounds: tuple[float, float],
) -> None:
    """CBF and arrival time of an ASL scan by exact voxel-wise least squares.

    Writes CBF [ml/100 g/min], ATT [s], their standard errors, flags, and a table of quality
    figures, each with a JSON sidecar.
    """
    started = time.perf_counter()
    if scan.macrovascular == "on" and (att or cbf_bounds):
        raise click.UsageError("--macrovascular on excludes --att and --cbf-bounds")
    if att_bounds[1] > LONGEST_ATT_S:
        raise click.UsageError(f"--att-bounds are seconds, at most {LONGEST_ATT_S:g}")
    runs = read_runs(scan)
    if scan.dry_run:
        return
    from aslkit.fitting import FitSettings, fit_least_squares
    from aslkit.intervals import profile_intervals
    from aslkit.quality import quality_figures

    prepared = prepare(scan, runs, sigma_mm or 0.0)
    series = prepared.series
    try:
        settings = FitSettings(att_bounds, cbf_bounds, scan.macrovascular, _att(att, series, runs))
    except ValueError as error:
        raise click.UsageError(str(error)) from error
    has_arterial = settings.has_arterial(series.acquisition)
    say(f"arterial compartment: {'on' if has_arterial else 'off'} ({scan.macrovascular})")
    maps = fit_least_squares(series, settings, progress)
    figures = quality_figures(series, maps, settings, prepared.tissue)
    estimator = _describe(settings, series, sigma_mm, att)
    is_free = settings.fixed_att_s is None and settings.cbf_bounds is None
    intervals = profile_intervals(series, maps, settings) if scan.diagnostics and is_free else None
    files = write_results(scan, prepared, maps, settings, estimator, figures, intervals)
    print_summary(series, maps, figures, files, time.perf_counter() - started)


def _att(
    given: str | None, series: "AslSeries", runs: "list[AslRun]"
) -> "float | FloatImage | None":
    """The ATT to hold fixed: the user's, or the usual one where a single delay was measured."""
    from aslkit.nifti import read_on_grid

    if given is None:
        if series.acquisition.n_timings > 1:
            return None
        say(f"note: a single delay: ATT is held at {SINGLE_DELAY_ATT_S:g} s (--att FILE|S)")
        return SINGLE_DELAY_ATT_S
    try:
        seconds = float(given)
    except ValueError:
        return read_on_grid(Path(given), series.mask.shape, runs[0].affine)
    if not 0 < seconds <= LONGEST_ATT_S:
        raise InputError(
            "--att",
            "",
            found=given,
            expected=f"seconds, above 0 to {LONGEST_ATT_S:g}",
            fix="give --att 1.3",
        )
    return seconds


def _describe(
    settings: "FitSettings", series: "AslSeries", sigma_mm: float | None, att: str | None
) -> dict[str, object]:
    is_fixed = settings.fixed_att_s is not None
    return {
        "Estimator": "voxel-wise least squares",
        "ArterialCompartment": settings.has_arterial(series.acquisition),
        "FixedATT": (att or SINGLE_DELAY_ATT_S) if is_fixed else None,
        "ATTBounds": list(settings.att_bounds_s),
        "CBFBounds": settings.cbf_bounds and list(settings.cbf_bounds),
        "SmoothingSigma": sigma_mm or 0.0,
    }


if __name__ == "__main__":
    main()
