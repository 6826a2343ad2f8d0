"""Steps of a long computation -> the same steps, with a progress bar (tqdm) or without (iter)."""

from collections.abc import Iterable, Sequence
from typing import Protocol, TypeVar

Step = TypeVar("Step")


class Progress(Protocol):
    """Function that wraps a sequence of steps, such as `iter` or tqdm."""

    def __call__(self, steps: Sequence[Step], /) -> Iterable[Step]:
        """Return an iterable of the steps."""
        ...
