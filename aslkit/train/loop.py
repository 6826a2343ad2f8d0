"""TrainingConfig -> a model folder: one loop over simulated batches, resumable at any step."""

import logging
import math
import time
from collections.abc import Callable, Mapping
from contextlib import closing
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from aslkit.config import TrainingConfig, dump_config
from aslkit.core.errors import DivergenceError, InputError
from aslkit.nets.encoding_registry import build_encoding
from aslkit.nets.model_store import load_model, save_model
from aslkit.nets.network import Network
from aslkit.nets.registry import build_network
from aslkit.train import distributed
from aslkit.train.batches import Batch, Batches, stream_batches
from aslkit.train.checkpoints import CHECKPOINT, read_checkpoint, write_checkpoint
from aslkit.train.loss_curve import drop_losses_after, log_losses, plot_losses
from aslkit.train.model_card import model_card
from aslkit.train.process_state import StopFlag, catch_sigterm, keep_random_state
from aslkit.train.recipe import Recipe, run_network
from aslkit.train.registry import build_recipe
from aslkit.train.state import TrainingState

logger = logging.getLogger(__name__)

RANDOM_SEED = 7_741  # separates the random numbers inside networks from those of the batches
METRICS_EVERY = 50  # steps
LARGEST_GRADIENT = 1.0  # norm to which gradients are clipped
ORIGIN_FIELDS = ("name", "steps", "hours", "training", "initialised_from")

StepCallback = Callable[[int, Mapping[str, float]], None]  # number of the step, its numbers


@dataclass(frozen=True)
class RunOptions:
    """How and for how long a configuration is trained.

    Attributes
    ----------
    device : str
        Name of a torch device.
    max_minutes : float
        Time limit of the whole run. The learning rate falls to zero at this limit, so that a run
        that it ends is complete.
    resume : bool
        Whether to continue the run in the output folder.
    init_from : str, optional
        Model with the same network, whose weights a new run starts from.
    finetune_bids : Path, optional
        Data set of real scans, for a configuration with a section `adaptation`.
    """

    device: str = "cpu"
    max_minutes: float = math.inf
    resume: bool = False
    init_from: str | None = None
    finetune_bids: Path | None = None


def ignore_step(step: int, numbers: Mapping[str, float]) -> None:
    """Do nothing after a step."""


def train(
    config: TrainingConfig,
    out: Path,
    options: RunOptions = RunOptions(),  # noqa: B008  # frozen
    progress: StepCallback = ignore_step,
) -> bool:
    """Train until the last step or the time limit, whichever comes first.

    In the main thread, SIGTERM ends the run with a checkpoint; the previous handler and torch's
    random state are restored afterwards. The processes of torchrun train together: each draws
    its own batches, gradients are averaged, and the first process writes.

    Parameters
    ----------
    config : TrainingConfig
    out : Path
        Folder of the model and its checkpoint.
    options : RunOptions
    progress : function
        Called after every step with its loss, learning rate and other numbers.

    Returns
    -------
    bool
        Whether the run is complete: not ended by SIGTERM.

    Raises
    ------
    InputError
        If `out` holds a run and `options.resume` is False, or the other way round.
    DivergenceError
        If the loss or its gradient is not finite. The last checkpoint is kept.
    """
    out.mkdir(parents=True, exist_ok=True)
    recipe = build_recipe(config, options.device, options.finetune_bids)
    with keep_random_state(), catch_sigterm() as stop:
        state = _start(recipe, out, options)
        is_complete = _run_steps(state, recipe, out, options, progress, stop)
        _write(state, recipe, out)
    if distributed.rank() == 0:
        plot_losses(out)
    logger.info("Stopped after step %d, %.1f minutes", state.step, state.seconds / 60)
    return is_complete


def _run_steps(
    state: TrainingState,
    recipe: Recipe,
    out: Path,
    options: RunOptions,
    progress: StepCallback,
    stop: StopFlag,
) -> bool:
    """Train to the end; return whether no process received SIGTERM."""
    config, n_processes = recipe.config, distributed.n_processes()
    model = distributed.share_gradients(recipe.wrap(state.network))
    last_checkpoint = time.monotonic()
    began = last_checkpoint - state.seconds
    with closing(_batches(state, recipe)) as batches:
        while not _is_over(state, recipe, options.max_minutes):
            done = max(state.step / config.steps, state.seconds / (60 * options.max_minutes))
            loss = _step(state, model, next(batches), recipe, done)
            state.step += 1
            state.n_batches += n_processes
            state.seconds, stopped = distributed.all_mean(time.monotonic() - began, stop.is_set)
            state.losses.append(loss)
            numbers = {"loss": loss, "learning_rate": state.optimizer.param_groups[0]["lr"]}
            progress(state.step, numbers | recipe.after_step(state))
            if state.step % METRICS_EVERY == 0:
                _log(state, out)
            if time.monotonic() - last_checkpoint > 60 * config.checkpoint_minutes:
                _write(state, recipe, out)
                last_checkpoint = time.monotonic()
            if stopped > 0:
                return False
    return True


def _batches(state: TrainingState, recipe: Recipe) -> Batches:
    """Return the batches of this process from the next step on."""
    first = state.n_batches + distributed.rank()
    n_workers = 0 if recipe.draws_on_device else distributed.n_data_workers()
    seed, stride = recipe.config.seed, distributed.n_processes()
    return stream_batches(recipe.draw, seed, first, n_workers, stride)


