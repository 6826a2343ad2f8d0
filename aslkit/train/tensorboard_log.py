"""Numbers of every step of a training run -> TensorBoard event files."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from aslkit.core.errors import not_installed
from aslkit.train.loop import StepCallback

FOLDER = "tensorboard"


@contextmanager
def write_events(out: Path) -> Iterator[StepCallback]:
    """Yield a function that writes the numbers of a step to the folder `tensorboard` of a run.

    Events of later steps, from an earlier part of the run, are replaced.

    Raises
    ------
    UnavailableError
        If tensorboard is not installed.
    """
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError as error:
        raise not_installed("tensorboard", "tensorboard", "--tensorboard") from error
    writers: list[SummaryWriter] = []

    def record(step: int, numbers: Mapping[str, float]) -> None:
        if not writers:
            writers.append(SummaryWriter(out / FOLDER, purge_step=step))
        for name, value in numbers.items():
            writers[0].add_scalar(name, value, step)

    try:
        yield record
    finally:
        for writer in writers:
            writer.close()
