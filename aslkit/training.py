"""TrainingConfig -> a model folder: one loop over simulated batches, resumable at any step."""

import csv
import logging
import math
import os
import signal
import time
from collections.abc import Callable, Mapping
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from aslkit.config import TrainingConfig, dump_config
from aslkit.datasets import Batch, stream
from aslkit.encodings import build_encoding
from aslkit.errors import InputError
from aslkit.model_card import model_card
from aslkit.networks import build_network
from aslkit.residual_nets import Network
from aslkit.tasks import Loss, batches_of, loss_of
from aslkit.weights import load_model, save_model

logger = logging.getLogger(__name__)

CHECKPOINT = "checkpoint.safetensors"
METRICS = "metrics.csv"
METRICS_EVERY = 50  # steps
LARGEST_GRADIENT = 1.0
CYCLE_TOP, CYCLE_START = 0.3, 0.04  # of one cycle: where it is highest, how low it begins
ORIGIN_FIELDS = ("name", "steps", "hours", "training", "initialised_from")
Progress = Callable[[int, float], None]


def silent(step: int, loss: float) -> None:
    """Progress that nobody looks at."""


@dataclass
class State:
    """All that a run needs to go on: network, its running average, optimiser, steps and time."""

    network: Network
    average: Network
    optimizer: torch.optim.AdamW
    origin: Mapping[str, object] | None = None  # of the first weights, as in the model card
    step: int = 0
    seconds: float = 0.0


def train(
    config: TrainingConfig,
    out: Path,
    device: str = "cpu",
    max_minutes: float = math.inf,
    resume: bool = False,
    init_from: str | None = None,
    progress: Progress = silent,
) -> bool:
    """Train until the last step or `max_minutes`, whichever comes first.

    The learning rate falls to zero at that moment, so a run that time ends is a whole run. On
    SIGTERM the run writes a checkpoint and stops. A new run may start from the weights of the
    model `init_from`, of the same network.

    Returns
    -------
    bool
        Whether the run is complete: not stopped by SIGTERM.

    Raises
    ------
    InputError
        When `out` already holds a run and `resume` is not asked for, or does not and it is.
    """
    out.mkdir(parents=True, exist_ok=True)
    state = _start(config, out, device, resume, init_from)
    batches = stream(batches_of(config), config.seed, state.step, os.cpu_count() or 1)
    loss_function = loss_of(config)
    stop = _stop_on_sigterm()
    last_checkpoint = time.monotonic()
    began, before, losses = time.monotonic(), state.seconds, []
    while state.step < config.steps and state.seconds < 60 * max_minutes and not stop.is_set:
        done = max(state.step / config.steps, state.seconds / (60 * max_minutes))
        losses.append(_step(state, next(batches), config, loss_function, done))
        state.step += 1
        state.seconds = before + time.monotonic() - began
        progress(state.step, losses[-1])
        if state.step % METRICS_EVERY == 0:
            _log_metrics(out, state, losses)
            losses = []
        if time.monotonic() - last_checkpoint > 60 * config.checkpoint_minutes:
            _write(state, config, out)
            last_checkpoint = time.monotonic()
    _write(state, config, out)
    _draw_losses(out)
    logger.info("Stopped after step %d, %.1f minutes", state.step, state.seconds / 60)
    return not stop.is_set


def _step(
    state: State, batch: Batch, config: TrainingConfig, loss_function: Loss, done: float
) -> float:
    """One step of the optimiser; returns the loss."""
    for group in state.optimizer.param_groups:
        group["lr"] = config.learning_rate * _SCHEDULES[config.schedule](config, state.step, done)
    device = next(state.network.parameters()).device
    batch = {k: v.to(device, non_blocking=True) for k, v in batch.items()}
    channels = batch["channels"].contiguous(memory_format=torch.channels_last)
    with torch.autocast(device.type, dtype=torch.bfloat16):
        outputs = state.network(channels)
    loss = loss_function(outputs, batch)
    state.optimizer.zero_grad()
    loss.backward()
    torch.nn.utils.clip_grad_norm_(state.network.parameters(), LARGEST_GRADIENT)
    state.optimizer.step()
    decay = min(config.averaging, state.step / (state.step + 10))
    with torch.no_grad():
        for mean, value in zip(
            state.average.parameters(), state.network.parameters(), strict=True
        ):
            mean.lerp_(value, 1 - decay)
    return loss.item()


def _start(
    config: TrainingConfig, out: Path, device: str, resume: bool, init_from: str | None
) -> State:
    has_run = (out / CHECKPOINT).is_file()
    if has_run != resume:
        raise InputError(
            out,
            "",
            found="a training run" if has_run else "no checkpoint",
            expected="a new folder" if has_run else CHECKPOINT,
            fix="give another --out, or --resume" if has_run else "leave out --resume",
        )
    torch.manual_seed(config.seed)
    network = build_network(config.network, build_encoding(config).layout)
    origin = None
    if init_from is not None:
        initial = load_model(init_from)
        network.load_state_dict(initial.network.state_dict())
        origin = {"sha256": initial.sha256} | {k: initial.card.get(k) for k in ORIGIN_FIELDS}
    network = network.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    optimizer = torch.optim.AdamW(
        network.parameters(), config.learning_rate, weight_decay=config.weight_decay
    )
    state = State(network, deepcopy(network).requires_grad_(False), optimizer, origin)
    if resume:
        _restore(state, config, out, device)
    (out / "config.yaml").write_text(dump_config(config))
    return state


