"""State of a training run <-> checkpoint.safetensors, from which it continues bit for bit."""

import json
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import save
from torch import Tensor, nn

from aslkit.config import dump_config, is_dump_of
from aslkit.core.errors import InputError
from aslkit.nets.model_store import read_tensors
from aslkit.outputs.atomic_write import write_together
from aslkit.train.recipe import Recipe
from aslkit.train.state import TrainingState

CHECKPOINT = "checkpoint.safetensors"
NUMBERS = ("step", "n_batches", "seconds", "losses", "origin")


def write_checkpoint(state: TrainingState, recipe: Recipe, out: Path) -> None:
    """Replace the checkpoint in a folder; the process may end at any time."""
    modules = _modules(state, recipe).items()
    tensors = {f"{name}.{k}": v for name, m in modules for k, v in m.state_dict().items()}
    for i, values in state.optimizer.state_dict()["state"].items():
        tensors |= {f"optimizer.{i}.{k}": v for k, v in values.items()}
    tensors |= recipe.tensors()
    numbers = {name: getattr(state, name) for name in NUMBERS} | recipe.numbers()
    meta = {"config": dump_config(recipe.config), "numbers": json.dumps(numbers)}
    with write_together(out, CHECKPOINT) as temporary:
        contiguous = {k: v.contiguous() for k, v in tensors.items()}
        (temporary / CHECKPOINT).write_bytes(save(contiguous, metadata=meta))


def read_checkpoint(state: TrainingState, recipe: Recipe, out: Path) -> None:
    """Load the checkpoint of a folder into a new state and its recipe.

    Raises
    ------
    InputError
        If it is damaged, or belongs to another configuration or other real scans.
    """
    try:
        meta, tensors = read_tensors(out / CHECKPOINT)
    except (OSError, SafetensorError) as error:
        raise _refused(out, "", str(error), "a checkpoint of asl_train") from error
    if not is_dump_of(meta.get("config", "{}"), recipe.config) or "numbers" not in meta:
        other = "another configuration or version of aslkit"
        raise _refused(out, "config", other, "those of the run")
    numbers = json.loads(meta["numbers"])
    if numbers.get("adapted_to") != recipe.adapted_to:
        raise _refused(out, "adapted_to", "other scans", "those of the run")
    for name, module in _modules(state, recipe).items():
        module.load_state_dict(_section(tensors, name))
    _load_moments(state.optimizer, _section(tensors, "optimizer"))
    for name in NUMBERS:
        setattr(state, name, numbers[name])
    recipe.restore(numbers, tensors)


def _modules(state: TrainingState, recipe: Recipe) -> dict[str, nn.Module]:
    """Return all modules with weights, by the first part of their names in the file."""
    return {"network": state.network, "average": state.average, **recipe.modules}


def _section(tensors: Mapping[str, Tensor], name: str) -> dict[str, Tensor]:
    """Return the tensors whose names begin with that of a section, without it."""
    start = f"{name}."
    return {k.removeprefix(start): v for k, v in tensors.items() if k.startswith(start)}


def _load_moments(optimizer: torch.optim.AdamW, tensors: Mapping[str, Tensor]) -> None:
    """Load the moments `0.exp_avg`, … into an optimizer, in the memory layout of the weights."""
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
