"""Scored subjects of a benchmark run -> whether its numbers can be trusted at all.

Every self-check runs inside every benchmark; one that fails makes the run fail, whatever it shows.
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
OWN_SHARE = 0.51  # of voxels won; chance gives 0.5, within 0.005 for ten thousand voxels
MIN_SNR_OWN_VOXELS = 10.0  # below it, some protocols tell next to nothing about ATT
MIN_SNR_EFFICIENT_LS = 20.0  # from here on least squares should sit on the Cramér-Rao bound
PERFECT = "perfect"  # stands for the truth, entered as an estimator


class SelfCheckError(AslkitError):
    """The benchmark's own checks failed: its table must not be used."""


@dataclass(frozen=True)
class SelfCheck:
    """One check: what must hold, whether it does, and what was found."""

    name: str
    has_passed: bool
    found: str


def require_passed(self_checks: Sequence[SelfCheck]) -> None:
    """Stop when a self-check failed.

    Raises
    ------
    SelfCheckError
        Naming every failed self-check and what was found.
    """
    failed = [c for c in self_checks if not c.has_passed]
    if failed:
        details = "; ".join(f"{c.name} (found: {c.found})" for c in failed)
        raise SelfCheckError(
            f"{len(failed)} of {len(self_checks)} benchmark self-checks failed: {details}"
        )


def check_scoring(subjects: Sequence[Subject], quantities: Sequence[str]) -> list[SelfCheck]:
    """The self-checks that only need the scored voxels of one condition."""
    return [
        check_same_voxels(subjects, quantities),
        check_perfect_estimator(subjects, quantities),
        check_permuted_truth(subjects, quantities),
        check_mirrored_win_rates(subjects, quantities),
    ]


def check_same_voxels(subjects: Sequence[Subject], quantities: Sequence[str]) -> SelfCheck:
    """Every estimator has a finite value for every scored voxel, so all are scored on the same."""
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
    """The truth, entered as an estimator, has no error, covers, and wins wherever LS errs."""
    perfect = [_with_perfect(s) for s in subjects]
    wrong = []
    for row in score(perfect, quantities, seed=0):
        # an undefined figure is NaN and compares as not wrong
        if row.estimator == PERFECT and abs(row.value - _ideal(row, perfect)) > EXACT:
            wrong.append(f"{row.metric} {row.value:.4g} for {row.quantity} in {row.stratum}")
    return SelfCheck("a perfect estimator scores 0 and 100 %", not wrong, _listed(wrong))


def check_permuted_truth(subjects: Sequence[Subject], quantities: Sequence[str]) -> SelfCheck:
    """Against a shuffled truth, no estimator explains anything."""
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
    """Two estimators that change places change their win rate for the rest of 100 %."""
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
    """Every estimate is nearer to the truth of its own voxel than one from elsewhere is.

    Estimates that were scored against other voxels would win half of the time, no more.
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
    """The noise that was really added has the standard deviation that was asked for.

    Parameters
    ----------
    noise : sequence of array
        Simulated minus clean signal of every subject, air included.
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
    """Matched LS in grey matter at high SNR errs as much as the Cramér-Rao bound says."""
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
    """CBF of estimators that promise it grows with signal and noise in proportion."""
    worst = {
        estimator: float(np.max([[abs(d.slope - 1), abs(d.mean), d.p95] for d in found]))
        for estimator, found in deviations.items()
    }
    wrong = [f"{e} deviates by {w:.2%}" for e, w in worst.items() if not w <= SCALE_TOLERANCE]
    return SelfCheck(
        "CBF scales with the signal within 1 %, factors 0.1 to 10", not wrong, _listed(wrong)
    )


def combine_conditions(conditions: Mapping[str, Sequence[SelfCheck]]) -> list[SelfCheck]:
    """The self-checks of all conditions, one per name: passed when it did in all of them."""
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
    """What a perfect estimator scores; where LS is exactly right too, it only draws.

    That happens: LS finds kinks of the signal curve exactly, and a truth may lie on one.
    """
    if row.metric.startswith("win rate"):
        errors = pool_voxels(subjects, row.stratum, LS, row.quantity).errors
        return 1 - float(np.mean(np.concatenate(errors) == 0)) / 2
    return 0.0 if row.metric.startswith(("MAE", "bias", "RMSE", "CRPS")) else 1.0


def _listed(faults: Sequence[str]) -> str:
    more = f" and {len(faults) - 3} more" if len(faults) > 3 else ""
    return "; ".join(faults[:3]) + more if faults else "held"
