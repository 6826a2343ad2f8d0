"""Path of the CBF map -> paths of all maps of a scan, with unit and meaning."""

import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from aslkit.bids.nifti import EXTENSIONS, stem
from aslkit.bids.sidecar import path_in_dataset
from aslkit.core.errors import InputError

INTERVAL_ENDS = ("low", "high")
CBF_TOKEN = re.compile(r"(?<![A-Za-z0-9])cbf(?![A-Za-z0-9])")


@dataclass(frozen=True)
class MapKind:
    """Unit and meaning of a map, for its sidecar."""

    units: str
    description: str
    volumes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Destination:
    """Output paths of the maps of one scan.

    Attributes
    ----------
    cbf : Path
        Path of the CBF map.
    desc : str
        Value of the `desc-` entity in a BIDS derivative; empty for other files.
    raw : Path, optional
        Raw data set of a BIDS derivative.
    fields : mapping
        Additional fields of the sidecars.
    """

    cbf: Path
    desc: str = ""
    raw: Path | None = None
    fields: Mapping[str, object] = field(default_factory=dict)

    def path(self, kind: str) -> Path:
        """Return the path of a map; `cbf-std` of a derivative is `…_desc-lsStd_cbf.nii.gz`."""
        if not self.desc:
            return sibling(self.cbf, kind)
        suffix, *parts = kind.split("-")
        start = self.cbf.name.removesuffix(f"_desc-{self.desc}_cbf.nii.gz")
        desc = self.desc + "".join(part.capitalize() for part in parts)
        return self.cbf.with_name(f"{start}_desc-{desc}_{suffix}.nii.gz")

    def source(self, path: Path) -> str:
        """Return the name of an input in sidecars: a BIDS URI, or the path in its data set."""
        if self.raw is None or not path.is_relative_to(self.raw):
            return path_in_dataset(path)
        return f"bids:raw:{path.relative_to(self.raw).as_posix()}"


def check_output(out: Path, sources: Sequence[Path] = ()) -> None:
    """Check that an output name is a NIfTI file and that no map replaces an input."""
    if not out.name.endswith(EXTENSIONS) or out.is_dir():
        raise InputError(
            out,
            "",
            found="a folder" if out.is_dir() else "another kind of file",
            expected="a file name that ends in .nii.gz or .nii",
            fix="give -o cbf.nii.gz",
        )
    written = {_without_extension(sibling(out, kind)) for kind in MAP_KINDS}
    for source in sources:
        if _without_extension(source) in written:
            raise InputError(
                out,
                "",
                found=f"a name that would replace {source}",
                expected="a place of its own for the maps",
                fix="give another -o",
            )


def sibling(out: Path, kind: str) -> Path:
    """Return the path of another map: the `cbf` token is replaced, or else the kind appended."""
    if kind == "cbf":
        return out
    name = stem(out)
    tokens = list(CBF_TOKEN.finditer(name))
    extension = out.name[len(name) :]
    if not tokens:
        return out.with_name(f"{name}_{kind}{extension}")
    start, end = tokens[-1].span()
    return out.with_name(f"{name[:start]}{kind}{name[end:]}{extension}")


def _without_extension(path: Path) -> Path:
    return Path(os.path.realpath(path.parent)) / stem(path)


MAP_KINDS = {
    "cbf": MapKind("mL/100 g/min", "Cerebral blood flow"),
    "att": MapKind("s", "Arterial transit time"),
    "cbf-std": MapKind("mL/100 g/min", "Standard deviation of the cerebral blood flow"),
    "att-std": MapKind("s", "Standard deviation of the arterial transit time"),
    "flags": MapKind("arbitrary", "Quality of every voxel's estimate"),
    "abv": MapKind("1", "Arterial blood volume, a fraction"),
    "t1t": MapKind("s", "T1 of tissue, within TissueT1Bounds"),
    "t1t-std": MapKind("s", "Standard deviation of the T1 of tissue"),
    "cbf-std-data": MapKind("mL/100 g/min", "Part of cbf-std that is the data's noise"),
    "att-std-data": MapKind("s", "Part of att-std that is the data's noise"),
    "cbf-std-network": MapKind(
        "mL/100 g/min", "Part of cbf-std in which the passes of the network differ"
    ),
    "att-std-network": MapKind("s", "Part of att-std in which the passes of the network differ"),
    "cbf-confidence": MapKind("1", "Probability that CBF is off by less than 10 mL/100 g/min"),
    "att-confidence": MapKind("1", "Probability that ATT is off by less than 0.2 s"),
    "ood": MapKind(
        "1", "Mean square of the smoothed residuals, in units of that of white noise; 1 or less"
    ),
    "fit": MapKind("1", "Fitted control - label difference, a fraction of M0"),
    "chi2": MapKind("1", "Reduced chi2: squared residuals over noise and degrees of freedom"),
    "adequacy": MapKind("1", "Probability of a chi2 at least as large, were the model true"),
    "cbf-ci95": MapKind("mL/100 g/min", "95 % interval of the cerebral blood flow", INTERVAL_ENDS),
    "att-ci95": MapKind(
        "s", "95 % interval of the arterial transit time, cut at ATTBounds", INTERVAL_ENDS
    ),
    "pld": MapKind(
        "s", "Post-labeling delay with slice timing; a volume per entry of PostLabelingDelay"
    ),
}
