"""Keys of the section `data` of kind `fixed_protocol`: training data of one protocol.

Experiments and models for one protocol use it; the default model is trained with any protocol.
"""

from typing import Annotated, Literal, Self

import numpy as np
from pydantic import AfterValidator, Field, model_validator

from aslkit.config.network_kinds import Strict
from aslkit.core.acquisition import Timing, protocol
from aslkit.core.constants import LONGEST_DELAY_S

N_PULSES = {"pcasl": 4, "vsasl": 3}  # background-suppression pulses, with domain randomization


def _ascending(limits: tuple[float, float]) -> tuple[float, float]:
    if not 0 < limits[0] <= limits[1]:
        raise ValueError("a range from low to high, above 0")
    return limits


def _in_seconds(plds: tuple[float, ...]) -> tuple[float, ...]:
    if not 0 <= min(plds) <= max(plds) <= LONGEST_DELAY_S:
        raise ValueError(f"delays in seconds, 0 to {LONGEST_DELAY_S:g}")
    return plds


Range = Annotated[tuple[float, float], AfterValidator(_ascending)]


class FixedProtocolConfig(Strict):
    """Simulated training data of one protocol, with random physics per patch."""

    kind: Literal["fixed_protocol"]
    patch_size: int = Field(64, ge=16, multiple_of=8)
    """Pixels along each side of a patch."""
    patches_per_step: int = Field(32, ge=1)
    """Patches in one training step."""
    labelings: tuple[Literal["pcasl", "vsasl"], ...] = Field(("pcasl", "vsasl"), min_length=1)
    """Labeling types of the protocol, in this order."""
    plds_s: Annotated[tuple[float, ...], AfterValidator(_in_seconds)] = Field(
        (0.5, 1.0, 1.5, 2.0, 2.5, 3.0), min_length=2
    )
    """Post-labeling delays, the same for every labeling type."""
    label_duration_s: float = Field(1.8, gt=0, le=10)
    """Label duration; varies by ± 10 % with `domain_randomization`."""
    t1_blood_s: float = Field(1.65, gt=0.5, le=4)
    """T1 of blood; the feature `t1_artery` is the difference from it."""
    t1_blood_range_s: Range = (1.55, 2.15)
    """Range of the true T1 of blood, with `domain_randomization`."""
    alpha_pcasl: float = Field(0.85, gt=0, le=1)
    """Nominal labeling efficiency of PCASL."""
    alpha_pcasl_range: Range = (0.75, 0.95)
    """Range of the true labeling efficiency of PCASL, with `domain_randomization`."""
    alpha_vsasl: float = Field(0.56, gt=0, le=1)
    """Nominal labeling efficiency of VSASL."""
    alpha_vsasl_range: Range = (0.40, 0.70)
    """Range of the true labeling efficiency of VSASL, with `domain_randomization`."""
    alpha_bs_range: Range = (0.85, 1.0)
    """Range of the true background-suppression efficiency per pulse (4 pulses of PCASL, 3 of
    VSASL); the nominal value is the middle."""
    domain_randomization: bool = True
    """Draw the physics of every patch from the ranges; otherwise use the nominal values, without
    background suppression."""
    extended_randomization: bool = False
    """Also vary the timings more, add arteries, dispersion, gain errors of delays and correlated
    noise; needs `domain_randomization` and gaussian noise."""
    snr_levels: tuple[float, ...] = Field((2.0, 5.0, 10.0, 15.0, 20.0, 25.0), min_length=1)
    """SNRs (as in `asl_sim`), drawn per patch."""
    noise_components: tuple[Literal["thermal", "physio", "drift"], ...] = ("thermal",)
    """`physio`: a sinusoid over the volumes, 3-15 % of the signal; `drift`: a line, up to 3 %."""
    noise_type: Literal["gaussian", "rician"] = "gaussian"
    """`rician`: magnitudes of control and label images."""

    @model_validator(mode="after")
    def _check_extended(self) -> Self:
        is_fit = self.domain_randomization and self.noise_type == "gaussian"
        if self.extended_randomization and not is_fit:
            raise ValueError("extended_randomization with domain_randomization, gaussian noise")
        return self


def nominal_timings(config: FixedProtocolConfig) -> tuple[Timing, ...]:
    """Return the nominal timings of the protocol, one labeling type after the other."""
    pulse = float(np.mean(config.alpha_bs_range)) if config.domain_randomization else 1.0
    runs = []
    for labeling in config.labelings:
        efficiency = getattr(config, f"alpha_{labeling}") * pulse ** N_PULSES[labeling]
        duration = config.label_duration_s if labeling == "pcasl" else 0.0
        runs.append(protocol(labeling, config.plds_s, duration, efficiency))
    return sum(runs, ())
