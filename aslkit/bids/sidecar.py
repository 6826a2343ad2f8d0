"""JSON files beside and above an image -> its metadata, by the BIDS inheritance principle."""

import json
import math
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from aslkit.bids.json_files import read_json
from aslkit.bids.nifti import stem
from aslkit.core.errors import InputError

BIDS_VERSION = "1.11.0"  # version of the data sets that aslkit writes
LARGEST_INTEGER = 1e15  # larger values are invalid in BIDS, and floats are not exact


@dataclass(frozen=True)
class Sidecar:
    """The inherited metadata of one image, with the file of each field.

    Methods that read a field refuse one of another type (InputError).

    Attributes
    ----------
    path : Path
        The nearest JSON file, or the expected file beside the image if none exists.
    values : mapping
        Field to value.
    origins : mapping
        Field to the file it was read from.
    """

    path: Path
    values: Mapping[str, object]
    origins: Mapping[str, Path]

    @property
    def files(self) -> tuple[Path, ...]:
        """Return the JSON files with at least one used field."""
        return tuple(dict.fromkeys(self.origins.values()))

    def refuse(self, field: str, *, expected: str, fix: str, found: object = None) -> InputError:
        """Return the error that names the file in which `field` is, or should be."""
        if found is None:
            found = _shown(self.values.get(field)) if self.origins else "no such file"
        return InputError(
            self.origins.get(field, self.path), field, found=found, expected=expected, fix=fix
        )

    def text(self, field: str) -> str | None:
        """Return a text field, or None if it is absent."""
        value = self.values.get(field)
        if value is not None and not isinstance(value, str):
            raise self.refuse(field, expected="text", fix=f'write "{field}": "…"')
        return value

    def is_true(self, field: str) -> bool | None:
        """Return a boolean field, or None if it is absent."""
        value = self.values.get(field)
        if value is not None and not isinstance(value, bool):
            raise self.refuse(
                field, expected="true or false", fix=f'write "{field}": true or false'
            )
        return value

    def number(self, field: str) -> float | None:
        """Return a finite number, or None if the field is absent."""
        value = self.values.get(field)
        if value is None or _is_number(value):
            return None if value is None else float(value)  # type: ignore[arg-type]
        raise self.refuse(
            field, expected="a number", fix=f'write "{field}": and one number, without quotes'
        )

    def numbers(self, field: str) -> NDArray[np.float64] | None:
        """Return a number or a list of numbers as a 1D array, or None if the field is absent."""
        value = self.values.get(field)
        if value is None:
            return None
        items = value if isinstance(value, list) else [value]
        if not items or not all(_is_number(item) for item in items):
            raise self.refuse(
                field,
                expected="a number or a list of numbers",
                fix="write the numbers without quotes",
            )
        return np.array(items, dtype=np.float64)

    def per_volume(self, field: str, n_volumes: int) -> NDArray[np.float64] | None:
        """Return a scalar or per-volume field as (n_volumes,), or None if it is absent."""
        values = self.numbers(field)
        if values is None:
            return None
        if values.size not in (1, n_volumes):
            raise self.refuse(
                field,
                found=f"{values.size} entries",
                expected=f"1 or {n_volumes}, one per volume of the NIfTI (not per pair)",
                fix="list all volumes: control, label and m0scan",
            )
        return np.broadcast_to(values, (n_volumes,))


def entities(path: Path) -> tuple[dict[str, str], str]:
    """Return the BIDS entities and the suffix of a file name: ({"sub": "01"}, "asl")."""
    *parts, suffix = stem(path).split("_")
    pairs = (part.partition("-") for part in parts)
    return {key: value for key, _, value in pairs}, suffix


def is_magnitude(path: Path) -> bool:
    """Whether a file name belongs to a magnitude image (not to a phase or another part)."""
    return entities(path)[0].get("part", "mag") == "mag"


def absolute(path: Path) -> Path:
    """Return the absolute path with symbolic links kept, because data stores use links."""
    return Path(os.path.abspath(path))


def dataset_root(path: Path) -> Path:
    """Return the data set of a file, or its folder if there is no data set."""
    folder = absolute(path).parent
    for parent in (folder, *folder.parents):
        if (parent / "dataset_description.json").is_file():
            return parent
    subjects = [p.parent for p in (folder, *folder.parents) if p.name.startswith("sub-")]
    return subjects[-1] if subjects else folder


def path_in_dataset(path: Path) -> str:
    """Return the path of a file relative to its data set."""
    return absolute(path).relative_to(dataset_root(path)).as_posix()


def read_sidecar(image: Path) -> Sidecar:
    """Merge the JSON files beside and above an image; nearer and more specific files win."""
    values: dict[str, object] = {}
    origins: dict[str, Path] = {}
    path = image.with_name(f"{stem(image)}.json")
    for path in inherited_files(image, entities(image)[1], ".json"):  # noqa: B007
        content = read_json(path)
        values.update(content)
        origins.update(dict.fromkeys(content, path))
    return Sidecar(path, values, origins)


def inherited_files(image: Path, suffix: str, extension: str) -> Iterator[Path]:
    """Return the files that apply to an image by BIDS inheritance, the most general first."""
    own = entities(image)[0].items()
    root, folder = dataset_root(image), absolute(image).parent
    above = [p for p in (*reversed(folder.parents), folder) if p == root or root in p.parents]
    for parent in above:
        applicable = []
        for path in parent.glob(f"*{suffix}{extension}"):
            theirs, their_suffix = entities(path)
            if their_suffix == suffix and theirs.items() <= own:
                applicable.append((len(theirs), path))
        yield from (path for _, path in sorted(applicable))


def _is_number(value: object) -> bool:
    if isinstance(value, int) and not isinstance(value, bool):
        return abs(value) < LARGEST_INTEGER
    return isinstance(value, float) and math.isfinite(value)


def _shown(value: object) -> str:
    """Return a JSON value as text, shortened."""
    text = "nothing" if value is None else json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 80 else f"{text[:77]}..."
