"""TrainingConfig -> a model of one or several networks, trained independently, in one folder."""

import math
from collections.abc import Mapping
from pathlib import Path

from safetensors.torch import load_file

from aslkit.config import TrainingConfig
from aslkit.core.errors import InputError
from aslkit.nets.model_store import WEIGHTS, load_model, save_model
from aslkit.train.checkpoints import CHECKPOINT
from aslkit.train.distributed import rank
from aslkit.train.loop import StepCallback, ignore_step, train

SEED_STEP = 1000  # between the seeds of members


def train_members(
    config: TrainingConfig,
    out: Path,
    device: str = "cpu",
    max_minutes: float = math.inf,
    resume: bool = False,
    init_from: str | None = None,
    finetune_bids: Path | None = None,
    progress: StepCallback = ignore_step,
) -> None:
    """Train `config.members` networks in turn, which share the time, and join them.

    Each has a folder `member-1`, … inside `out`, with its own seed: other first weights and
    other scans. After SIGTERM, nothing is joined. Arguments and errors are those of `train`.
    """
    if config.members == 1:
        train(config, out, device, max_minutes, resume, init_from, finetune_bids, progress)
        return
    folders = [out / f"member-{i + 1}" for i in range(config.members)]
    begun = [(folder / CHECKPOINT).is_file() for folder in folders]
    if any(begun) != resume:
        raise InputError(
            out,
            "",
            found="a training run" if any(begun) else "no checkpoint",
            expected="a new folder" if any(begun) else f"member-1/{CHECKPOINT}",
            fix="give another --out, or --resume" if any(begun) else "leave out --resume",
        )
    for i, folder in enumerate(folders):
        own = config.model_copy(update={"members": 1, "seed": config.seed + SEED_STEP * i})

        def show(step: int, numbers: Mapping[str, float], before: int = i * config.steps) -> None:
            progress(before + step, numbers)

        minutes = max_minutes / config.members
        if not train(own, folder, device, minutes, begun[i], init_from, finetune_bids, show):
            return
    if rank() == 0:
        join_members(folders, out, config)


def join_members(folders: list[Path], out: Path, config: TrainingConfig) -> None:
    """Write the model whose members are those of the folders, tensors named `0.…`, `1.…`."""
    cards = [load_model(str(folder)).card for folder in folders]
    tensors = {
        f"{i}.{name}": values
        for i, folder in enumerate(folders)
        for name, values in load_file(folder / WEIGHTS).items()
    }
    totals = {key: sum(card[key] for card in cards) for key in ("steps", "patches", "hours")}  # type: ignore[misc]
    training = config.model_dump(mode="json", exclude_none=True)
    save_model(out, tensors, {**cards[0], **totals, "members": len(folders), "training": training})
