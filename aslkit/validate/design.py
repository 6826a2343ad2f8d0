"""What a benchmark on phantoms varies: track, protocol, SNR -> scans, nominal and as they were."""

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

BRAINS = "brain"  # how the names of phantoms with anatomy begin
MATCHED = "matched"
TRACKS = (MATCHED, "mismatched")
TYPICAL_SNR = 5.0  # of scans in vivo, from 2 to 8 averages; one SNR near it stands for all
N_PULSES = 2  # of background suppression, on the scans of the mismatched track


def most_typical_snr(snrs: Iterable[float]) -> float:
    """The one whose ratio to that of scans in vivo is nearest to 1."""
    return min(snrs, key=lambda snr: abs(math.log(snr / TYPICAL_SNR)))


@dataclass(frozen=True)
class Design:
    """The conditions of one run; what is named twice is run once.

    Attributes
    ----------
    tracks : sequence of str
        Of `TRACKS`.
    protocols : sequence of str
        Keys of `aslkit.simulate.signal.PROTOCOLS`.
    snrs : sequence of float
    kinetic : str
        Of the simulation and of every estimator.
    seed : int
        Of the noise and of the subjects' constants.
    max_phantoms : int, optional
        Of each set, the first in alphabetical order.
    is_first_set_only : bool
        Whether to leave out all sets but the first, the brains where there are any.
    n_artefact_scans : int
        Scans of every artefact whose detection is measured; 0 leaves it out.
    mc_dropout : int
        Runs of MC dropout of every model, evaluated beside the model itself; 0 leaves them out.

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
        """Every phantom in every condition, those of a condition one after the other.

        The first set meets every track, the others (shapes) only the first track.
        """
        for track, kind, protocol, snr in product(self.tracks, sets, self.protocols, self.snrs):
            is_first = kind == next(iter(sets))
            if not is_first and (self.is_first_set_only or track != self.tracks[0]):
                continue
            condition = Condition(track, kind, protocol, snr, self.kinetic, self.seed)
            for phantom in sets[kind][: self.max_phantoms]:
                yield condition, phantom

    def typical_conditions(self, kind: str) -> Iterator["Condition"]:
        """Of one set in the matched track, the most typical SNR of every protocol."""
        snr = most_typical_snr(self.snrs)
        for protocol in self.protocols if MATCHED in self.tracks else ():
            yield Condition(MATCHED, kind, protocol, snr, self.kinetic, self.seed)

    def artefact_conditions(self, kind: str) -> Iterator["Condition"]:
        """Of one set in the matched track, the first protocol of several delays at one SNR."""
        found = [Condition(MATCHED, kind, p, 0, self.kinetic, self.seed) for p in self.protocols]
        for first in [c for c in found if c.has_several_delays and self.n_artefact_scans][:1]:
            yield replace(first, snr=most_typical_snr(self.snrs))


FULL = Design(n_artefact_scans=10)
QUICK = Design(
    protocols=("joint6", "pcasl5"), snrs=(3.0, 30.0), max_phantoms=2, is_first_set_only=True
)


@dataclass(frozen=True)
class Condition:
    """One cell of the benchmark: which phantoms, measured how, with how much noise."""

    track: str
    phantoms: str
    protocol: str
    snr: float
    kinetic: str
    seed: int

    @property
    def columns(self) -> dict[str, str | float]:
        """As columns of the tidy table."""
        names = ("track", "phantoms", "protocol", "kinetic", "snr")
        return {name: getattr(self, name) for name in names}

    @property
    def title(self) -> str:
        """For people."""
        return f"{self.phantoms} phantoms, {self.protocol}, SNR {self.snr:g}, {self.track}"

    @property
    def has_several_delays(self) -> bool:
        """Whether there are several timings, which ATT needs."""
        return PROTOCOLS[self.protocol].acquisition(1).n_timings > 1

    @property
    def expects_efficient_ls(self) -> bool:
        """Whether least squares must sit on the Cramér-Rao bound.

        Not with wrong constants; not with an ATT that is assumed; and not in shapes, whose few
        values of ATT lie exactly on delays, where the signal curve has a kink and the bound,
        which needs a derivative, does not hold. A single brain of other voxels is left out too:
        where white matter inside its GM voxels arrives late, no single ATT fits.
        """
        return self.track == MATCHED and self.has_several_delays and self.phantoms == BRAINS

    @property
    def quantities(self) -> tuple[str, ...]:
        """What is estimated: CBF alone from a single delay."""
        return tuple(QUANTITIES) if self.has_several_delays else ("cbf",)

    def physics(self, phantom: Phantom) -> SubjectPhysics:
        """What really happens in the subject: the same at every SNR."""
        nominal = self.acquisition(phantom)
        if self.track == MATCHED:
            return SubjectPhysics(nominal)
        rng = np.random.default_rng(crc32(f"{self.seed} {phantom.name}".encode()))
        return draw_physics(rng, nominal, N_PULSES)

    def acquisition(self, phantom: Phantom) -> Acquisition:
        """What the scan says: all runs of the protocol together, for the slices of a phantom."""
        joint = replace(
            PROTOCOLS[self.protocol].acquisition(phantom.mask.shape[2]), kinetic=self.kinetic
        )
        if self.track == MATCHED:
            return joint
        survival = EFFICIENCY_PER_PULSE**N_PULSES
        timings = (replace(t, efficiency=survival * t.efficiency) for t in joint.timings)
        return replace(joint, timings=tuple(timings))

    def noise_seed(self, phantom: Phantom) -> int:
        """Depends on seed, phantom, protocol and SNR alone, not on what else is run."""
        return crc32(f"{self.seed} {phantom.name} {self.protocol} {self.snr:g}".encode())
