"""asl_fit_ls: CBF and ATT maps by voxel-wise least squares."""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import click

from aslkit.cli.command import aslkit_command
from aslkit.cli.data_set import run
from aslkit.cli.data_set_options import DataSetArguments, data_set_options
from aslkit.cli.option_types import NumberList
from aslkit.cli.preparation import prepare
from aslkit.cli.results import Clock, Estimate
from aslkit.cli.scan_options import ScanArguments, read_runs, scan_options
from aslkit.cli.terminal import print_result, progress
from aslkit.core.constants import ATT_BOUNDS_S, LONGEST_DELAY_S, T1_TISSUE_BOUNDS_S
from aslkit.core.errors import InputError

if TYPE_CHECKING:
    from aslkit.bids.run import AslRun
    from aslkit.core.series_and_maps import AslSeries, FloatImage
    from aslkit.fit.settings import FitSettings


EXAMPLES = """Examples:
  asl_fit_ls -i sub-01_asl.nii.gz -o cbf.nii.gz
  asl_fit_ls -i sub-01_asl.nii.gz --dry-run
  asl_fit_ls -i sub-01_acq-pcasl_asl.nii.gz -i sub-01_acq-vsasl_asl.nii.gz -o cbf.nii.gz
  asl_fit_ls -i asl.nii.gz --order tc --labeling pcasl --label-duration 1.8 \\
             --plds 0.5,1,1.5,2 --m0 m0.nii.gz -o out/cbf.nii.gz
  asl_fit_ls --bids study --derivatives study/derivatives/aslkit --n-jobs 4
  asl_fit_ls study study/derivatives/aslkit participant --n-jobs 4"""


@aslkit_command("asl_fit_ls", epilog=EXAMPLES)
@scan_options
@click.option(
    "--smooth",
    "sigma_mm",
    type=click.FloatRange(0, 50, min_open=True),
    metavar="MM",
    help="Sigma of the in-plane Gaussian smoothing of the data.",
)
@click.option(
    "--att", metavar="FILE|S", help="Known ATT, an image or one value; only CBF is fitted."
)
@click.option("--cbf-bounds", type=NumberList(2), metavar="A,B", help="Bounds of CBF [no bounds].")
@click.option(
    "--att-bounds",
    type=NumberList(2),
    metavar="A,B",
    default=ATT_BOUNDS_S,
    help=f"Bounds of ATT [{ATT_BOUNDS_S[0]:g},{ATT_BOUNDS_S[1]:g} s].",
)
@click.option(
    "--fit-t1t",
    is_flag=True,
    help="Also fit tissue T1 (0.8-2 s); needs --kinetic tissue and at least four delays.",
)
@data_set_options
def main(
    scan: ScanArguments,
    data_set: DataSetArguments,
    sigma_mm: float | None,
    att: str | None,
    cbf_bounds: tuple[float, float] | None,
    att_bounds: tuple[float, float],
    fit_t1t: bool,
) -> None:
    """Estimate CBF and ATT of an ASL scan by voxel-wise least squares.

    Writes maps of CBF [ml/100 g/min], ATT [s], their standard errors and flags, and a table of
    quality figures, each with a JSON sidecar. With --bids, all scans of a data set are processed.
    """
    if scan.macrovascular == "on" and (att or cbf_bounds):
        raise click.UsageError("--macrovascular on excludes --att and --cbf-bounds")
    if att_bounds[1] > LONGEST_DELAY_S:
        raise click.UsageError(f"--att-bounds are seconds, at most {LONGEST_DELAY_S:g}")
    if fit_t1t:
        _check_options_of_free_t1(scan, att, cbf_bounds)
    run(
        scan,
        data_set,
        LeastSquaresEstimator(sigma_mm or 0.0, att, cbf_bounds, att_bounds, fit_t1t),
    )


