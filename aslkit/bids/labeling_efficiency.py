"""Sidecar and overrides -> labeling efficiency, and the number of suppression pulses."""

from aslkit.bids.overrides import Overrides
from aslkit.bids.run import Efficiency
from aslkit.bids.sidecar import Sidecar
from aslkit.core.acquisition import EFFICIENCY

LOWEST_EFFICIENCY = 0.01
MOST_PULSES = 10  # more than in any published scheme


def read_efficiency(
    sidecar: Sidecar, labeling: str, overrides: Overrides
) -> tuple[Efficiency, tuple[str, ...]]:
    """Return the labeling efficiency of a run, and notes on assumptions.

    Raises
    ------
    InputError
        When the sidecar states an impossible value.
    """
    alpha, origin = EFFICIENCY[labeling], f"default of {labeling.upper()}"
    measured = sidecar.number("LabelingEfficiency")
    if overrides.alpha is not None:
        alpha, origin = overrides.alpha, "--alpha"
    elif measured is not None:
        if not LOWEST_EFFICIENCY <= measured <= 1:
            raise sidecar.refuse(
                "LabelingEfficiency",
                expected=f"a fraction, {LOWEST_EFFICIENCY:g} to 1",
                fix="write it as a fraction",
            )
        alpha, origin = measured, "LabelingEfficiency"
    n_pulses, notes = _n_pulses(sidecar, overrides)
    return Efficiency(alpha, origin, n_pulses, overrides.alpha_bs), notes


def _n_pulses(sidecar: Sidecar, overrides: Overrides) -> tuple[int, tuple[str, ...]]:
    """Return the number of background-suppression pulses that act on the label."""
    if overrides.n_bs is not None:
        return overrides.n_bs, ()
    is_suppressed = sidecar.is_true("BackgroundSuppression")
    number = sidecar.number("BackgroundSuppressionNumberPulses")
    if is_suppressed is False:
        return 0, ()
    if number is None:
        state = "on" if is_suppressed else "not stated"
        return 0, (
            f"background suppression is {state} and its number of pulses unknown: "
            "no loss of label is assumed (--n-bs N)",
        )
    if not 0 <= number <= MOST_PULSES or number % 1:
        raise sidecar.refuse(
            "BackgroundSuppressionNumberPulses",
            expected=f"a whole number, 0 to {MOST_PULSES}",
            fix="correct it, or give --n-bs N",
        )
    return int(number), ()
