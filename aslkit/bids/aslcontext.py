"""The *_aslcontext.tsv of an ASL image, or the user's --order -> volume types."""

from collections.abc import Sequence
from pathlib import Path

from aslkit.bids.json_files import read_text
from aslkit.bids.nifti import stem
from aslkit.bids.overrides import ORDERS, Overrides
from aslkit.bids.run import PERFUSION_CONTEXTS
from aslkit.bids.sidecar import inherited_files
from aslkit.core.errors import InputError

VOLUME_TYPES = ("control", "label", "deltam", "m0scan", "cbf", "noRF", "n/a")


def read_volume_types(
    path: Path, n_volumes: int, overrides: Overrides
) -> tuple[tuple[str, ...], tuple[Path, ...]]:
    """Return the volume type of every volume, and the file that states it (None with --order).

    Raises
    ------
    InputError
        When no source states the types, their number is wrong, or no pair can be subtracted.
    """
    file = find_context(path)
    if file is None and overrides.order is None:
        name = stem(path).removesuffix("_asl")
        raise InputError(
            path.with_name(f"{name}_aslcontext.tsv"),
            "",
            found="no such file",
            expected="the type of every volume, one per line",
            fix="add it, or give --order ct, tc or diff",
        )
    stated = read_context(file) if file else (PERFUSION_CONTEXTS[0],) * n_volumes
    if len(stated) != n_volumes:
        raise InputError(
            file,
            "volume_type",
            found=f"{len(stated)} volumes",
            expected=f"{n_volumes}, the number of volumes of {path.name}",
            fix="write one line per volume, m0scan volumes included",
        )
    files = () if file is None else (file,)
    contexts = _reordered(stated, overrides.order) if overrides.order else stated
    _check_usable(file or path, contexts)
    return contexts, files


def _check_usable(file: Path, contexts: Sequence[str]) -> None:
    """Check that the volumes are control-label pairs or differences."""
    kinds = sorted(set(contexts))
    raw = [c for c in kinds if c in ("control", "label")]
    if "cbf" in kinds:
        raise InputError(
            file,
            "volume_type",
            found="cbf volumes, which the scanner has quantified already",
            expected="control and label, or deltam, volumes",
            fix="mark the cbf volumes n/a; aslkit reads perfusion-weighted images",
        )
    if raw and "deltam" in kinds:
        raise InputError(
            file,
            "volume_type",
            found=f"deltam volumes besides {' and '.join(raw)} volumes",
            expected="one of the two kinds",
            fix="mark one kind n/a",
        )
    if "deltam" not in kinds and len(raw) < 2:
        raise InputError(
            file,
            "volume_type",
            found=f"only {', '.join(kinds)}",
            expected="control and label, or deltam, volumes",
            fix="correct the volume types",
        )


def _reordered(contexts: Sequence[str], order: str) -> tuple[str, ...]:
    """Relabel the perfusion volumes in the user's order."""
    cycle = ORDERS[order]
    positions = [i for i, c in enumerate(contexts) if c in PERFUSION_CONTEXTS]
    if len(positions) % len(cycle):
        raise InputError(
            "--order",
            "",
            found=f"{order} for {len(positions)} perfusion volumes",
            expected="an even number of volumes",
            fix="mark m0scan volumes in an aslcontext file, or give --order diff",
        )
    new = dict(zip(positions, cycle * (len(positions) // len(cycle)), strict=True))
    return tuple(new.get(i, c) for i, c in enumerate(contexts))


def find_context(image: Path) -> Path | None:
    """Return the nearest *_aslcontext.tsv that applies to an ASL image."""
    beside = image.with_name(f"{stem(image)}_aslcontext.tsv")
    files = [
        *inherited_files(image, "aslcontext", ".tsv"),
        *([beside] if beside.is_file() else []),
    ]
    return files[-1] if files else None


def read_context(path: Path) -> tuple[str, ...]:
    """Read the column `volume_type` of an aslcontext file; blank lines are skipped.

    Raises
    ------
    InputError
        When the column is missing, or a value is not a BIDS volume type.
    """
    lines = [line.split("\t") for line in read_text(path).splitlines() if line.strip()]
    header = [name.strip() for name in lines[0]] if lines else []
    if "volume_type" not in header:
        raise InputError(
            path,
            "first line",
            found=" ".join(header) or "an empty file",
            expected="the column name volume_type",
            fix="start the file with a line volume_type",
        )
    column = header.index("volume_type")
    values = tuple(line[column].strip() if column < len(line) else "" for line in lines[1:])
    for number, value in enumerate(values, start=1):
        if value not in VOLUME_TYPES:
            raise InputError(
                path,
                f"volume_type of volume {number}",
                found=repr(value),
                expected=f"one of {', '.join(VOLUME_TYPES)}",
                fix="use the BIDS volume types, in lower case",
            )
    return values
