"""Keys of the section `adaptation`: adaptation to real scans."""

from typing import Self

from pydantic import Field, model_validator

from aslkit.config.network_kinds import Strict


class AdaptationConfig(Strict):
    """Training on real scans too: CBF from half of the repeats must predict the other half."""

    weight: float = Field(1.0, gt=0)
    """Weight of the loss of real scans, relative to that of simulated scans."""
    moco: bool = False
    """Realign the volumes of the real scans, as `--moco` of `asl_predict`."""
    bias_correction: bool = False
    """Train only a scale and an offset of CBF and of ATT."""
    adversarial_weight: float | None = Field(None, gt=0)
    """Weight of domain-adversarial training, which aligns features of real and simulated scans."""

    @model_validator(mode="after")
    def _check_adversarial(self) -> Self:
        if self.bias_correction and self.adversarial_weight:
            raise ValueError(
                "either bias_correction, which freezes the network, or adversarial_weight"
            )
        return self
