"""What a configuration may say of adaptation to real scans."""

from typing import Self

from pydantic import Field, model_validator

from aslkit.config.network_kinds import Strict


class AdaptationConfig(Strict):
    """Training by real scans too: CBF from half of the repeats predicts the other half."""

    weight: float = Field(1.0, gt=0)
    """Weight of their loss beside that of the simulated scans."""
    bias_correction: bool = False
    """Only a scale and an offset of CBF and of ATT are trained."""
    adversarial_weight: float | None = Field(None, gt=0)
    """With this weight, the deepest features learn not to tell real scans from simulated ones."""

    @model_validator(mode="after")
    def _check_adversarial(self) -> Self:
        if self.bias_correction and self.adversarial_weight:
            raise ValueError(
                "either bias_correction, which freezes the network, or adversarial_weight"
            )
        return self
