"""A nominal acquisition -> the true constants of one subject, which differ from it."""

from dataclasses import dataclass, replace

import numpy as np

from aslkit.core.acquisition import EFFICIENCY_PER_PULSE, Acquisition, Timing

T1_BLOOD_SD_S = 0.10
EFFICIENCY_FACTOR = (0.88, 1.12)
PULSE_EFFICIENCY_RANGE = (0.90, 1.00)  # background-suppression efficiency per pulse
LABEL_DURATION_FACTOR = (0.97, 1.03)
SLICE_INTERVAL_FACTOR = (0.97, 1.03)
MAX_DISPERSION_S = 0.3


@dataclass(frozen=True)
class SubjectPhysics:
    """The true constants of a scan.

    Attributes
    ----------
    acquisition : Acquisition
        True timings, efficiencies and relaxation times.
    has_arterial : bool
        Whether the signal includes that of arteries.
    dispersion_s : float
        Standard deviation of the transit times within a voxel [s].
    """

    acquisition: Acquisition
    has_arterial: bool = False
    dispersion_s: float = 0.0


def draw_physics(
    rng: np.random.Generator, acquisition: Acquisition, n_pulses: int = 0
) -> SubjectPhysics:
    """Draw the true constants of a subject on the mismatched track.

    The labeling efficiency has one random factor for each labeling type and is at most 1. Arteries
    have signal unless the acquisition has crushers.

    Parameters
    ----------
    n_pulses : int
        Background-suppression pulses; the nominal efficiencies include all of them.
    """
    pulses = rng.uniform(*PULSE_EFFICIENCY_RANGE, n_pulses) / EFFICIENCY_PER_PULSE
    labelings = dict.fromkeys(t.labeling for t in acquisition.timings)
    factors = {kind: rng.uniform(*EFFICIENCY_FACTOR) * float(pulses.prod()) for kind in labelings}
    duration_factor = rng.uniform(*LABEL_DURATION_FACTOR)
    interval_factor = rng.uniform(*SLICE_INTERVAL_FACTOR)

    def true_timing(timing: Timing) -> Timing:
        return replace(
            timing,
            efficiency=min(timing.efficiency * factors[timing.labeling], 1.0),
            label_duration_s=timing.label_duration_s * duration_factor,
        )

    true_acquisition = replace(
        acquisition,
        timings=tuple(true_timing(t) for t in acquisition.timings),
        slice_offsets_s=tuple(t * interval_factor for t in acquisition.slice_offsets_s),
        t1_blood_s=rng.normal(acquisition.t1_blood_s, T1_BLOOD_SD_S),
    )
    dispersion = rng.uniform(0, MAX_DISPERSION_S)
    return SubjectPhysics(true_acquisition, not acquisition.has_crusher, dispersion)
