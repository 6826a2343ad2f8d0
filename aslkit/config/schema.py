"""Everything that a training configuration may hold, with units and limits; nothing else."""

from typing import Annotated, Literal, Self

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    TypeAdapter,
    ValidationInfo,
    field_validator,
    model_validator,
)

from aslkit.config.adaptation import AdaptationConfig
from aslkit.config.one_protocol import OneProtocolConfig, Range

WARMUP_STEPS = 200


def _in_groups(widths: tuple[int, ...]) -> tuple[int, ...]:
    if any(width % 8 or width <= 0 for width in widths):
        raise ValueError("multiples of 8, the groups of the norm")
    return widths


Feature = Literal["mean", "std", "peak", "t1_artery"]
DEFAULT_KINDS = {
    "network": "physics_residual",
    "encoding": "physics_profile",
    "data": "any_protocol",
}


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class VoxelwiseConfig(_Strict):
    """Residual blocks of single voxels: feature maps of each."""

    kind: Literal["voxelwise"]
    widths: tuple[int, ...] = Field(min_length=2)


class ResidualConfig(_Strict):
    """U-Net of residual blocks: feature maps per resolution, finest first.

    With `across_slices`, neighbouring slices see each other; with `bias_correction`, an adaptation
    scales and shifts the estimates.
    """

    kind: Literal["physics_residual"]
    widths: tuple[int, ...] = Field(min_length=2)
    across_slices: bool = False
    bias_correction: bool = False


class BrainUNetConfig(_Strict):
    """U-Net of raw curves: feature maps per resolution, finest first."""

    kind: Literal["spatial", "dual_encoder"]
    widths: Annotated[tuple[int, ...], AfterValidator(_in_groups)] = Field(min_length=2)
    norm: Literal["group", "none"] = "group"
    dropout: float = Field(0.0, ge=0, lt=1)


class AmplitudeAwareConfig(BrainUNetConfig):
    """The same with amplitude: FiLM by image-wide statistics, and the pixel's own for CBF."""

    kind: Literal["amplitude_aware"]  # type: ignore[assignment]
    film_at_bottleneck: bool = True
    film_at_decoder: bool = True
    output_modulation: bool = True
    separate_decoders: bool = False
    att_film: bool = False
    att_attention: bool = False
    denoising_head: bool = False
    context_branch: bool = False

    @model_validator(mode="after")
    def _check_att_film(self) -> Self:
        has_film = self.film_at_bottleneck or self.film_at_decoder
        if self.att_film and not (has_film and self.separate_decoders):
            raise ValueError("att_film with separate_decoders and a film_at_… alone")
        return self


NetworkConfig = ResidualConfig | VoxelwiseConfig | BrainUNetConfig | AmplitudeAwareConfig
NETWORKS: TypeAdapter[NetworkConfig] = TypeAdapter(
    Annotated[NetworkConfig, Field(discriminator="kind")]
)


class ProfileEncodingConfig(_Strict):
    """The data of any protocol, matched with its kinetic curves in units of their noise."""

    kind: Literal["physics_profile"]


class RawEncodingConfig(_Strict):
    """The curves of one protocol themselves, and features of them."""

    kind: Literal["raw"]
    normalization: Literal["global_scale", "per_curve"] = "global_scale"
    scale: float = Field(10.0, gt=0)
    features: tuple[Feature, ...] = ()


class LossConfig(_Strict):
    """Error of the estimates in fixed units, and what is added to it."""

    error: Literal["l1", "l2", "huber"] = "l1"
    mode: Literal["mae_nll", "mae"] = "mae_nll"
    cbf_weight: float = Field(1.0, ge=0)
    att_weight: float = Field(1.0, ge=0)
    dc_weight: float = Field(0.0, ge=0)
    variance_weight: float = Field(0.0, ge=0)


class DataConfig(_Strict):
    """The stream of simulated patches of any protocol.

    A step sees `groups` protocols with `patches_per_group` slices of `patch` x `patch` pixels
    each; SNR (as in benchmark.md) is drawn per subject, uniformly in its logarithm. Of each
    subject there are `slices` neighbouring slices in most groups, and one in the others.
    """

    kind: Literal["any_protocol"] = "any_protocol"
    patch: int = Field(64, ge=16, multiple_of=8)
    groups: int = Field(4, ge=1)
    patches_per_group: int = Field(8, ge=1)
    slices: int = Field(1, ge=1)
    snr_range: Range = (0.7, 80.0)
    arterial_share: float = Field(0.45, ge=0, le=1)
    mismatched_share: float = Field(0.5, ge=0, le=1)

    @model_validator(mode="after")
    def _check_slices(self) -> Self:
        if self.patches_per_group % self.slices:
            raise ValueError("slices that divide patches_per_group")
        return self

    @property
    def patches(self) -> int:
        """Patches in a step."""
        return self.groups * self.patches_per_group


class ValidationConfig(_Strict):
    """Early stopping: after `patience` looks in a row without a lower loss; the best is kept."""

    every_steps: int = Field(500, ge=1)
    batches: int = Field(8, ge=1)
    patience: int = Field(5, ge=1)


