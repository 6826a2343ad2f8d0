"""Quality figures -> traffic lights, each with its limits and where they come from.

Limits without a source are those of this project; they say what deserves a look, not what to
reject.
"""

import math
from dataclasses import dataclass

from aslkit.core.series_and_maps import AslSeries
from aslkit.quality.figures import Figures

GOOD, CHECK, SUSPECT, UNKNOWN = "● good", "▲ check", "■ suspect", "–"

Range = tuple[float, float]


@dataclass(frozen=True)
class Limit:
    """Where a figure is good, and where it is still acceptable; anything else is suspect."""

    label: str
    digits: int
    good: Range
    fair: Range
    meaning: str

    def verdict(self, value: float | None) -> str:
        """One of GOOD, CHECK, SUSPECT, and UNKNOWN for a figure that the data do not define."""
        if value is None:
            return UNKNOWN
        if self.good[0] <= value <= self.good[1]:
            return GOOD
        return CHECK if self.fair[0] <= value <= self.fair[1] else SUSPECT

    @property
    def in_words(self) -> tuple[str, str]:
        """Both ranges."""
        return _words(self.good), _words(self.fair)


def light_figures(
    figures: Figures, series: AslSeries, strays_percent: float | None
) -> dict[str, float | None]:
    """The figures that have a light, by the names of `LIMITS`.

    `strays_percent` are the control-label pairs that stray from their repeats [%].
    """
    chi2, expected = figures["median_reduced_chi2"], figures["expected_reduced_chi2"]
    snr = figures["temporal_snr"]
    n_pairs = sum(t.n_averages for t in series.acquisition.timings)
    return {
        "signal": None if snr is None else snr * math.sqrt(n_pairs),
        "strays": strays_percent,
        "chi2_ratio": None if chi2 is None or not expected else chi2 / expected,
        **{name: figures[name] for name in LIMITS if name in figures},
    }


def _words(limits: Range) -> str:
    low, high = limits
    if math.isinf(low):
        return f"up to {high:g}"
    return f"{low:g} or more" if math.isinf(high) else f"{low:g} to {high:g}"


INF = math.inf
LIMITS = {
    "signal": Limit(
        "signal / standard error",
        1,
        (2.0, INF),
        (1.0, INF),
        "Mean difference signal over the standard error that the scatter of the repeats gives it, "
        "median over the brain. Below 2 the typical voxel does not differ from noise at the 5 % "
        "level; below 0, label and control may be swapped.",
    ),
    "strays": Limit(
        "pairs that stray [%]",
        0,
        (0.0, 5.0),
        (0.0, 15.0),
        "Control-label pairs that differ from their repeats by a robust z above 5 (motion, "
        "spikes). In a still subject there is hardly any; here they are counted, not removed.",
    ),
    "chi2_ratio": Limit(
        "chi2 / expected",
        2,
        (0.5, 2.0),
        (0.33, 3.0),
        "Median misfit over what noise alone gives, 1. High: the model misses something "
        "(arteries, motion, wrong delays). Networks and the priors of the arterial compartment do "
        "not minimise the misfit: 1.5-1.75 in simulated scans without a fault.",
    ),
    "percentage_negative_brain_cbf": Limit(
        "negative CBF [%]",
        0,
        (0.0, 10.0),
        (0.0, 25.0),
        "Brain voxels with CBF below 0. Noise without perfusion gives 50; white matter of noisy "
        "scans gives some, so a quarter is half of that.",
    ),
    "percentage_cbf_above_150": Limit(
        "CBF above 150 [%]",
        1,
        (0.0, 2.0),
        (0.0, 5.0),
        "Brain voxels above 150 ml/100 g/min: vessels, the edge of the brain, or a wrong scale. "
        "0.3-1.7 % in three scans in vivo.",
    ),
    "mean_brain_cbf": Limit(
        "mean CBF",
        0,
        (20.0, 80.0),
        (10.0, 100.0),
        "ml/100 g/min over the mask, which mixes grey matter (40-100 in adults, Alsop 2015, "
        "10.1002/mrm.25197) and white matter (16-28, Wu 2013, 10.1371/journal.pone.0082679). "
        "Outside: M0 scale, efficiency, delays, disease, or age.",
    ),
    "spatial_cov_brain_cbf": Limit(
        "spatial CoV",
        2,
        (0.0, 1.0),
        (0.0, 1.5),
        "Standard deviation over mean of CBF in the mask. 0.57 ± 0.13 in grey matter (Mutsaerts "
        "2017, 10.1177/0271678X16683690); white matter and the edge of the brain add to it here. "
        "High: label still in arteries, or noise.",
    ),
    "mean_brain_att": Limit(
        "mean ATT [s]",
        2,
        (0.7, 2.0),
        (0.5, 2.5),
        "Where it is determined. About 1.3 in healthy adults. Outside: wrong delays in the "
        "sidecar, or disease.",
    ),
    "percentage_flagged": Limit(
        "flagged voxels [%]",
        0,
        (0.0, 15.0),
        (0.0, 40.0),
        "Brain voxels whose ATT is undetermined or at a bound of the search.",
    ),
}