def _is_over(state: TrainingState, recipe: Recipe, max_minutes: float) -> bool:
    """Return whether the steps, the time or the recipe have ended."""
    is_late = state.step >= recipe.config.steps or state.seconds >= 60 * max_minutes
    return is_late or recipe.is_finished()


def _step(
    state: TrainingState, model: Network, batch: Batch, recipe: Recipe, done: float
) -> float:
    """Do one step of the optimizer, and return its loss.

    `model` is the network with shared gradients. Its random numbers depend only on the seed of
    the run and the number of the batch.
    """
    number = state.n_batches + distributed.rank()
    entropy = np.random.SeedSequence([RANDOM_SEED, recipe.config.seed, number])
    torch.manual_seed(int(entropy.generate_state(1)[0]))
    for group in state.optimizer.param_groups:
        group["lr"] = recipe.learning_rate(state.step, done)
    device = next(state.network.parameters()).device
    batch = {k: v.to(device, non_blocking=True) for k, v in batch.items()}
    batch["channels"] = batch["channels"].contiguous(memory_format=torch.channels_last)
    with torch.autocast(device.type, dtype=torch.bfloat16):
        outputs = run_network(model, batch)  # (b, 4 or more, x, y)
    loss = recipe.loss(outputs, batch, done)
    state.optimizer.zero_grad()
    loss.backward()
    recipe.edit_gradients(state.network, done)
    size = torch.nn.utils.clip_grad_norm_(state.network.parameters(), LARGEST_GRADIENT)
    (mean_loss,) = distributed.all_mean(loss.item())
    if not math.isfinite(mean_loss) or not math.isfinite(size.item()):
        raise DivergenceError(state.step + 1, recipe.config.learning_rate)
    state.optimizer.step()
    _average(state, recipe.decay(state.step, done))
    return mean_loss


def _average(state: TrainingState, decay: float) -> None:
    """Update the running average of the weights."""
    pairs = zip(state.average.parameters(), state.network.parameters(), strict=True)
    with torch.no_grad():
        for average, value in pairs:
            average.lerp_(value, 1 - decay)


def _start(recipe: Recipe, out: Path, options: RunOptions) -> TrainingState:
    """Return the state of a new run, or of the run in the folder."""
    config = recipe.config
    check_folder(out, CHECKPOINT, (out / CHECKPOINT).is_file(), options.resume)
    torch.manual_seed(config.seed)
    network = build_network(config.network, build_encoding(config))
    name = options.init_from
    origin = None if name is None else _take_weights(network, config, name)
    network = network.to(options.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    average = deepcopy(network).requires_grad_(False).eval()
    recipe.prepare(network)
    groups = [{"params": network.parameters(), "weight_decay": config.weight_decay}]
    groups += [{"params": m.parameters(), "weight_decay": 0.0} for m in recipe.modules.values()]
    optimizer = torch.optim.AdamW(groups, config.learning_rate)
    state = TrainingState(network, average, optimizer, origin)
    if options.resume:
        read_checkpoint(state, recipe, out)
    if distributed.rank() == 0:
        drop_losses_after(out, state.step)
        (out / "config.yaml").write_text(dump_config(config))
    return state


def check_folder(out: Path, checkpoint: str, has_run: bool, resume: bool) -> None:
    """Check that a folder holds a run if, and only if, it is to be resumed.

    Raises
    ------
    InputError
    """
    if has_run != resume:
        raise InputError(
            out,
            "",
            found="a training run" if has_run else "no checkpoint",
            expected="a new folder" if has_run else checkpoint,
            fix="give another --out, or --resume" if has_run else "leave out --resume",
        )


def _take_weights(network: Network, config: TrainingConfig, name: str) -> dict[str, object]:
    """Copy the weights of a model into a network, and return the origin for the model card.

    Raises
    ------
    InputError
        If the model has another network or encoding.
    """
    initial = load_model(name)
    own = network.state_dict()
    weights = {k: v for k, v in own.items() if k.endswith(network.zero_at_start)}
    weights |= initial.network.state_dict()
    shapes, own_shapes = ({k: v.shape for k, v in w.items()} for w in (weights, own))
    if initial.encoding != build_encoding(config) or shapes != own_shapes:
        raise InputError(
            "--init-from",
            "",
            found=f"another network or encoding in {name}",
            expected="those of the configuration",
            fix="give the configuration that the model was trained with",
        )
    network.load_state_dict(weights)
    return {"sha256": initial.sha256} | {k: initial.card.get(k) for k in ORIGIN_FIELDS}


def _write(state: TrainingState, recipe: Recipe, out: Path) -> None:
    """Write checkpoint and model; each replaces the previous one at once."""
    if distributed.rank() > 0:
        return
    write_checkpoint(state, recipe, out)
    numbers = (state.step, state.n_batches, state.seconds)
    card = model_card(recipe.config, *numbers, state.origin, recipe.adapted_to)
    save_model(out, recipe.weights(state), card)


def _log(state: TrainingState, out: Path) -> None:
    """Append a line to metrics.csv."""
    if distributed.rank() == 0:
        log_losses(out, state.step, state.seconds, state.losses)
    state.losses = []
