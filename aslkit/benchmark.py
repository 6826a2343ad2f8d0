"""What every validation shares: the estimators that meet on one series, and what a run found."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from time import perf_counter

from aslkit.fitting import FitSettings, fit_least_squares
from aslkit.gates import Gate
from aslkit.images import AslSeries, MaskImage, ParameterMaps
from aslkit.scoring import LS, LS_ARTERIAL, Record

Estimator = Callable[[AslSeries], ParameterMaps]
Progress = Callable[[Sequence], Iterable]  # type: ignore[type-arg]  # as tqdm: shows the loop

TRUTH = "truth"


@dataclass(frozen=True)
class Example:
    """Maps of several estimators (or the truth) on one series, for pictures."""

    title: str
    condition: Mapping[str, str | float]
    maps: Mapping[str, ParameterMaps]
    mask: MaskImage


@dataclass(frozen=True)
class Speed:
    """Wall time of one estimator over a number of voxels of the whole field of view."""

    estimator: str
    seconds: float
    n_voxels: int

    @property
    def voxels_per_second(self) -> float:
        """Voxels of the field of view per second of wall time."""
        return self.n_voxels / self.seconds if self.seconds else float("nan")


@dataclass(frozen=True)
class Benchmark:
    """Everything that one validation found.

    Attributes
    ----------
    records : list of Record
        The tidy table.
    gates : list of Gate
        Its own checks.
    examples : list of Example
        Maps worth a picture.
    speeds : list of Speed
        One per estimator.
    """

    records: list[Record]
    gates: list[Gate]
    examples: list[Example]
    speeds: list[Speed]

    @property
    def models(self) -> list[str]:
        """The estimators other than least squares, in the order of the speed table."""
        return [s.estimator for s in self.speeds if s.estimator not in (LS, LS_ARTERIAL)]


class Stopwatch:
    """Runs estimators and adds up their wall time."""

    def __init__(self) -> None:
        self._total: dict[str, Speed] = {}

    def run(self, name: str, estimator: Estimator, series: AslSeries) -> ParameterMaps:
        """The estimator's maps of the series."""
        start = perf_counter()
        maps = estimator(series)
        seconds = perf_counter() - start
        before = self._total.get(name, Speed(name, 0.0, 0))
        self._total[name] = Speed(
            name, before.seconds + seconds, before.n_voxels + series.mask.size
        )
        return maps

    @property
    def speeds(self) -> list[Speed]:
        """What was measured, in the order of first use."""
        return list(self._total.values())


def least_squares(settings: FitSettings, macrovascular: str) -> Estimator:
    """Least squares with these settings, the arterial compartment on, off or auto."""
    own = replace(settings, macrovascular=macrovascular)
    return lambda series: fit_least_squares(series, own)


def networks(names: Sequence[str], settings: FitSettings) -> dict[str, Estimator]:
    """The trained models as estimators, by name (of a folder: its last part).

    Raises
    ------
    UnavailableError
        When a model does not exist.
    """
    if not names:
        return {}
    from aslkit.inference import predict  # torch, only where a model is asked for
    from aslkit.weights import load_model

    def estimator(name: str) -> Estimator:
        model = load_model(name)
        return lambda series: predict(series, model, settings)

    return {Path(name).name: estimator(name) for name in names}


def merge(parts: Sequence[Benchmark]) -> Benchmark:
    """Several scans' findings as one."""
    total: dict[str, Speed] = {}
    for s in (s for part in parts for s in part.speeds):
        before = total.get(s.estimator, Speed(s.estimator, 0.0, 0))
        total[s.estimator] = Speed(
            s.estimator, before.seconds + s.seconds, before.n_voxels + s.n_voxels
        )
    return Benchmark(
        records=[r for part in parts for r in part.records],
        gates=[g for part in parts for g in part.gates],
        examples=[e for part in parts for e in part.examples],
        speeds=list(total.values()),
    )
