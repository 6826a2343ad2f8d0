"""Tasks -> results, by processes that read ahead, write behind, and may die.

Each process handles three tasks at a time, so that the disk and the processor work together:

    reading   | task 3
    computing | task 2
    writing   | task 1
"""

import signal
import sys
from collections import deque
from collections.abc import Callable, Generator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing import get_context
from multiprocessing.connection import Connection, wait
from typing import Generic, Protocol, TypeVar, cast

from aslkit.batch.worker_process import USUAL_REASON, prepare_worker

Task = TypeVar("Task")
State = TypeVar("State")
Result = TypeVar("Result")
Given = TypeVar("Given", contravariant=True)
Found = TypeVar("Found", covariant=True)

TASKS_AHEAD = 2  # given to a process: one to compute, one to read
PATIENCE_S = 10.0  # with a process that was asked to stop


class Stages(Protocol[Given, State, Found]):
    """The three steps of a task, of which none raises. Tasks and results can be pickled."""

    def read(self, task: Given) -> State:
        """What there is to compute."""
        ...

    def compute(self, job: State) -> State:
        """What there is to write."""
        ...

    def write(self, job: State) -> Found:
        """What came of it."""
        ...

    def lost_result(self, task: Given, reason: str) -> Found:
        """What came of a task whose process died."""
        ...


@dataclass(frozen=True)
class SingleStep(Generic[Task, Result]):
    """The stages of tasks that one function does, of which those lost are told by another."""

    do: Callable[[Task], Result]
    lost: Callable[[Task, str], Result]

    def read(self, task: Task) -> Task | Result:
        """What there is to do."""
        return task

    def compute(self, job: Task | Result) -> Task | Result:
        """The result."""
        return self.do(cast(Task, job))

    def write(self, job: Task | Result) -> Result:
        """The result, as it is."""
        return cast(Result, job)

    def lost_result(self, task: Task, reason: str) -> Result:
        """What came of a task whose process died."""
        return self.lost(task, reason)


def run_in_processes(
    tasks: Sequence[Task], stages: Stages[Task, State, Result], n_workers: int
) -> Generator[Result, None, None]:
    """The result of every task, as they come.

    The tasks of a process that dies are given to another one. From then on a process has one
    task at a time; a process that dies of a task alone loses it.
    """
    waiting, ahead = deque(tasks), TASKS_AHEAD
    workers: list[_Worker[Task, State, Result]] = []
    try:
        while waiting or any(w.held for w in workers):
            while len(workers) < n_workers and sum(not w.held for w in workers) < len(waiting):
                workers.append(_Worker(stages, n_workers))
            _give(waiting, workers, ahead)
            ready = wait([w.connection for w in workers])
            for worker in [w for w in workers if w.connection in ready]:
                try:
                    yield worker.take()
                except (EOFError, ConnectionResetError):
                    workers.remove(worker)
                    ahead = 1
                    if len(worker.held) == 1:
                        yield stages.lost_result(worker.held[0], worker.death())
                    else:
                        waiting.extendleft(reversed(worker.held))
        for worker in workers:
            worker.dismiss()
    finally:
        for worker in workers:
            worker.stop()


def _give(
    waiting: deque[Task], workers: Sequence["_Worker[Task, State, Result]"], ahead: int
) -> None:
    """Give tasks out; the second one of a process only when each has its first."""
    for n_held in range(ahead):
        for worker in workers:
            if waiting and len(worker.held) == n_held:
                worker.give(waiting.popleft())


class _Worker(Generic[Task, State, Result]):
    """A process as seen from outside, and the tasks that it holds."""

    def __init__(self, stages: Stages[Task, State, Result], n_workers: int) -> None:
        context = get_context("spawn")
        self.connection, theirs = context.Pipe()
        self.held: list[Task] = []
        arguments = (theirs, stages, n_workers)
        self._process = context.Process(target=_serve, args=arguments, daemon=True)
        self._process.start()
        theirs.close()

    def give(self, task: Task) -> None:
        """Send a task; to a dead process too, whose end shows when it should answer."""
        self.held.append(task)
        with suppress(BrokenPipeError):
            self.connection.send(task)

    def take(self) -> Result:
        """The result of the task that was given first."""
        result: Result = self.connection.recv()
        del self.held[0]
        return result

    def death(self) -> str:
        """Why the process ended."""
        self._process.join()
        code = self._process.exitcode or 0
        if code == -signal.SIGKILL:
            return f"the process was killed; {USUAL_REASON}"
        return f"the process ended by {signal.Signals(-code).name if code < 0 else f'exit {code}'}"

    def dismiss(self) -> None:
        """Say that there is no more to do."""
        self.connection.close()
        self._process.join()

    def stop(self) -> None:
        """Have the process remove what it was writing, and end."""
        self.connection.close()
        if self._process.is_alive():
            self._process.terminate()
            self._process.join(PATIENCE_S)
            self._process.kill()


def _serve(connection: Connection, stages: Stages[Task, State, Result], n_workers: int) -> None:
    """What a process does, until nobody is left who gives it tasks."""
    prepare_worker(n_workers)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))

    def read() -> State | None:
        try:
            return stages.read(connection.recv())
        except (EOFError, ConnectionResetError):
            return None

    def write(job: State) -> None:
        result = stages.write(job)
        with suppress(BrokenPipeError):
            connection.send(result)

    written: Future[None] | None = None
    with ThreadPoolExecutor(1) as reader, ThreadPoolExecutor(1) as writer:
        ahead = reader.submit(read)
        while (job := ahead.result()) is not None:
            ahead = reader.submit(read)
            computed = stages.compute(job)
            if written is not None:
                written.result()  # no more than one in memory
            written = writer.submit(write, computed)
