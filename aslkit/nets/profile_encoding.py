"""A least-squares fit -> what the network sees: per voxel, the data in units of their noise.

Every channel is a ratio to the noise, a time, or a property of the protocol, so that signal and
noise scaled together give the same channels whatever the protocol or the number of delays. Here
is also the only place where numpy images (x, y, z, channel) become network batches
(batch, channel, x, y).
"""

from dataclasses import dataclass
from itertools import accumulate

import numpy as np
from numpy.typing import NDArray

from aslkit.core.acquisition import Acquisition
from aslkit.core.backend import Array
from aslkit.core.constants import TYPICAL_ATT_S
from aslkit.core.series_and_maps import FloatImage, MaskImage
from aslkit.fit.variable_projection import Solution
from aslkit.kinetics.model import KineticModel, arterial_curve, tissue_curve

Voxels = NDArray[np.float32]

LEAST_ATT_SE_S = 1e-3  # keeps logarithms finite
PROFILE_ATTS_S = np.linspace(0.2, 3.8, 13)  # arrival times at which the data are matched
CHANNELS = (
    *(f"matched filter at {t:.1f} s" for t in PROFILE_ATTS_S),
    *(f"relative sensitivity at {t:.1f} s" for t in PROFILE_ATTS_S),
    "CBF in standard errors",
    "ATT",
    "standard error of ATT",
    "standard error of CBF relative to its best",
    "misfit",
    "aBV in standard errors",
    "lead of the arterial bolus",
    "arterial compartment",
    "mask",
)


@dataclass(frozen=True)
class Layout:
    """Order of the channels: curves of every labeling, features, mask.

    Attributes
    ----------
    curves : tuple of int
        Number of delays of every labeling.
    n_features : int
    """

    curves: tuple[int, ...]
    n_features: int

    @property
    def n_channels(self) -> int:
        """All of them, the mask included."""
        return sum(self.curves) + self.n_features + 1

    def split(self, channels: Array) -> list[Array]:
        """Channels (batch, c, …) as the curves of each labeling, and the rest."""
        ends = list(accumulate(self.curves))
        starts = [0, *ends[:-1]]
        curves = [channels[:, a:b] for a, b in zip(starts, ends, strict=True)]
        return [*curves, channels[:, ends[-1] :]]


@dataclass(frozen=True)
class ProfileEncoding:
    """The channels of `encode`, whatever the protocol; nothing about them can be chosen."""

    @property
    def layout(self) -> Layout:
        """No curves, all features."""
        return Layout((), len(CHANNELS) - 1)

    def covers(self, acquisition: Acquisition) -> bool:
        """Any protocol."""
        return True


def encode(
    model: KineticModel,
    signal: Voxels,
    solution: Solution,
    errors: tuple[Voxels, Voxels],
    sd: Voxels,
) -> Voxels:
    """Channels of every voxel but the last (`mask`), (channels - 1, voxels).

    Parameters
    ----------
    model : KineticModel
        Of one slice, weighted.
    signal : array, (1, n, voxels)
        Whitened ΔM/M0.
    errors : (se_cbf, se_att), each (1, voxels)
    sd : array, (1, voxels)
        Noise of one weighted volume.
    """
    curves = tissue_curve(model, PROFILE_ATTS_S[None].astype(np.float32))[0]
    norms = np.sqrt(np.maximum((curves**2).sum(axis=0), 1e-20))
    best = norms.max()
    sensitivity = np.log(norms / best + 0.01)
    cbf_se, att_se = errors[0][0], errors[1][0]
    n_free = max(signal.shape[1] - 2, 1)
    nothing = np.zeros_like(cbf_se)
    arterial, tissue_signal = (nothing, nothing, nothing), signal[0]
    if solution.abv is not None and solution.abat is not None:
        arterial_signal = solution.abv * arterial_curve(model, solution.abat)[0]
        tissue_signal = tissue_signal - arterial_signal
        amplitude = np.sqrt((arterial_signal**2).sum(axis=0))
        lead = np.where(solution.abv > 0, solution.att - solution.abat, 0)[0]
        arterial = np.arcsinh(amplitude / sd[0]), lead, nothing + 1
    rows = [
        *np.arcsinh((curves / norms).T @ tissue_signal / sd[0]),
        *np.broadcast_to(sensitivity[:, None], (norms.size, cbf_se.size)),
        np.arcsinh(solution.cbf[0] / cbf_se),
        solution.att[0] - TYPICAL_ATT_S,
        np.log(att_se + LEAST_ATT_SE_S),
        np.log(cbf_se * best / sd[0]),
        np.log(solution.rss[0] / n_free / sd[0] ** 2 + 0.1),
        *arterial,
    ]
    return np.stack(rows).astype(np.float32)


def to_image(values: Voxels, mask: MaskImage) -> FloatImage:
    """Rows (…, voxels in the mask) as images (…, *mask.shape), 0 outside."""
    image = np.zeros((*values.shape[:-1], *mask.shape), dtype=np.float32)
    image[..., mask] = values
    return image
