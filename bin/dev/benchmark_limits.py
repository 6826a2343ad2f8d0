"""Print two bounds for any estimator on the phantoms of the benchmark.

Usage: python bin/dev/benchmark_limits.py [PROTOCOL …]   (joint6 and pcasl6)
Both are measured in the four brains of the matched track (seed 0). First, the CBF error of least
squares with known ATT, divided by that of least squares. Second, the area under the ROC curve for
the detection of the largest tenth of the errors by the exact standard deviation of least squares
(Cramér-Rao bound at the truth).
"""

import sys
from pathlib import Path

import numpy as np

from aslkit.fit.least_squares import fit_least_squares
from aslkit.fit.settings import FixedAtt, FreeAtt
from aslkit.fit.standard_errors import cramer_rao_sd
from aslkit.simulate.phantoms import Phantom
from aslkit.simulate.signal import noise_sd, truth_maps
from aslkit.validate.design import BRAINS, MATCHED, Condition
from aslkit.validate.metrics import auroc_of_large_errors
from aslkit.validate.on_phantoms import phantom_sets
from aslkit.validate.trials import scored_voxels, simulated

SNRS = 3, 10, 30


def main() -> None:
    """Print a row per protocol and SNR."""
    brains = phantom_sets(Path(__file__).parents[2] / "data" / "phantoms")[BRAINS]
    print("| protocol, SNR | CBF error with known ATT | AUROC of exact sd: CBF | ATT |")
    print("|---|---|---|---|")
    for protocol in sys.argv[1:] or ["joint6", "pcasl6"]:
        for snr in SNRS:
            condition = Condition(MATCHED, BRAINS, protocol, snr, "single", seed=0)
            found = np.mean([bounds(brain, condition) for brain in brains], axis=0)
            print(f"| {protocol}, {snr} | {found[0]:.2f} | {found[1]:.2f} | {found[2]:.2f} |")


def bounds(brain: Phantom, condition: Condition) -> list[float]:
    """Return the ratio of CBF errors, and the ROC areas for CBF and ATT."""
    series, scored = simulated(brain, condition), scored_voxels(brain)
    truth = truth_maps(brain)
    free = fit_least_squares(series, FreeAtt())
    fixed = fit_least_squares(series, FixedAtt(truth.att))
    errors = [np.abs(m.cbf - truth.cbf)[scored] for m in (free, fixed)]
    errors.append(np.abs(free.att - truth.att)[scored])
    sds = [sd[scored] for sd in cramer_rao_sd(truth, series.acquisition, noise_sd(condition.snr))]
    areas = [auroc_of_large_errors(errors[2 * i], sd) for i, sd in enumerate(sds)]
    return [float(errors[1].mean() / errors[0].mean()), *areas]


if __name__ == "__main__":
    main()
