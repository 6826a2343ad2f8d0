"""What became of every scan of a run -> failed.tsv, the logs, a line each and one at the end."""

import logging
import time
import traceback
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from aslkit.cli.common import INTERNAL_ERROR, format_duration, message_and_code, print_result
from aslkit.core.errors import SubjectsFailedError


@dataclass(frozen=True)
class Outcome:
    """What became of a scan: done, skipped or failed; why it failed."""

    name: str
    state: str
    seconds: float = 0.0
    message: str = ""
    exit_code: int = 0


def failed_outcome(name: str, error: Exception, log: Path) -> Outcome:
    """A scan that failed, as its log says too."""
    text, code = message_and_code(error)
    try:
        with log.open("a", encoding="utf-8") as file:
            file.write(f"FAILED: {text}\n")
            if code == INTERNAL_ERROR:
                file.write("".join(traceback.format_exception(error)))
    except OSError:
        pass  # the log may be what could not be written; the message goes to failed.tsv
    return Outcome(name, "failed", 0.0, text, code)


def lost_outcome(name: str, reason: str) -> Outcome:
    """A scan whose process died."""
    return Outcome(name, "failed", 0.0, reason, INTERNAL_ERROR)


class Tally:
    """A line per scan, with the time that is left, and one at the end."""

    def __init__(self, folder: Path, n_scans: int) -> None:
        self._folder = folder
        self._n_scans = n_scans
        self._counts: Counter[str] = Counter()
        self._start = time.perf_counter()

    def recorded(self, outcomes: Iterable[Outcome], label: str = "") -> Iterator[Outcome]:
        """The outcomes, each after it was printed and failed.tsv brought up to date.

        Parameters
        ----------
        label : str
            What follows the name of the scan in failed.tsv.
        """
        from aslkit.outputs.dataset import record_outcome

        for outcome in outcomes:
            record_outcome(
                self._folder, f"{outcome.name}{label}", outcome.exit_code, outcome.message
            )
            self._tell(outcome)
            yield outcome

    def _tell(self, outcome: Outcome) -> None:
        self._counts[outcome.state] += 1
        n = self._counts.total()
        n_made = n - self._counts["skipped"]
        place = f"[{n}/{self._n_scans}] {outcome.name}"
        if outcome.state == "failed":
            logging.getLogger("aslkit").error(f"{place}: {outcome.message}")
            return
        left = ""
        if n_made and n < self._n_scans:
            seconds = (time.perf_counter() - self._start) / n_made * (self._n_scans - n)
            left = f", {format_duration(seconds)} left"
        spent = f" in {outcome.seconds:.1f} s" if outcome.seconds else ""
        print_result(f"{place}: {outcome.state}{spent}{left}")

    def finish(self) -> None:
        """Print the numbers of all, and fail where a scan failed.

        Raises
        ------
        SubjectsFailedError
            When some scans failed.
        """
        from aslkit.outputs.dataset import FAILED, LOGS

        counts, seconds = self._counts, time.perf_counter() - self._start
        n_made = counts["done"] + counts["failed"]
        each = f", {seconds / n_made:.2f} s each" if n_made else ""
        print_result(
            f"{self._n_scans} scans: {counts['done']} done, {counts['skipped']} skipped, "
            f"{counts['failed']} failed; {format_duration(seconds)}{each}"
        )
        if counts["failed"]:
            raise SubjectsFailedError(
                f"{counts['failed']} of {self._n_scans} scans failed: see "
                f"{self._folder / FAILED} and {self._folder / LOGS}. The others are done."
            )