@dataclass(frozen=True)
class LeastSquaresEstimator:
    """Voxel-wise least squares with the options of asl_fit_ls."""

    sigma_mm: float
    att: str | None
    cbf_bounds: tuple[float, float] | None
    att_bounds: tuple[float, float]
    is_t1_free: bool

    def desc(self) -> str:
        """Return the name of the estimator in file names."""
        return "ls"

    def parameters(self) -> dict[str, object]:
        """Return the options of the estimator that the maps depend on."""
        return asdict(self)

    def read(self, scan: ScanArguments) -> "list[AslRun]":
        """Read the runs and check that they can be fitted."""
        runs = read_runs(scan)
        if self.is_t1_free:
            _check_timings_of_free_t1(runs)
        return runs

    def estimate(self, scan: ScanArguments, runs: "list[AslRun]", clock: Clock) -> Estimate:
        """Estimate the maps of a scan."""
        from aslkit.fit.intervals import profile_intervals
        from aslkit.fit.least_squares import fit_least_squares
        from aslkit.fit.settings import Arterial, FixedAtt, FreeAtt
        from aslkit.quality.figures import quality_figures

        with clock.timing("preparation"):
            prepared = prepare(scan, runs, self.sigma_mm)
        series = prepared.series
        try:
            given = None if self.att is None else _known_att(self.att, series, runs)
            settings = self._settings(series, scan.macrovascular, given)
        except ValueError as error:
            raise click.UsageError(str(error)) from error
        if isinstance(settings, FixedAtt) and given is None:
            print_result(
                "note: single-delay data do not determine ATT; ATT is held at "
                f"{settings.att_s:g} s. Give another value or a map with --att."
            )
        state = "on" if settings.has_arterial else "off"
        print_result(f"arterial compartment: {state} ({scan.macrovascular})")
        with clock.timing("fit"):
            maps = fit_least_squares(series, settings, progress)
        with clock.timing("quality"):
            figures = quality_figures(series, maps, settings, prepared.tissue)
            is_profiled = isinstance(settings, FreeAtt | Arterial) and self.cbf_bounds is None
            has_profile = is_profiled and scan.diagnostics
            intervals = profile_intervals(series, maps, settings) if has_profile else {}
        fields = _describe(settings, self)
        return Estimate(prepared, maps, settings, fields, figures, intervals)

    def _settings(
        self, series: "AslSeries", macrovascular: str, att_s: "float | FloatImage | None"
    ) -> "FitSettings":
        """Return the settings of the fit from the options and the acquisition."""
        from aslkit.fit.settings import FixedAtt, FreeT1, choose_settings

        if self.is_t1_free:
            return FreeT1(att_bounds_s=self.att_bounds)
        if att_s is not None:
            return FixedAtt(att_s, self.cbf_bounds, att_bounds_s=self.att_bounds)
        return choose_settings(
            series.acquisition,
            macrovascular,
            att_bounds_s=self.att_bounds,
            cbf_bounds=self.cbf_bounds,
        )


def _check_options_of_free_t1(
    scan: ScanArguments, att: str | None, cbf_bounds: tuple[float, float] | None
) -> None:
    if scan.kinetic != "tissue":
        raise click.UsageError("--fit-t1t needs --kinetic tissue")
    others = {
        "--att": att is not None,
        "--cbf-bounds": cbf_bounds is not None,
        "--macrovascular on": scan.macrovascular == "on",
        "--t1t": scan.t1_tissue_s is not None,
    }
    given = " and ".join(name for name, is_given in others.items() if is_given)
    if given:
        raise click.UsageError(f"--fit-t1t excludes {given}")


def _check_timings_of_free_t1(runs: "list[AslRun]") -> None:
    from aslkit.fit.free_t1 import check_protocol
    from aslkit.prepare.series import joined_acquisition

    try:
        check_protocol(joined_acquisition(runs))
    except ValueError as error:
        raise click.UsageError(f"--fit-t1t: {error}") from error
    print_result("note: --fit-t1t: the arterial compartment is off")


def _known_att(given: str, series: "AslSeries", runs: "list[AslRun]") -> "float | FloatImage":
    """Return the value of --att [s], or its map."""
    from aslkit.bids.nifti import read_on_grid

    try:
        seconds = float(given)
    except ValueError:
        return read_on_grid(Path(given), series.mask.shape, runs[0].affine)
    if not 0 < seconds <= LONGEST_DELAY_S:
        raise InputError(
            "--att",
            "",
            found=given,
            expected=f"seconds, above 0 to {LONGEST_DELAY_S:g}",
            fix="give --att 1.3",
        )
    return seconds


def _describe(settings: "FitSettings", options: LeastSquaresEstimator) -> dict[str, object]:
    from aslkit.bids.sidecar import path_in_dataset
    from aslkit.fit.settings import FixedAtt

    known = settings.att_s if isinstance(settings, FixedAtt) else None
    is_map = known is not None and not isinstance(known, float)
    free_t1 = {"TissueT1": None, "TissueT1Bounds": list(T1_TISSUE_BOUNDS_S)}
    return {
        "Estimator": "voxel-wise least squares",
        "ArterialCompartment": settings.has_arterial,
        "FixedATT": path_in_dataset(Path(str(options.att))) if is_map else known,
        "ATTBounds": list(settings.att_bounds_s),
        "CBFBounds": options.cbf_bounds and list(options.cbf_bounds),
        "SmoothingSigma": options.sigma_mm,
        **(free_t1 if options.is_t1_free else {}),
    }


if __name__ == "__main__":
    main()
