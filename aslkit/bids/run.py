"""A raw ASL run, read and checked -> control-label pairs by (label duration, PLD)."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import nibabel as nib
import numpy as np
from numpy.typing import NDArray

from aslkit.bids.overrides import NO_OVERRIDES, Overrides
from aslkit.bids.sidecar import Sidecar
from aslkit.core.acquisition import Timing
from aslkit.core.errors import InputError
from aslkit.core.series_and_maps import FloatImage, voxel_size_mm

PERFUSION_CONTEXTS = ("control", "label", "deltam")

TimingKey = tuple[float, float]


@dataclass(frozen=True)
class RawImage:
    """An ASL file with its metadata, before interpretation.

    Attributes
    ----------
    path : Path
        The NIfTI file.
    volumes : array (x, y, z, v)
        As stored.
    header : Nifti1Header
        Of the file.
    sidecar : Sidecar
        Inherited metadata.
    contexts : tuple of str
        BIDS volume type of every volume.
    """

    path: Path
    volumes: FloatImage
    header: nib.Nifti1Header
    sidecar: Sidecar
    contexts: tuple[str, ...]

    def indices(self, *contexts: str) -> list[int]:
        """Return the indices of the volumes of the given types."""
        return [i for i, c in enumerate(self.contexts) if c in contexts]


@dataclass(frozen=True)
class Efficiency:
    """Labeling efficiency `alpha`, its origin, and the number of suppression pulses."""

    alpha: float
    origin: str
    n_pulses: int
    per_pulse: float

    @property
    def total(self) -> float:
        """Return the labeling efficiency times the background-suppression efficiency."""
        return self.alpha * self.per_pulse**self.n_pulses


@dataclass(frozen=True)
class Calibration:
    """The equilibrium magnetisation that turns a difference into a fraction.

    Attributes
    ----------
    m0 : array (x, y, z) on the grid of the run, or float
        M0 in scanner units, before scaling and saturation correction.
    origin : str
        File or field of M0, for the timing table and the output sidecar.
    scale : float
        Gain between the M0 and the ASL images.
    repetition_time_s : float, optional
        TR of the M0 image [s]; None where unknown or not applicable.
    recovery : float
        Measured M0 divided by equilibrium M0; 1 without correction.
    sources, notes
        Files that were read, and notes on assumptions.
    """

    m0: FloatImage | float
    origin: str
    scale: float = 1.0
    repetition_time_s: float | None = None
    recovery: float = 1.0
    sources: tuple[Path, ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def equilibrium(self) -> FloatImage | float:
        """Return M0, scaled and corrected for incomplete recovery."""
        return self.m0 * (self.scale / self.recovery)


@dataclass(frozen=True)
class AslRun:
    """One raw ASL file with its metadata, read and checked.

    Attributes
    ----------
    source : Path
        The NIfTI file.
    volumes : array (x, y, z, v)
        As stored, in scanner units.
    header : Nifti1Header
        Carries the affine and its codes to the output.
    contexts : tuple of str
        BIDS volume type of every volume.
    plds_s, label_durations_s : array (v,)
        For every volume [s]; meaningless for volumes that are not perfusion volumes.
    slice_offsets_s : tuple of float
        Delay of each slice after the first acquired one [s]; (0,) for a 3D readout.
    pairs_per_deltam : int
        Control-label pairs that the scanner averaged into each deltam volume.
    overrides : Overrides
        Values of the user, and the constants of the model.
    sources : tuple of Path
        Every file that was read for this run.
    notes : tuple of str
        Assumptions and warnings, for the timing table and the output sidecar.
    """

    source: Path
    volumes: FloatImage
    header: nib.Nifti1Header
    contexts: tuple[str, ...]
    plds_s: NDArray[np.float64]
    label_durations_s: NDArray[np.float64]
    labeling: str
    efficiency: Efficiency
    calibration: Calibration
    slice_offsets_s: tuple[float, ...] = (0.0,)
    has_crusher: bool = False
    pairs_per_deltam: int = 1
    overrides: Overrides = NO_OVERRIDES
    sources: tuple[Path, ...] = ()
    notes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        n = self.volumes.shape[3]
        for name in ("contexts", "plds_s", "label_durations_s"):
            if len(getattr(self, name)) != n:
                raise ValueError(f"{name} has {len(getattr(self, name))} entries, expected {n}")

    @property
    def affine(self) -> NDArray[np.float64]:
        """Return the matrix from voxel to world coordinates (RAS mm), (4, 4)."""
        return np.asarray(self.header.get_best_affine(), dtype=np.float64)

    @property
    def voxel_size_mm(self) -> tuple[float, float, float]:
        """Return the edge lengths of a voxel [mm]."""
        return voxel_size_mm(self.affine)


@dataclass(frozen=True)
class Pair:
    """Indices of the volumes of one difference: plus - minus (minus is None for deltam)."""

    plus: int
    minus: int | None = None

    @property
    def indices(self) -> tuple[int, ...]:
        """Return the indices of the volumes of the pair."""
        return (self.plus,) if self.minus is None else (self.plus, self.minus)


def timing_groups(run: AslRun) -> dict[TimingKey, tuple[Pair, ...]]:
    """Group the repeats by (label duration, PLD), sorted by label duration, then PLD.

    Raises
    ------
    InputError
        When a group has control volumes only, or label volumes only.
    """
    keys = [_timing_key(run, i) for i in range(len(run.contexts))]
    perfusion = [i for i, c in enumerate(run.contexts) if c in PERFUSION_CONTEXTS]
    groups = {}
    for key in sorted({keys[i] for i in perfusion}):
        members = [i for i in perfusion if keys[i] == key]
        pairs = _pair_up(members, run.contexts)
        if not pairs:
            raise InputError(
                run.source,
                f"volumes of label duration {key[0]:g} s, PLD {key[1]:g} s",
                found=f"only {' and '.join(sorted({run.contexts[i] for i in members}))} volumes",
                expected="control and label volumes with equal timing",
                fix="correct PostLabelingDelay and LabelingDuration, one entry per volume",
            )
        groups[key] = pairs
    return groups


def difference(run: AslRun, pair: Pair) -> FloatImage:
    """Return control - label of one pair (x, y, z), in scanner units."""
    plus = run.volumes[..., pair.plus]
    return plus if pair.minus is None else plus - run.volumes[..., pair.minus]


def unpaired_volumes(run: AslRun) -> list[int]:
    """Return the perfusion volumes without a partner, which are not used."""
    used = {i for pairs in timing_groups(run).values() for p in pairs for i in p.indices}
    return [i for i, c in enumerate(run.contexts) if c in PERFUSION_CONTEXTS and i not in used]


def timings(run: AslRun) -> tuple[Timing, ...]:
    """Return one timing per group of `timing_groups`, in the same order."""
    per_pair = run.pairs_per_deltam if "deltam" in run.contexts else 1
    return tuple(
        Timing(run.labeling, pld, duration, run.efficiency.total, len(pairs) * per_pair)
        for (duration, pld), pairs in timing_groups(run).items()
    )


def _timing_key(run: AslRun, volume: int) -> TimingKey:
    """Return (label duration, PLD) [s], rounded to the millisecond."""
    return round(float(run.label_durations_s[volume]), 3), round(float(run.plds_s[volume]), 3)


def _pair_up(members: Sequence[int], contexts: Sequence[str]) -> tuple[Pair, ...]:
    """Pair every volume with the latest unpaired one of the other kind, in acquisition order."""
    pairs: list[Pair] = []
    waiting: dict[str, list[int]] = {"control": [], "label": []}
    for i in members:
        if contexts[i] == "deltam":
            pairs.append(Pair(i))
            continue
        partner = "label" if contexts[i] == "control" else "control"
        if not waiting[partner]:
            waiting[contexts[i]].append(i)
            continue
        j = waiting[partner].pop()
        pairs.append(Pair(i, j) if contexts[i] == "control" else Pair(j, i))
    return tuple(pairs)
