"""Training run -> its model card: how to rebuild the network, and what it was trained for."""

import os
import platform
from collections.abc import Mapping

import torch

from aslkit.config import AnyProtocolConfig, TrainingConfig
from aslkit.core.acquisition import KINETICS, LABELINGS
from aslkit.nets.encoding_registry import build_encoding
from aslkit.simulate.training_protocols import MAX_TIMINGS


def model_card(
    config: TrainingConfig,
    step: int,
    n_batches: int,
    seconds: float,
    origin: Mapping[str, object] | None,
    adapted_to: Mapping[str, object] | None = None,
) -> dict[str, object]:
    """Return the model card of a run.

    Parameters
    ----------
    step : int
        Number of steps.
    n_batches : int
        Number of batches in these steps, of all processes together.
    seconds : float
        Training time.
    origin : mapping, optional
        Model whose weights the run started from.
    adapted_to : mapping, optional
        Description of the real scans of an adaptation.
    """
    encoding = build_encoding(config)
    return {
        "name": config.name,
        "description": _DESCRIPTIONS[config.network.kind],
        "network": config.network.model_dump(mode="json"),
        **encoding.describe(),
        "n_channels": encoding.n_channels,
        "units": {"cbf": "ml/100 g/min", "att": "s"},
        **_scope(config),
        "training": config.model_dump(mode="json", exclude_none=True),
        "steps": step,
        "patches": n_batches * config.data.patches_per_step,
        "hours": round(seconds / 3600, 2),
        "initialised_from": origin,
        **({"adapted_to": adapted_to} if adapted_to else {}),
        "machine": f"{platform.machine()}, {os.cpu_count()} cores, torch {torch.__version__}",
    }


def _scope(config: TrainingConfig) -> dict[str, object]:
    """Return the range of protocols and SNR of the training scans, as fields of the card."""
    data = config.data
    if isinstance(data, AnyProtocolConfig):
        return {
            "labelings": list(LABELINGS),
            "kinetics": list(KINETICS),
            "n_timings": [1, MAX_TIMINGS],
            "plds_s": [0.05, 3.6],
            "snr": list(data.snr_range),
        }
    n = len(data.labelings) * len(data.plds_s)
    return {
        "labelings": list(data.labelings),
        "kinetics": ["single"],
        "n_timings": [n, n],
        "plds_s": [min(data.plds_s), max(data.plds_s)],
        "snr": [min(data.snr_levels), max(data.snr_levels)],
    }


_DESCRIPTIONS = {
    "physics_residual": "Corrects least squares in its standard errors",
    "voxelwise": "Corrects least squares in its standard errors, one voxel at a time",
    "spatial": "U-Net of the curves of one protocol",
    "amplitude_aware": "U-Net of the curves of one protocol and of their amplitudes",
    "dual_encoder": "U-Net of the curves of one protocol with an encoder for each labeling",
}
