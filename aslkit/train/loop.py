"""TrainingConfig -> a model folder: one loop over simulated batches, resumable at any step."""

import logging
import math
import signal
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from copy import deepcopy
from pathlib import Path

import numpy as np
import torch

from aslkit.config import TrainingConfig, dump_config
from aslkit.config.fixed_protocol import FixedProtocolConfig
from aslkit.core.errors import DivergenceError, InputError
from aslkit.nets.bias_correction import freeze_all_but_bias
from aslkit.nets.encoding_registry import build_encoding
from aslkit.nets.model_store import load_model, save_model
from aslkit.nets.registry import build_network
from aslkit.nets.residual_unet import ZERO_AT_START, Network
from aslkit.train import distributed
from aslkit.train.adaptation import add_real_scans, read_adaptation_scans
from aslkit.train.batches import Batch, stream_batches
from aslkit.train.checkpoints import CHECKPOINT, TrainingState, read_checkpoint, write_checkpoint
from aslkit.train.domain_classifier import attach_classifier, build_classifier
from aslkit.train.early_stopping import validation_batches, validation_losses
from aslkit.train.loss_curve import drop_losses_after, log_losses, plot_losses
from aslkit.train.loss_weighting import build_loss_weighting
from aslkit.train.model_card import model_card
from aslkit.train.objectives import Loss, build_draw, build_loss, pretraining_loss, run_network
from aslkit.train.real_scans import describe_scans
from aslkit.train.schedules import learning_rate

logger = logging.getLogger(__name__)

RANDOM_SEED = 7_741  # keeps the random numbers inside networks apart from those of the stream
METRICS_EVERY = 50  # steps
LARGEST_GRADIENT = 1.0
QUANTITIES = "cbf", "att"
ORIGIN_FIELDS = ("name", "steps", "hours", "training", "initialised_from")
StepCallback = Callable[[int, Mapping[str, float]], None]  # is told of every step


def ignore_step(step: int, numbers: Mapping[str, float]) -> None:
    """A listener that does nothing."""


def train(
    config: TrainingConfig,
    out: Path,
    device: str = "cpu",
    max_minutes: float = math.inf,
    resume: bool = False,
    init_from: str | None = None,
    finetune_bids: Path | None = None,
    progress: StepCallback = ignore_step,
) -> bool:
    """Train until the last step or `max_minutes`, whichever comes first.

    The learning rate falls to zero at that moment, so a run that time ends is a whole run. On
    SIGTERM the run writes a checkpoint and stops. Ranks (`distributed`) train together: each
    draws its own batches, gradients are means, and only the first writes. A new run may start
    from the weights of the model `init_from`, of the same network. After every step, `progress`
    is told its loss and learning rate, and the validation loss where it is measured.

    Returns
    -------
    bool
        Whether the run is complete: not stopped by SIGTERM.

    Raises
    ------
    InputError
        When `out` already holds a run and `resume` is not asked for, or does not and it is.
    DivergenceError
        When the loss or its gradient is no longer finite; the last checkpoint stays.
    """
    out.mkdir(parents=True, exist_ok=True)
    scans = read_adaptation_scans(config, finetune_bids)
    adapted_to = describe_scans(scans) if scans else None
    state = _start(config, out, device, resume, init_from, adapted_to)
    makes_own = device != "cpu" and isinstance(config.data, FixedProtocolConfig)
    draw = build_draw(config, device if makes_own else None)
    draw, loss_function = add_real_scans(config, scans, draw, build_loss(config))
    first = state.n_batches + distributed.rank()
    n_workers = 0 if makes_own else distributed.n_data_workers()
    batches = stream_batches(draw, config.seed, first, n_workers, distributed.n_processes())
    apart = validation_batches(config.validation, draw) if config.validation else []
    model = distributed.share_gradients(attach_classifier(state.network, state.classifier))
    stop, is_stopped = _stop_on_sigterm(), False
    last_checkpoint = time.monotonic()
    began = last_checkpoint - state.seconds
    with closing(batches):
        while not (is_stopped or _is_over(state, config, max_minutes)):
            done = max(state.step / config.steps, state.seconds / (60 * max_minutes))
            loss = _step(state, model, next(batches), config, loss_function, done)
            state.step += 1
            state.n_batches += distributed.n_processes()
            state.seconds, stopped = distributed.all_mean(time.monotonic() - began, stop.is_set)
            is_stopped = stopped > 0
            state.losses.append(loss)
            numbers = {"loss": loss, "learning_rate": state.optimizer.param_groups[0]["lr"]}
            if config.validation and state.step % config.validation.interval_steps == 0:
                numbers["validation_loss"] = _look(state, apart, loss_function)
            if config.loss_weighting:
                weights = zip(QUANTITIES, state.loss_weighting.weights().tolist(), strict=True)
                numbers |= {f"{quantity}_weight": weight for quantity, weight in weights}
            progress(state.step, numbers)
            if state.step % METRICS_EVERY == 0:
                _log(state, out)
            if time.monotonic() - last_checkpoint > 60 * config.checkpoint_minutes:
                _write(state, config, out)
                last_checkpoint = time.monotonic()
    _write(state, config, out)
    if distributed.rank() == 0:
        plot_losses(out)
    logger.info("Stopped after step %d, %.1f minutes", state.step, state.seconds / 60)
    return not is_stopped


def _is_over(state: TrainingState, config: TrainingConfig, max_minutes: float) -> bool:
    """Whether steps, time or patience are at their end."""
    is_late = state.step >= config.steps or state.seconds >= 60 * max_minutes
    return is_late or bool(config.validation and state.best.n_worse >= config.validation.patience)


