"""Signal of one fixed protocol -> network channels, and a network's outputs -> CBF and ATT.

    curves of PCASL | curves of VSASL | features of PCASL | features of VSASL | T1 | mask

Such a network knows its protocol by heart: the encoding holds it, with every constant, is saved
in the model card, and refuses scans of another protocol.
"""

from dataclasses import dataclass
from itertools import groupby

import numpy as np
from numpy.typing import NDArray

from aslkit.core.acquisition import Acquisition, Timing
from aslkit.core.backend import Array, namespace
from aslkit.core.errors import InputError
from aslkit.core.series_and_maps import AslSeries
from aslkit.nets.profile_encoding import Layout

PERCENT = 100.0  # ΔM/M0 is encoded in percent
PLD_TOLERANCE_S = 0.025  # between the delays of a scan and those of the encoding
DURATION_TOLERANCE = 0.1  # likewise of label durations, a fraction
CBF_CLOSE, ATT_CLOSE_S = 10.0, 0.2  # errors [ml/100 g/min, s] that confidence speaks of
SMALLEST_SD = 1e-6  # [ΔM/M0] of a curve that z-scores divide by
CURVE_FEATURES = {
    "mean": lambda curves: curves.mean(1),
    "std": lambda curves: _sd(curves)[:, 0],
    "peak": lambda curves: namespace(curves).amax(curves, 1),
}


@dataclass(frozen=True)
class RawEncoding:
    """The protocol of a network that sees the curves themselves, and how they are scaled.

    Attributes
    ----------
    timings : tuple of Timing
        In the order of the curves, one labeling after the other; signals are scaled to these
        efficiencies.
    normalization : str
        "global_scale": percent of M0 times `scale`, which keeps the amplitude that CBF is; or
        "per_curve": z-scores of each curve, which lose it (the negative control).
    scale : float
    features : tuple of str
        "mean", "std" and "peak" of the scaled curves of each labeling; "t1_artery", the T1 of
        blood less `t1_blood_s`, over `t1_unit_s`.
    t1_blood_s, t1_unit_s : float
    cbf_unit, att_unit : tuple of float
        Outputs are CBF less the first over the second [ml/100 g/min], and ATT likewise [s].
    """

    timings: tuple[Timing, ...]
    normalization: str
    scale: float
    features: tuple[str, ...]
    t1_blood_s: float
    t1_unit_s: float = 0.2
    cbf_unit: tuple[float, float] = (50.0, 25.0)
    att_unit: tuple[float, float] = (1.4, 0.5)

    @property
    def layout(self) -> Layout:
        """Order of the channels."""
        curves = tuple(len(list(g)) for _, g in groupby(self.timings, lambda t: t.labeling))
        n_single = self.features.count("t1_artery")
        return Layout(curves, len(curves) * (len(self.features) - n_single) + n_single)

    def encode(self, signal: Array, mask: Array, t1_blood_s: Array) -> Array:
        """Channels of slices, 0 outside the brain; of numpy or torch, like what they are made of.

        Parameters
        ----------
        signal : array (b, n, x, y)
            ΔM/M0 in the order of `timings`, at their efficiencies.
        mask : bool array (b, x, y)
        t1_blood_s : array (b,)

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
                told = (t1_blood_s - self.t1_blood_s) / self.t1_unit_s
                channels.append(told[:, None, None, None] * inside)
            else:
                channels += [CURVE_FEATURES[name](part)[:, None] for part in parts]
        return xp.concatenate([*channels, inside + 0 * curves[:, :1]], 1)

    def encode_series(self, series: AslSeries) -> NDArray[np.floating]:
        """Channels of every slice of a scan, (z, c, x, y).

        Raises
        ------
        InputError
            When the scan has another protocol.
        """
        order = self._order_in(series.acquisition)
        if order is None:
            raise self._refused(series.acquisition)
        told = [series.acquisition.timings[i].efficiency for i in order]
        gain = np.array([t.efficiency for t in self.timings]) / told
        signal = np.moveaxis(series.delta_m[..., order] * gain, (2, 3), (0, 1))
        mask = np.moveaxis(series.usable, 2, 0)
        t1_blood_s = np.full(len(mask), series.acquisition.t1_blood_s)
        channels: NDArray[np.floating] = self.encode(signal, mask, t1_blood_s).astype(np.float32)
        return channels

    def to_outputs(self, cbf: Array, att: Array) -> Array:
        """CBF [ml/100 g/min] and ATT [s] in the units of a network's outputs."""
        (cbf_centre, cbf_width), (att_centre, att_width) = self.cbf_unit, self.att_unit
        return (cbf - cbf_centre) / cbf_width, (att - att_centre) / att_width

    def from_outputs(self, cbf: Array, att: Array) -> Array:
        """The first two outputs of a network as CBF [ml/100 g/min] and ATT [s]."""
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
        """Whether a scan has this protocol, whatever the order of its volumes."""
        return self._order_in(acquisition) is not None

    def _order_in(self, acquisition: Acquisition) -> list[int] | None:
        """Where in a series each of the timings is; nowhere in that of another protocol."""
        theirs, latest = acquisition.timings, max(acquisition.slice_offsets_s)
        order = [
            i
            for own in self.timings
            for i, other in enumerate(theirs)
            if _is_alike(own, other) and own.pld_s + PLD_TOLERANCE_S >= other.pld_s + latest
        ]
        is_whole = len(order) == len(theirs) and sorted(order) == list(range(len(self.timings)))
        return order if is_whole else None


def _sd(curves: Array) -> Array:
    """Standard deviation over the timings, (b, 1, …)."""
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
