"""Estimated maps -> files on disk and the summary that a user reads."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from aslkit.cli.common import say
from aslkit.cli.preparation import Prepared
from aslkit.cli.scan_options import ScanArguments

if TYPE_CHECKING:
    from aslkit.images import AslSeries, FloatImage, ParameterMaps


def write_results(
    scan: ScanArguments,
    prepared: Prepared,
    maps: "ParameterMaps",
    estimator: Mapping[str, object],
) -> list[Path]:
    """Write the maps with everything used in their sidecars; `estimator` says how they were made.

    Returns the files written.
    """
    from aslkit.derivatives import describe, write_maps
    from aslkit.fitting import fitted_signal

    if scan.out is None:
        raise ValueError("no output file was given")
    runs, series = prepared.runs, prepared.series
    fitted = fitted_signal(maps, series.acquisition) if scan.fitted else None
    sidecar = {**describe(runs, series), **prepared.fields, **estimator}
    return write_maps(maps, scan.out, runs[0].header, sidecar, fitted, prepared.extras)


def print_summary(
    series: "AslSeries", maps: "ParameterMaps", files: list[Path], seconds: float
) -> None:
    """Mean and median of the maps in the mask, shares of flagged voxels, time, and files."""
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
    say(f"\n{'in the mask':20s} {'mean':>8s} {'median':>8s}")
    for label, image, where, digits in rows:
        say(f"{label:20s} {_statistics(image[where], digits)}")
    say(f"\nvoxels in the mask: {series.mask.sum()}, flagged {100 * sum(shares.values()):.1f} %")
    say(f"  {flagged}")
    say(f"time: {seconds:.1f} s")
    say("written: " + ", ".join(str(path) for path in files))


def _statistics(values: "FloatImage", digits: int) -> str:
    import numpy as np

    if not values.size:
        return f"{'none':>8s} {'none':>8s}"
    return f"{np.mean(values):8.{digits}f} {np.median(values):8.{digits}f}"
