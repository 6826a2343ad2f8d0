"""Records of a benchmark on phantoms -> its settings, estimators and scores."""

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from aslkit.report.charts import Points
from aslkit.validate.agreement_stats import Interval
from aslkit.validate.design import MATCHED, most_typical_snr
from aslkit.validate.detection import OOD
from aslkit.validate.records import BOUND, Record, is_model

N_SHOWN = 2  # protocols of each track in pictures and long tables

# setting, SNR, estimator, stratum, quantity, metric
Key = tuple["Setting", float, str, str, str, str]


@dataclass(frozen=True)
class Setting:
    """A set of phantoms, a track and a protocol. A setting covers all simulated SNRs."""

    phantoms: str
    track: str
    protocol: str

    @property
    def title(self) -> str:
        """The protocol, followed by the track unless it is the matched one."""
        return self.protocol if self.track == MATCHED else f"{self.protocol} ({self.track})"


@dataclass(frozen=True)
class Sweep:
    """A score as a function of a varied factor, in one setting at one SNR.

    `lines` holds one curve per estimator, over the factor.
    """

    setting: Setting
    snr: float
    lines: dict[str, Points]

    @property
    def title(self) -> str:
        """Setting and SNR as a title of a panel."""
        return f"{self.setting.title}, SNR {self.snr:g}"

    @property
    def factors(self) -> list[float]:
        """The values of the varied factor, ascending."""
        return [float(x) for x in next(iter(self.lines.values()))[:, 0]]


class PhantomTable:
    """Scores by setting, SNR, estimator, stratum, quantity and metric.

    Attributes
    ----------
    settings : list of Setting
        In the order of the records.
    snrs : list of float
        All simulated SNRs, ascending.
    snr : float
        The SNR of sections that show only one.
    estimators : list of str
        Baselines first, then models; without the Cramér-Rao bound.
    """

    def __init__(self, records: Sequence[Record]) -> None:
        self._records = {self._key(r): r for r in records}
        self._error_keys: dict[Setting, list[Key]] = {}
        for key in self._records:
            if key[5] == "MAE":
                self._error_keys.setdefault(key[0], []).append(key)
        self.settings = list(self._error_keys)
        self.snrs = sorted({key[1] for key in self._records})
        self.snr = most_typical_snr(self.snrs)
        names = dict.fromkeys(key[2] for key in self._records)
        self.estimators = sorted((e for e in names if e != BOUND), key=is_model)

    @property
    def models(self) -> list[str]:
        """The estimators that are not baselines."""
        return [e for e in self.estimators if is_model(e)]

    @cached_property
    def main_settings(self) -> list[Setting]:
        """The settings of the first set of phantoms."""
        return [s for s in self.settings if s.phantoms == self.settings[0].phantoms]

    @cached_property
    def shown_settings(self) -> list[Setting]:
        """The first `N_SHOWN` multi-delay protocols of each track."""
        tracks = dict.fromkeys(s.track for s in self.main_settings)
        multi_delay = [s for s in self.main_settings if self.has_att(s)]
        return [s for t in tracks for s in [s for s in multi_delay if s.track == t][:N_SHOWN]]

    def has_att(self, setting: Setting) -> bool:
        """Whether ATT was scored, that is, whether the protocol has several delays."""
        return "att" in self.quantities(setting)

    def quantities(self, setting: Setting) -> list[str]:
        """Return the quantities that were scored in a setting."""
        return list(dict.fromkeys(key[4] for key in self._error_keys[setting]))

    def estimators_in(self, setting: Setting) -> list[str]:
        """Return the estimators that were scored in a setting."""
        names = {key[2] for key in self._error_keys[setting]}
        return [e for e in self.estimators if e in names]

    def strata(self, setting: Setting) -> list[str]:
        """Return the strata (brain, tissues, lesions) that were scored in a setting."""
        return list(dict.fromkeys(key[3] for key in self._error_keys[setting]))

    def score(
        self,
        setting: Setting,
        estimator: str,
        quantity: str,
        metric: str,
        stratum: str = "brain",
        snr: float | None = None,
    ) -> Interval:
        """Return a score with its interval, NaN if it was not measured; by default at `snr`."""
        key = setting, self.snr if snr is None else snr, estimator, stratum, quantity, metric
        record = self._records.get(key)
        if record is None:
            return Interval(math.nan)
        return Interval(*(float(record[name]) for name in ("value", "low", "high")))

    def errors_over_snr(
        self, setting: Setting, estimator: str, quantity: str, stratum: str
    ) -> Points:
        """Return the mean absolute error with its interval at every SNR, (SNRs, 4)."""
        errors = [
            self.score(setting, estimator, quantity, "MAE", stratum, snr) for snr in self.snrs
        ]
        return np.array(
            [(s, e.value, e.low, e.high) for s, e in zip(self.snrs, errors, strict=True)]
        )

    def sweeps(self, pattern: str) -> list[Sweep]:
        """Return the CBF scores of the shown settings over a factor in the name of the metric.

        `pattern` is a regular expression for the metric; its first group is the factor.
        """
        found: dict[tuple[Setting, float], dict[str, list[tuple[float, ...]]]] = {}
        for (setting, snr, estimator, _, quantity, metric), record in self._records.items():
            match = re.fullmatch(pattern, metric)
            if match and quantity == "cbf" and setting in self.shown_settings:
                point = float(match[1]), float(record["value"]), math.nan, math.nan
                found.setdefault((setting, snr), {}).setdefault(estimator, []).append(point)
        return [
            Sweep(*place, {e: np.array(sorted(points)) for e, points in lines.items()})
            for place, lines in found.items()
        ]

    def detection_aurocs(self) -> dict[tuple[str, str], dict[float, float]]:
        """Return the area under the ROC curve by (artefact, estimator), then by SNR."""
        found: dict[tuple[str, str], dict[float, float]] = {}
        for (_, snr, estimator, _, quantity, metric), record in self._records.items():
            if quantity == OOD:
                artefact = metric.removeprefix("AUROC of ")
                found.setdefault((artefact, estimator), {})[snr] = float(record["value"])
        return found

    @staticmethod
    def _key(record: Record) -> Key:
        setting = Setting(*(str(record[k]) for k in ("phantoms", "track", "protocol")))
        estimator, stratum, quantity, metric = (
            str(record[k]) for k in ("estimator", "stratum", "quantity", "metric")
        )
        return setting, float(record["snr"]), estimator, stratum, quantity, metric
