"""Signal of one fixed protocol -> network channels, and a network's outputs -> CBF and ATT.

    curves of PCASL | curves of VSASL | features of PCASL | features of VSASL | T1 | mask

A network with this encoding works for one protocol only. The encoding holds that protocol with
all constants, is saved in the model card, and refuses scans of another protocol.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from itertools import accumulate, groupby
from typing import Any

import numpy as np
from numpy.typing import NDArray

from aslkit.config.fixed_protocol import FixedProtocolConfig, nominal_timings
from aslkit.config.schema import RawEncodingConfig, TrainingConfig
from aslkit.core.acquisition import Acquisition, Timing
from aslkit.core.backend import Array, namespace
from aslkit.core.errors import InputError
from aslkit.core.series_and_maps import AslSeries

KIND = "raw"  # in configurations and model cards
PERCENT = 100.0  # ΔM/M0 is encoded in percent
PLD_TOLERANCE_S = 0.025  # between the delays of a scan and those of the encoding
DURATION_TOLERANCE = 0.1  # between label durations, a fraction of that of the encoding
CBF_CLOSE, ATT_CLOSE_S = 10.0, 0.2  # errors [ml/100 g/min, s] below which an estimate is close
SMALLEST_SD = 1e-6  # [ΔM/M0], least sd of a curve in z-scores
CURVE_FEATURES = {  # of curves (b, n, x, y), (b, x, y) each
    "mean": lambda curves: curves.mean(1),
    "std": lambda curves: _sd(curves)[:, 0],
    "peak": lambda curves: namespace(curves).amax(curves, 1),
}


@dataclass(frozen=True)
class Layout:
    """Order of the channels: curves of every labeling, features, mask.

    Attributes
    ----------
    curves : tuple of int
        Number of delays of every labeling.
    n_features : int
        Number of channels between the curves and the mask.
    """

    curves: tuple[int, ...]
    n_features: int

    @property
    def n_channels(self) -> int:
        """Number of channels, including the mask."""
        return sum(self.curves) + self.n_features + 1

    def split(self, channels: Array) -> list[Array]:
        """Split channels (batch, c, …) into the curves of each labeling and the rest."""
        ends = list(accumulate(self.curves))
        starts = [0, *ends[:-1]]
        curves = [channels[:, a:b] for a, b in zip(starts, ends, strict=True)]
        return [*curves, channels[:, ends[-1] :]]


@dataclass(frozen=True)
class RawEncoding:
    """The one protocol of a network of raw curves, and the scale of its inputs and outputs.

    Attributes
    ----------
    timings : tuple of Timing
        In the order of the curves, one labeling after the other. Signals are scaled to the
        labeling efficiencies of these timings.
    normalization : str
        "global_scale": percent of M0 times `scale`, which keeps the amplitude and with it CBF;
        "per_curve": z-scores of each curve, which lose it (the negative control).
    scale : float
        Factor of "global_scale".
    features : tuple of str
        "mean", "std" and "peak" of the scaled curves of each labeling; "t1_artery":
        (T1 of blood - `t1_blood_s`) / `t1_unit_s`.
    t1_blood_s, t1_unit_s : float
        Centre and width of the T1 of blood [s].
    cbf_unit, att_unit : tuple of float
        (centre, width) of CBF [ml/100 g/min] and ATT [s]. The outputs of the network are
        (CBF - centre) / width and (ATT - centre) / width.
    """

    timings: tuple[Timing, ...]
    normalization: str
    scale: float
    features: tuple[str, ...]
    t1_blood_s: float
    t1_unit_s: float = 0.2
    cbf_unit: tuple[float, float] = (50.0, 25.0)
    att_unit: tuple[float, float] = (1.4, 0.5)

    @classmethod
    def from_config(cls, config: TrainingConfig) -> "RawEncoding":
        """Return the encoding of a training configuration."""
        encoding, data = config.encoding, config.data
        assert isinstance(encoding, RawEncodingConfig) and isinstance(data, FixedProtocolConfig)
        return cls(
            nominal_timings(data),
            encoding.normalization,
            encoding.scale,
            encoding.features,
            data.t1_blood_s,
        )

    @classmethod
    def from_card(cls, card: Mapping[str, Any]) -> "RawEncoding":
        """Return the encoding of a model card."""
        constants = {k: v for k, v in card["encoding"].items() if k != "kind"}
        timings = tuple(Timing(**t) for t in constants.pop("timings"))
        rest: dict[str, Any] = {
            k: tuple(v) if isinstance(v, list) else v for k, v in constants.items()
        }
        return cls(timings, **rest)

    def describe(self) -> dict[str, object]:
        """Return the fields of the model card, with all constants."""
        return {"encoding": {"kind": KIND, **asdict(self)}}

    @property
    def layout(self) -> Layout:
        """Order of the channels."""
        curves = tuple(len(list(g)) for _, g in groupby(self.timings, lambda t: t.labeling))
        n_single = self.features.count("t1_artery")
        return Layout(curves, len(curves) * (len(self.features) - n_single) + n_single)

    @property
    def n_channels(self) -> int:
        """Number of channels, including the mask."""
        return self.layout.n_channels

    def encode(self, signal: Array, mask: Array, t1_blood_s: Array) -> Array:
        """Compute the channels of slices, 0 outside the brain; numpy or torch, like `signal`.

        Parameters
        ----------
        signal : array (b, n, x, y)
            ΔM/M0 in the order of `timings`, scaled to their labeling efficiencies.
        mask : bool array (b, x, y)
        t1_blood_s : array (b,)
            T1 of blood of every slice [s].

        Returns
        -------
        array (b, c, x, y)
        """
        xp, inside = namespace(signal), mask[:, None]
        curves = xp.where(
            inside, PERCENT * self.scale * signal, xp.zeros_like(signal[:1, :1, :1, :1])
        )
        *parts, _ = self.layout.split(curves)
        channels = [self._normalised(part) for part in parts]
        for name in self.features:
            if name == "t1_artery":
                feature = (t1_blood_s - self.t1_blood_s) / self.t1_unit_s  # (b,)
                channels.append(feature[:, None, None, None] * inside)
            else:
                channels += [CURVE_FEATURES[name](part)[:, None] for part in parts]
        return xp.concatenate([*channels, inside + 0 * curves[:, :1]], 1)

    def encode_series(self, series: AslSeries) -> NDArray[np.floating]:
        """Compute the channels of every slice of a scan, (z, c, x, y).

        Raises
        ------
        InputError
            If the scan has another protocol.
        """
        order = self._order_in(series.acquisition)
        if order is None:
            raise self._refused(series.acquisition)
        stated = [series.acquisition.timings[i].efficiency for i in order]
        gain = np.array([t.efficiency for t in self.timings]) / stated
        signal = np.moveaxis(series.delta_m[..., order] * gain, (2, 3), (0, 1))  # (z, n, x, y)
        mask = np.moveaxis(series.usable, 2, 0)
        t1_blood_s = np.full(len(mask), series.acquisition.t1_blood_s)
        channels: NDArray[np.floating] = self.encode(signal, mask, t1_blood_s).astype(np.float32)
        return channels

    def to_outputs(self, cbf: Array, att: Array) -> Array:
        """Convert CBF [ml/100 g/min] and ATT [s] to the units of the network outputs."""
        (cbf_centre, cbf_width), (att_centre, att_width) = self.cbf_unit, self.att_unit
        return (cbf - cbf_centre) / cbf_width, (att - att_centre) / att_width

    def from_outputs(self, cbf: Array, att: Array) -> Array:
        """Convert the first two outputs of a network to CBF [ml/100 g/min] and ATT [s]."""
        (cbf_centre, cbf_width), (att_centre, att_width) = self.cbf_unit, self.att_unit
        return cbf_centre + cbf_width * cbf, att_centre + att_width * att

    def _refused(self, acquisition: Acquisition) -> InputError:
        latest = max(acquisition.slice_offsets_s)
        offsets = f", slices up to {latest:g} s later" if latest else ""
        return InputError(
            "ASL series",
            "PostLabelingDelay",
            found=_listed(acquisition.timings) + offsets,
            expected=f"the protocol of the model, {_listed(self.timings)}",
            fix="use a model for any protocol, such as the default one",
        )

    def _normalised(self, curves: Array) -> Array:
        if self.normalization == "global_scale":
            return curves
        least = PERCENT * self.scale * SMALLEST_SD
        return (curves - curves.mean(1)[:, None]) / namespace(curves).clip(
            _sd(curves), least, None
        )

    def covers(self, acquisition: Acquisition) -> bool:
        """Return whether a scan has this protocol, with its volumes in any order."""
        return self._order_in(acquisition) is not None

    def _order_in(self, acquisition: Acquisition) -> list[int] | None:
        """Return the place in a series of each timing; None for another protocol."""
        theirs, latest = acquisition.timings, max(acquisition.slice_offsets_s)
        order = [
            i
            for own in self.timings
            for i, other in enumerate(theirs)
            if _is_alike(own, other) and own.pld_s + PLD_TOLERANCE_S >= other.pld_s + latest
        ]
        is_complete = len(order) == len(theirs) and sorted(order) == list(range(len(self.timings)))
        return order if is_complete else None


def _sd(curves: Array) -> Array:
    """Return the standard deviation over the timings, (b, 1, …)."""
    centred = curves - curves.mean(1)[:, None]
    return (centred**2).mean(1)[:, None] ** 0.5


def _is_alike(one: Timing, other: Timing) -> bool:
    return (
        one.labeling == other.labeling
        and abs(one.pld_s - other.pld_s) <= PLD_TOLERANCE_S
        and abs(one.label_duration_s - other.label_duration_s)
        <= DURATION_TOLERANCE * one.label_duration_s
    )


def _listed(timings: tuple[Timing, ...]) -> str:
    parts = groupby(timings, lambda t: (t.labeling, t.label_duration_s))
    return " and ".join(
        f"{labeling.upper()} {', '.join(f'{t.pld_s:g}' for t in group)} s"
        + (f" (label duration {duration:g} s)" if duration else "")
        for (labeling, duration), group in parts
    )
