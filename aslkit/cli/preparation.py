"""Runs and options of a scan -> the prepared scan, with a line per step on the terminal."""

from typing import TYPE_CHECKING

from aslkit.cli.scan_options import ScanArguments
from aslkit.cli.terminal import print_result, progress
from aslkit.core.constants import N_ARTERIAL_PARAMETERS
from aslkit.core.errors import InputError

if TYPE_CHECKING:
    from aslkit.bids.run import AslRun
    from aslkit.core.series_and_maps import AslSeries
    from aslkit.prepare.pipeline import Prepared


def prepare(
    scan: ScanArguments, runs: "list[AslRun]", smoothing_sigma_mm: float = 0.0
) -> "Prepared":
    """Prepare the runs as the options state, and print what was done."""
    from aslkit.prepare.pipeline import PreparationSettings, prepare_runs

    settings = PreparationSettings(
        mask=scan.mask,
        realign=scan.moco,
        outlier_z=scan.outliers,
        smoothing_sigma_mm=smoothing_sigma_mm,
        gm=scan.gm,
        wm=scan.wm,
    )
    prepared = prepare_runs(runs, settings, progress)
    for message in prepared.messages:
        print_result(message)
    _check_macrovascular(scan, prepared.series)
    return prepared


def _check_macrovascular(scan: ScanArguments, series: "AslSeries") -> None:
    labelings = [timing.labeling for timing in series.acquisition.timings]
    n_delays = len(labelings) - labelings.count("vsasl")
    if scan.macrovascular == "on" and n_delays < N_ARTERIAL_PARAMETERS:
        raise InputError(
            "--macrovascular on",
            "",
            found=f"{n_delays} delays of PCASL, CASL or PASL",
            expected=f"at least {N_ARTERIAL_PARAMETERS}, one for each of CBF, ATT, aBV and aBAT",
            fix="give --macrovascular auto",
        )
