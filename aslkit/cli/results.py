"""Estimated maps -> files on disk and a printed summary."""

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from aslkit.cli.scan_options import ScanArguments
from aslkit.cli.terminal import print_result

if TYPE_CHECKING:
    from aslkit.bids.run import AslRun
    from aslkit.core.series_and_maps import FloatImage, ParameterMaps
    from aslkit.fit.settings import FitSettings
    from aslkit.outputs.map_names import Destination
    from aslkit.prepare.pipeline import Prepared
    from aslkit.quality.figures import Figures

Shown = tuple[tuple[str, str], ...]  # label and name of each figure
IN_GM: tuple[str, Shown] = (
    "grey matter",
    (
        ("QEI", "qei_cbf"),
        ("GM/WM CBF", "ratio_gm_wm_cbf"),
        ("spatial CoV", "spatial_cov_gm_cbf"),
        ("negative CBF [%]", "percentage_negative_cbf"),
    ),
)
IN_BRAIN: tuple[str, Shown] = (
    "whole brain instead of grey matter; QEI and GM figures need --gm and --wm",
    (
        ("spatial CoV", "spatial_cov_brain_cbf"),
        ("negative CBF [%]", "percentage_negative_brain_cbf"),
    ),
)
OF_FIT: Shown = (
    ("median chi2", "median_reduced_chi2"),
    ("expected", "expected_reduced_chi2"),
    ("temporal SNR", "temporal_snr"),
    ("CBF above 150 [%]", "percentage_cbf_above_150"),
)


class Clock:
    """Wall time of the steps of a command."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}

    @contextmanager
    def timing(self, name: str) -> Iterator[None]:
        """Add the time spent in the context to a step."""
        start = time.perf_counter()
        yield
        self.seconds[name] = self.seconds.get(name, 0.0) + time.perf_counter() - start

    def __str__(self) -> str:
        steps = ", ".join(f"{name} {seconds:.1f} s" for name, seconds in self.seconds.items())
        return f"{sum(self.seconds.values()):.1f} s ({steps})"


@dataclass(frozen=True)
class Estimate:
    """Maps of a scan, and the content of their sidecars.

    Attributes
    ----------
    prepared : Prepared
    maps : ParameterMaps
    settings : FitSettings
        Settings of the least-squares fit that the maps are based on.
    fields : mapping
        Sidecar fields written by the estimator.
    figures : Figures
        Quality figures.
    images : mapping
        Additional maps by kind; they replace diagnostic maps of the same kind.
    """

    prepared: "Prepared"
    maps: "ParameterMaps"
    settings: "FitSettings"
    fields: Mapping[str, object]
    figures: "Figures"
    images: "Mapping[str, FloatImage]"


class Estimator(Protocol):
    """An estimator: the part in which asl_fit_ls and asl_predict differ."""

    def desc(self) -> str:
        """Return the name of the estimator in file names."""
        ...

    def parameters(self) -> dict[str, object]:
        """Return the options of the estimator that the maps depend on."""
        ...

    def read(self, scan: ScanArguments) -> "list[AslRun]":
        """Read the runs of a scan and check that the estimator supports them."""
        ...

    def estimate(self, scan: ScanArguments, runs: "list[AslRun]", clock: Clock) -> Estimate:
        """Estimate the maps of a scan."""
        ...


def write_results(
    scan: ScanArguments, estimate: Estimate, destination: "Destination"
) -> list[Path]:
    """Write the maps with their sidecars.

    Returns
    -------
    list of Path
        The files written, except the sidecars.
    """
    from aslkit.fit.least_squares import fitted_signal
    from aslkit.outputs.maps import describe_scan, write_maps
    from aslkit.quality.goodness_of_fit import diagnostic_maps, missing_diagnostics

    prepared, maps, settings = estimate.prepared, estimate.maps, estimate.settings
    runs, series = prepared.runs, prepared.series
    images: dict[str, FloatImage] = {}
    notes: list[str] = []
    if scan.fitted:
        images["fit"] = fitted_signal(maps, series.acquisition)
    if scan.diagnostics:
        images |= diagnostic_maps(series, maps, settings)
        notes = list(missing_diagnostics(series, settings))
    images |= estimate.images
    for note in notes:
        print_result(f"note: {note}")
    sidecar = {**describe_scan(runs, series, notes), **prepared.fields, **estimate.fields}
    sources = dict.fromkeys(destination.source(p) for run in runs for p in run.sources)
    sidecar["Sources"] = list(sources)
    sidecar["DegreesOfFreedom"] = settings.degrees_of_freedom(series.acquisition)
    sidecar["TissueMaps"] = [
        destination.source(path) for path in (scan.gm, scan.wm) if path is not None
    ]
    sidecar |= destination.fields
    header, figures, files = runs[0].header, estimate.figures, prepared.files
    return write_maps(maps, destination, header, sidecar, figures, images, files)


def print_summary(estimate: Estimate, files: list[Path], clock: Clock) -> None:
    """Print means and medians in the mask, flagged voxels, quality, time and files."""
    import numpy as np

    from aslkit.core.series_and_maps import Flag

    series, maps = estimate.prepared.series, estimate.maps
    flags = maps.flags[series.mask]
    shares = {flag.name: float(np.mean(flags == flag)) for flag in Flag if flag != Flag.OK}
    flagged = ", ".join(
        f"{name.lower().replace('_', ' ')} {100 * share:.1f} %" for name, share in shares.items()
    )
    has_value = series.mask & (maps.flags != Flag.NOT_FINITE) & (maps.flags != Flag.OUTSIDE)
    rows = [
        ("CBF [ml/100 g/min]", maps.cbf, has_value, 1),
        ("ATT [s]", maps.att, has_value & (maps.flags != Flag.ATT_UNDETERMINED), 3),
    ]
    if maps.abv is not None:
        rows.append(("aBV [%]", 100 * maps.abv, has_value, 3))
    if maps.t1_tissue is not None:
        rows.append(("tissue T1 [s]", maps.t1_tissue, has_value, 3))
    print_result(f"\n{'in the mask':20s} {'mean':>8s} {'median':>8s}")
    for label, image, where, digits in rows:
        print_result(f"{label:20s} {_statistics(image[where], digits)}")
    print_result(
        f"\nvoxels in the mask: {series.mask.sum()}, flagged {100 * sum(shares.values()):.1f} %"
    )
    print_result(f"  {flagged}")
    for line in _quality(estimate.figures):
        print_result(line)
    print_result(f"time: {clock}")
    print_result("written: " + ", ".join(str(path) for path in files))


def _statistics(values: "FloatImage", digits: int) -> str:
    import numpy as np

    if not values.size:
        return f"{'none':>8s} {'none':>8s}"
    return f"{np.mean(values):8.{digits}f} {np.median(values):8.{digits}f}"


def _quality(figures: "Figures") -> tuple[str, str]:
    """Return two lines with the main quality figures."""
    region, shown = IN_BRAIN if figures["qei_cbf"] is None else IN_GM
    return f"quality: {_known(figures, shown)} ({region})", f"fit: {_known(figures, OF_FIT)}"


def _known(figures: "Figures", shown: Shown) -> str:
    """Return the labels and values of the figures that are defined."""
    values = [(label, figures[name]) for label, name in shown]
    return ", ".join(f"{label} {value:.2f}" for label, value in values if value is not None)