def _write(state: State, config: TrainingConfig, out: Path) -> None:
    """Checkpoint and model, each replaced as a whole."""
    tensors = {f"network.{k}": v for k, v in state.network.state_dict().items()}
    tensors |= {f"average.{k}": v for k, v in state.average.state_dict().items()}
    for i, values in state.optimizer.state_dict()["state"].items():
        tensors |= {f"optimizer.{i}.{k}": v for k, v in values.items()}
    meta = {"step": str(state.step), "seconds": str(state.seconds), "config": dump_config(config)}
    temporary = out / f".{CHECKPOINT}"
    save_file({k: v.contiguous() for k, v in tensors.items()}, temporary, metadata=meta)
    os.replace(temporary, out / CHECKPOINT)
    save_model(
        out,
        state.average.state_dict(),
        model_card(config, state.step, state.seconds, state.origin),
    )


def _restore(state: State, config: TrainingConfig, out: Path, device: str) -> None:
    """Load the checkpoint into a fresh state.

    Raises
    ------
    InputError
        When it belongs to another configuration.
    """
    from safetensors import safe_open

    with safe_open(out / CHECKPOINT, "pt") as opened:
        meta = opened.metadata()
    if meta["config"] != dump_config(config):
        raise InputError(
            out / CHECKPOINT,
            "config",
            found="another configuration",
            expected="the one of the run",
            fix="give the same --config and --set, or another --out",
        )
    parts: dict[str, dict[str, Tensor]] = {"network": {}, "average": {}, "optimizer": {}}
    for key, tensor in load_file(out / CHECKPOINT, device=device).items():
        section, _, name = key.partition(".")
        parts[section][name] = tensor
    state.network.load_state_dict(parts["network"])
    state.average.load_state_dict(parts["average"])
    moments: dict[int, dict[str, Tensor]] = {}
    for key, tensor in parts["optimizer"].items():
        index, _, name = key.partition(".")
        moments.setdefault(int(index), {})[name] = tensor
    groups = state.optimizer.state_dict()["param_groups"]
    state.optimizer.load_state_dict({"state": moments, "param_groups": groups})
    state.step, state.seconds = int(meta["step"]), float(meta["seconds"])
    origin = load_model(str(out)).card.get("initialised_from")
    state.origin = origin if isinstance(origin, dict) else None


def _cosine(config: TrainingConfig, step: int, done: float) -> float:
    """Up in the warm-up steps, then down to 0 along half a cosine."""
    warmup = min(1.0, (step + 1) / max(config.warmup_steps, 1))
    return warmup * 0.5 * (1 + math.cos(math.pi * min(done, 1)))


def _one_cycle(config: TrainingConfig, step: int, done: float) -> float:
    """Up along half a cosine in the first 30 % of the run, then down to 0 along another."""
    if done < CYCLE_TOP:
        return CYCLE_START + (1 - CYCLE_START) * 0.5 * (1 - math.cos(math.pi * done / CYCLE_TOP))
    return 0.5 * (1 + math.cos(math.pi * min((done - CYCLE_TOP) / (1 - CYCLE_TOP), 1)))


def _log_metrics(out: Path, state: State, losses: list[float]) -> None:
    is_new = not (out / METRICS).is_file()
    with (out / METRICS).open("a", newline="") as file:
        writer = csv.writer(file)
        if is_new:
            writer.writerow(["step", "minutes", "loss"])
        mean = sum(losses) / len(losses)
        writer.writerow([state.step, f"{state.seconds / 60:.2f}", f"{mean:.4f}"])


def _draw_losses(out: Path) -> None:
    """The loss curve, loss.png."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    if not (out / METRICS).is_file():
        return
    with (out / METRICS).open(newline="") as file:
        rows = list(csv.DictReader(file))
    figure, axes = pyplot.subplots(figsize=(6, 3.5), layout="constrained")
    axes.plot([int(r["step"]) for r in rows], [float(r["loss"]) for r in rows], linewidth=1)
    axes.set(xlabel="step", ylabel="loss (LS standard errors)")
    figure.savefig(out / "loss.png", dpi=120)
    pyplot.close(figure)


class _Stop:
    is_set = False


def _stop_on_sigterm() -> _Stop:
    """A flag that SIGTERM raises."""
    stop = _Stop()

    def raise_flag(*_: object) -> None:
        stop.is_set = True

    signal.signal(signal.SIGTERM, raise_flag)
    return stop


_SCHEDULES = {"cosine": _cosine, "one_cycle": _one_cycle}
