"""Read thousands of damaged inputs: each must be read, or refused with one sentence.

Usage: python bin/dev/fuzz.py [sidecar|image|model ...] [--cases N] [--seed S]
Counts inputs that were read, refused (InputError, exit code 3) and crashed (other exceptions, or
more than 20 s). Prints the first crash of each kind with the number of its case.
"""

import argparse
import contextlib
import copy
import gzip
import json
import logging
import random
import signal
import sys
import tempfile
import time
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

ROOT = Path(__file__).parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

from scans import CONTEXTS, SIDECAR, write_scan  # noqa: E402

from aslkit.bids.reader import read_run  # noqa: E402
from aslkit.core.errors import AslkitError  # noqa: E402
from aslkit.nets.card_text import describe_card  # noqa: E402
from aslkit.nets.model_store import CARD, PACKAGE_FOLDER, WEIGHTS, load_model  # noqa: E402
from aslkit.prepare.series import series_from_runs  # noqa: E402
from aslkit.report.page import machine  # noqa: E402

SLOW_S = 20
LARGEST_FLOAT = 1e300
HEADER = 352  # bytes of a NIfTI header, where most damage matters
ODD_VALUES: tuple[object, ...] = (
    None, True, False, 0, -1, 1, 2, 1e-300, 1e300, -1e9, 2**63, 10**400, 0.5, 1800, float("nan"),
    float("inf"), "", " ", "n/a", "NaN", "1.8", "PCASL", "pcasl", "Separate", "\u0000", "\ud800",
    "x" * 10_000, "../../../etc/passwd", "bids::sub-01/perf/sub-01_m0scan.nii.gz", [], [[]], {},
    [None], [0, "a"], [1.8] * 10_000, {"a": 1},
)  # fmt: skip
ODD_FIELDS = (
    "M0Estimate", "M0", "IntendedFor", "LookLocker", "BolusCutOffFlag", "BolusCutOffDelayTime",
    "BolusCutOffTechnique", "LabelingEfficiency", "TotalAcquiredPairs", "Units", "EchoTime",
    "FlipAngle", "BackgroundSuppressionNumberPulses", "BackgroundSuppressionPulseTime",
    "RepetitionTime", "AcquisitionVoxelSize", "MultibandAccelerationFactor", "ScanOptions",
)  # fmt: skip
Case = Callable[[random.Random, Path], Callable[[], object]]


def sidecar(rng: random.Random, folder: Path) -> Callable[[], object]:
    """Damage values or bytes of the sidecar or the aslcontext file of a scan."""
    image = write_scan(folder)
    path = image.with_name("sub-01_asl.json")
    fields = copy.deepcopy(SIDECAR)
    for _ in range(rng.choice((1, 1, 2, 4))):
        _damage_fields(rng, fields)
    path.write_bytes(_encoded(rng, json.dumps(fields)))
    if rng.random() < 0.3:
        lines = ["volume_type", *CONTEXTS, ""]
        _damage_lines(rng, lines)
        path.with_name("sub-01_aslcontext.tsv").write_bytes(_encoded(rng, "\n".join(lines)))
    return lambda: series_from_runs([read_run(image)])


def image(rng: random.Random, folder: Path) -> Callable[[], object]:
    """Damage bytes of the image of a scan, mostly of its header, or its length."""
    path = write_scan(folder)
    data = bytearray(gzip.decompress(path.read_bytes()))
    for _ in range(rng.choice((1, 1, 2, 4, 8))):
        _damage_bytes(rng, data, HEADER if rng.random() < 0.85 else len(data))
    if rng.random() < 0.2:
        del data[rng.randrange(len(data)) :]
    packed = bytearray(gzip.compress(bytes(data), 1))
    if rng.random() < 0.2:
        _damage_bytes(rng, packed, len(packed))
    path.write_bytes(packed)
    return lambda: series_from_runs([read_run(path)])


def model(rng: random.Random, folder: Path) -> Callable[[], object]:
    """Damage the card or the weights of a copy of a shipped model."""
    source = PACKAGE_FOLDER / "voxelwise"
    card, weights = (source / CARD).read_text(), bytearray((source / WEIGHTS).read_bytes())
    if rng.random() < 0.6:
        values = json.loads(card)
        section = values[rng.choice(("network", "encoding"))] if rng.random() < 0.6 else values
        _damage_fields(rng, section)
        card = json.dumps(values)
    else:
        _damage_bytes(rng, weights, rng.choice((8, 2000, len(weights))))
    if rng.random() < 0.2:
        del weights[rng.randrange(len(weights)) :]
    (folder / CARD).write_bytes(_encoded(rng, card))
    (folder / WEIGHTS).write_bytes(weights)
    return lambda: describe_card(load_model(str(folder)).card)


