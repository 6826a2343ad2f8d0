"""Scan options of asl_fit_ls and asl_predict -> the runs of a scan."""

from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING

import click

from aslkit.cli.command import options_as_dataclass
from aslkit.cli.option_types import (
    FRACTION,
    KINETIC,
    LABELING,
    MACROVASCULAR,
    T1_RANGE,
    NumberList,
    Threshold,
)
from aslkit.cli.terminal import print_result
from aslkit.core.constants import OUTLIER_Z

if TYPE_CHECKING:
    from aslkit.bids.overrides import Overrides
    from aslkit.bids.run import AslRun


@dataclass(frozen=True)
class ScanArguments:
    """Values of the shared options; None means the value of the sidecar or the default."""

    inputs: tuple[Path, ...]
    out: Path | None
    mask: Path | None
    m0: str | None
    m0_scale: float | None
    m0_tr_s: float | None
    correct_m0_tr: bool
    plds_s: tuple[float, ...] | None
    label_durations_s: tuple[float, ...] | None
    labeling: str | None
    order: str | None
    bolus_duration_s: float | None
    alpha: float | None
    alpha_bs: float | None
    n_bs: int | None
    t1_blood_s: float | None
    t1_tissue_s: float | None
    kinetic: str | None
    slice_dt_s: float | None
    partition_ml_per_g: float | None
    macrovascular: str
    gm: Path | None
    wm: Path | None
    outliers: float | None
    moco: bool
    fitted: bool
    diagnostics: bool
    dry_run: bool

    def overrides(self) -> "Overrides":
        """Return the values that replace the metadata."""
        from aslkit.bids.overrides import Overrides

        names = {f.name for f in fields(Overrides)}
        given = {f.name: getattr(self, f.name) for f in fields(self) if f.name in names}
        return Overrides(**{name: value for name, value in given.items() if value is not None})


def check_scan(scan: ScanArguments) -> None:
    """Check that the input, the output and both tissue maps are given."""
    if not scan.inputs:
        raise click.UsageError("give the ASL image: -i FILE")
    if scan.out is None and not scan.dry_run:
        raise click.UsageError("give the CBF map to write: -o FILE")
    if (scan.gm is None) != (scan.wm is None):
        raise click.UsageError("give both tissue maps: --gm FILE --wm FILE")


def read_runs(scan: ScanArguments) -> "list[AslRun]":
    """Read every input and print its timing table."""
    from aslkit.bids.reader import read_run
    from aslkit.outputs.map_names import check_output
    from aslkit.prepare.timing_table import timing_table

    if scan.out is not None:
        check_output(scan.out)
    overrides = scan.overrides()
    runs = [read_run(path, overrides) for path in scan.inputs]
    if scan.out is not None:
        check_output(scan.out, [source for run in runs for source in run.sources])
    print_result(timing_table(runs))
    if overrides.changed:
        print_result("overrides: " + ", ".join(f"{k} = {v}" for k, v in overrides.changed.items()))
    return runs


_FILE = click.Path(path_type=Path)
outliers_option = click.option(
    "--outliers",
    type=Threshold(),
    metavar="Z|off",
    default=str(OUTLIER_Z),
    show_default=True,
    help="Reject control-label pairs with a robust z-score above Z.",
)
moco_option = click.option(
    "--moco/--no-moco",
    default=False,
    show_default=True,
    help="Realign the volumes (rigid motion correction) before subtraction.",
)
_OPTIONS = (
    click.option(
        "-i",
        "--in",
        "inputs",
        type=_FILE,
        multiple=True,
        metavar="FILE",
        help="ASL image; its sidecars and M0 image are found by BIDS rules. Repeat -i for the "
        "runs of a joint acquisition.",
    ),
    click.option(
        "-o",
        "--out",
        type=_FILE,
        metavar="FILE",
        help="CBF map. The other maps are written to the same folder.",
    ),
    click.option(
        "-m", "--mask", type=_FILE, metavar="FILE", help="Brain mask [computed from the M0 image]."
    ),
    click.option("--m0", metavar="FILE|NUMBER", help="M0 image, or one M0 value for all voxels."),
    click.option(
        "--m0-scale",
        type=click.FloatRange(0, 1_000_000, min_open=True),
        metavar="X",
        help="Factor by which M0 is multiplied [1].",
    ),
    click.option(
        "--m0-tr",
        "m0_tr_s",
        type=click.FloatRange(0.1, 60),
        metavar="S",
        help="Repetition time of the M0 image.",
    ),
    click.option(
        "--no-m0-tr-correction",
        "correct_m0_tr",
        flag_value=False,
        type=bool,
        default=True,
        help="Do not correct the M0 image for a short repetition time.",
    ),
    click.option(
        "--plds",
        "plds_s",
        type=NumberList(),
        metavar="A,B,…",
        help="Post-labeling delays: one, one per volume, or one cycle of delays that repeats.",
    ),
    click.option(
        "--label-duration",
        "label_durations_s",
        type=NumberList(),
        metavar="A,B,…",
        help="Label duration: one, one per volume, or one cycle of durations that repeats.",
    ),
    click.option("--labeling", type=LABELING, help="Labeling method."),
    click.option(
        "--order",
        type=click.Choice(["ct", "tc", "diff"]),
        help="Order of the volumes: control first, label (tag) first, or differences.",
    ),
    click.option(
        "--bolus-duration",
        "bolus_duration_s",
        type=click.FloatRange(0, 20, min_open=True),
        metavar="S",
        help="Bolus duration of PASL (TI1).",
    ),
    click.option("--alpha", type=FRACTION, metavar="X", help="Labeling efficiency."),
    click.option(
        "--alpha-bs",
        type=FRACTION,
        metavar="X",
        help="Background-suppression efficiency of one pulse.",
    ),
    click.option(
        "--n-bs",
        type=click.IntRange(0, 10),
        metavar="N",
        help="Number of background-suppression pulses.",
    ),
    click.option("--t1b", "t1_blood_s", type=T1_RANGE, metavar="S", help="T1 of blood [1.65]."),
    click.option("--t1t", "t1_tissue_s", type=T1_RANGE, metavar="S", help="T1 of tissue [1.3]."),
    click.option(
        "--kinetic",
        type=KINETIC,
        help="T1 of the label after its arrival: of blood (single, default) or tissue.",
    ),
    click.option(
        "--slice-dt",
        "slice_dt_s",
        type=click.FloatRange(min=0),
        metavar="S",
        help="Time between two slices; the lowest slice is acquired first.",
    ),
    click.option(
        "--lambda",
        "partition_ml_per_g",
        type=click.FloatRange(0.1, 2),
        metavar="X",
        help="Blood-brain partition coefficient [0.9 ml/g].",
    ),
    click.option(
        "--macrovascular",
        type=MACROVASCULAR,
        default="auto",
        show_default=True,
        help="Arterial compartment; auto: if the protocol supports it.",
    ),
    click.option(
        "--gm",
        type=_FILE,
        metavar="FILE",
        help="Grey matter probability map, for quality figures.",
    ),
    click.option(
        "--wm",
        type=_FILE,
        metavar="FILE",
        help="White matter probability map, for quality figures.",
    ),
    outliers_option,
    moco_option,
    click.option("--fitted", is_flag=True, help="Also write the fitted signal, fit.nii.gz."),
    click.option(
        "--diagnostics",
        is_flag=True,
        help="Also write maps of chi2, model adequacy, 95 % intervals and effective delays.",
    ),
    click.option("--dry-run", is_flag=True, help="Print the timing table of the input and exit."),
)
scan_options = options_as_dataclass(_OPTIONS, ScanArguments, "scan")
