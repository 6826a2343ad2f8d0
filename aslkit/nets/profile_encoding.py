"""A least-squares fit -> the channels of a network: per voxel, the data in units of their noise.

Every channel is a ratio to the noise, a time, or a property of the protocol. Therefore signal and
noise scaled by the same factor give the same channels, for any protocol and number of delays.
This is also the only module that turns numpy images (x, y, z, channel) into network batches
(batch, channel, x, y).
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from aslkit.config.schema import TrainingConfig
from aslkit.core.acquisition import Acquisition
from aslkit.core.constants import TYPICAL_ATT_S
from aslkit.core.series_and_maps import FloatImage, MaskImage
from aslkit.fit.variable_projection import Solution
from aslkit.kinetics.model import KineticModel, arterial_curve, tissue_curve

Voxels = NDArray[np.float32]

KIND = "physics_profile"  # in configurations and model cards
LEAST_ATT_SE_S = 1e-3  # keeps logarithms finite
PROFILE_ATTS_S = np.linspace(0.2, 3.8, 13)  # arrival times of the matched filters
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
class ProfileEncoding:
    """The channels of `encode`, for any protocol; it has no parameters."""

    @classmethod
    def from_config(cls, config: TrainingConfig) -> "ProfileEncoding":
        """Return the encoding of a training configuration."""
        return cls()

    @classmethod
    def from_card(cls, card: Mapping[str, Any]) -> "ProfileEncoding":
        """Return the encoding of a model card.

        Raises
        ------
        ValueError
            If the card lists other channels.
        """
        if card.get("channels") != list(CHANNELS):
            raise ValueError("channels of another version of aslkit")
        return cls()

    def describe(self) -> dict[str, object]:
        """Return the fields of the model card."""
        return {"encoding": {"kind": KIND}, "channels": list(CHANNELS)}

    @property
    def n_channels(self) -> int:
        """Number of channels, including the mask."""
        return len(CHANNELS)

    def covers(self, acquisition: Acquisition) -> bool:
        """Return True: any protocol can be encoded."""
        return True


def encode(
    model: KineticModel,
    signal: Voxels,
    solution: Solution,
    errors: tuple[Voxels, Voxels],
    sd: Voxels,
) -> Voxels:
    """Compute all channels but the last one (`mask`), (channels - 1, voxels).

    Parameters
    ----------
    model : KineticModel
        Weighted model of one slice.
    signal : array, (1, n, voxels)
        Weighted ΔM/M0 of n timings.
    solution : Solution
        Least-squares estimates, (1, voxels) each.
    errors : (se_cbf, se_att), each (1, voxels)
        Standard errors [ml/100 g/min, s].
    sd : array, (1, voxels)
        Noise sd of one weighted volume, ΔM/M0.
    """
    curves = tissue_curve(model, PROFILE_ATTS_S[None].astype(np.float32))[0]  # (n, filters)
    norms = np.sqrt(np.maximum((curves**2).sum(axis=0), 1e-20))  # (filters,)
    best = norms.max()
    sensitivity = np.log(norms / best + 0.01)
    cbf_se, att_se = errors[0][0], errors[1][0]  # (voxels,)
    n_free = max(signal.shape[1] - 2, 1)
    nothing = np.zeros_like(cbf_se)
    arterial, tissue_signal = (nothing, nothing, nothing), signal[0]  # (n, voxels)
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
    """Put rows (…, voxels in the mask) into images (…, *mask.shape), 0 outside the mask."""
    image = np.zeros((*values.shape[:-1], *mask.shape), dtype=np.float32)
    image[..., mask] = values
    return image
