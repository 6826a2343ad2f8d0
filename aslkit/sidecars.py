"""BIDS files beside and above an image -> its metadata, volume types and M0 image."""

import json
import math
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from aslkit.errors import InputError
from aslkit.nifti import EXTENSIONS, stem


@dataclass(frozen=True)
class Sidecar:
    """The inherited metadata of one image, each field with the file it stands in.

    Attributes
    ----------
    path : Path
        The nearest JSON file, or the one expected beside the image when there is none.
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
        """The JSON files that contributed."""
        return tuple(dict.fromkeys(self.origins.values()))

    def refuse(self, field: str, *, expected: str, fix: str, found: object = None) -> InputError:
        """The error that names the file in which `field` stands (or should stand)."""
        missing = "nothing" if self.origins else "no such file"
        value = self.values.get(field, missing) if found is None else found
        return InputError(
            self.origins.get(field, self.path), field, found=value, expected=expected, fix=fix
        )

    def text(self, field: str) -> str | None:
        """A text field, or None where it is absent."""
        value = self.values.get(field)
        if value is not None and not isinstance(value, str):
            raise self.refuse(field, expected="text", fix=f'write "{field}": "…"')
        return value

    def is_true(self, field: str) -> bool | None:
        """A boolean field, or None where it is absent."""
        value = self.values.get(field)
        if value is not None and not isinstance(value, bool):
            raise self.refuse(
                field, expected="true or false", fix=f'write "{field}": true or false'
            )
        return value

    def number(self, field: str) -> float | None:
        """A finite number, or None where it is absent."""
        value = self.values.get(field)
        if value is None or _is_number(value):
            return None if value is None else float(value)  # type: ignore[arg-type]
        raise self.refuse(
            field, expected="a number", fix=f"write the number without quotes: {field}"
        )

    def numbers(self, field: str) -> NDArray[np.float64] | None:
        """A number or a list of numbers as a 1D array, or None where the field is absent."""
        value = self.values.get(field)
        if value is None:
            return None
        items = value if isinstance(value, list) else [value]
        if not items or not all(_is_number(item) for item in items):
            raise self.refuse(
                field,
                found=_abridged(value),
                expected="a number or a list of numbers",
                fix="write numbers without quotes, one per volume",
            )
        return np.array(items, dtype=np.float64)

    def per_volume(self, field: str, n_volumes: int) -> NDArray[np.float64] | None:
        """A scalar or per-volume field as (n_volumes,), or None where it is absent."""
        values = self.numbers(field)
        if values is None:
            return None
        if values.size not in (1, n_volumes):
            raise self.refuse(
                field,
                found=f"{values.size} entries",
                expected=f"1 or {n_volumes}, one per volume of the NIfTI (not per pair)",
                fix="list every volume, control, label and m0scan alike",
            )
        return np.broadcast_to(values, (n_volumes,))


def entities(path: Path) -> tuple[dict[str, str], str]:
    """BIDS entities and suffix of a file name: ({"sub": "01"}, "asl")."""
    *parts, suffix = stem(path).split("_")
    pairs = (part.partition("-") for part in parts)
    return {key: value for key, _, value in pairs}, suffix


def absolute(path: Path) -> Path:
    """Absolute path with symbolic links kept: data stores keep the voxels behind links."""
    return Path(os.path.abspath(path))


def dataset_root(path: Path) -> Path:
    """The data set that holds a file; its own folder where there is no data set."""
    folder = absolute(path).parent
    for parent in (folder, *folder.parents):
        if (parent / "dataset_description.json").is_file():
            return parent
    subjects = [p.parent for p in (folder, *folder.parents) if p.name.startswith("sub-")]
    return subjects[-1] if subjects else folder


def read_sidecar(image: Path) -> Sidecar:
    """Merge the JSON files beside and above an image; the nearer and more specific one wins."""
    values: dict[str, object] = {}
    origins: dict[str, Path] = {}
    path = image.with_name(f"{stem(image)}.json")
    for path in _inherited(image, entities(image)[1], ".json"):  # noqa: B007
        content = _read_json(path)
        values.update(content)
        origins.update(dict.fromkeys(content, path))
    return Sidecar(path, values, origins)


def find_context(image: Path) -> Path | None:
    """The nearest *_aslcontext.tsv that applies to an ASL image."""
    beside = image.with_name(f"{stem(image)}_aslcontext.tsv")
    files = [*_inherited(image, "aslcontext", ".tsv"), *([beside] if beside.is_file() else [])]
    return files[-1] if files else None


def read_context(path: Path) -> tuple[str, ...]:
    """The column `volume_type` of an aslcontext file, blank lines left out.

    Raises
    ------
    InputError
        When the column is missing or a value is no BIDS volume type.
    """
    lines = [line.split("\t") for line in _read_text(path).splitlines() if line.strip()]
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


def find_m0scans(image: Path) -> list[Path]:
    """The perf/*_m0scan images whose IntendedFor names an ASL image (never those in fmap/)."""
    root, own = dataset_root(image), absolute(image)
    wanted = stem(own)
    found = []
    for path in m0_candidates(image):
        sidecar = read_sidecar(path)
        targets = sidecar.values.get("IntendedFor")
        targets = targets if isinstance(targets, list) else [targets]
        resolved = (_resolve_intended(str(t), path, root) for t in targets if t)
        if any(t.parent == own.parent and stem(t) == wanted for t in resolved):
            found.append(path)
    return _closest_by_entities(found, image)


def m0_candidates(image: Path) -> list[Path]:
    """All m0scan images in perf/ folders of the subject, or beside the image."""
    folder = absolute(image).parent
    subject = next((p for p in folder.parents if p.name.startswith("sub-")), None)
    folders = sorted(subject.glob("**/perf")) if subject else [folder]
    return [p for f in folders for e in EXTENSIONS for p in sorted(f.glob(f"*_m0scan{e}"))]


