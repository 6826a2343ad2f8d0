"""Keys of the section `network`, one class for every kind.

`ResidualConfig` is the network of the default model; the others serve comparisons and experiments.
"""

from typing import Annotated, Literal, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator


def _in_groups(widths: tuple[int, ...]) -> tuple[int, ...]:
    if any(width % 8 or width <= 0 for width in widths):
        raise ValueError("multiples of 8, the groups of the norm")
    return widths


class Strict(BaseModel):
    """An immutable section that refuses unknown keys."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class VoxelwiseConfig(Strict):
    """Residual network of single voxels, without their neighbours."""

    kind: Literal["voxelwise"]
    widths: tuple[int, ...] = Field(min_length=2)
    """Feature maps of every block."""


class ResidualConfig(Strict):
    """U-Net of residual blocks that corrects least squares."""

    kind: Literal["physics_residual"]
    widths: tuple[int, ...] = Field(min_length=2)
    """Feature maps per resolution, finest first."""
    across_slices: bool = False
    """Convolve across neighbouring slices too, in every block; needs `data.slices_per_subject`."""
    bias_correction: bool = False
    """Scale and shift the estimates in a last step, which an adaptation trains."""


class BrainUNetConfig(Strict):
    """U-Net of raw ΔM curves."""

    kind: Literal["spatial", "dual_encoder"]
    widths: Annotated[tuple[int, ...], AfterValidator(_in_groups)] = Field(min_length=2)
    """Feature maps per resolution, finest first; multiples of 8."""
    norm: Literal["group", "none"] = "group"
    """`group`: group norm with 8 groups, over the brain only."""
    dropout: float = Field(0.0, ge=0, lt=1)
    """Fraction of the feature maps that dropout sets to 0 in training."""


class AmplitudeAwareConfig(BrainUNetConfig):
    """U-Net of raw ΔM curves with the amplitude of the signal as an additional input."""

    kind: Literal["amplitude_aware"]  # type: ignore[assignment]
    film_at_bottleneck: bool = True
    """Scale and shift the deepest features (FiLM) by the mean and sd of every channel."""
    film_at_decoder: bool = True
    """Scale and shift the features of every decoder block in the same way."""
    output_modulation: bool = True
    """Give the CBF head the mean amplitude of the pixel's curves."""
    separate_decoders: bool = False
    """Use a second decoder for ATT, with the skip connections and FiLM codes of the first."""
    att_film: bool = False
    """Use FiLM codes and layers for the ATT decoder only (needs `separate_decoders`)."""
    att_attention: bool = False
    """Weight the features of the ATT head by spatial attention over 7 x 7 pixels."""
    denoising_head: bool = False
    """Add a head that learns the noise-free signal; needs `pretraining_fraction`."""
    context_branch: bool = False
    """Add a second encoder of the image at half the resolution, joined at the deepest features."""
    confidence_head: bool = False
    """Also estimate the probability that CBF and ATT are close to the truth."""

    @model_validator(mode="after")
    def _check_att_film(self) -> Self:
        has_film = self.film_at_bottleneck or self.film_at_decoder
        if self.att_film and not (has_film and self.separate_decoders):
            raise ValueError("att_film with separate_decoders and a film_at_… alone")
        return self


NetworkConfig = ResidualConfig | VoxelwiseConfig | BrainUNetConfig | AmplitudeAwareConfig
