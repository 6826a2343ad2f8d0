"""The steps of something long -> the same steps, watched: `iter` for nobody, tqdm for people."""

from collections.abc import Iterable, Sequence
from typing import Protocol, TypeVar

Step = TypeVar("Step")


class Progress(Protocol):
    """Wraps a sequence that is gone through once."""

    def __call__(self, steps: Sequence[Step], /) -> Iterable[Step]:
        """The steps, one after another."""
        ...
