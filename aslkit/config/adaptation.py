"""What a configuration may say of adaptation to real scans."""

from typing import Self

from pydantic import BaseModel, ConfigDict, Field, model_validator


class AdaptationConfig(BaseModel):
    """Training by real scans too: CBF from half of the repeats predicts the other half.

    `weight` is that of their loss beside the one of the simulated scans. With `bias_correction`,
    only a scale and an offset of CBF and of ATT are trained; with `adversarial`, of that weight,
    the deepest features learn not to tell real scans from simulated ones.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    weight: float = Field(1.0, gt=0)
    bias_correction: bool = False
    adversarial: float | None = Field(None, gt=0)

    @model_validator(mode="after")
    def _check_adversarial(self) -> Self:
        if self.bias_correction and self.adversarial:
            raise ValueError("either bias_correction, which freezes the network, or adversarial")
        return self
