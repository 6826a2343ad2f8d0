"""Timings and constants of a scan -> `Acquisition`, which all estimators and simulators use."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from aslkit.core.constants import LONGEST_DELAY_S

LABELINGS = ("pcasl", "casl", "pasl", "vsasl")
KINETICS = ("single", "tissue")

T1_BLOOD_S = 1.65  # arterial blood at 3 T (Alsop 2015, doi:10.1002/mrm.25197)
T1_TISSUE_S = 1.3  # grey matter at 3 T (Alsop 2015)
PARTITION_ML_PER_G = 0.9  # blood-brain partition coefficient (Alsop 2015)
EFFICIENCY = {"pcasl": 0.85, "casl": 0.68, "pasl": 0.98, "vsasl": 0.56}  # labeling alone
EFFICIENCY_PER_PULSE = 0.95  # of one background-suppression pulse
# signal in SNR: ΔM/M0 of PCASL at CBF 60, ATT 1.5 s, PLD 2.0 s, label duration 1.8 s, α 0.85
REFERENCE_SIGNAL = 0.00616


@dataclass(frozen=True)
class Timing:
    """One measured ΔM volume: the mean of all repeats of one (label duration, PLD) pair.

    Attributes
    ----------
    labeling : str
        "pcasl", "casl", "pasl" or "vsasl".
    pld_s : float
        Post-labeling delay to the first slice [s]; for PASL the inversion time TI.
    label_duration_s : float
        Label duration [s]; for PASL the bolus duration TI1 (inf without cut-off); 0 for VSASL.
    efficiency : float
        Total labeling efficiency, which includes background suppression.
    n_averages : int
        Control-label pairs averaged into the volume.
    """

    labeling: str
    pld_s: float
    label_duration_s: float
    efficiency: float
    n_averages: int = 1

    def __post_init__(self) -> None:
        if self.labeling not in LABELINGS:
            raise ValueError(f"labeling {self.labeling!r} is not one of {', '.join(LABELINGS)}")
        if not 0 <= self.pld_s <= LONGEST_DELAY_S:
            raise ValueError(f"PLD {self.pld_s} s is outside 0-{LONGEST_DELAY_S:g} s")
        if not self.label_duration_s >= 0:
            raise ValueError(f"label duration {self.label_duration_s} s is negative")
        if not 0 < self.efficiency <= 1:
            raise ValueError(f"labeling efficiency {self.efficiency} is outside 0-1")
        if self.n_averages < 1:
            raise ValueError(f"{self.n_averages} averages: at least one is needed")


@dataclass(frozen=True)
class Acquisition:
    """Timings, slice offsets and physical constants of one (possibly joint) ASL acquisition.

    Attributes
    ----------
    timings : tuple of Timing
        One per ΔM volume, in the order of the last axis of the image.
    slice_offsets_s : tuple of float
        Delay of each slice after the first [s], in the order of the z axis; (0,) for 3D readout.
    kinetic : str
        "single" (T1 of blood, as in the white paper) or "tissue" (T1 of tissue after arrival).
    saturation_recovery : float
        SIB of the VSASL model: recovery of blood from an earlier saturation.
    has_crusher : bool
        Whether vascular crushing gradients were on, which suppress arterial signal.
    """

    timings: tuple[Timing, ...]
    slice_offsets_s: tuple[float, ...] = (0.0,)
    t1_blood_s: float = T1_BLOOD_S
    t1_tissue_s: float = T1_TISSUE_S
    partition_ml_per_g: float = PARTITION_ML_PER_G
    kinetic: str = "single"
    saturation_recovery: float = 1.0
    has_crusher: bool = False

    def __post_init__(self) -> None:
        if not self.timings:
            raise ValueError("an acquisition needs at least one timing")
        if self.kinetic not in KINETICS:
            raise ValueError(f"kinetic {self.kinetic!r} is not one of {', '.join(KINETICS)}")
        if min(self.slice_offsets_s) < 0:
            raise ValueError("slice offsets must not be negative")
        for name in ("t1_blood_s", "t1_tissue_s", "partition_ml_per_g"):
            value = getattr(self, name)
            if not (math.isfinite(value) and value > 0):
                raise ValueError(f"{name} is {value}, must be positive")

    @property
    def n_timings(self) -> int:
        """Number of ΔM volumes."""
        return len(self.timings)

    @property
    def weights(self) -> NDArray[np.float64]:
        """Weight of each volume, (n,): its number of averages divided by the mean number."""
        averages = np.array([t.n_averages for t in self.timings], dtype=np.float64)
        return averages / averages.mean()

    @property
    def has_arterial_signal(self) -> bool:
        """Whether the scan has arterial signal: several delays, some early, and no crusher."""
        timings = [t for t in self.timings if t.labeling != "vsasl"]
        shortest = min((t.pld_s for t in timings), default=math.inf) + min(self.slice_offsets_s)
        return len(timings) >= 5 and shortest < 1.0 and not self.has_crusher

    def effective_plds_s(self, n_slices: int) -> NDArray[np.float64]:
        """Return the effective PLD of every slice and timing [s], (n_slices, n)."""
        plds = np.array([t.pld_s for t in self.timings])
        return self.slice_offsets(n_slices)[:, None] + plds[None, :]

    def slice_offsets(self, n_slices: int) -> NDArray[np.float64]:
        """Return the offset of every slice [s], (n_slices,); ValueError for another number."""
        offsets = np.asarray(self.slice_offsets_s)
        if offsets.size not in (1, n_slices):
            raise ValueError(f"{offsets.size} slice offsets for {n_slices} slices")
        return np.broadcast_to(offsets, (n_slices,))


def protocol(
    labeling: str,
    plds_s: Sequence[float] | NDArray[np.float64],
    label_duration_s: float | Sequence[float] | NDArray[np.float64],
    efficiency: float | None = None,
) -> tuple[Timing, ...]:
    """Return the timings of one run; the label duration may differ between delays."""
    alpha = EFFICIENCY[labeling] if efficiency is None else efficiency
    durations = np.broadcast_to(np.asarray(label_duration_s, dtype=float), (len(plds_s),))
    return tuple(
        Timing(labeling, float(p), float(d), alpha) for p, d in zip(plds_s, durations, strict=True)
    )
