"""State of a training run <-> checkpoint.safetensors, from which it goes on bit for bit."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import save
from torch import Tensor, nn

from aslkit.config import TrainingConfig, dump_config, is_dump_of
from aslkit.core.errors import InputError
from aslkit.nets.model_store import read_tensors
from aslkit.nets.residual_unet import Network
from aslkit.outputs.atomic_write import appear_together
from aslkit.train.early_stopping import Best
from aslkit.train.loss_weighting import LossWeighting

CHECKPOINT = "checkpoint.safetensors"
# Modules of a state, and the first part of the names of their tensors in the file.
MODULES = {
    "network": "network",
    "average": "average",
    "loss_weighting": "balance",
    "classifier": "classifier",
}
SECTIONS = (*MODULES.values(), "optimizer", "best")  # of the tensors; numbers are beside them
NUMBERS = ("step", "n_batches", "n_averaged", "seconds", "losses", "origin", "adapted_to")


@dataclass
class TrainingState:
    """All that a run needs to go on.

    Attributes
    ----------
    network, average : Network
        The one that trains, and the average of its weights.
    loss_weighting : LossWeighting
        Of the losses of CBF and ATT.
    optimizer : torch.optim.AdamW
    classifier : nn.Module
        Of real and simulated scans, where there is one.
    origin : mapping, optional
        Of the first weights, as in the model card.
    adapted_to : mapping, optional
        What the model card says of the real scans.
    step, n_batches : int
        Steps done, and batches that all ranks together have drawn for them.
    n_averaged : int
        Steps whose weights are in the plain mean, once that has begun.
    seconds : float
        Of training.
    losses : list of float
        Of the steps since the last line of metrics.csv.
    best : Best
        For early stopping.
    """

    network: Network
    average: Network
    loss_weighting: LossWeighting
    optimizer: torch.optim.AdamW
    classifier: nn.Module
    origin: Mapping[str, object] | None = None
    adapted_to: Mapping[str, object] | None = None
    step: int = 0
    n_batches: int = 0
    n_averaged: int = 0
    seconds: float = 0.0
    losses: list[float] = field(default_factory=list)
    best: Best = field(default_factory=Best)


def write_checkpoint(state: TrainingState, config: TrainingConfig, out: Path) -> None:
    """Replace the checkpoint in a folder as a whole, whatever ends the process."""
    tensors = {
        f"{section}.{k}": v
        for name, section in MODULES.items()
        for k, v in getattr(state, name).state_dict().items()
    }
    for i, values in state.optimizer.state_dict()["state"].items():
        tensors |= {f"optimizer.{i}.{k}": v for k, v in values.items()}
    tensors |= {f"best.{k}": v for k, v in state.best.weights.items()}
    numbers = {name: getattr(state, name) for name in NUMBERS}
    numbers |= {"best": [state.best.loss, state.best.n_worse]}
    meta = {"config": dump_config(config), "numbers": json.dumps(numbers)}
    with appear_together(out, CHECKPOINT) as temporary:
        contiguous = {k: v.contiguous() for k, v in tensors.items()}
        (temporary / CHECKPOINT).write_bytes(save(contiguous, metadata=meta))


def read_checkpoint(state: TrainingState, config: TrainingConfig, out: Path) -> None:
    """Load the checkpoint of a folder into a fresh state.

    Raises
    ------
    InputError
        When it is damaged, or belongs to another configuration.
    """
    try:
        meta, tensors = read_tensors(out / CHECKPOINT)
    except (OSError, SafetensorError) as error:
        raise _refused(out, "", str(error), "a checkpoint of asl_train") from error
    if not is_dump_of(meta.get("config", "{}"), config) or "numbers" not in meta:
        other = "another configuration or version of aslkit"
        raise _refused(out, "config", other, "those of the run")
    parts: dict[str, dict[str, Tensor]] = {s: {} for s in SECTIONS}
    for key, tensor in tensors.items():
        section, _, name = key.partition(".")
        parts[section][name] = tensor
    for name, section in MODULES.items():
        getattr(state, name).load_state_dict(parts[section])
    _load_moments(state.optimizer, parts["optimizer"])
    numbers = json.loads(meta["numbers"])
    if numbers.get("adapted_to") != state.adapted_to:
        raise _refused(out, "adapted_to", "other scans", "those of the run")
    state.best = Best(parts["best"], *numbers.pop("best"))
    for name, value in numbers.items():
        setattr(state, name, value)


def _load_moments(optimizer: torch.optim.AdamW, tensors: Mapping[str, Tensor]) -> None:
    """Give an optimiser its moments, named `0.exp_avg`, …, laid out in memory like the weights."""
    moments: dict[int, dict[str, Tensor]] = {}
    weights = [p for group in optimizer.param_groups for p in group["params"]]
    for key, tensor in tensors.items():
        index, _, name = key.partition(".")
        if tensor.ndim:
            tensor = torch.empty_like(weights[int(index)]).copy_(tensor)
        moments.setdefault(int(index), {})[name] = tensor
    groups = optimizer.state_dict()["param_groups"]
    optimizer.load_state_dict({"state": moments, "param_groups": groups})


def _refused(out: Path, field: str, found: str, expected: str) -> InputError:
    return InputError(
        out / CHECKPOINT,
        field,
        found=found,
        expected=expected,
        fix="give the same --config and --set, or another --out",
    )
