"""Quality figures -> ratings good, check or suspect, by thresholds with their sources.

Thresholds without a source were chosen in this project. They mark figures to check; no scan is
rejected.
"""

import math
from dataclasses import dataclass

from aslkit.core.series_and_maps import AslSeries
from aslkit.quality.figures import Figures

GOOD, CHECK, SUSPECT, UNKNOWN = "● good", "▲ check", "■ suspect", "–"

Range = tuple[float, float]


@dataclass(frozen=True)
class FigureThresholds:
    """Ranges of a figure: inside `good` it is good, inside `fair` to be checked, else suspect."""

    label: str
    digits: int
    good: Range
    fair: Range
    meaning: str

    def rating(self, value: float | None) -> str:
        """Return GOOD, CHECK or SUSPECT; UNKNOWN for a figure that the data do not define."""
        if value is None:
            return UNKNOWN
        if self.good[0] <= value <= self.good[1]:
            return GOOD
        return CHECK if self.fair[0] <= value <= self.fair[1] else SUSPECT

    @property
    def range_texts(self) -> tuple[str, str]:
        """Texts of both ranges, such as "0 to 5"."""
        return _range_text(self.good), _range_text(self.fair)


def rated_figures(
    figures: Figures, series: AslSeries, outliers_percent: float | None
) -> dict[str, float | None]:
    """Return the figures that have thresholds, by the names of `THRESHOLDS`.

    Parameters
    ----------
    outliers_percent : float or None
        Control-label pairs that are outliers among their repeats [%].
    """
    chi2, expected = figures["median_reduced_chi2"], figures["expected_reduced_chi2"]
    snr = figures["temporal_snr"]
    n_pairs = sum(t.n_averages for t in series.acquisition.timings)
    return {
        "signal": None if snr is None else snr * math.sqrt(n_pairs),
        "outliers": outliers_percent,
        "chi2_ratio": None if chi2 is None or not expected else chi2 / expected,
        **{name: figures[name] for name in THRESHOLDS if name in figures},
    }


def _range_text(limits: Range) -> str:
    low, high = limits
    if math.isinf(low):
        return f"up to {high:g}"
    return f"{low:g} or more" if math.isinf(high) else f"{low:g} to {high:g}"


INF = math.inf
THRESHOLDS = {
    "signal": FigureThresholds(
        "signal / standard error",
        1,
        (2.0, INF),
        (1.0, INF),
        "Mean difference signal divided by its standard error from the scatter of the "
        "repeats; median over the brain. Below 2, the typical voxel does not differ from "
        "noise at the 5 % level. Below 0, label and control may be swapped.",
    ),
    "outliers": FigureThresholds(
        "outlier pairs [%]",
        0,
        (0.0, 5.0),
        (0.0, 15.0),
        "Control-label pairs that were rejected before the estimation, because they differ "
        "from their repeats by a robust z-score above the threshold of --outliers (motion, "
        "spikes). A still subject has hardly any.",
    ),
    "chi2_ratio": FigureThresholds(
        "chi2 / expected",
        2,
        (0.5, 2.0),
        (0.33, 3.0),
        "Median reduced chi2 divided by its expected value; 1 if only noise causes the "
        "misfit. High: the model does not describe the data (arteries, motion, wrong delays). "
        "Networks and the priors of the arterial compartment do not minimise the misfit; they "
        "give 1.5-1.75 in correct simulated scans.",
    ),
    "percentage_negative_brain_cbf": FigureThresholds(
        "negative CBF [%]",
        0,
        (0.0, 10.0),
        (0.0, 25.0),
        "Brain voxels with CBF below 0. Noise without perfusion gives 50 %; white matter in "
        "noisy scans gives some. The limit of 25 % is half of 50 %.",
    ),
    "percentage_cbf_above_150": FigureThresholds(
        "CBF above 150 [%]",
        1,
        (0.0, 2.0),
        (0.0, 5.0),
        "Brain voxels with CBF above 150 ml/100 g/min: vessels, the edge of the brain, or a "
        "wrong scale. Three scans in vivo had 0.3-1.7 %.",
    ),
    "mean_brain_cbf": FigureThresholds(
        "mean CBF [ml/100 g/min]",
        0,
        (20.0, 80.0),
        (10.0, 100.0),
        "Mean over the brain mask, which contains grey matter (40-100 ml/100 g/min in adults, "
        "Alsop 2015, 10.1002/mrm.25197) and white matter (16-28, Wu 2013, "
        "10.1371/journal.pone.0082679). Outside the limits: M0 scale, labeling efficiency, "
        "delays, disease, or age.",
    ),
    "spatial_cov_brain_cbf": FigureThresholds(
        "spatial CoV",
        2,
        (0.0, 1.0),
        (0.0, 1.5),
        "Standard deviation of CBF in the brain mask divided by its mean. It is 0.57 ± 0.13 "
        "in grey matter (Mutsaerts 2017, 10.1177/0271678X16683690); white matter and the edge "
        "of the brain increase it. High: label in arteries, or noise.",
    ),
    "mean_brain_att": FigureThresholds(
        "mean ATT [s]",
        2,
        (0.7, 2.0),
        (0.5, 2.5),
        "Mean over the voxels with a determined ATT; about 1.3 s in healthy adults. Outside "
        "the limits: wrong delays in the sidecar, or disease.",
    ),
    "percentage_flagged": FigureThresholds(
        "flagged voxels [%]",
        0,
        (0.0, 15.0),
        (0.0, 40.0),
        "Brain voxels whose ATT is not determined or at the end of the search range.",
    ),
}
