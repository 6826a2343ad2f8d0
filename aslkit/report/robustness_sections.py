"""Results on phantoms -> sections on scale, field of view, bad scans and single delays."""

import numpy as np

from aslkit.report.charts import Panel, Points, draw_panels
from aslkit.report.page import Section, Table
from aslkit.report.phantom_table import PhantomTable, Sweep
from aslkit.report.shared_sections import format_number
from aslkit.report.style import line_styles

FLOOR_PERCENT = 1e-4  # smaller deviations are rounding errors; they are drawn at this value
TO_PERCENT = np.array([1, 100, 1, 1])  # factors on the columns of Points: y from share to percent


def scale_sections(results: PhantomTable) -> list[Section]:
    """Return how CBF changes when signal and noise are multiplied by a factor."""
    slopes = results.sweeps(r"scale x(\S+) slope")
    deviations = results.sweeps(r"scale x(\S+) deviation 95th percentile")
    if not slopes:
        return []
    panels = [
        panel
        for slope, deviation in zip(slopes, deviations, strict=True)
        for panel in (_slope_panel(slope), _deviation_panel(deviation))
    ]
    ratios = [
        [sweep.setting.title, e, format_number(points[0, 1], 2)]
        for sweep in results.sweeps(r"scale 0\.1 to (10) ratio")
        for e, points in sweep.lines.items()
    ]
    text = (
        "When signal and noise are multiplied by k, CBF should be multiplied by k as well. A "
        "network that has learned typical CBF values may fail this test. Left: slope of "
        "CBF(k × signal) on k × CBF(signal); 1 is perfect. Right: 95th percentile over voxels of "
        "the relative deviation, on a logarithmic axis that ends at "
        f"{FLOOR_PERCENT:.4f} %."
    )
    columns = ["protocol", "method", "mean CBF at k = 10 / mean CBF at k = 0.1 (100 is right)"]
    return [
        Section(
            "Does CBF follow the scale of the signal?",
            text,
            draw_panels(panels, line_styles(results.estimators), n_columns=4),
            Table(columns, ratios, n_text=2) if ratios else None,
        )
    ]


def field_of_view_sections(results: PhantomTable) -> list[Section]:
    """Return how CBF changes with the share of the image that is brain."""
    panels = [_fill_panel(sweep) for sweep in results.sweeps(r"FOV fill (\d+)% deviation")]
    if not panels:
        return []
    text = (
        "The same brain in smaller and larger fields of view, with noise in the added air. The "
        "curves show the 95th percentile over voxels of the relative change of CBF. It is 0 for "
        "a voxel-wise method."
    )
    picture = draw_panels(panels, line_styles(results.estimators), n_columns=4)
    return [Section("Does an emptier field of view change CBF?", text, picture)]


def detection_sections(results: PhantomTable) -> list[Section]:
    """Return how well scans with an artefact are distinguished from clean scans."""
    rows = [
        [artefact, e, f"{snr:g}", format_number(auroc, 2)]
        for (artefact, e), by_snr in results.detection_aurocs().items()
        for snr, auroc in by_snr.items()
    ]
    text = (
        "Area under the ROC curve (AUROC) of the score that asl_predict --ood reports, for scans "
        "with an artefact against clean scans: 1 is perfect detection, 0.5 is chance. 'by energy' "
        "uses the confidence of the network instead. The scans have four repeats and spatially "
        "correlated noise. A shift of all delays can look like a longer ATT, which this score "
        "cannot detect."
    )
    table = Table(["artefact", "maps by", "SNR", "AUROC"], rows, n_text=2)
    return [Section("Are bad scans noticed?", text, table=table)] if rows else []


def single_delay_sections(results: PhantomTable) -> list[Section]:
    """Return errors and bias of CBF from protocols with one delay."""
    settings = [s for s in results.main_settings if not results.has_att(s)]
    columns = ["protocol", "method"] + [
        f"{metric} SNR {snr:g}" for metric in ("MAE", "bias") for snr in results.snrs
    ]
    rows = [
        [s.title, e]
        + [
            format_number(results.score(s, e, "cbf", metric, snr=snr).value, 2)
            for metric in ("MAE", "bias")
            for snr in results.snrs
        ]
        for s in settings
        for e in results.estimators_in(s)
    ]
    text = (
        "Whole brain, CBF in ml/100 g/min. One delay does not determine ATT, so the methods "
        "assume a value. CBF is biased where blood arrives later than assumed."
    )
    if not settings:
        return []
    return [Section("CBF from a single delay", text, table=Table(columns, rows, 2))]


def _slope_panel(sweep: Sweep) -> Panel:
    return Panel(
        f"Slope, {sweep.title}",
        "factor k on the signal",
        "slope",
        sweep.lines,
        sweep.factors,
        "x",
        ideal=[(sweep.factors[0], 1), (sweep.factors[-1], 1)],
        y_limits=_limits(sweep.lines, 0.98, 1.02),
    )


def _deviation_panel(sweep: Sweep) -> Panel:
    lines = {e: np.maximum(p * TO_PERCENT, FLOOR_PERCENT) for e, p in sweep.lines.items()}
    _, high = _limits(lines, 0.0, 1.0)
    return Panel(
        f"Deviation, {sweep.title}",
        "factor k on the signal",
        "95th percentile [%]",
        lines,
        sweep.factors,
        "xy",
        y_limits=(FLOOR_PERCENT / 1.5, 1.5 * high),
    )


def _fill_panel(sweep: Sweep) -> Panel:
    lines = {e: p * TO_PERCENT for e, p in sweep.lines.items()}
    return Panel(
        f"CBF, {sweep.title}",
        "brain in the field of view [%]",
        "95th percentile of change [%]",
        lines,
        sweep.factors,
        y_limits=_limits(lines, 0.0, 1.0),
    )


def _limits(lines: dict[str, Points], low: float, high: float) -> tuple[float, float]:
    """Return axis limits that contain all lines and at least the range from low to high.

    The minimum range keeps rounding errors from filling the panel.
    """
    values = np.concatenate([points[:, 1] for points in lines.values()])
    low, high = min(low, float(np.nanmin(values))), max(high, float(np.nanmax(values)))
    margin = 0.05 * (high - low)
    return low - margin, high + margin
