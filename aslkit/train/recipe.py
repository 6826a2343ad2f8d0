"""TrainingConfig -> how a run learns: its batches, loss, learning rate and averaged weights."""

from collections.abc import Callable, Mapping
from functools import partial

from torch import Tensor, nn

from aslkit.config.schema import AnyProtocolConfig, TrainingConfig
from aslkit.nets.network import Network
from aslkit.train.batches import Batch, Draw, draw_batch
from aslkit.train.loss import correction_loss
from aslkit.train.schedule import cosine_rate
from aslkit.train.state import TrainingState

Losses = Callable[[Tensor, Batch], Tensor]  # outputs and batch -> losses (2, 2)


class Recipe:
    """How the default model learns; experiments override some of its methods.

    Attributes
    ----------
    config : TrainingConfig
    draw : function
        Draws a batch with a numpy random generator.
    draws_on_device : bool
        Whether `draw` runs on the device of the network, hence without background processes.
    modules : dict of nn.Module
        Modules that train beside the network, by the first part of their names in a checkpoint.
    adapted_to : mapping, optional
        Description of real scans in the model card.
    """

    draws_on_device = False
    adapted_to: Mapping[str, object] | None = None

    def __init__(self, config: TrainingConfig) -> None:
        self.config = config
        self.modules: dict[str, nn.Module] = {}
        self.draw = self._draw()

    def _draw(self) -> Draw:
        data = self.config.data
        assert isinstance(data, AnyProtocolConfig)
        return partial(draw_batch, data)

    def prepare(self, network: Network) -> None:
        """Create `modules` and freeze weights of a network that do not train."""

    def wrap(self, network: Network) -> Network:
        """Return the network as it runs in training."""
        return network

    def learning_rate(self, step: int, done: float) -> float:
        """Return the learning rate of a step when a share `done` of the run is over."""
        return cosine_rate(self.config, step, done)

    def losses(self, outputs: Tensor, batch: Batch) -> Tensor:
        """Return the losses of CBF and ATT: of the estimates, and of their sds, (2, 2)."""
        mask = batch["channels"][:, -1:]
        return correction_loss(outputs, batch["errors"], batch["truth"], batch["base"], mask)

    def loss(self, outputs: Tensor, batch: Batch, done: float) -> Tensor:
        """Return the loss that a step minimises, a scalar."""
        return self.losses(outputs, batch).sum()

    def edit_gradients(self, network: Network, done: float) -> None:
        """Change the gradients before a step of the optimizer."""

    def decay(self, step: int, done: float) -> float:
        """Return the decay of the running average of the weights, shorter in the first steps."""
        return min(self.config.ema_decay, step / (step + 10))

    def after_step(self, state: TrainingState) -> dict[str, float]:
        """Return further numbers of a step for the log."""
        return {}

    def is_finished(self) -> bool:
        """Return whether the run ends before its last step."""
        return False

    def weights(self, state: TrainingState) -> Mapping[str, Tensor]:
        """Return the weights of the model that is saved."""
        return state.average.state_dict()

    def numbers(self) -> dict[str, object]:
        """Return the numbers of the recipe that a checkpoint holds."""
        return {}

    def tensors(self) -> dict[str, Tensor]:
        """Return the tensors of the recipe that a checkpoint holds, without those of modules."""
        return {}

    def restore(self, numbers: Mapping[str, object], tensors: Mapping[str, Tensor]) -> None:
        """Take the numbers and tensors of a checkpoint."""


def run_network(network: nn.Module, batch: Batch) -> Tensor:
    """Return the outputs of a network for a batch, with stack numbers if the batch has them."""
    stacks = [batch["stack"]] if "stack" in batch else []
    outputs: Tensor = network(batch["channels"], *stacks)
    return outputs