class TrainingConfig(_Strict):
    """Everything that determines a training run.

    The model is the running average of the weights with decay `averaging` or, from the share
    `swa_start` of the run on, the plain mean since then, at the learning rate of that moment.
    """

    name: str
    steps: int = Field(ge=1)
    seed: int = Field(0, ge=0)
    members: int = Field(1, ge=1)
    learning_rate: float = Field(2e-3, gt=0)
    weight_decay: float = Field(1e-3, ge=0)
    schedule: Literal["cosine", "one_cycle"] = "cosine"
    warmup_steps: int | None = Field(None, ge=0)
    averaging: float = Field(0.998, ge=0, lt=1)
    swa_start: float | None = Field(None, gt=0, lt=1)
    checkpoint_minutes: float = Field(5.0, gt=0)
    network: NetworkConfig = Field(discriminator="kind")
    encoding: ProfileEncodingConfig | RawEncodingConfig = Field(discriminator="kind")
    loss: LossConfig | None = None
    pretrain_share: float | None = Field(None, gt=0, lt=1)
    cbf_first_share: float | None = Field(None, gt=0, lt=1)
    balance: Literal["learned", "validation"] | None = None
    data: DataConfig | OneProtocolConfig = Field(discriminator="kind")
    validation: ValidationConfig | None = None
    adaptation: AdaptationConfig | None = None

    @model_validator(mode="before")
    @classmethod
    def _warm_up(cls, values: object) -> object:
        """Steps of warm-up by default, of the one schedule that has them."""
        if isinstance(values, dict) and values.get("schedule", "cosine") == "cosine":
            return {"warmup_steps": WARMUP_STEPS} | values
        return values

    @field_validator("warmup_steps")
    @classmethod
    def _only_before_cosine(cls, steps: int | None, info: ValidationInfo) -> int | None:
        if steps is not None and info.data.get("schedule") == "one_cycle":
            raise ValueError("no such key with schedule one_cycle, which begins low anyway")
        return steps

    @model_validator(mode="before")
    @classmethod
    def _name_kinds(cls, values: object) -> object:
        """Sections that do not say their kind have the default one."""
        if not isinstance(values, dict):
            return values
        kinds = {s: values.get(s, {}) for s in DEFAULT_KINDS if s in values or s != "network"}
        return values | {
            section: {"kind": DEFAULT_KINDS[section], **given}
            if isinstance(given, dict)
            else given
            for section, given in kinds.items()
        }

    @model_validator(mode="after")
    def _check_sections(self) -> Self:
        is_raw = isinstance(self.encoding, RawEncodingConfig)
        if is_raw != isinstance(self.data, OneProtocolConfig):
            raise ValueError("encoding.kind raw together with data.kind one_protocol")
        if is_raw != (self.loss is not None):
            raise ValueError("a section loss with encoding.kind raw, and only with it")
        needs_curves = not isinstance(self.network, ResidualConfig | VoxelwiseConfig)
        if needs_curves and not is_raw:
            raise ValueError(f"encoding.kind raw for network.kind {self.network.kind}")
        return self

    @model_validator(mode="after")
    def _check_ideas(self) -> Self:
        """Whether what goes together is there together."""
        network = self.network
        if getattr(network, "across_slices", False) != (getattr(self.data, "slices", 1) > 1):
            raise ValueError("network.across_slices together with data.slices above 1")
        stride = 2 ** (len(network.widths) - 1 + getattr(network, "context_branch", False))
        if isinstance(network, BrainUNetConfig) and self.data.patch % stride:
            raise ValueError(f"data.patch a multiple of {stride}, the stride of the network")
        if getattr(network, "denoising_head", False) != (self.pretrain_share is not None):
            raise ValueError("network.denoising_head together with pretrain_share")
        if self.pretrain_share and self.validation:
            raise ValueError("either pretrain_share or validation")
        if self.cbf_first_share and not getattr(network, "separate_decoders", False):
            raise ValueError("network.separate_decoders with cbf_first_share")
        return self

    @model_validator(mode="before")
    @classmethod
    def _correct_bias(cls, values: object) -> object:
        """The network has the bias correction that an adaptation trains."""
        match values:
            case {"adaptation": {"bias_correction": True}, "network": dict(network)}:
                return {**values, "network": network | {"bias_correction": True}}
        return values

    @model_validator(mode="after")
    def _check_adaptation(self) -> Self:
        if self.adaptation and not isinstance(self.network, ResidualConfig):
            raise ValueError("network.kind physics_residual with a section adaptation")
        is_corrected = bool(self.adaptation and self.adaptation.bias_correction)
        if getattr(self.network, "bias_correction", False) != is_corrected:
            raise ValueError("network.bias_correction by adaptation.bias_correction alone")
        return self

    @model_validator(mode="after")
    def _check_balance(self) -> Self:
        if self.balance and self.loss and not self.loss.cbf_weight * self.loss.att_weight:
            raise ValueError("weights of loss above 0 with balance")
        if self.balance and self.cbf_first_share:
            raise ValueError("either cbf_first_share or balance")
        if self.balance == "validation" and self.validation is None:
            raise ValueError("a section validation with balance validation")
        return self


def _names(model: type[BaseModel]) -> list[str]:
    return list(model.model_fields)


_MODELS: dict[str, tuple[type[BaseModel], ...]] = {
    "network": (ResidualConfig, VoxelwiseConfig, BrainUNetConfig, AmplitudeAwareConfig),
    "encoding": (ProfileEncodingConfig, RawEncodingConfig),
    "loss": (LossConfig,),
    "data": (DataConfig, OneProtocolConfig),
    "validation": (ValidationConfig,),
    "adaptation": (AdaptationConfig,),
}
KINDS = (
    "physics_residual",
    "voxelwise",
    "spatial",
    "dual_encoder",
    "amplitude_aware",
    "physics_profile",
    "raw",
    "any_protocol",
    "one_protocol",
)
SECTIONS = (
    *TrainingConfig.model_fields,
    *dict.fromkeys(f"{s}.{n}" for s, models in _MODELS.items() for m in models for n in _names(m)),
)
