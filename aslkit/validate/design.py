"""Track, protocol and SNR -> the conditions of a benchmark, with true and nominal acquisition."""

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import product
from zlib import crc32

import numpy as np

from aslkit.core.acquisition import EFFICIENCY_PER_PULSE, Acquisition
from aslkit.core.errors import InputError
from aslkit.simulate.phantoms import Phantom
from aslkit.simulate.signal import PROTOCOLS
from aslkit.simulate.subject_physics import SubjectPhysics, draw_physics
from aslkit.validate.records import QUANTITIES

BRAINS = "brain"  # prefix of the names of phantoms with anatomy
MATCHED = "matched"
TRACKS = (MATCHED, "mismatched")
TYPICAL_SNR = 5.0  # of scans in vivo with 2 to 8 averages
N_SUPPRESSION_PULSES = 2  # background suppression of the mismatched track


def most_typical_snr(snrs: Iterable[float]) -> float:
    """Return the SNR closest, as a ratio, to `TYPICAL_SNR`."""
    return min(snrs, key=lambda snr: abs(math.log(snr / TYPICAL_SNR)))


@dataclass(frozen=True)
class Design:
    """The conditions of one run, without duplicates.

    Attributes
    ----------
    tracks : sequence of str
        Names from `TRACKS`.
    protocols : sequence of str
        Keys of `aslkit.simulate.signal.PROTOCOLS`.
    snrs : sequence of float
    kinetic : str
        Kinetic model of the simulation and of all estimators.
    seed : int
        Seed of the noise and of the physical constants of the subjects.
    max_phantoms : int, optional
        Number of phantoms of each set, in alphabetical order [all].
    is_first_set_only : bool
        Whether to use only the first set of phantoms: the brains, if there are any.
    n_artefact_scans : int
        Number of scans of each artefact to detect; 0: no detection.
    mc_dropout : int
        Runs of MC dropout of each model, evaluated beside the model itself; 0: none.

    Raises
    ------
    InputError
        When a protocol is unknown.
    """

    tracks: Sequence[str] = TRACKS
    protocols: Sequence[str] = field(default_factory=lambda: tuple(PROTOCOLS))
    snrs: Sequence[float] = (1.0, 3.0, 10.0, 30.0)
    kinetic: str = "single"
    seed: int = 0
    max_phantoms: int | None = None
    is_first_set_only: bool = False
    n_artefact_scans: int = 0
    mc_dropout: int = 0

    def __post_init__(self) -> None:
        for name in ("tracks", "protocols", "snrs"):
            object.__setattr__(self, name, tuple(dict.fromkeys(getattr(self, name))))
        unknown = [name for name in self.protocols if name not in PROTOCOLS]
        if unknown:
            raise InputError(
                "--protocol",
                "",
                found=unknown[0],
                expected=f"one of {', '.join(PROTOCOLS)}",
                fix="name a protocol of this list",
            )

    def tasks(
        self, sets: Mapping[str, Sequence[Phantom]]
    ) -> Iterator[tuple["Condition", Phantom]]:
        """Yield all phantoms in all conditions, ordered by condition.

        The first set is simulated on all tracks, the others (shapes) on the first track.
        """
        for track, kind, protocol, snr in product(self.tracks, sets, self.protocols, self.snrs):
            is_first = kind == next(iter(sets))
            if not is_first and (self.is_first_set_only or track != self.tracks[0]):
                continue
            condition = Condition(track, kind, protocol, snr, self.kinetic, self.seed)
            for phantom in sets[kind][: self.max_phantoms]:
                yield condition, phantom

    def typical_conditions(self, kind: str) -> Iterator["Condition"]:
        """Yield the conditions of one set with the most typical SNR, on the matched track."""
        snr = most_typical_snr(self.snrs)
        for protocol in self.protocols if MATCHED in self.tracks else ():
            yield Condition(MATCHED, kind, protocol, snr, self.kinetic, self.seed)

    def artefact_conditions(self, kind: str) -> Iterator["Condition"]:
        """Yield the condition of artefact detection: the first multi-delay protocol, if any."""
        conditions = [
            Condition(MATCHED, kind, p, 0, self.kinetic, self.seed) for p in self.protocols
        ]
        for first in [c for c in conditions if c.has_several_delays and self.n_artefact_scans][:1]:
            yield replace(first, snr=most_typical_snr(self.snrs))


FULL = Design(n_artefact_scans=10)
QUICK = Design(
    protocols=("joint6", "pcasl5"), snrs=(3.0, 30.0), max_phantoms=2, is_first_set_only=True
)


@dataclass(frozen=True)
class Condition:
    """Set of phantoms, protocol, noise level and track of one simulation."""

    track: str
    phantoms: str
    protocol: str
    snr: float
    kinetic: str
    seed: int

    @property
    def columns(self) -> dict[str, str | float]:
        """Columns of the tidy table that name the condition."""
        names = ("track", "phantoms", "protocol", "kinetic", "snr")
        return {name: getattr(self, name) for name in names}

    @property
    def title(self) -> str:
        """Title in reports."""
        return f"{self.phantoms} phantoms, {self.protocol}, SNR {self.snr:g}, {self.track}"

    @property
    def has_several_delays(self) -> bool:
        """Whether the protocol has several timings, so that ATT can be estimated."""
        return PROTOCOLS[self.protocol].acquisition(1).n_timings > 1

    @property
    def expects_efficient_ls(self) -> bool:
        """Whether the error of least squares must equal the Cramér-Rao bound.

        This does not hold on the mismatched track, for a single delay with assumed ATT, and for
        shapes: their ATT lies exactly on delays, where the signal curve has a kink and the bound
        is undefined. Brains with another voxel size are excluded as well: WM with a later ATT
        inside GM voxels makes one ATT per voxel a poor model.
        """
        return self.track == MATCHED and self.has_several_delays and self.phantoms == BRAINS

    @property
    def quantities(self) -> tuple[str, ...]:
        """Estimated quantities; a single delay gives only CBF."""
        return tuple(QUANTITIES) if self.has_several_delays else ("cbf",)

    def physics(self, phantom: Phantom) -> SubjectPhysics:
        """Return the true constants of a subject, equal for all SNRs."""
        nominal = self.acquisition(phantom)
        if self.track == MATCHED:
            return SubjectPhysics(nominal)
        rng = np.random.default_rng(crc32(f"{self.seed} {phantom.name}".encode()))
        return draw_physics(rng, nominal, N_SUPPRESSION_PULSES)

    def acquisition(self, phantom: Phantom) -> Acquisition:
        """Return the nominal acquisition of all runs, for the slices of a phantom."""
        joint = replace(
            PROTOCOLS[self.protocol].acquisition(phantom.mask.shape[2]), kinetic=self.kinetic
        )
        if self.track == MATCHED:
            return joint
        suppression_efficiency = EFFICIENCY_PER_PULSE**N_SUPPRESSION_PULSES
        timings = (
            replace(t, efficiency=suppression_efficiency * t.efficiency) for t in joint.timings
        )
        return replace(joint, timings=tuple(timings))

    def noise_seed(self, phantom: Phantom) -> int:
        """Return the seed of the noise, which depends on seed, phantom, protocol and SNR only."""
        return crc32(f"{self.seed} {phantom.name} {self.protocol} {self.snr:g}".encode())
