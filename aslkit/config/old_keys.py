"""Keys that earlier configurations use -> keys of the schema, in its units.

These are the keys of aslkit 0.1, and those of the plan of the experiments (docs/experiments.md).
"""

from collections.abc import Callable
from typing import Any

STEPS_PER_EPOCH = 1000
CLASS_NAMES = {
    "SpatialASLNet": "spatial",
    "AmplitudeAwareSpatialASLNet": "amplitude_aware",
    "DualEncoderSpatialASLNet": "dual_encoder",
}
RENAMED_KEYS = {  # keys of version 0.1, read until version 0.3
    "averaging": "ema_decay",
    "balance": "loss_weighting",
    "pretrain_share": "pretraining_fraction",
    "cbf_first_share": "cbf_first_fraction",
    "loss.dc_weight": "loss.data_consistency_weight",
    "data.patch": "data.patch_size",
    "data.patches": "data.patches_per_step",
    "data.groups": "data.protocols_per_step",
    "data.patches_per_group": "data.patches_per_protocol",
    "data.slices": "data.slices_per_subject",
    "data.arterial_share": "data.arterial_fraction",
    "data.mismatched_share": "data.mismatched_fraction",
    "validation.every_steps": "validation.interval_steps",
    "adaptation.adversarial": "adaptation.adversarial_weight",
}
RENAMED_VALUES = {("data.kind", "one_protocol"): "fixed_protocol"}


def _same(value: Any) -> Any:
    return value


def _seconds(milliseconds: Any) -> Any:
    """Convert a number, or a list of numbers, from ms to s."""
    if isinstance(milliseconds, list):
        return [_seconds(value) for value in milliseconds]
    return round(milliseconds / 1000, 6)


def _kind(name: Any) -> Any:
    return CLASS_NAMES.get(name, name)


def _steps(epochs: Any) -> Any:
    return STEPS_PER_EPOCH * epochs


PLAN_KEYS: dict[str, tuple[str, Callable[[Any], Any]]] = {
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
    "batch_size": ("data.patches_per_step", _same),
    "n_epochs": ("steps", _steps),
    "n_ensembles": ("members", _same),
    "loss_type": ("loss.error", _same),
    "loss_mode": ("loss.mode", _same),
    "cbf_weight": ("loss.cbf_weight", _same),
    "att_weight": ("loss.att_weight", _same),
    "dc_weight": ("loss.data_consistency_weight", _same),
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
IMPLIED = {"encoding.kind": "raw", "data.kind": "fixed_protocol"}  # by any key of the plan


def update_keys(
    values: dict[str, Any], put: Callable[[dict[str, Any], str, Any], None]
) -> list[str]:
    """Replace earlier keys of a configuration by those of the schema, in place.

    Parameters
    ----------
    put : callable
        Sets "section.key" of nested mappings to a value.

    Returns
    -------
    list of str
        One sentence for every key that was replaced.
    """
    return _update_plan_keys(values, put) + _update_renamed(values)


def _update_plan_keys(
    values: dict[str, Any], put: Callable[[dict[str, Any], str, Any], None]
) -> list[str]:
    """Convert the keys of the plan, which are all at the top level."""
    old = [key for key in values if key in PLAN_KEYS]
    notes = []
    for key in old:
        new, convert = PLAN_KEYS[key]
        given = values.pop(key)
        value = convert(given)
        put(values, new, value)
        notes.append(f"{key}: {given} is read as {new}: {value}")
    for key, value in IMPLIED.items() if old else ():
        put(values, key, value)
    return notes


def _update_renamed(values: dict[str, Any]) -> list[str]:
    """Rename the keys and values of version 0.1."""
    notes = []
    for old, new in RENAMED_KEYS.items():
        section, key = _section_of(values, old)
        if key in section:
            section[new.rpartition(".")[2]] = section.pop(key)
            notes.append(f"{old} is now called {new}; version 0.3 will refuse the old name")
    for (name, old), new in RENAMED_VALUES.items():
        section, key = _section_of(values, name)
        if section.get(key) == old:
            section[key] = new
            notes.append(
                f"{name}: {old} is now called {new}; version 0.3 will refuse the old name"
            )
    return notes


def _section_of(values: dict[str, Any], name: str) -> tuple[dict[str, Any], str]:
    """Return the section that would hold "section.key", and the key without its section."""
    section, _, key = name.rpartition(".")
    found = values.get(section, {}) if section else values
    return (found if isinstance(found, dict) else {}), key
