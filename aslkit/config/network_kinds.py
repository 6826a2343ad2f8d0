"""What a configuration may say of the network: a class for every kind."""

from typing import Annotated, Literal, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator


def _in_groups(widths: tuple[int, ...]) -> tuple[int, ...]:
    if any(width % 8 or width <= 0 for width in widths):
        raise ValueError("multiples of 8, the groups of the norm")
    return widths


class Strict(BaseModel):
    """A section that holds known keys only, and never changes."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class VoxelwiseConfig(Strict):
    """Residual blocks of single voxels: what the neighbours add is left out."""

    kind: Literal["voxelwise"]
    widths: tuple[int, ...] = Field(min_length=2)
    """Feature maps of each block."""


class ResidualConfig(Strict):
    """U-Net of residual blocks, which corrects least squares."""

    kind: Literal["physics_residual"]
    widths: tuple[int, ...] = Field(min_length=2)
    """Feature maps per resolution, finest first."""
    across_slices: bool = False
    """Convolve across neighbouring slices too, in every block; needs `data.slices_per_subject`."""
    bias_correction: bool = False
    """Whether an adaptation scales and shifts the estimates, as the network's last step."""


class BrainUNetConfig(Strict):
    """U-Net of raw curves."""

    kind: Literal["spatial", "dual_encoder"]
    widths: Annotated[tuple[int, ...], AfterValidator(_in_groups)] = Field(min_length=2)
    """Feature maps per resolution, finest first; multiples of 8."""
    norm: Literal["group", "none"] = "group"
    """`group`: 8 groups, over the brain alone."""
    dropout: float = Field(0.0, ge=0, lt=1)
    """Share of the feature maps that is left out in training."""


class AmplitudeAwareConfig(BrainUNetConfig):
    """The same with amplitude: FiLM by image-wide statistics, and the pixel's own for CBF."""

    kind: Literal["amplitude_aware"]  # type: ignore[assignment]
    film_at_bottleneck: bool = True
    """Mean and sd of every channel over the brain scale and shift the deepest features."""
    film_at_decoder: bool = True
    """Likewise after each decoder block."""
    output_modulation: bool = True
    """The CBF head sees the mean size of the pixel's curves."""
    separate_decoders: bool = False
    """ATT has a decoder of its own, with the skips, and FiLM by the codes, of the other."""
    att_film: bool = False
    """The ATT decoder has a code of amplitudes, and FiLM, of its own (`separate_decoders`)."""
    att_attention: bool = False
    """Features of the ATT head are weighted by place, by their mean and largest within 7 x 7."""
    denoising_head: bool = False
    """A head of its own learns the signal without noise; goes with `pretraining_fraction`."""
    context_branch: bool = False
    """A second encoder sees the image at half the resolution and joins at the deepest features."""
    confidence_head: bool = False
    """The heads also state the probability that CBF and ATT are close to the truth."""

    @model_validator(mode="after")
    def _check_att_film(self) -> Self:
        has_film = self.film_at_bottleneck or self.film_at_decoder
        if self.att_film and not (has_film and self.separate_decoders):
            raise ValueError("att_film with separate_decoders and a film_at_… alone")
        return self


NetworkConfig = ResidualConfig | VoxelwiseConfig | BrainUNetConfig | AmplitudeAwareConfig
