"""Estimators of a validation, and the results of a run: records, self-checks, pictures, times."""

import logging
import resource
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, Protocol

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from aslkit.core.acquisition import Acquisition
from aslkit.core.series_and_maps import AslSeries, MaskImage, ParameterMaps
from aslkit.fit.least_squares import fit_least_squares
from aslkit.fit.settings import choose_settings
from aslkit.validate.records import Record, is_model, to_frame
from aslkit.validate.self_checks import SelfCheck

if TYPE_CHECKING:
    from aslkit.nets.model_store import Model

logger = logging.getLogger(__name__)

Estimator = Callable[[AslSeries], ParameterMaps]

TRUTH = "truth"


class EvaluatedEstimator(Protocol):
    """An estimator with what a benchmark needs to know of it."""

    def __call__(self, series: AslSeries) -> ParameterMaps:
        """Estimate the maps of the series."""
        ...

    def covers(self, acquisition: Acquisition) -> bool:
        """Return whether the estimator takes scans of this protocol."""
        ...

    @property
    def is_scale_equivariant(self) -> bool:
        """Whether CBF is proportional to the signal by construction."""
        ...


@dataclass(frozen=True)
class Example:
    """Maps of one series by several estimators, and the truth if known, for pictures.

    `lesions` has the classes of `aslkit.simulate.lesions.LESION_CLASSES`, 0 elsewhere.
    """

    title: str
    condition: Mapping[str, str | float]
    maps: Mapping[str, ParameterMaps]
    mask: MaskImage
    lesions: NDArray[np.uint8] | None = None


@dataclass(frozen=True)
class Speed:
    """Time and memory of one estimator.

    Attributes
    ----------
    seconds : float
        Wall time of the estimation [s].
    n_voxels : int
        Number of voxels with signal that were estimated.
    peak_mib : float
        Peak memory of the process, including simulation and other estimators, at the end of the
        last estimation [MiB].
    """

    estimator: str
    seconds: float
    n_voxels: int
    peak_mib: float = float("nan")

    @property
    def voxels_per_second(self) -> float:
        """Voxels per second of wall time."""
        return self.n_voxels / self.seconds if self.seconds else float("nan")


@dataclass(frozen=True)
class Benchmark:
    """The results of one validation.

    Attributes
    ----------
    records : list of Record
        Lines of the tidy table; see `table`.
    self_checks : list of SelfCheck
        Self-checks of the benchmark.
    examples : list of Example
        Maps for pictures.
    speeds : list of Speed
        One per estimator.
    """

    records: list[Record]
    self_checks: list[SelfCheck]
    examples: list[Example]
    speeds: list[Speed]

    @property
    def table(self) -> pd.DataFrame:
        """The tidy table, one figure of merit per line.

        Columns: the condition (on phantoms "track", "phantoms", "protocol", "kinetic", "snr"; in
        vivo "scan", "n_repeats"), then those of `aslkit.validate.records.Row`.
        """
        return to_frame(self.records)

    @property
    def models(self) -> list[str]:
        """Models and custom estimators, in the order of `speeds`."""
        return [s.estimator for s in self.speeds if is_model(s.estimator)]


@dataclass(frozen=True)
class NetworkEstimator:
    """A trained model as an estimator, with `n_mc_dropout` runs of MC dropout (0: none)."""

    model: "Model"
    macrovascular: str = "auto"
    n_mc_dropout: int = 0

    def __call__(self, series: AslSeries) -> ParameterMaps:
        """Estimate the maps of the series."""
        from aslkit.predict.inference import predict_maps
        from aslkit.predict.passes import Passes  # torch, only where a model is asked for

        passes = Passes(n_mc_dropout=self.n_mc_dropout)
        settings = choose_settings(series.acquisition, self.macrovascular)
        return predict_maps(series, self.model, settings, passes=passes)

    def covers(self, acquisition: Acquisition) -> bool:
        """Return whether the model takes scans of this protocol."""
        return self.model.covers(acquisition)

    @property
    def is_scale_equivariant(self) -> bool:
        """Whether CBF is proportional to the signal by construction."""
        return self.model.corrects_least_squares


class Stopwatch:
    """Runs estimators and sums their times."""

    def __init__(self) -> None:
        self._total: dict[str, Speed] = {}

    def run(self, name: str, estimator: Estimator, series: AslSeries) -> ParameterMaps:
        """Run an estimator on a series and record its time."""
        start = perf_counter()
        maps = estimator(series)
        seconds = perf_counter() - start
        n_voxels = int(series.has_signal.sum())
        _add(self._total, Speed(name, seconds, n_voxels, _peak_mib()))
        return maps

    @property
    def speeds(self) -> list[Speed]:
        """Times by estimator, in the order of first use."""
        return list(self._total.values())


def least_squares(macrovascular: str) -> Estimator:
    """Return least squares with the settings that `choose_settings` selects for each series."""
    return lambda series: fit_least_squares(
        series, choose_settings(series.acquisition, macrovascular)
    )


def load_networks(
    names: Sequence[str], macrovascular: str = "auto", n_mc_dropout: int = 0
) -> dict[str, NetworkEstimator]:
    """Load trained models, by name (of a folder the last part of its path, if unique).

    With `n_mc_dropout`, each model is also an estimator "NAME MC": the mean of `n_mc_dropout`
    runs of MC dropout.

    Raises
    ------
    UnavailableError
        When a model does not exist.
    """
    if not names:
        return {}
    from aslkit.nets.model_store import load_model, resolve_alias  # imports torch

    names = [resolve_alias(name) for name in names]
    short = [Path(name).name for name in names]
    labels = [s if short.count(s) == 1 else n for s, n in zip(short, names, strict=True)]
    models = {
        label: NetworkEstimator(load_model(name), macrovascular)
        for label, name in zip(labels, names, strict=True)
    }
    mc_dropout = {
        f"{label} MC": replace(m, n_mc_dropout=n_mc_dropout) for label, m in models.items()
    }
    return models | mc_dropout if n_mc_dropout else models


def select_covering(
    models: Mapping[str, EvaluatedEstimator], acquisition: Acquisition
) -> dict[str, EvaluatedEstimator]:
    """Return the models that take scans of this protocol."""
    return {name: m for name, m in models.items() if m.covers(acquisition)}


def log_excluded_models(protocol: str, names: Iterable[str]) -> None:
    """Log the models that do not take scans of a protocol, if any."""
    if listed := ", ".join(names):
        logger.info("%s: left out, as made for other protocols: %s", protocol, listed)


def merge_benchmarks(parts: Sequence[Benchmark]) -> Benchmark:
    """Combine the results of several scans."""
    total: dict[str, Speed] = {}
    for s in (s for part in parts for s in part.speeds):
        _add(total, s)
    return Benchmark(
        records=[r for part in parts for r in part.records],
        self_checks=[g for part in parts for g in part.self_checks],
        examples=[e for part in parts for e in part.examples],
        speeds=list(total.values()),
    )


def _add(total: dict[str, Speed], one: Speed) -> None:
    before = total.get(one.estimator, Speed(one.estimator, 0.0, 0, 0.0))
    total[one.estimator] = Speed(
        one.estimator,
        before.seconds + one.seconds,
        before.n_voxels + one.n_voxels,
        max(before.peak_mib, one.peak_mib),
    )


def _peak_mib() -> float:
    """Return the peak resident memory of this process [MiB]."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (2**20 if sys.platform == "darwin" else 2**10)
