"""What a configuration may say of the stream of one protocol."""

from typing import Annotated, Literal, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

LONGEST_DELAY_S = 20.0  # a longer one is milliseconds written for seconds


def _ascending(limits: tuple[float, float]) -> tuple[float, float]:
    if not 0 < limits[0] <= limits[1]:
        raise ValueError("a range from low to high, above 0")
    return limits


def _in_seconds(plds: tuple[float, ...]) -> tuple[float, ...]:
    if not 0 <= min(plds) <= max(plds) <= LONGEST_DELAY_S:
        raise ValueError(f"delays in seconds, 0 to {LONGEST_DELAY_S:g}")
    return plds


Range = Annotated[tuple[float, float], AfterValidator(_ascending)]


class OneProtocolConfig(BaseModel):
    """The stream of simulated patches of one protocol, with physics drawn per patch.

    `plds_s` holds for every labeling. Without `domain_randomization`, the single values count
    and there is no background suppression; with it, the ranges count, the label duration
    scatters by 10 %, and PCASL has 4 background-suppression pulses, VSASL 3. With
    `extended_randomization` too, label durations and delays scatter more, arteries show in some
    patches, arrival is dispersed, each delay has a gain error, and noise is correlated.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    kind: Literal["one_protocol"]
    patch: int = Field(64, ge=16, multiple_of=8)
    patches: int = Field(32, ge=1)
    labelings: tuple[Literal["pcasl", "vsasl"], ...] = Field(("pcasl", "vsasl"), min_length=1)
    plds_s: Annotated[tuple[float, ...], AfterValidator(_in_seconds)] = Field(
        (0.5, 1.0, 1.5, 2.0, 2.5, 3.0), min_length=2
    )
    label_duration_s: float = Field(1.8, gt=0, le=10)
    t1_blood_s: float = Field(1.65, gt=0.5, le=4)
    t1_blood_range_s: Range = (1.55, 2.15)
    alpha_pcasl: float = Field(0.85, gt=0, le=1)
    alpha_pcasl_range: Range = (0.75, 0.95)
    alpha_vsasl: float = Field(0.56, gt=0, le=1)
    alpha_vsasl_range: Range = (0.40, 0.70)
    alpha_bs_range: Range = (0.85, 1.0)
    domain_randomization: bool = True
    extended_randomization: bool = False
    snr_levels: tuple[float, ...] = Field((2.0, 5.0, 10.0, 15.0, 20.0, 25.0), min_length=1)
    noise_components: tuple[Literal["thermal", "physio", "drift"], ...] = ("thermal",)
    noise_type: Literal["gaussian", "rician"] = "gaussian"

    @model_validator(mode="after")
    def _check_extended(self) -> Self:
        is_fit = self.domain_randomization and self.noise_type == "gaussian"
        if self.extended_randomization and not is_fit:
            raise ValueError("extended_randomization with domain_randomization, gaussian noise")
        return self
