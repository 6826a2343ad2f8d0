"""Scored subjects of a benchmark run -> whether the benchmark itself works.

All self-checks are part of every benchmark. If one fails, the run fails.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations

import numpy as np
from numpy.typing import NDArray

from aslkit.core.errors import AslkitError
from aslkit.core.series_and_maps import FloatImage
from aslkit.validate import metrics
from aslkit.validate.metrics import ScaleDeviation
from aslkit.validate.records import (
    LS,
    QUANTITIES,
    Pool,
    Row,
    Subject,
    efficiency,
    pool_voxels,
    win_rate,
)
from aslkit.validate.scores import score

SNR_TOLERANCE = 0.02
EFFICIENCY_TOLERANCE = 0.10
SCALE_TOLERANCE = 0.01
EXACT = 1e-6
OWN_SHARE = 0.51  # win rate; chance gives 0.5 ± 0.005 for ten thousand voxels
MIN_SNR_OWN_VOXELS = 10.0  # below, ATT of some protocols is hardly determined
MIN_SNR_EFFICIENT_LS = 20.0  # from this SNR on, least squares reaches the Cramér-Rao bound
PERFECT = "perfect"  # estimator that returns the truth


class SelfCheckError(AslkitError):
    """A self-check of the benchmark failed: its numbers must not be used."""


@dataclass(frozen=True)
class SelfCheck:
    """A condition that must hold, whether it holds, and what was found."""

    name: str
    has_passed: bool
    found: str


def require_passed(self_checks: Sequence[SelfCheck]) -> None:
    """Check that all self-checks passed.

    Raises
    ------
    SelfCheckError
        When one failed; the message names all that failed and what was found.
    """
    failed = [c for c in self_checks if not c.has_passed]
    if failed:
        details = "; ".join(f"{c.name} (found: {c.found})" for c in failed)
        raise SelfCheckError(
            f"{len(failed)} of {len(self_checks)} benchmark self-checks failed: {details}"
        )


def check_scoring(subjects: Sequence[Subject], quantities: Sequence[str]) -> list[SelfCheck]:
    """Run the self-checks that need only the scored voxels of one condition."""
    return [
        check_same_voxels(subjects, quantities),
        check_perfect_estimator(subjects, quantities),
        check_permuted_truth(subjects, quantities),
        check_mirrored_win_rates(subjects, quantities),
    ]


def check_same_voxels(subjects: Sequence[Subject], quantities: Sequence[str]) -> SelfCheck:
    """Check that each estimator has a finite value in each scored voxel."""
    missing = []
    for subject in subjects:
        for estimator, values in subject.estimates.items():
            for quantity in quantities:
                count = _missing(values[quantity], subject.truth[quantity])
                if count:
                    heading = QUANTITIES[quantity].heading
                    missing.append(f"{estimator} lacks {heading} in {count} of {subject.name}")
    return SelfCheck("every estimator is scored on the same voxels", not missing, _listed(missing))


def check_perfect_estimator(subjects: Sequence[Subject], quantities: Sequence[str]) -> SelfCheck:
    """Check that an estimator that returns the truth gets ideal scores."""
    perfect = [_with_perfect(s) for s in subjects]
    wrong = []
    for row in score(perfect, quantities, seed=0):
        # undefined figures are NaN, and the comparison is False
        if row.estimator == PERFECT and abs(row.value - _ideal(row, perfect)) > EXACT:
            wrong.append(f"{row.metric} {row.value:.4g} for {row.quantity} in {row.stratum}")
    return SelfCheck("a perfect estimator scores 0 and 100 %", not wrong, _listed(wrong))


def check_permuted_truth(subjects: Sequence[Subject], quantities: Sequence[str]) -> SelfCheck:
    """Check that R² of all estimators is at most 0 for a permuted truth."""
    rng = np.random.default_rng(0)
    found = []
    for quantity in quantities:
        for estimator in subjects[0].estimates:
            pool = pool_voxels(subjects, "brain", estimator, quantity)
            shuffled = rng.permutation(np.concatenate(pool.truth))
            value = metrics.r_squared(np.concatenate(pool.estimate), shuffled)
            if value > 0:
                found.append(f"R2 {value:.3f} for {quantity} of {estimator}")
    return SelfCheck("a permuted truth gives R2 <= 0", not found, _listed(found))


def check_mirrored_win_rates(subjects: Sequence[Subject], quantities: Sequence[str]) -> SelfCheck:
    """Check that win(A, B) + win(B, A) = 100 % for all pairs of estimators."""
    wrong = []
    for quantity in quantities:
        for first, second in combinations(subjects[0].estimates, 2):
            total = sum(
                _share(win_rate(pool_voxels(subjects, "brain", one, quantity, other)))
                for one, other in ((first, second), (second, first))
            )
            if not abs(total - 1) <= EXACT:
                wrong.append(f"{first} and {second} win {total:.1%} of {quantity} together")
    return SelfCheck("exchanging two estimators mirrors their win rate", not wrong, _listed(wrong))


def check_own_voxels(
    subjects: Sequence[Subject], quantities: Sequence[str], snr: float
) -> list[SelfCheck]:
    """Check that estimates are closer to the truth than estimates of random other voxels.

    The win rate over these is 50 % if estimates are compared with the wrong voxels.
    """
    if snr < MIN_SNR_OWN_VOXELS:
        return []
    rng = np.random.default_rng(0)
    wrong = []
    for quantity in quantities:
        for estimator in subjects[0].estimates:
            pool = pool_voxels(subjects, "brain", estimator, quantity)
            shuffled = replace(pool, reference=[rng.permutation(e) for e in pool.estimate])
            share = _share(win_rate(shuffled))
            if _has_contrast(pool) and not share > OWN_SHARE:
                wrong.append(f"{share:.1%} for {quantity} of {estimator}")
    return [
        SelfCheck("estimates fit their own voxels better than others", not wrong, _listed(wrong))
    ]


def check_requested_snr(
    requested: float, reference: float, noise: Sequence[FloatImage]
) -> SelfCheck:
    """Check that the simulated noise has the requested standard deviation.

    Parameters
    ----------
    requested : float
        SNR.
    reference : float
        Reference signal, ΔM/M0; the SNR is this divided by the standard deviation.
    noise : sequence of array (x, y, z, timings)
        Simulated minus noise-free signal of each subject, ΔM/M0, with background.
    """
    variance = sum(np.sum(np.square(n, dtype=np.float64)) for n in noise) / sum(
        n.size for n in noise
    )
    measured = reference / np.sqrt(variance) if variance > 0 else np.inf
    has_passed = abs(measured / requested - 1) <= SNR_TOLERANCE
    return SelfCheck("measured SNR equals the requested one", bool(has_passed), f"{measured:.3f}")


def check_ls_efficiency(
    subjects: Sequence[Subject], quantities: Sequence[str], snr: float
) -> list[SelfCheck]:
    """Check that the error of least squares in GM at high SNR is the Cramér-Rao bound."""
    if snr < MIN_SNR_EFFICIENT_LS or not any(s.strata["GM"].any() for s in subjects):
        return []
    self_checks = []
    for quantity in quantities:
        ratio = efficiency(pool_voxels(subjects, "GM", LS, quantity))
        name = f"{QUANTITIES[quantity].heading} of LS lies within 10 % of the Cramér-Rao bound"
        has_passed = abs(ratio - 1) <= EFFICIENCY_TOLERANCE
        self_checks.append(SelfCheck(name, bool(has_passed), f"{ratio:.3f} of it"))
    return self_checks


def check_scale_equivariance(deviations: Mapping[str, Sequence[ScaleDeviation]]) -> SelfCheck:
    """Check that CBF of scale-equivariant estimators is proportional to the signal."""
    worst = {
        estimator: float(np.max([[abs(d.slope - 1), abs(d.mean), d.p95] for d in found]))
        for estimator, found in deviations.items()
    }
    wrong = [f"{e} deviates by {w:.2%}" for e, w in worst.items() if not w <= SCALE_TOLERANCE]
    return SelfCheck(
        "CBF scales with the signal within 1 %, factors 0.1 to 10", not wrong, _listed(wrong)
    )


def combine_conditions(conditions: Mapping[str, Sequence[SelfCheck]]) -> list[SelfCheck]:
    """Combine self-checks of the same name; the result passes if all of them passed."""
    names = dict.fromkeys(c.name for self_checks in conditions.values() for c in self_checks)
    return [_combined(name, conditions) for name in names]


def _combined(name: str, conditions: Mapping[str, Sequence[SelfCheck]]) -> SelfCheck:
    own = [
        (condition, c)
        for condition, self_checks in conditions.items()
        for c in self_checks
        if c.name == name
    ]
    failed = [f"{condition}: {c.found}" for condition, c in own if not c.has_passed]
    passed = f"held in {len(own)} of {len(own)} conditions"
    return SelfCheck(name, not failed, "; ".join(failed) or passed)


def _missing(values: NDArray[np.floating], truth: NDArray[np.floating]) -> int:
    if values.shape != truth.shape:
        return abs(len(truth) - len(values)) or len(truth)
    return int((~np.isfinite(values)).sum())


def _share(counted: tuple[NDArray[np.floating], NDArray[np.floating]]) -> float:
    won, n = counted
    return float(won.sum() / n.sum())


def _has_contrast(pool: Pool) -> bool:
    return bool(np.ptp(np.concatenate(pool.truth)) > 0)


def _with_perfect(subject: Subject) -> Subject:
    zero = {q: np.zeros_like(t) for q, t in subject.truth.items()}
    every = {q: np.ones(t.shape, dtype=bool) for q, t in subject.truth.items()}
    return replace(
        subject,
        estimates={LS: subject.estimates[LS], PERFECT: subject.truth},
        sds={LS: subject.sds[LS], PERFECT: zero},
        is_estimated={LS: subject.is_estimated[LS], PERFECT: every},
    )


def _ideal(row: Row, subjects: Sequence[Subject]) -> float:
    """Return the score of a perfect estimator.

    Its win rate over least squares is below 100 % where least squares is exact. This happens at
    kinks of the signal curve, which least squares finds exactly.
    """
    if row.metric.startswith("win rate"):
        errors = pool_voxels(subjects, row.stratum, LS, row.quantity).errors
        return 1 - float(np.mean(np.concatenate(errors) == 0)) / 2
    return 0.0 if row.metric.startswith(("MAE", "bias", "RMSE", "CRPS")) else 1.0


def _listed(faults: Sequence[str]) -> str:
    more = f" and {len(faults) - 3} more" if len(faults) > 3 else ""
    return "; ".join(faults[:3]) + more if faults else "held"
