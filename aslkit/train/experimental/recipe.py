"""TrainingConfig of an experiment -> how its run learns, where it differs from the default."""

import logging
from collections.abc import Mapping, Sequence
from functools import partial

import torch
from torch import Tensor

from aslkit.config.fixed_protocol import FixedProtocolConfig
from aslkit.config.schema import TrainingConfig
from aslkit.nets.experimental.bias_correction import freeze_all_but_bias
from aslkit.nets.network import Network
from aslkit.train import distributed
from aslkit.train.batches import Batch, Draw
from aslkit.train.experimental.adaptation import add_real_losses, add_real_scans
from aslkit.train.experimental.domain_classifier import attach_classifier, build_classifier
from aslkit.train.experimental.early_stopping import Best, validation_batches, validation_losses
from aslkit.train.experimental.loss_weighting import LossWeighting, build_loss_weighting
from aslkit.train.experimental.raw_batches import (
    build_raw_losses,
    draw_raw_batch,
    pretraining_loss,
)
from aslkit.train.experimental.real_scans import RealScan, describe_scans
from aslkit.train.experimental.schedules import learning_rate
from aslkit.train.recipe import Recipe
from aslkit.train.state import TrainingState

logger = logging.getLogger(__name__)

QUANTITIES = "cbf", "att"


class ExperimentalRecipe(Recipe):
    """Draws, losses and schedule of the training of an experiment, from its configuration.

    Parameters
    ----------
    config : TrainingConfig
    device : str
        Device of the network.
    scans : sequence of RealScan
        Real scans of an adaptation.
    """

    def __init__(
        self, config: TrainingConfig, device: str = "cpu", scans: Sequence[RealScan] = ()
    ) -> None:
        is_raw = isinstance(config.data, FixedProtocolConfig)
        self.draws_on_device = is_raw and device != "cpu"
        self._device, self._scans = device, scans
        super().__init__(config)
        simulated = build_raw_losses(config) if config.loss else super().losses
        self._losses = add_real_losses(config, scans, simulated)
        self.adapted_to = describe_scans(scans) if scans else None
        self.best, self.n_averaged = Best(), 0
        self._validation: list[Batch] = []
        if config.validation:
            self._validation = validation_batches(config.validation, self.draw)

    def _draw(self) -> Draw:
        if isinstance(self.config.data, FixedProtocolConfig):
            device = self._device if self.draws_on_device else None
            return partial(draw_raw_batch, self.config, device=device)
        return add_real_scans(self.config, self._scans, super()._draw())

    def prepare(self, network: Network) -> None:
        """Create the loss weighting and the classifier; freeze all but a bias correction."""
        if self.config.adaptation and self.config.adaptation.bias_correction:
            freeze_all_but_bias(network)
        device = next(network.parameters()).device
        self.weighting: LossWeighting = build_loss_weighting(self.config.loss_weighting).to(device)
        self.classifier = build_classifier(self.config).to(device)
        self.modules = {"balance": self.weighting, "classifier": self.classifier}

    def wrap(self, network: Network) -> Network:
        """Return the network with its domain classifier, if it has one."""
        return attach_classifier(network, self.classifier)

    def learning_rate(self, step: int, done: float) -> float:
        """Return the learning rate of the schedule, constant from `swa_start` on."""
        return learning_rate(self.config, step, done)

    def losses(self, outputs: Tensor, batch: Batch) -> Tensor:
        """Return the losses of CBF and ATT: of the estimates, and of their sds, (2, 2)."""
        return self._losses(outputs, batch)

    def loss(self, outputs: Tensor, batch: Batch, done: float) -> Tensor:
        """Return the loss of pre-training, of CBF or ATT alone, or the weighted sum."""
        if done < (self.config.pretraining_fraction or 0):
            return pretraining_loss(outputs, batch)
        losses = self.losses(outputs, batch)
        if self.config.cbf_first_fraction:
            losses = losses[:, int(self._is_att_alone(done))]
        loss: Tensor = self.weighting(losses)
        return loss

    def edit_gradients(self, network: Network, done: float) -> None:
        """Drop gradients other than those of ATT; average those of the loss weighting."""
        if self._is_att_alone(done):
            for name, weight in network.named_parameters():
                weight.grad = weight.grad if name.startswith("att_") else None
        for scale in self.weighting.parameters():
            if scale.grad is not None:
                scale.grad.copy_(torch.tensor(distributed.all_mean(*scale.grad.tolist())))

    def decay(self, step: int, done: float) -> float:
        """Return the decay of the running average, from `swa_start` on that of the plain mean."""
        if self.config.swa_start is None or done < self.config.swa_start:
            return super().decay(step, done)
        self.n_averaged += 1
        return (self.n_averaged - 1) / self.n_averaged

    def after_step(self, state: TrainingState) -> dict[str, float]:
        """Validate if it is due, and return the validation loss and the loss weights."""
        config, numbers = self.config, {}
        if config.validation and state.step % config.validation.interval_steps == 0:
            numbers["validation_loss"] = self._validate(state)
        if config.loss_weighting:
            weights = zip(QUANTITIES, self.weighting.weights().tolist(), strict=True)
            numbers |= {f"{quantity}_weight": weight for quantity, weight in weights}
        return numbers

    def is_finished(self) -> bool:
        """Return whether the validation loss has not fallen for `patience` validations."""
        validation = self.config.validation
        return bool(validation and self.best.n_worse >= validation.patience)

    def weights(self, state: TrainingState) -> Mapping[str, Tensor]:
        """Return the weights with the lowest validation loss, else the averaged ones."""
        return self.best.weights or super().weights(state)

    def numbers(self) -> dict[str, object]:
        """Return the numbers of the recipe that a checkpoint holds."""
        best = [self.best.loss, self.best.n_worse]
        return {"n_averaged": self.n_averaged, "best": best, "adapted_to": self.adapted_to}

    def tensors(self) -> dict[str, Tensor]:
        """Return the best weights so far."""
        return {f"best.{name}": values for name, values in self.best.weights.items()}

    def restore(self, numbers: Mapping[str, object], tensors: Mapping[str, Tensor]) -> None:
        """Take the numbers and tensors of a checkpoint."""
        weights = {k.removeprefix("best."): v for k, v in tensors.items() if k[:5] == "best."}
        self.n_averaged = numbers["n_averaged"]  # type: ignore[assignment]
        self.best = Best(weights, *numbers["best"])  # type: ignore[misc]

    def _is_att_alone(self, done: float) -> bool:
        return done >= (self.config.cbf_first_fraction or 1)

    def _validate(self, state: TrainingState) -> float:
        """Return the validation loss of the averaged weights; the first process computes it."""
        losses = torch.zeros(2, 2)
        if distributed.rank() == 0:
            losses = validation_losses(state.average, self._validation, self._losses)
        losses = torch.tensor(distributed.from_first(*losses.flatten().tolist())).reshape(2, 2)
        self.weighting.update(losses)
        loss = losses.sum().item()
        self.best.update(state.average, loss)
        logger.info("Step %d: validation loss %.4f, best %.4f", state.step, loss, self.best.loss)
        return loss
