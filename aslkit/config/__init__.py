"""YAML -> a checked training configuration; an unknown key is an error."""

from pathlib import Path
from typing import Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from aslkit.errors import InputError

FOLDER = Path(__file__).parent


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class NetworkConfig(_Strict):
    """Kind of network, and its feature maps: per resolution, finest first, or per layer."""

    kind: Literal["physics_residual", "voxelwise"] = "physics_residual"
    widths: tuple[int, ...] = Field(min_length=2)


class DataConfig(_Strict):
    """The stream of simulated patches.

    A step sees `groups` protocols with `patches_per_group` slices of `patch` x `patch` pixels
    each; SNR (as in benchmark.md) is drawn per patch, uniformly in its logarithm.
    """

    patch: int = Field(64, ge=16, multiple_of=8)
    groups: int = Field(4, ge=1)
    patches_per_group: int = Field(8, ge=1)
    snr_range: tuple[float, float] = (0.7, 80.0)
    arterial_share: float = Field(0.45, ge=0, le=1)
    mismatched_share: float = Field(0.5, ge=0, le=1)


class TrainingConfig(_Strict):
    """Everything that determines a training run."""

    name: str
    steps: int = Field(ge=1)
    seed: int = 0
    learning_rate: float = Field(2e-3, gt=0)
    weight_decay: float = Field(1e-3, ge=0)
    warmup_steps: int = Field(200, ge=0)
    averaging: float = Field(0.998, ge=0, lt=1)
    checkpoint_minutes: float = Field(5.0, gt=0)
    network: NetworkConfig
    data: DataConfig = DataConfig()


def list_configs() -> dict[str, Path]:
    """Name and file of every configuration inside the package."""
    return {p.stem: p for p in sorted(FOLDER.glob("*.yaml"))}


def load_config(name_or_file: str, changes: tuple[str, ...] = ()) -> TrainingConfig:
    """A configuration by name or file, with changes of the form "section.key=value".

    Raises
    ------
    InputError
        When there is no such configuration, or a key or value is not allowed.
    """
    path = list_configs().get(name_or_file, Path(name_or_file))
    if not path.is_file():
        raise InputError(
            "--config",
            "",
            found=name_or_file,
            expected=f"a YAML file or one of {', '.join(list_configs())}",
            fix="see asl_train --list-configs",
        )
    try:
        values = yaml.safe_load(path.read_text())
        for change in changes:
            _set(values, change)
        return TrainingConfig.model_validate(values)
    except yaml.YAMLError as error:
        raise InputError(
            path, "", found=str(error).splitlines()[0], expected="YAML", fix="correct the file"
        ) from error
    except ValidationError as error:
        first = error.errors()[0]
        raise InputError(
            path,
            ".".join(str(part) for part in first["loc"]),
            found=repr(first["input"]),
            expected=first["msg"],
            fix="correct the value or the name of the key",
        ) from error


def dump_config(config: TrainingConfig) -> str:
    """The resolved configuration as YAML."""
    return yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False)


def _set(values: dict[str, object], change: str) -> None:
    """Apply "section.key=value" to nested mappings."""
    key, sign, value = change.partition("=")
    *sections, last = key.split(".")
    target = values
    for section in sections:
        inner = target.setdefault(section, {})
        if not isinstance(inner, dict):
            sign = ""
            break
        target = inner
    if not sign:
        raise InputError(
            "--set", change, found=change, expected="section.key=value", fix="see docs/training.md"
        )
    target[last] = yaml.safe_load(value)
