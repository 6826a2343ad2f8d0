"""Estimated maps -> files on disk and the summary that a user reads."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from aslkit.cli.common import say
from aslkit.cli.preparation import Prepared
from aslkit.cli.scan_options import ScanArguments

if TYPE_CHECKING:
    from aslkit.fitting import FitSettings
    from aslkit.images import AslSeries, FloatImage, ParameterMaps
    from aslkit.quality import Figures

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
    "whole brain as a proxy; QEI and GM figures need --gm and --wm",
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


def write_results(
    scan: ScanArguments,
    prepared: Prepared,
    maps: "ParameterMaps",
    settings: "FitSettings",
    estimator: Mapping[str, object],
    figures: "Figures",
    more_images: "Mapping[str, FloatImage] | None" = None,
) -> list[Path]:
    """Write the maps with everything used in their sidecars; `estimator` says how they were made.

    `more_images` go beside the diagnostic maps, or replace those of their kind.
    Returns the files written, sidecars aside.
    """
    from aslkit.derivatives import describe, write_maps
    from aslkit.diagnostics import diagnostic_maps, missing_diagnostics
    from aslkit.fitting import fitted_signal

    if scan.out is None:
        raise ValueError("no output file was given")
    runs, series = prepared.runs, prepared.series
    images: dict[str, FloatImage] = {}
    notes: list[str] = []
    if scan.fitted:
        images["fit"] = fitted_signal(maps, series.acquisition)
    if scan.diagnostics:
        images |= diagnostic_maps(series, maps, settings)
        notes = list(missing_diagnostics(series, settings))
    images |= more_images or {}
    for note in notes:
        say(f"note: {note}")
    sidecar = {**describe(runs, series, notes), **prepared.fields, **estimator}
    sidecar["DegreesOfFreedom"] = settings.n_free(series.acquisition)
    sidecar["TissueMaps"] = [str(path) for path in (scan.gm, scan.wm) if path is not None]
    return write_maps(maps, scan.out, runs[0].header, sidecar, figures, images, prepared.files)


def print_summary(
    series: "AslSeries",
    maps: "ParameterMaps",
    figures: "Figures",
    files: list[Path],
    seconds: float,
) -> None:
    """Mean and median of the maps in the mask, flagged voxels, quality, time, and files."""
    import numpy as np

    from aslkit.images import Flag

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
    say(f"\n{'in the mask':20s} {'mean':>8s} {'median':>8s}")
    for label, image, where, digits in rows:
        say(f"{label:20s} {_statistics(image[where], digits)}")
    say(f"\nvoxels in the mask: {series.mask.sum()}, flagged {100 * sum(shares.values()):.1f} %")
    say(f"  {flagged}")
    for line in _quality(figures):
        say(line)
    say(f"time: {seconds:.1f} s")
    say("written: " + ", ".join(str(path) for path in files))


def _statistics(values: "FloatImage", digits: int) -> str:
    import numpy as np

    if not values.size:
        return f"{'none':>8s} {'none':>8s}"
    return f"{np.mean(values):8.{digits}f} {np.median(values):8.{digits}f}"


def _quality(figures: "Figures") -> tuple[str, str]:
    """The figures that matter most, in two lines."""
    region, shown = IN_BRAIN if figures["qei_cbf"] is None else IN_GM
    return f"quality: {_known(figures, shown)} ({region})", f"fit: {_known(figures, OF_FIT)}"


def _known(figures: "Figures", shown: Shown) -> str:
    """Labels and values of those figures that the data define."""
    values = [(label, figures[name]) for label, name in shown]
    return ", ".join(f"{label} {value:.2f}" for label, value in values if value is not None)
