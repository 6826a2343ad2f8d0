"""Encoded slices (batch, c, x, y) -> maps (batch, 4, x, y): the base class of all networks."""

from collections.abc import Callable, Iterable
from typing import Any

from torch import Tensor, nn

N_OUTPUTS = 4  # CBF, ATT, and the log standard deviation of each

MapFunction = Callable[[Callable[..., Any], Iterable[Any]], Iterable[Any]]  # called like `map`


class Network(nn.Module):
    """Base class of networks that turn the channels of slices into maps.

    The outputs are CBF, ATT and the log standard deviation of each. Networks with 6 outputs add
    two logits: of the probability that CBF and ATT are close to the truth.

    Attributes
    ----------
    stride : int
        The sides of the input are multiples of it.
    reach : int
        Number of slices above and below that influence a slice. If it is not 0, `forward` takes
        a second argument, stack numbers (batch,): the slices of one stack follow one another and
        have the same number.
    n_outputs : int
        Number of output maps, 4 or 6.
    zero_at_start : tuple of str
        Ends of the names of weights that are 0 at first. A model without these weights gives the
        same maps, so that a run can start from it.
    """

    stride: int
    reach = 0
    n_outputs = N_OUTPUTS
    zero_at_start: tuple[str, ...] = ()

    def to_shift_equivariant(self) -> "Network":
        """Return a copy whose maps shift with the image pixel by pixel; self if there is none."""
        return self

    def forward_stack(
        self, slices: Iterable[Tensor], apply: MapFunction = map
    ) -> Iterable[Tensor]:
        """Compute `forward` for one stack, slice by slice, to save memory.

        Parameters
        ----------
        slices : iterable of tensor (1, c, x, y)
            All slices of the stack, in order.
        apply : function
            Applies a function to every slice, like `map`, in any order or in parallel.
        """
        return apply(self, slices)
