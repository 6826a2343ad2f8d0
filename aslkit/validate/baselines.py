"""Track and scan -> the least-squares estimators that models are compared with."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from aslkit.core.acquisition import Acquisition
from aslkit.core.series_and_maps import AslSeries, MaskImage, ParameterMaps
from aslkit.fit.settings import choose_settings
from aslkit.prepare.noise import smooth_volumes
from aslkit.simulate.subject_physics import SubjectPhysics
from aslkit.validate.design import MATCHED
from aslkit.validate.estimators import Estimator, NetworkEstimator, least_squares, load_networks
from aslkit.validate.records import LS, LS_ARTERIAL, LS_ORACLE, QUANTITIES

SIGMAS_VOXELS = (0.0, 0.5, 0.75, 1.0, 1.5, 2.5)  # of smoothed LS; 0: no smoothing


def baseline_estimators(
    physics: SubjectPhysics, nominal: Acquisition, track: str
) -> dict[str, Estimator]:
    """Return the least-squares estimators of a track.

    On the mismatched track, these include least squares with an arterial compartment and an
    oracle, which uses the true constants of `physics`.
    """
    found = {LS: least_squares("off")}
    if track == MATCHED:
        return found
    best = least_squares("auto")
    if choose_settings(nominal).has_arterial:
        found[LS_ARTERIAL] = best
    found[LS_ORACLE] = lambda series: best(replace(series, acquisition=physics.acquisition))
    return found


def load_networks_for_track(
    track: str, names: Sequence[str], n_mc_dropout: int = 0
) -> dict[str, NetworkEstimator]:
    """Load the trained models; on the mismatched track with an arterial compartment (auto)."""
    return load_networks(names, "off" if track == MATCHED else "auto", n_mc_dropout)


def smoothed_least_squares(sigma_voxels: float) -> Estimator:
    """Return least squares on signals smoothed in-plane within the mask.

    The standard deviations come from the residuals of the smoothed signals. They do not include
    the bias by smoothing.
    """
    plain = least_squares("off")
    return lambda series: plain(_smooth_series(series, sigma_voxels))


def best_sigma(
    candidates: Sequence[Mapping[float, ParameterMaps]],
    truths: Sequence[ParameterMaps],
    masks: Sequence[MaskImage],
    quantity: str,
) -> float:
    """Find the sigma [voxels] with the smallest absolute error over all subjects.

    This uses the truth, so smoothed least squares is better here than it can be in practice.
    """

    def total_error(sigma: float) -> float:
        pairs = zip(candidates, truths, masks, strict=True)
        maps = ((getattr(c[sigma], quantity), getattr(t, quantity), m) for c, t, m in pairs)
        return sum(float(np.abs(e[m] - t[m]).sum(dtype=np.float64)) for e, t, m in maps)

    return min(SIGMAS_VOXELS, key=total_error)


def combine_quantities(
    candidates: Mapping[float, ParameterMaps], sigmas: Mapping[str, float]
) -> ParameterMaps:
    """Combine CBF and ATT, each from its own sigma; flags are those of ATT."""
    chosen = {q: candidates[sigmas.get(q, 0.0)] for q in QUANTITIES}
    return replace(chosen["att"], cbf=chosen["cbf"].cbf, cbf_std=chosen["cbf"].cbf_std)


def _smooth_series(series: AslSeries, sigma_voxels: float) -> AslSeries:
    delta_m = smooth_volumes(series.delta_m, series.mask, sigma_voxels, (1.0, 1.0))
    return replace(series, delta_m=delta_m, noise_sd=None)
