"""Outcome of every task of a batch -> failed.tsv, one printed line per task, and a summary."""

import logging
import time
import traceback
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from aslkit.core.errors import SubjectsFailedError
from aslkit.core.exit_codes import INTERNAL_ERROR, message_and_code
from aslkit.outputs.dataset import FAILED, LOGS, record_outcome

SECONDS_PER_MINUTE = 60
LONGEST_IN_MINUTES = 100  # longer times are printed in hours


@dataclass(frozen=True)
class Outcome:
    """Result of one task.

    Attributes
    ----------
    name : str
        Name of the scan or subject.
    state : {"done", "skipped", "failed"}
    seconds : float
        Time spent on the task.
    message : str
        Reason of the failure; empty unless the task failed.
    exit_code : int
        Exit code of the failure; 0 unless the task failed.
    """

    name: str
    state: str
    seconds: float = 0.0
    message: str = ""
    exit_code: int = 0


def failed_outcome(name: str, error: Exception, log: Path) -> Outcome:
    """Return the outcome of a task that raised an error, and append the error to its log."""
    text, code = message_and_code(error)
    try:
        with log.open("a", encoding="utf-8") as file:
            file.write(f"FAILED: {text}\n")
            if code == INTERNAL_ERROR:
                file.write("".join(traceback.format_exception(error)))
    except OSError:
        pass  # the error may be that the log cannot be written; failed.tsv gets the message
    return Outcome(name, "failed", 0.0, text, code)


def lost_outcome(name: str, reason: str) -> Outcome:
    """Return the outcome of a task whose process died."""
    return Outcome(name, "failed", 0.0, reason, INTERNAL_ERROR)


class OutcomeRecorder:
    """Record outcomes in failed.tsv, and print progress and a summary.

    Parameters
    ----------
    folder : Path
        Folder of failed.tsv and the logs.
    n_tasks : int
    print_result : callable
        Prints a line for the user.
    noun : str
        Name of one task in messages, like "scan".
    suffix : str
        Text appended to the name of the task in failed.tsv.
    """

    def __init__(
        self,
        folder: Path,
        n_tasks: int,
        print_result: Callable[[str], None],
        noun: str,
        suffix: str = "",
    ) -> None:
        self._folder = folder
        self._n_tasks = n_tasks
        self._print_result = print_result
        self._noun = noun
        self._suffix = suffix
        self._counts: Counter[str] = Counter()
        self._start = time.perf_counter()

    def record(self, outcome: Outcome) -> None:
        """Update failed.tsv and print a line with the estimated time left."""
        name = f"{outcome.name}{self._suffix}"
        record_outcome(self._folder, name, outcome.exit_code, outcome.message)
        self._counts[outcome.state] += 1
        progress = f"[{self._counts.total()}/{self._n_tasks}] {outcome.name}"
        if outcome.state == "failed":
            logging.getLogger("aslkit").error(f"{progress}: {outcome.message}")
            return
        spent = f" in {outcome.seconds:.1f} s" if outcome.seconds else ""
        self._print_result(f"{progress}: {outcome.state}{spent}{self._time_left()}")

    def finish(self) -> None:
        """Print the number of tasks done, skipped and failed.

        Raises
        ------
        SubjectsFailedError
            When at least one task failed.
        """
        counts, seconds = self._counts, time.perf_counter() - self._start
        n_processed = counts["done"] + counts["failed"]
        each = f", {seconds / n_processed:.2f} s each" if n_processed else ""
        self._print_result(
            f"{count(self._n_tasks, self._noun)}: {counts['done']} done, "
            f"{counts['skipped']} skipped, {counts['failed']} failed; "
            f"{format_duration(seconds)}{each}"
        )
        if n_failed := counts["failed"]:
            others = self._n_tasks - n_failed
            rest = {0: "", 1: " The other one is done."}.get(
                others, f" The other {others} are done."
            )
            raise SubjectsFailedError(
                f"{share(n_failed, self._n_tasks, self._noun)} failed: see "
                f"{self._folder / FAILED} and {self._folder / LOGS}.{rest}"
            )

    def _time_left(self) -> str:
        n_finished = self._counts.total()
        n_processed = n_finished - self._counts["skipped"]
        n_left = self._n_tasks - n_finished
        if not n_processed or not n_left:
            return ""
        seconds = (time.perf_counter() - self._start) / n_processed * n_left
        return f", {format_duration(seconds)} left"


def count(n: int, noun: str) -> str:
    """Return a number with its noun: "1 scan", "3 scans"."""
    return f"{n} {noun}{'' if n == 1 else 's'}"


def share(n: int, total: int, noun: str) -> str:
    """Return a share in words: "2 of 5 scans", "all 5 scans", "the only scan"."""
    if n < total:
        return f"{n} of {total} {noun}s"
    return f"the only {noun}" if total == 1 else f"all {total} {noun}s"


def format_duration(seconds: float) -> str:
    """Return a time in seconds, minutes or hours, with its unit."""
    if seconds < SECONDS_PER_MINUTE:
        return f"{seconds:.0f} s"
    minutes = round(seconds / SECONDS_PER_MINUTE)
    return f"{minutes} min" if minutes < LONGEST_IN_MINUTES else f"{minutes / 60:.1f} h"
