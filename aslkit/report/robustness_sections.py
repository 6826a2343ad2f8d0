"""Findings on phantoms -> sections on what should not change CBF, and on CBF from one delay."""

import numpy as np

from aslkit.report.charts import Panel, Points, draw_panels
from aslkit.report.page import Section, Table
from aslkit.report.phantom_table import PhantomTable, Sweep
from aslkit.report.shared_sections import format_number
from aslkit.report.style import line_styles

FLOOR_PERCENT = 1e-4  # smaller deviations are rounding, and drawn here
PERCENT = np.array([1, 100, 1, 1])  # turns the y of points from shares into per cent


def scale_sections(results: PhantomTable) -> list[Section]:
    """What happens to CBF when signal and noise are multiplied by a factor."""
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
        "CBF of a signal that is k times larger, noise included, should be k times larger; a "
        "network that learned typical values would pull it back. Slope of CBF(k·signal) on "
        "k·CBF(signal), 1 is perfect; and the relative deviation that 95 % of the voxels stay "
        f"below (logarithmic; what is below {FLOOR_PERCENT:.4f} % is drawn there)."
    )
    columns = ["protocol", "method", "mean CBF at k = 10 over that at 0.1 (100 is right)"]
    return [
        Section(
            "Does CBF follow the scale of the signal?",
            text,
            draw_panels(panels, line_styles(results.estimators), n_columns=4),
            Table(columns, ratios, n_text=2) if ratios else None,
        )
    ]


def field_of_view_sections(results: PhantomTable) -> list[Section]:
    """What CBF owes to how much of the image is brain."""
    panels = [_fill_panel(sweep) for sweep in results.sweeps(r"FOV fill (\d+)% deviation")]
    if not panels:
        return []
    text = (
        "The same brain in smaller and larger fields of view, with noise in the new air: the "
        "relative change of CBF, against the scan as it is, that 95 % of the voxels stay below. "
        "A voxel-wise method has none."
    )
    picture = draw_panels(panels, line_styles(results.estimators), n_columns=4)
    return [Section("Does an emptier field of view change CBF?", text, picture)]


def detection_sections(results: PhantomTable) -> list[Section]:
    """How well the score of leftovers tells scans with an artefact from clean ones."""
    found = results.detection_aurocs()
    rows = [
        [artefact, e, f"{snr:g}", format_number(area, 2)]
        for (artefact, e), areas in found.items()
        for snr, area in areas.items()
    ]
    text = (
        "Area under the ROC curve of the score that asl_predict --ood reports: 1 where every scan "
        "with the artefact scores higher than every clean one, 0.5 by chance; 'by energy', of the "
        "doubt of a network that states its confidence instead. Four repeats, noise "
        "that is correlated between neighbours and over regions. A shift of all delays can look "
        "like a longer ATT, and then no misfit shows it."
    )
    table = Table(["artefact", "maps by", "SNR", "AUROC"], rows, n_text=2)
    return [Section("Are bad scans noticed?", text, table=table)] if rows else []


def single_delay_sections(results: PhantomTable) -> list[Section]:
    """CBF where one delay leaves ATT unknown."""
    own = [s for s in results.main_settings if not results.has_att(s)]
    columns = ["protocol", "method"] + [
        f"{metric} SNR {snr:g}" for metric in ("MAE", "bias") for snr in results.snrs
    ]
    rows = [
        [s.title, e]
        + [
            format_number(results.figure(s, e, "cbf", metric, snr=snr)[0], 2)
            for metric in ("MAE", "bias")
            for snr in results.snrs
        ]
        for s in own
        for e in results.estimators_in(s)
    ]
    text = (
        "CBF in ml/100 g/min over the whole brain, from one delay: what is known about ATT is "
        "assumed, and blood that arrives later than that biases CBF."
    )
    return [Section("CBF from a single delay", text, table=Table(columns, rows, 2))] if own else []


def _slope_panel(sweep: Sweep) -> Panel:
    return Panel(
        f"Slope, {sweep.title}",
        "factor k on the signal",
        "slope",
        sweep.lines,
        sweep.xs,
        "x",
        ideal=[(sweep.xs[0], 1), (sweep.xs[-1], 1)],
        y_limits=_limits(sweep.lines, 0.98, 1.02),
    )


def _deviation_panel(sweep: Sweep) -> Panel:
    lines = {e: np.maximum(p * PERCENT, FLOOR_PERCENT) for e, p in sweep.lines.items()}
    _, high = _limits(lines, 0.0, 1.0)
    return Panel(
        f"Deviation, {sweep.title}",
        "factor k on the signal",
        "95th percentile [%]",
        lines,
        sweep.xs,
        "xy",
        y_limits=(FLOOR_PERCENT / 1.5, 1.5 * high),
    )


def _fill_panel(sweep: Sweep) -> Panel:
    lines = {e: p * PERCENT for e, p in sweep.lines.items()}
    return Panel(
        f"CBF, {sweep.title}",
        "brain in the field of view [%]",
        "95th percentile of change [%]",
        lines,
        sweep.xs,
        y_limits=_limits(lines, 0.0, 1.0),
    )


def _limits(lines: dict[str, Points], low: float, high: float) -> tuple[float, float]:
    """Limits that hold all lines, and at least low to high, so that rounding looks like none."""
    values = np.concatenate([points[:, 1] for points in lines.values()])
    low, high = min(low, float(np.nanmin(values))), max(high, float(np.nanmax(values)))
    margin = 0.05 * (high - low)
    return low - margin, high + margin
