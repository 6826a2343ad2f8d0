"""Phantoms and a protocol -> a BIDS data set of raw scans, with the truth beside it."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import nibabel as nib
import numpy as np
from numpy.typing import NDArray

from aslkit.acquisition import Acquisition
from aslkit.images import FloatImage
from aslkit.lesions import LESION_CLASSES
from aslkit.phantoms import Phantom
from aslkit.simulation import REFERENCE_SIGNAL, Protocol, clean_signal, noise_sd
from aslkit.subjects import SubjectPhysics

M0_SCALE = 1000.0  # scanner units of M0 in CSF
M0_OF_TISSUE = {"gm": 0.85, "wm": 0.75, "csf": 1.0}  # proton density relative to CSF
STATIC_SIGNAL = 0.3  # of M0, in control volumes
M0_TR_S = 10.0
BIDS_VERSION = "1.11.0"
TRUTH = {
    "cbf": ("ml/100 g/min", "True CBF of the voxel, the sum over its tissues"),
    "att": ("s", "True ATT of the voxel, the flow-weighted mean over its tissues"),
    "gm": ("arbitrary", "Volume fraction of grey matter"),
    "wm": ("arbitrary", "Volume fraction of white matter"),
    "lesions": ("arbitrary", f"Lesion classes: {LESION_CLASSES}"),
    "mask": ("arbitrary", "Brain"),
    "noise": ("arbitrary", "Standard deviation of the noise of one averaged ΔM/M0 volume"),
}

Voxels = NDArray[np.generic]


@dataclass(frozen=True)
class ScanSettings:
    """How a phantom is scanned: protocol, repeats, SNR of the average, seed, arterial signal."""

    protocol: Protocol
    repeats: int
    snr: float
    seed: int
    has_arterial: bool = False


def write_dataset_description(root: Path) -> None:
    """The files at the top of the data set and of the truth in it."""
    description = {"Name": "Simulated ASL", "BIDSVersion": BIDS_VERSION, "DatasetType": "raw"}
    generated = {"GeneratedBy": [{"Name": "aslkit"}], "License": "CC0"}
    _write_json(root / "dataset_description.json", {**description, **generated})
    truth = {**description, "Name": "Truth of simulated ASL", "DatasetType": "derivative"}
    _write_json(truth_root(root) / "dataset_description.json", {**truth, **generated})
    (root / "README").write_text("Simulated by asl_sim; the truth is in derivatives/truth.\n")
    (root / ".bidsignore").write_text("*_acq-vsasl_*\n")
    (truth_root(root) / ".bidsignore").write_text("*\n")


def truth_root(root: Path) -> Path:
    """Where the truth of a data set stands."""
    return root / "derivatives" / "truth"


def scan_phantom(root: Path, subject: str, phantom: Phantom, settings: ScanSettings) -> float:
    """Write all runs of one subject and its truth; returns the SNR measured in the output."""
    folder = root / f"sub-{subject}" / "perf"
    folder.mkdir(parents=True, exist_ok=True)
    acquisitions = settings.protocol.acquisitions(phantom.mask.shape[2])
    rng = np.random.default_rng([settings.seed, len(subject), *subject.encode()])
    measured, names = [], []
    for acquisition in acquisitions:
        labeling = acquisition.timings[0].labeling
        acq = f"_acq-{labeling}" if len(acquisitions) > 1 else ""
        name = f"sub-{subject}{acq}"
        names.append(f"perf/{name}_asl.nii.gz")
        measured.append(_write_run(folder / name, phantom, acquisition, settings, rng))
    _write_m0(folder / f"sub-{subject}_m0scan", phantom, names)
    snr = float(1 / np.sqrt(np.mean(np.square(1 / np.array(measured)))))
    _write_truth(truth_root(root), subject, phantom, settings.snr, snr)
    return snr


def _write_run(
    stem: Path,
    phantom: Phantom,
    acquisition: Acquisition,
    settings: ScanSettings,
    rng: np.random.Generator,
) -> float:
    """Control-label pairs of one run, the delays in turn; returns the SNR of their average."""
    clean = clean_signal(phantom, SubjectPhysics(acquisition, settings.has_arterial))
    n, repeats = acquisition.n_timings, settings.repeats
    sd = np.float32(noise_sd(settings.snr) * np.sqrt(repeats / 2))  # of control and of label
    m0 = _m0(phantom)
    volumes = np.empty((*m0.shape, 2 * n * repeats), dtype=np.float32)
    noise = np.zeros_like(clean)
    for i in range(n * repeats):
        pair = sd * rng.standard_normal((*m0.shape, 2), dtype=np.float32)
        noise[..., i % n] += (pair[..., 0] - pair[..., 1]) / repeats
        volumes[..., 2 * i] = m0 * (STATIC_SIGNAL + pair[..., 0])
        volumes[..., 2 * i + 1] = m0 * (STATIC_SIGNAL - clean[..., i % n] + pair[..., 1])
    _save(Path(f"{stem}_asl.nii.gz"), volumes, phantom.affine)
    _write_json(Path(f"{stem}_asl.json"), _sidecar(acquisition, repeats))
    context = "volume_type\n" + "control\nlabel\n" * (n * repeats)
    Path(f"{stem}_aslcontext.tsv").write_text(context)
    return float(REFERENCE_SIGNAL / noise[phantom.mask].std())


def _sidecar(acquisition: Acquisition, repeats: int) -> dict[str, object]:
    """The run's metadata; PLDs and label durations per volume."""
    timings = acquisition.timings
    per_volume = [t for _ in range(repeats) for t in timings for _ in range(2)]
    labeling = timings[0].labeling
    sidecar: dict[str, object] = {
        "ArterialSpinLabelingType": labeling.upper(),
        "PostLabelingDelay": [t.pld_s for t in per_volume],
        "M0Type": "Separate",
        "BackgroundSuppression": False,
        "TotalAcquiredPairs": repeats * len(timings),
        "RepetitionTimePreparation": 6.0,
        "MagneticFieldStrength": 3.0,
        "LabelingEfficiency": timings[0].efficiency,
        "VascularCrushing": acquisition.has_crusher,
        "MRAcquisitionType": "2D" if len(acquisition.slice_offsets_s) > 1 else "3D",
    }
    if labeling in ("pcasl", "casl"):
        sidecar["LabelingDuration"] = [t.label_duration_s for t in per_volume]
    if labeling == "pasl":
        sidecar |= {
            "BolusCutOffFlag": True,
            "BolusCutOffTechnique": "QUIPSSII",
            "BolusCutOffDelayTime": timings[0].label_duration_s,
        }
    if len(acquisition.slice_offsets_s) > 1:
        sidecar["SliceTiming"] = [round(t, 6) for t in acquisition.slice_offsets_s]
    return sidecar