KINDS: dict[str, Case] = {f.__name__: f for f in (sidecar, image, model)}


def main() -> None:
    """Run the requested kinds of damage."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("kinds", nargs="*", metavar="KIND", help=", ".join(KINDS))
    parser.add_argument("--cases", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    logging.disable()
    print(f"machine: {machine()}, seed {options.seed}")
    n_crashes = 0
    for kind in options.kinds or KINDS:
        began = time.perf_counter()
        counts, crashes = fuzzed(kind, options.cases, options.seed)
        shown = ", ".join(f"{n} {what}" for what, n in sorted(counts.items()))
        print(f"{kind}: {options.cases} cases, {shown}; {time.perf_counter() - began:.0f} s")
        for what, case in crashes.items():
            print(f"  case {case}: {what}")
        n_crashes += counts["crashed"]
    sys.exit(bool(n_crashes))


def fuzzed(kind: str, n: int, seed: int) -> tuple[Counter[str], dict[str, int]]:
    """Count the outcomes, and keep the first case of every crash."""
    counts: Counter[str] = Counter()
    crashes: dict[str, int] = {}
    for case in range(n):
        with tempfile.TemporaryDirectory() as name:
            read = KINDS[kind](random.Random(f"{kind} {seed} {case}"), Path(name))
            try:
                with _no_longer_than(SLOW_S), warnings.catch_warnings():
                    warnings.simplefilter("ignore")
                    read()
                counts["read"] += 1
            except AslkitError:
                counts["refused"] += 1
            except Exception as error:  # any other exception counts as a crash
                counts["crashed"] += 1
                crashes.setdefault(f"{type(error).__name__}: {error}"[:200], case)
    return counts, crashes


@contextlib.contextmanager
def _no_longer_than(seconds: int) -> Iterator[None]:
    def late(*_: object) -> None:
        raise TimeoutError(f"more than {seconds} s")

    previous = signal.signal(signal.SIGALRM, late)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, previous)


def _damage_fields(rng: random.Random, fields: dict[str, object]) -> None:
    """Remove, add, replace or alter one field, or one of its elements."""
    name = rng.choice(list(fields) or ["x"])
    value = fields.get(name)
    what = rng.randrange(6)
    if what == 0:
        fields.pop(name, None)
    elif what == 1:
        fields[rng.choice((*ODD_FIELDS, name.lower(), name + "s"))] = rng.choice(ODD_VALUES)
    elif what == 2 and isinstance(value, list) and value:
        value[rng.randrange(len(value))] = rng.choice(ODD_VALUES)
    elif what == 3 and isinstance(value, list):
        fields[name] = value[: rng.randrange(len(value) + 1)] * rng.choice((1, 1, 2))
    elif what == 4 and isinstance(value, int | float) and abs(value) < LARGEST_FLOAT:
        fields[name] = value * rng.choice((-1, 0, 1e-3, 1e3, 1e30))
    else:
        fields[name] = rng.choice(ODD_VALUES)


def _damage_lines(rng: random.Random, lines: list[str]) -> None:
    place = rng.randrange(len(lines))
    if rng.random() < 0.5:
        del lines[place]
    else:
        lines[place] = rng.choice(("", "label", "M0", "control\tlabel", "\u0000", "n/a", "deltam"))


def _damage_bytes(rng: random.Random, data: bytearray, end: int) -> None:
    """Overwrite one to eight bytes before `end` with random or extreme values."""
    place, n = rng.randrange(max(min(end, len(data)), 1)), rng.choice((1, 1, 2, 4, 8))
    new = rng.choice((rng.randbytes(n), b"\x00" * n, b"\xff" * n, b"\x7f" + b"\x00" * (n - 1)))
    data[place : place + n] = new[: len(data) - place]


def _encoded(rng: random.Random, text: str) -> bytes:
    """Encode a text, sometimes truncated, in another encoding, deeply nested or with odd bytes."""
    data = bytearray(text.encode("utf-8", "surrogatepass"))
    what = rng.randrange(24)
    if what == 0:
        del data[rng.randrange(len(data) + 1) :]
    elif what == 1:
        return text.encode(rng.choice(("utf-16", "utf-8-sig", "utf-32")), "surrogatepass")
    elif what == 2:
        return b"[" * 100_000 + bytes(data)
    elif what == 3:
        _damage_bytes(rng, data, len(data))
    return bytes(data)


if __name__ == "__main__":
    main()
