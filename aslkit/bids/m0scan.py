"""An ASL image and the m0scan files of its subject -> the m0scan files of the image."""

from collections.abc import Sequence
from pathlib import Path

from aslkit.bids.nifti import EXTENSIONS, stem
from aslkit.bids.sidecar import absolute, dataset_root, entities, is_magnitude, read_sidecar


def find_m0scans(image: Path) -> list[Path]:
    """Return the perf/*_m0scan images whose IntendedFor names an ASL image (fmap/ is ignored)."""
    own = absolute(image)
    found = [
        path
        for path in m0_candidates(image)
        if any(t.parent == own.parent and stem(t) == stem(own) for t in _intended_for(path))
    ]
    return _closest_by_entities(found, image)


def m0_candidates(image: Path) -> list[Path]:
    """Return all magnitude m0scan images in perf/ folders of the subject, or beside the image."""
    folder = absolute(image).parent
    subject = next((p for p in folder.parents if p.name.startswith("sub-")), None)
    folders = sorted(subject.glob("**/perf")) if subject else [folder]
    paths = [p for f in folders for e in EXTENSIONS for p in sorted(f.glob(f"*_m0scan{e}"))]
    return [p for p in paths if is_magnitude(p)]


def _closest_by_entities(paths: Sequence[Path], image: Path) -> list[Path]:
    """Select the M0 images that share the most entities with the ASL image."""
    own = entities(image)[0].items()
    shared = [len(own & entities(p)[0].items()) for p in paths]
    return [p for p, n in zip(paths, shared, strict=True) if n == max(shared)]


def _intended_for(m0scan: Path) -> list[Path]:
    """Return the absolute paths of the images that an m0scan names."""
    sidecar, root = read_sidecar(m0scan), dataset_root(m0scan)
    stated = sidecar.values.get("IntendedFor")
    targets = stated if isinstance(stated, list) else [] if stated is None else [stated]
    resolved = [_resolve_intended(t, m0scan, root) for t in targets if isinstance(t, str)]
    if len(resolved) < len(targets) or not all(root in path.parents for path in resolved):
        raise sidecar.refuse(
            "IntendedFor",
            expected="one image of this data set, or a list of them",
            fix='write "IntendedFor": "bids::sub-…/perf/…_asl.nii.gz"',
        )
    return resolved


def _resolve_intended(target: str, m0scan: Path, root: Path) -> Path:
    """Return the absolute path of an IntendedFor entry (bids: URI, or path in the subject)."""
    if target.startswith("bids:"):
        return absolute(root / target.split(":", 2)[-1])
    subject = next((p for p in m0scan.parents if p.name.startswith("sub-")), m0scan.parent)
    relative = target.removeprefix(f"{subject.name}/")
    beside = absolute(m0scan.parent / target)
    return beside if beside.is_file() else absolute(subject / relative)
