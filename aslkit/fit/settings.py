"""What is estimated in every voxel, and within which bounds: one class per kinetic model.

    FreeAtt      CBF and ATT
    FixedAtt     CBF, for a known ATT
    Arterial     CBF, ATT, aBV and aBAT
    FreeT1       CBF, ATT and T1 of tissue

`choose_settings` selects the class that fits an acquisition.
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass, field

from aslkit.core.acquisition import Acquisition
from aslkit.core.constants import ATT_BOUNDS_S, TYPICAL_ATT_S
from aslkit.core.series_and_maps import FloatImage

MACROVASCULAR = ("auto", "on", "off")
N_ARTERIAL = 1  # degrees of freedom that aBV >= 0 and aBAT take together, measured on residuals

Bounds = tuple[float, float]


@dataclass(frozen=True)
class FitSettings(ABC):
    """Common part of all settings.

    Attributes
    ----------
    att_bounds_s : (low, high)
        Range of the ATT search [s].
    """

    att_bounds_s: Bounds = field(default=ATT_BOUNDS_S, kw_only=True)

    def __post_init__(self) -> None:
        low, high = self.att_bounds_s
        if not 0 < low < high:
            raise ValueError(f"ATT bounds {low:g}-{high:g} s must be positive and ascending")

    @property
    @abstractmethod
    def n_parameters(self) -> int:
        """Degrees of freedom that the estimated parameters take from the residuals."""

    @property
    def is_att_free(self) -> bool:
        """Whether ATT is estimated."""
        return True

    @property
    def has_arterial(self) -> bool:
        """Whether the arterial compartment is estimated."""
        return False

    def degrees_of_freedom(self, acquisition: Acquisition) -> int:
        """Degrees of freedom of the residuals: timings minus parameters."""
        return acquisition.n_timings - self.n_parameters


@dataclass(frozen=True)
class FreeAtt(FitSettings):
    """Estimate CBF and ATT.

    Attributes
    ----------
    cbf_bounds : (low, high), optional
        Bounds of CBF [ml/100 g/min]; None allows negative CBF, which noise produces.
    """

    cbf_bounds: Bounds | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        _check_cbf_bounds(self.cbf_bounds)

    @property
    def n_parameters(self) -> int:
        """CBF and ATT."""
        return 2


@dataclass(frozen=True)
class FixedAtt(FitSettings):
    """Estimate CBF for a known ATT.

    Attributes
    ----------
    att_s : float or array (x, y, z)
        ATT [s].
    cbf_bounds : (low, high), optional
        Bounds of CBF [ml/100 g/min].
    """

    att_s: float | FloatImage
    cbf_bounds: Bounds | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        _check_cbf_bounds(self.cbf_bounds)

    @property
    def n_parameters(self) -> int:
        """CBF."""
        return 1

    @property
    def is_att_free(self) -> bool:
        """ATT is known."""
        return False


@dataclass(frozen=True)
class Arterial(FitSettings):
    """Estimate CBF, ATT and the arterial compartment, aBV and aBAT (see `arterial`)."""

    @property
    def n_parameters(self) -> int:
        """CBF, ATT, and the arterial compartment."""
        return 2 + N_ARTERIAL

    @property
    def has_arterial(self) -> bool:
        """The arterial compartment is estimated."""
        return True


@dataclass(frozen=True)
class FreeT1(FitSettings):
    """Estimate CBF, ATT and T1 of tissue (see `free_t1`)."""

    @property
    def n_parameters(self) -> int:
        """CBF, ATT and T1 of tissue."""
        return 3


def choose_settings(
    acquisition: Acquisition,
    macrovascular: str = "auto",
    *,
    att_bounds_s: Bounds = ATT_BOUNDS_S,
    cbf_bounds: Bounds | None = None,
) -> FitSettings:
    """Return the settings that suit an acquisition.

    A single timing does not determine ATT: it is held at `TYPICAL_ATT_S`. The arterial
    compartment is estimated with `macrovascular` "on", and with "auto" where the acquisition has
    arterial signal (see `Acquisition.has_arterial_signal`) and CBF has no bounds.

    Raises
    ------
    ValueError
        When `macrovascular` has another value, or is "on" with bounds of CBF or a single timing.
    """
    if macrovascular not in MACROVASCULAR:
        raise ValueError(f"macrovascular must be one of {', '.join(MACROVASCULAR)}")
    is_single, is_bounded = acquisition.n_timings < 2, cbf_bounds is not None
    if macrovascular == "on" and (is_single or is_bounded):
        raise ValueError("the arterial compartment needs several timings and no bounds of CBF")
    is_arterial = macrovascular == "auto" and acquisition.has_arterial_signal and not is_bounded
    if macrovascular == "on" or is_arterial:
        return Arterial(att_bounds_s=att_bounds_s)
    if is_single:
        return FixedAtt(TYPICAL_ATT_S, cbf_bounds, att_bounds_s=att_bounds_s)
    return FreeAtt(cbf_bounds, att_bounds_s=att_bounds_s)


def _check_cbf_bounds(bounds: Bounds | None) -> None:
    if bounds is not None and not bounds[0] < bounds[1]:
        raise ValueError("CBF bounds must be ascending")
