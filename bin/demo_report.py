"""Maps of least squares and network -> a table on the terminal, maps.png and report.html.

Usage: demo_report.py PREFIX [TRUTH_CBF TRUTH_ATT], where PREFIX_desc-ls_cbf.nii.gz and its
siblings are the maps. The page and the picture are written beside them.
"""

import sys
from pathlib import Path

import numpy as np

from aslkit.bids.nifti import read_volumes
from aslkit.core.constants import MIN_CBF
from aslkit.core.series_and_maps import Flag, FloatImage, MaskImage, ParameterMaps
from aslkit.report.map_pictures import map_comparison
from aslkit.report.page import Page, Section, Table, provenance, render_page

ESTIMATORS = {"least squares": "ls", "network": "network"}
COLUMNS = ("median over the brain", "CBF", "± sd", "ATT [s]", "± sd")
ERROR_COLUMNS = ("mean error of CBF", "of ATT [ms]")
GLOSSARY = {
    "CBF": "Cerebral blood flow, ml/100 g/min.",
    "ATT": "Arterial transit time.",
    "± sd": "The standard deviation that the method states for one voxel.",
}


def main() -> None:
    """Read the maps, print the table, write the picture and the page."""
    prefix, truth_files = Path(sys.argv[1]), [Path(name) for name in sys.argv[2:]]
    maps = {name: read_maps(prefix, label) for name, label in ESTIMATORS.items()}
    unusable = (Flag.NOT_FINITE, Flag.OUTSIDE)
    mask = np.logical_and.reduce([~np.isin(m.flags, unusable) for m in maps.values()])
    truth = truth_maps(*map(read, truth_files)) if truth_files else None
    table = summary(maps, mask, truth)
    shown = {**maps, "truth": truth} if truth else maps
    picture = map_comparison(shown, mask, prefix.name)
    report = Page(
        title=f"CBF and ATT of {prefix.name}",
        lead=["Exact voxel-wise least squares beside the network that corrects it."],
        headline=table,
        glossary=GLOSSARY,
        sections=[Section("Maps", "Axial slices; each row shares one scale.", image=picture)],
        facts=provenance(),
    )
    page = prefix.parent / "report.html"
    page.write_text(render_page(report), encoding="utf-8")
    (prefix.parent / "maps.png").write_bytes(picture)
    print(f"\n{table.as_text()}\n")
    print(f"Maps:    {prefix.parent}")
    print(f"Picture: {prefix.parent / 'maps.png'}")
    print(f"Report:  {page}")


def read(path: Path) -> FloatImage:
    """Return the values of a 3D image."""
    return read_volumes(path)[0][..., 0]


def read_maps(prefix: Path, label: str) -> ParameterMaps:
    """Read the maps that one command wrote."""

    def image(kind: str) -> FloatImage:
        return read(prefix.with_name(f"{prefix.name}_desc-{label}_{kind}.nii.gz"))

    return ParameterMaps(
        cbf=image("cbf"),
        att=image("att"),
        cbf_std=image("cbf-std"),
        att_std=image("att-std"),
        flags=image("flags").astype(np.uint8),
    )


def truth_maps(cbf: FloatImage, att: FloatImage) -> ParameterMaps:
    """Return the true maps with standard deviations of zero."""
    zero = np.zeros_like(cbf)
    return ParameterMaps(cbf, att, zero, zero, zero.astype(np.uint8))


def summary(maps: dict[str, ParameterMaps], mask: MaskImage, truth: ParameterMaps | None) -> Table:
    """Return medians over the brain and, where the truth is known, mean absolute errors."""
    rows = [[name, *_medians(m, mask)] for name, m in maps.items()]
    if truth is None:
        return Table(COLUMNS, rows)
    where = mask & (truth.cbf > MIN_CBF)
    for row, m in zip(rows, maps.values(), strict=True):
        cbf_error = np.abs(m.cbf - truth.cbf)[where].mean()
        att_error = 1000 * np.abs(m.att - truth.att)[where].mean()
        row += [f"{cbf_error:.2f}", f"{att_error:.0f}"]
    cbf, _, att, _ = _medians(truth, mask)
    rows.append(["truth", cbf, "", att, "", "", ""])
    return Table(COLUMNS + ERROR_COLUMNS, rows)


def _medians(maps: ParameterMaps, mask: MaskImage) -> list[str]:
    images = ((maps.cbf, 1), (maps.cbf_std, 1), (maps.att, 2), (maps.att_std, 2))
    return [f"{np.median(image[mask]):.{digits}f}" for image, digits in images]


if __name__ == "__main__":
    main()
