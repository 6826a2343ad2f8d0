"""Keys of training configurations, with types, units and limits.

`TrainingConfig` has the keys of the default model (`AnyProtocolConfig`, `ProfileEncodingConfig`,
`ResidualConfig`) and of the experiments (`FixedProtocolConfig`, `RawEncodingConfig`, `LossConfig`,
`BrainUNetConfig`, `AmplitudeAwareConfig`).
"""

from typing import Annotated, Any, Literal, Self, get_args

from pydantic import (
    BaseModel,
    Field,
    TypeAdapter,
    ValidationInfo,
    field_validator,
    model_validator,
)

from aslkit.config.adaptation import AdaptationConfig
from aslkit.config.fixed_protocol import FixedProtocolConfig, Range
from aslkit.config.network_kinds import (
    AmplitudeAwareConfig,
    BrainUNetConfig,
    NetworkConfig,
    ResidualConfig,
    Strict,
    VoxelwiseConfig,
)

WARMUP_STEPS = 200

Feature = Literal["mean", "std", "peak", "t1_artery"]
DEFAULT_KINDS = {
    "network": "physics_residual",
    "encoding": "physics_profile",
    "data": "any_protocol",
}

NETWORKS: TypeAdapter[NetworkConfig] = TypeAdapter(
    Annotated[NetworkConfig, Field(discriminator="kind")]
)


class ProfileEncodingConfig(Strict):
    """Match of the data with kinetic curves, in units of the noise; for any protocol."""

    kind: Literal["physics_profile"]


class RawEncodingConfig(Strict):
    """The ΔM curves of one protocol, and features of these curves."""

    kind: Literal["raw"]
    normalization: Literal["global_scale", "per_curve"] = "global_scale"
    """`global_scale`: percent of M0 times `scale`; `per_curve`: z-scores, without amplitude."""
    scale: float = Field(10.0, gt=0)
    """Factor of `global_scale`."""
    features: tuple[Feature, ...] = ()
    """Additional channels: mean, sd and peak of each labeling's curve, and T1 of blood."""


class LossConfig(Strict):
    """Loss of networks of raw curves."""

    error: Literal["l1", "l2", "huber"] = "l1"
    """Error of CBF in units of 25 ml/100 g/min, and of ATT in units of 0.5 s."""
    mode: Literal["mae_nll", "mae"] = "mae_nll"
    """`mae_nll` adds the negative log-likelihood of the standard deviations (weight 0.1)."""
    cbf_weight: float = Field(1.0, ge=0)
    """Weight of the error of CBF; 0: the model does not estimate CBF."""
    att_weight: float = Field(1.0, ge=0)
    """Weight of the error of ATT; 0: the model does not estimate ATT."""
    data_consistency_weight: float = Field(0.0, ge=0)
    """Weight of the distance between measured and predicted signal, in percent of M0."""
    variance_weight: float = Field(0.0, ge=0)
    """Weight of a penalty for estimates that vary less over the brain than the truth."""


class AnyProtocolConfig(Strict):
    """Simulated training data of any protocol."""

    kind: Literal["any_protocol"] = "any_protocol"
    patch_size: int = Field(64, ge=16, multiple_of=8)
    """Pixels along each side of a patch."""
    protocols_per_step: int = Field(4, ge=1)
    """Protocols in one training step."""
    patches_per_protocol: int = Field(8, ge=1)
    """Patches of each protocol in one training step."""
    slices_per_subject: int = Field(1, ge=1)
    """Neighbouring slices of each subject, 2.5-8 mm apart, in 80 % of the protocols; one slice per
    subject in the others."""
    snr_range: Range = (0.7, 80.0)
    """Range of the SNR (as in `asl_sim`), drawn log-uniformly per subject."""
    arterial_fraction: float = Field(0.45, ge=0, le=1)
    """Fraction of the protocols with arterial signal."""
    mismatched_fraction: float = Field(0.5, ge=0, le=1)
    """Fraction of the protocols whose signal differs from the model that estimators assume."""

    @model_validator(mode="after")
    def _check_slices(self) -> Self:
        if self.patches_per_protocol % self.slices_per_subject:
            raise ValueError("slices_per_subject that divides patches_per_protocol")
        return self

    @property
    def patches_per_step(self) -> int:
        """Patches in one training step."""
        return self.protocols_per_step * self.patches_per_protocol


class ValidationConfig(Strict):
    """Early stopping: the run keeps the weights with the lowest validation loss."""

    interval_steps: int = Field(500, ge=1)
    """Steps between two validations."""
    batches: int = Field(8, ge=1)
    """Batches of validation data, which are never used for training."""
    patience: int = Field(5, ge=1)
    """Consecutive validations without a lower loss after which the run stops."""


