"""Values on the command line that replace fields of the sidecar."""

from dataclasses import dataclass, fields

from aslkit.core.acquisition import (
    EFFICIENCY_PER_PULSE,
    PARTITION_ML_PER_G,
    T1_BLOOD_S,
    T1_TISSUE_S,
)

ORDERS = {"ct": ("control", "label"), "tc": ("label", "control"), "diff": ("deltam",)}


@dataclass(frozen=True)
class Overrides:
    """Values that replace the metadata of a run; None keeps the sidecar's value.

    Attributes
    ----------
    m0 : str, optional
        M0 image file, or a number for all voxels.
    m0_scale : float
        Factor on M0 (gain between M0 and ASL images).
    m0_tr_s : float, optional
        TR of the M0 image [s].
    correct_m0_tr : bool
        Whether an M0 image of short TR is corrected for incomplete recovery.
    plds_s, label_durations_s : tuple of float, optional
        One value, one per volume, or delays through which the control-label pairs cycle [s].
    labeling, order : str, optional
        "pcasl", "casl", "pasl", "vsasl"; "ct", "tc", "diff".
    bolus_duration_s : float, optional
        TI1 of PASL [s].
    alpha : float, optional
        Labeling efficiency without background suppression.
    alpha_bs : float
        Background-suppression efficiency: fraction of the label left after one pulse.
    n_bs : int, optional
        Background-suppression pulses that act on the label.
    slice_dt_s : float, optional
        Time between consecutive slices of an ascending 2D readout [s].
    t1_blood_s, t1_tissue_s, partition_ml_per_g, kinetic
        Constants of the model, see `aslkit.core.acquisition.Acquisition`.
    """

    m0: str | None = None
    m0_scale: float = 1.0
    m0_tr_s: float | None = None
    correct_m0_tr: bool = True
    plds_s: tuple[float, ...] | None = None
    label_durations_s: tuple[float, ...] | None = None
    labeling: str | None = None
    order: str | None = None
    bolus_duration_s: float | None = None
    alpha: float | None = None
    alpha_bs: float = EFFICIENCY_PER_PULSE
    n_bs: int | None = None
    slice_dt_s: float | None = None
    t1_blood_s: float = T1_BLOOD_S
    t1_tissue_s: float = T1_TISSUE_S
    partition_ml_per_g: float = PARTITION_ML_PER_G
    kinetic: str = "single"

    @property
    def changed(self) -> dict[str, object]:
        """Return the values that differ from the defaults, by name."""
        values = {f.name: (getattr(self, f.name), f.default) for f in fields(self)}
        return {name: value for name, (value, default) in values.items() if value != default}


NO_OVERRIDES = Overrides()  # the sidecar's values and default constants
