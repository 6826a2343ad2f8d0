"""Tasks of a data set -> files on disk, with a log, an outcome and a fingerprint for each task.

The driver of all commands that process many scans. A command supplies a `BatchWork`, which names,
reads, computes and writes one task. The driver skips tasks that are current, writes the logs and
failed.tsv, goes on after a failure, and distributes the tasks over processes or a dask cluster.
"""

import time
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import AbstractContextManager, closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Generic, Protocol, TextIO, TypeVar, cast

from aslkit.batch.outcomes import Outcome, OutcomeRecorder, failed_outcome, lost_outcome
from aslkit.outputs.dataset import LOGS

Task = TypeVar("Task")
Given = TypeVar("Given", contravariant=True)
State = TypeVar("State")


class BatchWork(Protocol[Given, State]):
    """What a command does with one task. Instances, tasks and states can be pickled."""

    def name(self, task: Given) -> str:
        """Return the name of the task, as in the log and in messages."""
        ...

    def fingerprint(self, task: Given) -> str:
        """Return a hash of everything that the results of the task depend on."""
        ...

    def is_current(self, task: Given, fingerprint: str) -> bool:
        """Whether complete results with this fingerprint exist."""
        ...

    def read(self, task: Given, fingerprint: str) -> State:
        """Read the input of the task."""
        ...

    def compute(self, state: State) -> State:
        """Compute the results from the input."""
        ...

    def write(self, state: State) -> None:
        """Write the results."""
        ...


@dataclass(frozen=True)
class OneStepWork(Generic[Task]):
    """Work that does not read the next task ahead, given as functions that can be pickled.

    Attributes
    ----------
    name, fingerprint, is_current : callable
        As in `BatchWork`.
    process : callable
        Does all of a task, from the task and its fingerprint.
    """

    name: Callable[[Task], str]
    fingerprint: Callable[[Task], str]
    is_current: Callable[[Task, str], bool]
    process: Callable[[Task, str], None]

    def read(self, task: Task, fingerprint: str) -> tuple[Task, str]:
        """Return the task and its fingerprint."""
        return task, fingerprint

    def compute(self, state: tuple[Task, str]) -> tuple[Task, str]:
        """Do all of the task."""
        self.process(*state)
        return state

    def write(self, state: tuple[Task, str]) -> None:
        """Do nothing: `process` has written the results."""


@dataclass(frozen=True)
class Console:
    """How a command prints. The functions can be pickled.

    Attributes
    ----------
    print_result : callable
        Prints a line for the user.
    log_to : callable
        Returns a context in which this thread prints into an open file.
    set_up_worker : callable
        Sets up logging in a worker process.
    """

    print_result: Callable[[str], None]
    log_to: Callable[[TextIO], AbstractContextManager[None]]
    set_up_worker: Callable[[], None]


@dataclass(frozen=True)
class BatchSettings:
    """Where a batch runs and what it skips.

    Attributes
    ----------
    folder : Path
        Folder of failed.tsv and the logs, which exists.
    skip_current : bool
        Skip tasks with current results.
    n_jobs : int, optional
        Number of worker processes or dask workers, 1 by default.
    dask : str, optional
        "local", "slurm" or the address of a dask scheduler; processes by default.
    noun : str
        Name of one task in messages.
    suffix : str
        Text appended to the name of the task in the log's file name and in failed.tsv.
    """

    folder: Path
    skip_current: bool
    n_jobs: int | None = None
    dask: str | None = None
    noun: str = "scan"
    suffix: str = ""

    def log(self, name: str) -> Path:
        """Return the path of the log of a task."""
        return self.folder / LOGS / f"{name}{self.suffix}.log"


def run_batch(
    tasks: Sequence[Task],
    work: BatchWork[Task, State],
    settings: BatchSettings,
    console: Console,
    summarize: Callable[[Sequence[Outcome]], None] | None = None,
) -> None:
    """Process every task; a task that fails does not end the others.

    Parameters
    ----------
    summarize : callable, optional
        Called with the outcomes of all tasks, sorted by name, before the last line is printed.

    Raises
    ------
    SubjectsFailedError
        When at least one task failed, after all others are done.
    UnavailableError
        When the dask cluster is not available.
    """
    recorder = OutcomeRecorder(
        settings.folder, len(tasks), console.print_result, settings.noun, settings.suffix
    )
    outcomes = []
    with closing(_run(tasks, LoggedStages(work, settings, console))) as found:
        for outcome in found:
            recorder.record(outcome)
            outcomes.append(outcome)
    if summarize is not None:
        summarize(sorted(outcomes, key=lambda outcome: outcome.name))
    recorder.finish()


@dataclass
class RunningTask(Generic[Task, State]):
    """A task between two stages; its outcome is None until it is skipped or fails."""

    task: Task
    state: State | None = None
    seconds: float = 0.0
    outcome: Outcome | None = None


@dataclass(frozen=True)
class LoggedStages(Generic[Task, State]):
    """The stages of `aslkit.batch.processes` for one batch: none of them raises an exception."""

    work: BatchWork[Task, State]
    settings: BatchSettings
    console: Console

    def read(self, task: Task) -> RunningTask[Task, State]:
        """Read the input of a task, unless its results are current."""
        self.console.set_up_worker()
        running: RunningTask[Task, State] = RunningTask(task)
        with self._recording_failure(running):
            fingerprint = self.work.fingerprint(task)
            if self.settings.skip_current and self.work.is_current(task, fingerprint):
                running.outcome = Outcome(self.work.name(task), "skipped")
            else:
                with self._logged(running, "w"):
                    running.state = self.work.read(task, fingerprint)
        return running

    def compute(self, running: RunningTask[Task, State]) -> RunningTask[Task, State]:
        """Compute the results of a task."""
        if running.outcome is None:
            with self._recording_failure(running), self._logged(running, "a"):
                running.state = self.work.compute(cast(State, running.state))
        return running

    def write(self, running: RunningTask[Task, State]) -> Outcome:
        """Write the results of a task and return its outcome."""
        if running.outcome is None:
            with self._recording_failure(running), self._logged(running, "a"):
                self.work.write(cast(State, running.state))
        return running.outcome or Outcome(self.work.name(running.task), "done", running.seconds)

    def lost_result(self, task: Task, reason: str) -> Outcome:
        """Return the outcome of a task whose process died."""
        return lost_outcome(self.work.name(task), reason)

    @contextmanager
    def _recording_failure(self, running: RunningTask[Task, State]) -> Iterator[None]:
        """Turn any exception into the outcome of the task."""
        try:
            yield
        except Exception as error:  # the other tasks go on
            name = self.work.name(running.task)
            running.outcome = failed_outcome(name, error, self.settings.log(name))

    @contextmanager
    def _logged(self, running: RunningTask[Task, State], mode: str) -> Iterator[None]:
        """Print into the log of the task, and add the time spent."""
        start = time.perf_counter()
        path = self.settings.log(self.work.name(running.task))
        with path.open(mode, encoding="utf-8") as log, self.console.log_to(cast(TextIO, log)):
            yield
        running.seconds += time.perf_counter() - start


def _run(
    tasks: Sequence[Task], stages: LoggedStages[Task, State]
) -> Generator[Outcome, None, None]:
    """Return a generator of the outcomes, in the order in which the tasks end."""
    settings = stages.settings
    n_workers = settings.n_jobs or 1
    if settings.dask is None:
        from aslkit.batch.processes import run_in_processes

        return run_in_processes(tasks, stages, n_workers)
    from aslkit.batch.dask_cluster import run_on_cluster

    return run_on_cluster(tasks, stages, settings.dask, n_workers, stages.console.print_result)