class TrainingConfig(Strict):
    """All settings of a training run."""

    name: str
    """Name of the model."""
    steps: int = Field(ge=1)
    """Training steps; `--max-minutes` may end the run earlier."""
    seed: int = Field(0, ge=0)
    """Seed of initial weights, simulated data and dropout."""
    members: int = Field(1, ge=1)
    """Networks of the ensemble, each with its own seed and data."""
    learning_rate: float = Field(2e-3, gt=0)
    """Highest learning rate of AdamW."""
    weight_decay: float = Field(1e-3, ge=0)
    """Weight decay of AdamW."""
    schedule: Literal["cosine", "one_cycle"] = "cosine"
    """`cosine`: warm-up, then cosine decay; `one_cycle`: up for 30 % of the run, then to 0."""
    warmup_steps: int | None = Field(None, ge=0)
    """Warm-up steps of schedule `cosine`; the default there is 200."""
    ema_decay: float = Field(0.998, ge=0, lt=1)
    """Decay of the exponential moving average of the weights, which is the saved model."""
    swa_start: float | None = Field(None, gt=0, lt=1)
    """Fraction of the run after which the model is the mean of the weights since then (stochastic
    weight averaging), at a constant learning rate."""
    checkpoint_minutes: float = Field(5.0, gt=0)
    """Time between two checkpoints."""
    network: NetworkConfig = Field(discriminator="kind")
    encoding: ProfileEncodingConfig | RawEncodingConfig = Field(discriminator="kind")
    loss: LossConfig | None = None
    pretraining_fraction: float | None = Field(None, gt=0, lt=1)
    """First fraction of the run, which trains `network.denoising_head` only."""
    cbf_first_fraction: float | None = Field(None, gt=0, lt=1)
    """First fraction of the run, which trains CBF only; the rest trains ATT only."""
    loss_weighting: Literal["learned", "validation"] | None = None
    """Weights of the CBF and ATT losses: `learned`, or from the errors at each `validation`."""
    data: AnyProtocolConfig | FixedProtocolConfig = Field(discriminator="kind")
    validation: ValidationConfig | None = None
    adaptation: AdaptationConfig | None = None

    @model_validator(mode="before")
    @classmethod
    def _warm_up(cls, values: object) -> object:
        """Fill in the default number of warm-up steps for schedule `cosine`."""
        if isinstance(values, dict) and values.get("schedule", "cosine") == "cosine":
            return {"warmup_steps": WARMUP_STEPS} | values
        return values

    @field_validator("warmup_steps")
    @classmethod
    def _only_before_cosine(cls, steps: int | None, info: ValidationInfo) -> int | None:
        if steps is not None and info.data.get("schedule") == "one_cycle":
            raise ValueError("no such key with schedule one_cycle, which has a warm-up of its own")
        return steps

    @model_validator(mode="before")
    @classmethod
    def _name_kinds(cls, values: object) -> object:
        """Fill in the default kind of sections without one."""
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
        if is_raw != isinstance(self.data, FixedProtocolConfig):
            raise ValueError("encoding.kind raw together with data.kind fixed_protocol")
        if is_raw != (self.loss is not None):
            raise ValueError("a section loss with encoding.kind raw, and only with it")
        needs_curves = not isinstance(self.network, ResidualConfig | VoxelwiseConfig)
        if needs_curves and not is_raw:
            raise ValueError(f"encoding.kind raw for network.kind {self.network.kind}")
        return self

    @model_validator(mode="after")
    def _check_dependencies(self) -> Self:
        """Check keys that need or exclude one another."""
        network = self.network
        if getattr(network, "across_slices", False) != (
            getattr(self.data, "slices_per_subject", 1) > 1
        ):
            raise ValueError("network.across_slices together with data.slices_per_subject above 1")
        stride = 2 ** (len(network.widths) - 1 + getattr(network, "context_branch", False))
        if isinstance(network, BrainUNetConfig) and self.data.patch_size % stride:
            raise ValueError(f"data.patch_size a multiple of {stride}, the stride of the network")
        if getattr(network, "denoising_head", False) != (self.pretraining_fraction is not None):
            raise ValueError("network.denoising_head together with pretraining_fraction")
        if self.pretraining_fraction and self.validation:
            raise ValueError("either pretraining_fraction or validation")
        if self.cbf_first_fraction and not getattr(network, "separate_decoders", False):
            raise ValueError("network.separate_decoders with cbf_first_fraction")
        return self

    @model_validator(mode="before")
    @classmethod
    def _correct_bias(cls, values: Any) -> Any:
        """Give the network the bias correction that the adaptation trains."""
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
    def _check_loss_weighting(self) -> Self:
        if self.loss_weighting and self.loss and not self.loss.cbf_weight * self.loss.att_weight:
            raise ValueError("weights of loss above 0 with loss_weighting")
        if self.loss_weighting and self.cbf_first_fraction:
            raise ValueError("either cbf_first_fraction or loss_weighting")
        if self.loss_weighting == "validation" and self.validation is None:
            raise ValueError("a section validation with loss_weighting validation")
        return self


_MODELS: dict[str, tuple[type[BaseModel], ...]] = {
    "network": (ResidualConfig, VoxelwiseConfig, BrainUNetConfig, AmplitudeAwareConfig),
    "encoding": (ProfileEncodingConfig, RawEncodingConfig),
    "loss": (LossConfig,),
    "data": (AnyProtocolConfig, FixedProtocolConfig),
    "validation": (ValidationConfig,),
    "adaptation": (AdaptationConfig,),
}
SECTION_KINDS = {
    kind
    for section in DEFAULT_KINDS
    for model in _MODELS[section]
    for kind in get_args(model.model_fields["kind"].annotation)
}
SECTIONS = (
    *TrainingConfig.model_fields,
    *dict.fromkeys(f"{s}.{n}" for s, ms in _MODELS.items() for m in ms for n in m.model_fields),
)
