"""Tasks -> results, computed by worker processes; a process that dies loses one task at most.

Each process handles three tasks at a time, so that it reads and writes while it computes:

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

TASKS_PER_WORKER = 2  # one to compute, one to read
STOP_TIMEOUT_S = 10.0  # after which a process that was asked to stop is killed


class Stages(Protocol[Given, State, Found]):
    """The three stages of a task. They raise no exceptions. Tasks and results can be pickled."""

    def read(self, task: Given) -> State:
        """Read the input of a task."""
        ...

    def compute(self, state: State) -> State:
        """Compute the results from the input."""
        ...

    def write(self, state: State) -> Found:
        """Write the results, and return what `run_in_processes` yields for the task."""
        ...

    def lost_result(self, task: Given, reason: str) -> Found:
        """Return what `run_in_processes` yields for a task whose process died."""
        ...


@dataclass(frozen=True)
class SingleStep(Generic[Task, Result]):
    """Stages that consist of one function.

    Attributes
    ----------
    function : callable
        Returns the result of a task.
    lost : callable
        Returns the result of a task whose process died, from the task and the reason.
    """

    function: Callable[[Task], Result]
    lost: Callable[[Task, str], Result]

    def read(self, task: Task) -> Task | Result:
        """Return the task."""
        return task

    def compute(self, state: Task | Result) -> Task | Result:
        """Return the result of the task."""
        return self.function(cast(Task, state))

    def write(self, state: Task | Result) -> Result:
        """Return the result unchanged."""
        return cast(Result, state)

    def lost_result(self, task: Task, reason: str) -> Result:
        """Return the result of a task whose process died."""
        return self.lost(task, reason)


def run_in_processes(
    tasks: Sequence[Task], stages: Stages[Task, State, Result], n_workers: int
) -> Generator[Result, None, None]:
    """Yield the result of every task, in the order in which they end.

    When a process dies, another process repeats its tasks, and from then on every process holds
    one task at a time. A task is lost when a process dies that holds no other task.
    """
    waiting, n_per_worker = deque(tasks), TASKS_PER_WORKER
    workers: list[_Worker[Task, State, Result]] = []
    try:
        while waiting or any(w.held for w in workers):
            while len(workers) < n_workers and sum(not w.held for w in workers) < len(waiting):
                workers.append(_Worker(stages, n_workers))
            _assign(waiting, workers, n_per_worker)
            ready = wait([w.connection for w in workers])
            for worker in [w for w in workers if w.connection in ready]:
                try:
                    yield worker.receive()
                except (EOFError, ConnectionResetError):
                    workers.remove(worker)
                    n_per_worker = 1
                    if len(worker.held) == 1:
                        yield stages.lost_result(worker.held[0], worker.reason_of_death())
                    else:
                        waiting.extendleft(reversed(worker.held))
        for worker in workers:
            worker.finish()
    finally:
        for worker in workers:
            worker.stop()


def _assign(
    waiting: deque[Task], workers: Sequence["_Worker[Task, State, Result]"], n_per_worker: int
) -> None:
    """Send tasks to the workers; a second task only when every worker has a first one."""
    for n_held in range(n_per_worker):
        for worker in workers:
            if waiting and len(worker.held) == n_held:
                worker.send(waiting.popleft())


class _Worker(Generic[Task, State, Result]):
    """Handle of a worker process, with the tasks that it holds."""

    def __init__(self, stages: Stages[Task, State, Result], n_workers: int) -> None:
        context = get_context("spawn")
        self.connection, worker_end = context.Pipe()
        self.held: list[Task] = []
        arguments = (worker_end, stages, n_workers)
        self._process = context.Process(target=_serve, args=arguments, daemon=True)
        self._process.start()
        worker_end.close()

    def send(self, task: Task) -> None:
        """Send a task. If the process is dead, `receive` will raise an error."""
        self.held.append(task)
        with suppress(BrokenPipeError):
            self.connection.send(task)

    def receive(self) -> Result:
        """Return the result of the task that was sent first."""
        result: Result = self.connection.recv()
        del self.held[0]
        return result

    def reason_of_death(self) -> str:
        """Return why the process ended."""
        self._process.join()
        code = self._process.exitcode or 0
        if code == -signal.SIGKILL:
            return f"the process was killed; {USUAL_REASON}"
        return f"the process ended by {signal.Signals(-code).name if code < 0 else f'exit {code}'}"

    def finish(self) -> None:
        """Close the connection, and wait for the end of the process."""
        self.connection.close()
        self._process.join()

    def stop(self) -> None:
        """Terminate the process, which removes its temporary files first."""
        self.connection.close()
        if self._process.is_alive():
            self._process.terminate()
            self._process.join(STOP_TIMEOUT_S)
            self._process.kill()


def _serve(connection: Connection, stages: Stages[Task, State, Result], n_workers: int) -> None:
    """Process tasks in a worker process, until the connection is closed."""
    prepare_worker(n_workers)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))

    def read() -> State | None:
        try:
            return stages.read(connection.recv())
        except (EOFError, ConnectionResetError):
            return None

    def write(state: State) -> None:
        result = stages.write(state)
        with suppress(BrokenPipeError):
            connection.send(result)

    written: Future[None] | None = None
    with ThreadPoolExecutor(1) as reader, ThreadPoolExecutor(1) as writer:
        ahead = reader.submit(read)
        while (state := ahead.result()) is not None:
            ahead = reader.submit(read)
            computed = stages.compute(state)
            if written is not None:
                written.result()  # only one computed task is held in memory
            written = writer.submit(write, computed)
