"""The tidy table of a benchmark on phantoms -> its settings, estimators and figures, by name."""

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from aslkit.report.charts import Points
from aslkit.validate.design import MATCHED, most_typical_snr
from aslkit.validate.detection import OOD
from aslkit.validate.records import BOUND, Record, is_model

N_SHOWN = 2  # protocols of each track that are shown in pictures and long tables

Key = tuple["Setting", float, str, str, str, str]  # SNR, estimator, stratum, quantity, metric
Interval = tuple[float, float, float]  # value, lower and upper end of its 95 % interval
NOTHING: Interval = (math.nan, math.nan, math.nan)


@dataclass(frozen=True)
class Setting:
    """What was imaged, how, and whether the estimators knew the physics; at several SNRs."""

    phantoms: str
    track: str
    protocol: str

    @property
    def title(self) -> str:
        """The protocol, and the track where it is not the matched one."""
        return self.protocol if self.track == MATCHED else f"{self.protocol} ({self.track})"


@dataclass(frozen=True)
class Sweep:
    """A figure of merit over a number that was varied, in one setting at one SNR."""

    setting: Setting
    snr: float
    lines: dict[str, Points]

    @property
    def title(self) -> str:
        """For people."""
        return f"{self.setting.title}, SNR {self.snr:g}"

    @property
    def xs(self) -> list[float]:
        """The numbers, ascending."""
        return [float(x) for x in next(iter(self.lines.values()))[:, 0]]


class PhantomTable:
    """Figures of merit by setting, SNR, estimator, stratum, quantity and metric.

    Attributes
    ----------
    settings : list of Setting
        In the order of the table.
    snrs : list of float
        All simulated SNRs, ascending.
    snr : float
        The one that is shown where one must do.
    estimators : list of str
        Without the bound: first what the benchmark brings itself, then the models.
    """

    def __init__(self, table: Sequence[Record]) -> None:
        self._figures = {self._key(r): r for r in table}
        self._errors: dict[Setting, list[Key]] = {}
        for key in self._figures:
            if key[5] == "MAE":
                self._errors.setdefault(key[0], []).append(key)
        self.settings = list(self._errors)
        self.snrs = sorted({key[1] for key in self._figures})
        self.snr = most_typical_snr(self.snrs)
        found = dict.fromkeys(key[2] for key in self._figures)
        self.estimators = sorted((e for e in found if e != BOUND), key=is_model)

    @property
    def models(self) -> list[str]:
        """The estimators that are judged."""
        return [e for e in self.estimators if is_model(e)]

    @cached_property
    def main_settings(self) -> list[Setting]:
        """The settings of the first kind of phantoms."""
        return [s for s in self.settings if s.phantoms == self.settings[0].phantoms]

    @cached_property
    def shown_settings(self) -> list[Setting]:
        """The first protocols of each track that tell CBF and ATT."""
        tracks = dict.fromkeys(s.track for s in self.main_settings)
        several = [s for s in self.main_settings if self.has_att(s)]
        return [s for t in tracks for s in [s for s in several if s.track == t][:N_SHOWN]]

    def has_att(self, setting: Setting) -> bool:
        """Whether the protocol has several delays."""
        return "att" in self.quantities(setting)

    def quantities(self, setting: Setting) -> list[str]:
        """What was scored in this setting."""
        return list(dict.fromkeys(key[4] for key in self._errors[setting]))

    def estimators_in(self, setting: Setting) -> list[str]:
        """The estimators that met this setting."""
        found = {key[2] for key in self._errors[setting]}
        return [e for e in self.estimators if e in found]

    def strata(self, setting: Setting) -> list[str]:
        """Where errors were averaged."""
        return list(dict.fromkeys(key[3] for key in self._errors[setting]))

    def figure(
        self,
        setting: Setting,
        estimator: str,
        quantity: str,
        metric: str,
        stratum: str = "brain",
        snr: float | None = None,
    ) -> Interval:
        """One figure with its interval, at the shown SNR unless told; NaN where not measured."""
        at = self.snr if snr is None else snr
        row = self._figures.get((setting, at, estimator, stratum, quantity, metric))
        if row is None:
            return NOTHING
        return float(row["value"]), float(row["low"]), float(row["high"])

    def errors_over_snr(
        self, setting: Setting, estimator: str, quantity: str, stratum: str
    ) -> Points:
        """Mean absolute error at every SNR, as a line with its band."""
        place = setting, estimator, quantity, "MAE", stratum
        return np.array([(snr, *self.figure(*place, snr)) for snr in self.snrs])

    def sweeps(self, pattern: str) -> list[Sweep]:
        """CBF's figures of the shown settings whose metric holds a number, as lines over it.

        `pattern` matches the metric; its first group is the number.
        """
        found: dict[tuple[Setting, float], dict[str, list[tuple[float, ...]]]] = {}
        for (setting, snr, estimator, _, quantity, metric), row in self._figures.items():
            match = re.fullmatch(pattern, metric)
            if match and quantity == "cbf" and setting in self.shown_settings:
                point = float(match[1]), float(row["value"]), math.nan, math.nan
                found.setdefault((setting, snr), {}).setdefault(estimator, []).append(point)
        return [
            Sweep(*place, {e: np.array(sorted(points)) for e, points in lines.items()})
            for place, lines in found.items()
        ]

    def detection_aurocs(self) -> dict[tuple[str, str], dict[float, float]]:
        """Area under the ROC curve by SNR, of every artefact and estimator."""
        found: dict[tuple[str, str], dict[float, float]] = {}
        for (_, snr, estimator, _, quantity, metric), row in self._figures.items():
            if quantity == OOD:
                artefact = metric.removeprefix("AUROC of ")
                found.setdefault((artefact, estimator), {})[snr] = float(row["value"])
        return found

    @staticmethod
    def _key(row: Record) -> Key:
        setting = Setting(str(row["phantoms"]), str(row["track"]), str(row["protocol"]))
        estimator, stratum, quantity, metric = (
            str(row[k]) for k in ("estimator", "stratum", "quantity", "metric")
        )
        return setting, float(row["snr"]), estimator, stratum, quantity, metric