def _closest_by_entities(paths: Sequence[Path], image: Path) -> list[Path]:
    """Of several M0 images, those that share the most entities with the ASL image."""
    own = entities(image)[0].items()
    shared = [len(own & entities(p)[0].items()) for p in paths]
    return [p for p, n in zip(paths, shared, strict=True) if n == max(shared)]


def _resolve_intended(target: str, m0scan: Path, root: Path) -> Path:
    """Absolute path of an IntendedFor entry: a bids: URI, or relative to the subject's folder."""
    if target.startswith("bids:"):
        return absolute(root / target.split(":", 2)[-1])
    subject = next((p for p in m0scan.parents if p.name.startswith("sub-")), m0scan.parent)
    relative = target.removeprefix(f"{subject.name}/")
    beside = absolute(m0scan.parent / target)
    return beside if beside.is_file() else absolute(subject / relative)


def _inherited(image: Path, suffix: str, extension: str) -> Iterator[Path]:
    """Files that apply to an image by the BIDS inheritance principle, the most general first."""
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


def _read_json(path: Path) -> dict[str, object]:
    try:
        content = json.loads(_read_text(path))
    except json.JSONDecodeError as error:
        raise InputError(
            path,
            f"line {error.lineno}",
            found=f"invalid JSON ({error.msg})",
            expected="a JSON object",
            fix="correct the line; a missing or surplus comma is the usual cause",
        ) from error
    except RecursionError as error:
        raise InputError(
            path,
            "",
            found="JSON nested too deeply",
            expected="a flat JSON object",
            fix="rewrite it",
        ) from error
    if not isinstance(content, dict):
        raise InputError(
            path,
            "",
            found=f"a JSON {type(content).__name__}",
            expected='a JSON object, {"Field": value, …}',
            fix="write the fields inside braces",
        )
    return content


def _read_text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(
            path,
            "",
            found=f"a file that cannot be read ({error})",
            expected="UTF-8 text",
            fix="save it as UTF-8 and check its permissions",
        ) from error


def _is_number(value: object) -> bool:
    is_numeric = isinstance(value, int | float) and not isinstance(value, bool)
    return is_numeric and math.isfinite(value)  # type: ignore[arg-type]


def _abridged(value: object) -> str:
    text = str(value)
    return text if len(text) <= 80 else f"{text[:77]}..."


VOLUME_TYPES = ("control", "label", "deltam", "m0scan", "cbf", "noRF", "n/a")