def _m0(phantom: Phantom) -> FloatImage:
    """Calibration image: proton density of the tissues, 0 in air."""
    density = sum(getattr(phantom, tissue) * pd for tissue, pd in M0_OF_TISSUE.items())
    return np.asarray(M0_SCALE * density * phantom.mask, dtype=np.float32)


def _write_m0(stem: Path, phantom: Phantom, intended_for: list[str]) -> None:
    _save(Path(f"{stem}.nii.gz"), _m0(phantom), phantom.affine)
    sidecar = {"RepetitionTimePreparation": M0_TR_S, "IntendedFor": intended_for}
    _write_json(Path(f"{stem}.json"), sidecar)


def _write_truth(root: Path, subject: str, phantom: Phantom, snr: float, measured: float) -> None:
    folder = root / f"sub-{subject}" / "perf"
    folder.mkdir(parents=True, exist_ok=True)
    images = {name: getattr(phantom, name) for name in TRUTH if name != "noise"}
    images["noise"] = np.full(phantom.mask.shape, noise_sd(snr), dtype=np.float32)
    for name, image in images.items():
        units, description = TRUTH[name]
        is_label = image.dtype.kind in "bu"
        _save(
            folder / f"sub-{subject}_{name}.nii.gz",
            image.astype(np.uint8 if is_label else np.float32),
            phantom.affine,
        )
        fields = {"Units": units, "Description": description, "RequestedSNR": snr}
        _write_json(folder / f"sub-{subject}_{name}.json", {**fields, "MeasuredSNR": measured})


def _save(path: Path, voxels: Voxels, affine: NDArray[np.float64]) -> None:
    image = nib.Nifti1Image(voxels, affine)
    image.header.set_xyzt_units("mm", "sec")
    nib.save(image, path)


def _write_json(path: Path, content: Mapping[str, object]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content, indent=2) + "\n")