def _step(
    state: TrainingState,
    model: Network,
    batch: Batch,
    config: TrainingConfig,
    loss_function: Loss,
    done: float,
) -> float:
    """One step of the optimiser with the network as `model` shares it; returns the loss.

    What is random in it follows from the seed of the run and the number of the batch.
    """
    number = state.n_batches + distributed.rank()
    entropy = np.random.SeedSequence([RANDOM_SEED, config.seed, number])
    torch.manual_seed(int(entropy.generate_state(1)[0]))
    for group in state.optimizer.param_groups:
        group["lr"] = learning_rate(config, state.step, done)
    device = next(state.network.parameters()).device
    batch = {k: v.to(device, non_blocking=True) for k, v in batch.items()}
    batch["channels"] = batch["channels"].contiguous(memory_format=torch.channels_last)
    with torch.autocast(device.type, dtype=torch.bfloat16):
        outputs = run_network(model, batch)
    is_att_alone = done >= (config.cbf_first_fraction or 1)
    if done < (config.pretraining_fraction or 0):
        loss = pretraining_loss(outputs, batch)
    else:
        losses = loss_function(outputs, batch)
        if config.cbf_first_fraction:
            losses = losses[:, int(is_att_alone)]
        loss = state.loss_weighting(losses)
    state.optimizer.zero_grad()
    loss.backward()
    if is_att_alone:
        for name, weight in state.network.named_parameters():
            weight.grad = weight.grad if name.startswith("att_") else None
    for scale in state.loss_weighting.parameters():
        if scale.grad is not None:
            scale.grad.copy_(torch.tensor(distributed.all_mean(*scale.grad.tolist())))
    size = torch.nn.utils.clip_grad_norm_(state.network.parameters(), LARGEST_GRADIENT)
    (mean_loss,) = distributed.all_mean(loss.item())
    if not math.isfinite(mean_loss) or not math.isfinite(size.item()):
        raise DivergenceError(state.step + 1, config.learning_rate)
    state.optimizer.step()
    _average(state, config, done)
    return mean_loss


def _average(state: TrainingState, config: TrainingConfig, done: float) -> None:
    """Take the weights of this step into the running average or, from `swa_start`, the mean."""
    decay = min(config.ema_decay, state.step / (state.step + 10))
    if config.swa_start is not None and done >= config.swa_start:
        decay = state.n_averaged / (state.n_averaged + 1)
        state.n_averaged += 1
    pairs = zip(state.average.parameters(), state.network.parameters(), strict=True)
    with torch.no_grad():
        for average, value in pairs:
            average.lerp_(value, 1 - decay)


def _start(
    config: TrainingConfig,
    out: Path,
    device: str,
    resume: bool,
    init_from: str | None,
    adapted_to: Mapping[str, object] | None,
) -> TrainingState:
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
    origin = None if init_from is None else _take_weights(network, config, init_from)
    network = network.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    average = deepcopy(network).requires_grad_(False).eval()
    if config.adaptation and config.adaptation.bias_correction:
        freeze_all_but_bias(network)
    loss_weighting = build_loss_weighting(config.loss_weighting).to(device)
    classifier = build_classifier(config).to(device)
    groups = [
        {"params": network.parameters(), "weight_decay": config.weight_decay},
        {"params": loss_weighting.parameters(), "weight_decay": 0.0},
        {"params": classifier.parameters(), "weight_decay": 0.0},
    ]
    optimizer = torch.optim.AdamW(groups, config.learning_rate)
    state = TrainingState(
        network, average, loss_weighting, optimizer, classifier, origin, adapted_to
    )
    if resume:
        read_checkpoint(state, config, out)
    if distributed.rank() == 0:
        drop_losses_after(out, state.step)
        (out / "config.yaml").write_text(dump_config(config))
    return state


def _take_weights(network: Network, config: TrainingConfig, name: str) -> dict[str, object]:
    """Give a network the weights of a model; returns where they come from.

    Raises
    ------
    InputError
        When the model has another network or encoding.
    """
    initial = load_model(name)
    own = network.state_dict()
    weights = {k: v for k, v in own.items() if k.endswith(ZERO_AT_START)}
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


def _write(state: TrainingState, config: TrainingConfig, out: Path) -> None:
    """Checkpoint and model, each replaced as a whole."""
    if distributed.rank() > 0:
        return
    write_checkpoint(state, config, out)
    weights = state.best.weights or state.average.state_dict()
    card = model_card(
        config, state.step, state.n_batches, state.seconds, state.origin, state.adapted_to
    )
    save_model(out, weights, card)


def _log(state: TrainingState, out: Path) -> None:
    """Add a line to metrics.csv."""
    if distributed.rank() == 0:
        log_losses(out, state.step, state.seconds, state.losses)
    state.losses = []


def _look(state: TrainingState, apart: Sequence[Batch], loss_function: Loss) -> float:
    """Validation loss of the averaged weights, which the first rank measures for all."""
    losses = torch.zeros(2, 2)
    if distributed.rank() == 0:
        losses = validation_losses(state.average, apart, loss_function)
    losses = torch.tensor(distributed.from_first(*losses.flatten().tolist())).reshape(2, 2)
    state.loss_weighting.update(losses)
    loss = losses.sum().item()
    state.best.update(state.average, loss)
    logger.info("Step %d: validation loss %.4f, best %.4f", state.step, loss, state.best.loss)
    return loss


class _Stop:
    is_set = False


def _stop_on_sigterm() -> _Stop:
    """A flag that SIGTERM raises."""
    stop = _Stop()

    def raise_flag(*_: object) -> None:
        stop.is_set = True

    signal.signal(signal.SIGTERM, raise_flag)
    return stop
