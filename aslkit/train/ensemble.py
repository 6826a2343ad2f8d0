"""TrainingConfig -> a model of one or several networks, trained independently, in one folder."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from safetensors.torch import load_file

from aslkit.config import TrainingConfig
from aslkit.nets.model_store import WEIGHTS, load_model, save_model
from aslkit.train.checkpoints import CHECKPOINT
from aslkit.train.distributed import rank
from aslkit.train.loop import RunOptions, StepCallback, check_folder, ignore_step, train

SEED_STEP = 1000  # between the seeds of members


def train_members(
    config: TrainingConfig,
    out: Path,
    options: RunOptions = RunOptions(),  # noqa: B008  # frozen
    progress: StepCallback = ignore_step,
) -> None:
    """Train `config.members` networks one after the other, and join them in one model.

    Each network has a folder `member-1`, … in `out`, a seed of its own, hence other first weights
    and other scans, and an equal share of the time. After SIGTERM the networks are not joined.
    Arguments and errors are those of `train`.
    """
    if config.members == 1:
        train(config, out, options, progress)
        return
    folders = [out / f"member-{i + 1}" for i in range(config.members)]
    has_begun = [(folder / CHECKPOINT).is_file() for folder in folders]
    check_folder(out, f"member-1/{CHECKPOINT}", any(has_begun), options.resume)
    minutes = options.max_minutes / config.members
    for i, folder in enumerate(folders):
        own = config.model_copy(update={"members": 1, "seed": config.seed + SEED_STEP * i})

        def show(step: int, numbers: Mapping[str, float], before: int = i * config.steps) -> None:
            progress(before + step, numbers)

        own_options = replace(options, max_minutes=minutes, resume=has_begun[i])
        if not train(own, folder, own_options, show):
            return
    if rank() == 0:
        join_members(folders, out, config)


def join_members(folders: list[Path], out: Path, config: TrainingConfig) -> None:
    """Write the model with the networks of the folders as members, tensors `0.…`, `1.…`, …"""
    cards = [load_model(str(folder)).card for folder in folders]
    tensors = {
        f"{i}.{name}": values
        for i, folder in enumerate(folders)
        for name, values in load_file(folder / WEIGHTS).items()
    }
    totals = {key: sum(card[key] for card in cards) for key in ("steps", "patches", "hours")}  # type: ignore[misc]
    training = config.model_dump(mode="json", exclude_none=True)
    save_model(out, tensors, {**cards[0], **totals, "members": len(folders), "training": training})
