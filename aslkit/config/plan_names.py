"""Keys of the founding plan's configurations -> keys of the schema, in its units."""

from collections.abc import Callable
from typing import Any

STEPS_PER_EPOCH = 1000
CLASS_NAMES = {
    "SpatialASLNet": "spatial",
    "AmplitudeAwareSpatialASLNet": "amplitude_aware",
    "DualEncoderSpatialASLNet": "dual_encoder",
}


def _same(value: Any) -> Any:
    return value


def _seconds(milliseconds: Any) -> Any:
    """Of a number or a list of numbers in ms."""
    if isinstance(milliseconds, list):
        return [_seconds(value) for value in milliseconds]
    return round(milliseconds / 1000, 6)


def _kind(name: Any) -> Any:
    return CLASS_NAMES.get(name, name)


def _steps(epochs: Any) -> Any:
    return STEPS_PER_EPOCH * epochs


PLAN_NAMES: dict[str, tuple[str, Callable[[Any], Any]]] = {
    "model_class_name": ("network.kind", _kind),
    "hidden_sizes": ("network.widths", _same),
    "use_film_at_bottleneck": ("network.film_at_bottleneck", _same),
    "use_film_at_decoder": ("network.film_at_decoder", _same),
    "use_amplitude_output_modulation": ("network.output_modulation", _same),
    "dropout_rate": ("network.dropout", _same),
    "norm_type": ("network.norm", _same),
    "normalization_mode": ("encoding.normalization", _same),
    "global_scale_factor": ("encoding.scale", _same),
    "active_features": ("encoding.features", _same),
    "batch_size": ("data.patches", _same),
    "n_epochs": ("steps", _steps),
    "n_ensembles": ("members", _same),
    "loss_type": ("loss.error", _same),
    "loss_mode": ("loss.mode", _same),
    "cbf_weight": ("loss.cbf_weight", _same),
    "att_weight": ("loss.att_weight", _same),
    "dc_weight": ("loss.dc_weight", _same),
    "variance_weight": ("loss.variance_weight", _same),
    "domain_randomization": ("data.domain_randomization", _same),
    "training_noise_levels": ("data.snr_levels", _same),
    "T1_artery": ("data.t1_blood_s", _seconds),
    "T1_artery_range": ("data.t1_blood_range_s", _seconds),
    "T_tau": ("data.label_duration_s", _seconds),
    "alpha_PCASL": ("data.alpha_pcasl", _same),
    "alpha_PCASL_range": ("data.alpha_pcasl_range", _same),
    "alpha_VSASL": ("data.alpha_vsasl", _same),
    "alpha_VSASL_range": ("data.alpha_vsasl_range", _same),
    "alpha_BS1_range": ("data.alpha_bs_range", _same),
    "pld_values": ("data.plds_s", _seconds),
    "data_noise_components": ("data.noise_components", _same),
    "noise_type": ("data.noise_type", _same),
}
IMPLIED = {"encoding.kind": "raw", "data.kind": "one_protocol"}  # by any of these keys


def rename(values: dict[str, Any], put: Callable[[dict[str, Any], str, Any], None]) -> list[str]:
    """Replace the plan's keys at the top of a configuration by those of the schema, in place.

    Parameters
    ----------
    put : callable
        Sets "section.key" of nested mappings to a value.

    Returns
    -------
    list of str
        What was read as what, one sentence each.
    """
    old = [key for key in values if key in PLAN_NAMES]
    notes = []
    for key in old:
        new, convert = PLAN_NAMES[key]
        given = values.pop(key)
        value = convert(given)
        put(values, new, value)
        notes.append(f"{key}: {given} is read as {new}: {value}")
    for key, value in IMPLIED.items() if old else ():
        put(values, key, value)
    return notes
