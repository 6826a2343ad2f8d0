"""A nominal acquisition -> what really happened in one subject: constants that nobody measured."""

from dataclasses import dataclass, replace

import numpy as np

from aslkit.core.acquisition import EFFICIENCY_PER_PULSE, Acquisition, Timing

T1_BLOOD_SD_S = 0.10
EFFICIENCY_FACTOR = (0.88, 1.12)
PULSE_EFFICIENCY_RANGE = (0.90, 1.00)  # of the label, per background-suppression pulse
LABEL_DURATION_FACTOR = (0.97, 1.03)
SLICE_INTERVAL_FACTOR = (0.97, 1.03)
MAX_DISPERSION_S = 0.3


@dataclass(frozen=True)
class SubjectPhysics:
    """The truth behind a scan.

    Attributes
    ----------
    acquisition : Acquisition
        Timings, efficiencies and relaxation times as they really were.
    has_arterial : bool
        Whether the label in the arteries shows.
    dispersion_s : float
        Standard deviation of the transit times that the label of one voxel takes [s].
    """

    acquisition: Acquisition
    has_arterial: bool = False
    dispersion_s: float = 0.0


def draw_physics(
    rng: np.random.Generator, acquisition: Acquisition, n_pulses: int = 0
) -> SubjectPhysics:
    """The mismatched track: constants that differ from the nominal ones, and more in the signal.

    Each kind of labeling errs by its own factor, all else by one of the subject; an efficiency
    above 1 is 1. Vessels show unless crushers are on.

    Parameters
    ----------
    n_pulses : int
        Background-suppression pulses; the nominal efficiencies hold `EFFICIENCY_PER_PULSE` each.
    """
    pulses = rng.uniform(*PULSE_EFFICIENCY_RANGE, n_pulses) / EFFICIENCY_PER_PULSE
    kinds = dict.fromkeys(t.labeling for t in acquisition.timings)
    factors = {kind: rng.uniform(*EFFICIENCY_FACTOR) * float(pulses.prod()) for kind in kinds}
    longer = rng.uniform(*LABEL_DURATION_FACTOR)
    slower = rng.uniform(*SLICE_INTERVAL_FACTOR)

    def real(timing: Timing) -> Timing:
        return replace(
            timing,
            efficiency=min(timing.efficiency * factors[timing.labeling], 1.0),
            label_duration_s=timing.label_duration_s * longer,
        )

    real_acquisition = replace(
        acquisition,
        timings=tuple(real(t) for t in acquisition.timings),
        slice_offsets_s=tuple(t * slower for t in acquisition.slice_offsets_s),
        t1_blood_s=rng.normal(acquisition.t1_blood_s, T1_BLOOD_SD_S),
    )
    dispersion = rng.uniform(0, MAX_DISPERSION_S)
    return SubjectPhysics(real_acquisition, not acquisition.has_crusher, dispersion)
