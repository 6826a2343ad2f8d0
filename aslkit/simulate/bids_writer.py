"""Simulated scans and their truth -> a BIDS data set."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path

import nibabel as nib
import numpy as np
from numpy.typing import NDArray

from aslkit.bids.json_files import read_json
from aslkit.bids.sidecar import BIDS_VERSION
from aslkit.core.acquisition import Timing
from aslkit.core.errors import InputError
from aslkit.core.tables import rows_text
from aslkit.outputs.dataset import has_fingerprint
from aslkit.prepare.motion import MOTION_COLUMNS, Parameters, in_degrees
from aslkit.simulate.lesions import LESION_CLASSES
from aslkit.simulate.phantoms import Phantom
from aslkit.simulate.scanner import ScanSettings, SimulatedRun, SimulatedScan

ECHO_TIME_S = 0.012
READOUT_S = 1.0  # readout and dead time of a volume, after labeling and delay
M0_TR_S = 10.0
TESLA = 3.0
NAME = "Simulated ASL"
TRUTH = {
    "cbf": ("mL/100 g/min", "True CBF of the voxel, the sum over its tissues"),
    "att": ("s", "True ATT of the voxel, the flow-weighted mean over its tissues"),
    "abv": ("arbitrary", "Arterial blood volume, a fraction; its signal shows where vessels do"),
    "gm": ("arbitrary", "Volume fraction of grey matter"),
    "wm": ("arbitrary", "Volume fraction of white matter"),
    "lesions": ("arbitrary", f"Lesion classes: {LESION_CLASSES}"),
    "mask": ("arbitrary", "Brain"),
    "noise": ("arbitrary", "Standard deviation of the noise of one averaged ΔM/M0 volume"),
}

Voxels = NDArray[np.generic]


def write_dataset_description(root: Path) -> None:
    """Write the top-level files of the data set and of its truth."""
    description = {"Name": NAME, "BIDSVersion": BIDS_VERSION, "DatasetType": "raw"}
    generated = {"GeneratedBy": [{"Name": "aslkit"}], "License": "CC0"}
    _write_json(root / "dataset_description.json", {**description, **generated})
    truth = {**description, "Name": "Truth of simulated ASL", "DatasetType": "derivative"}
    _write_json(truth_root(root) / "dataset_description.json", {**truth, **generated})
    (root / "README").write_text("Simulated by asl_sim; the truth is in derivatives/truth.\n")
    (root / ".bidsignore").write_text("*_acq-vsasl_*\n")
    (truth_root(root) / ".bidsignore").write_text("*\n")


def truth_root(root: Path) -> Path:
    """Return the folder of the truth of a data set."""
    return root / "derivatives" / "truth"


def check_is_simulated(root: Path) -> None:
    """Check that a data set is simulated, before subjects are written into it.

    Raises
    ------
    InputError
        When the folder is no data set of asl_sim.
    """
    description = root / "dataset_description.json"
    name = read_json(description).get("Name") if description.is_file() else "no data set"
    if name != NAME:
        raise InputError(
            description,
            "Name",
            found=str(name),
            expected=f"{NAME!r}, a data set of asl_sim, or a new folder",
            fix="give another --out",
        )


def subject_folders(subject: str) -> list[str]:
    """Return the folders of a subject; the truth is written last and marks both as complete."""
    return [f"sub-{subject}", f"derivatives/truth/sub-{subject}"]


def is_current(root: Path, subject: str, fingerprint: str) -> bool:
    """Check whether a subject is complete and has this fingerprint."""
    truth = truth_root(root) / f"sub-{subject}" / "perf" / f"sub-{subject}_cbf.json"
    return (root / f"sub-{subject}").is_dir() and has_fingerprint(truth, fingerprint)


def write_scan(
    root: Path,
    subject: str,
    phantom: Phantom,
    settings: ScanSettings,
    scan: SimulatedScan,
    is_deltam: bool,
    fingerprint: str,
) -> None:
    """Write the runs (control and label, or differences), M0 and the truth of one subject."""
    folder, truth = (r / f"sub-{subject}" / "perf" for r in (root, truth_root(root)))
    for new in (folder, truth):
        new.mkdir(parents=True, exist_ok=True)  # it exists if a process was killed while writing
    names = []
    for run in scan.runs:
        name = _run_name(subject, run, len(scan.runs))
        names.append(f"perf/{name}_asl.nii.gz")
        _write_run(folder / name, run, settings, phantom, is_deltam)
        _write_run_truth(truth / name, run, settings, phantom)
    _save(folder / f"sub-{subject}_m0scan.nii.gz", scan.m0, phantom)
    m0_sidecar = _readout(scan.runs[0]) | {"RepetitionTimePreparation": M0_TR_S}
    _write_json(folder / f"sub-{subject}_m0scan.json", m0_sidecar | {"IntendedFor": names})
    _write_maps(truth / f"sub-{subject}", phantom, scan, fingerprint)


def _run_name(subject: str, run: SimulatedRun, n_runs: int) -> str:
    """Return the name of a run. BIDS has no VSASL; its name must match .bidsignore."""
    labeling = run.nominal.timings[0].labeling
    is_named = n_runs > 1 or labeling == "vsasl"
    return f"sub-{subject}_acq-{labeling}" if is_named else f"sub-{subject}"


def _write_run(
    stem: Path, run: SimulatedRun, settings: ScanSettings, phantom: Phantom, is_deltam: bool
) -> None:
    volumes = run.volumes
    types: tuple[str, ...] = ("control", "label")
    if is_deltam:
        volumes, types = volumes[..., ::2] - volumes[..., 1::2], ("deltam",)
    _save(Path(f"{stem}_asl.nii.gz"), volumes, phantom)
    n_pairs = settings.repeats * run.nominal.n_timings
    timings = [t for t in run.nominal.timings * settings.repeats for _ in types]
    _write_json(Path(f"{stem}_asl.json"), _sidecar(run, settings, timings, n_pairs))
    context = rows_text(["volume_type"], ([name] for name in types * n_pairs))
    Path(f"{stem}_aslcontext.tsv").write_text(context)


def _sidecar(
    run: SimulatedRun, settings: ScanSettings, timings: Sequence[Timing], n_pairs: int
) -> dict[str, object]:
    """Return the nominal metadata of a run, with PLD and label duration of every volume."""
    first = timings[0]
    suppression: dict[str, object] = {"BackgroundSuppression": bool(settings.n_pulses)}
    if settings.n_pulses:
        suppression |= {
            "BackgroundSuppressionNumberPulses": settings.n_pulses,
            "BackgroundSuppressionPulseTime": _pulse_times(run, settings.n_pulses),
        }
    return {
        "ArterialSpinLabelingType": first.labeling.upper(),
        "PostLabelingDelay": [t.pld_s for t in timings],
        **_label(first.labeling, timings),
        "LabelingEfficiency": first.efficiency,
        **suppression,
        "VascularCrushing": run.nominal.has_crusher,
        "M0Type": "Separate",
        "TotalAcquiredPairs": n_pairs,
        "RepetitionTimePreparation": round(max(map(_duration, timings)) + READOUT_S, 6),
        **_readout(run),
    }


def _label(labeling: str, timings: Sequence[Timing]) -> dict[str, object]:
    if labeling in ("pcasl", "casl"):
        return {"LabelingDuration": [t.label_duration_s for t in timings]}
    if labeling == "vsasl":
        return {}
    return {
        "BolusCutOffFlag": True,
        "BolusCutOffTechnique": "QUIPSSII",
        "BolusCutOffDelayTime": timings[0].label_duration_s,
    }


def _duration(timing: Timing) -> float:
    """Return the time from the start of labeling to the readout [s]."""
    is_pulsed = timing.labeling == "pasl"
    return timing.pld_s + (0 if is_pulsed else timing.label_duration_s)


def _pulse_times(run: SimulatedRun, n_pulses: int) -> list[float]:
    """Return evenly spaced pulse times in the shortest delay [s from the start of labeling]."""
    shortest = min(run.nominal.timings, key=_duration)
    start = _duration(shortest) - shortest.pld_s
    return [round(start + shortest.pld_s * (k + 1) / (n_pulses + 1), 6) for k in range(n_pulses)]


def _readout(run: SimulatedRun) -> dict[str, object]:
    """Return the metadata that the ASL images and M0 have in common."""
    offsets = run.nominal.slice_offsets_s
    readout = {"EchoTime": ECHO_TIME_S, "MagneticFieldStrength": TESLA}
    if len(offsets) == 1:
        return {**readout, "MRAcquisitionType": "3D"}
    return {**readout, "MRAcquisitionType": "2D", "SliceTiming": list(offsets)}


def _write_run_truth(
    stem: Path, run: SimulatedRun, settings: ScanSettings, phantom: Phantom
) -> None:
    """Write the noise-free signal, the true constants and the artefacts of a run."""
    _save(Path(f"{stem}_signal.nii.gz"), run.signal, phantom)
    artefacts = run.artefacts
    truth = {
        "Units": "arbitrary",
        "Description": "ΔM/M0 without noise and artefacts, one volume per delay",
        "Track": settings.track,
        "Noise": settings.noises,
        "Repeats": settings.repeats,
        "Physics": asdict(run.physics),
        "StaticSignal": settings.static_signal,
        "PhysiologicalFluctuation": artefacts.physio.tolist(),
        "Drift": artefacts.drift.tolist(),
        "StaticExcess": artefacts.excess.tolist(),
        "SpikeAmplitude": artefacts.spikes.tolist(),
        "SliceFactor": [
            {"Volume": int(v), "Slice": int(z), "Factor": float(artefacts.slices[v, z])}
            for v, z in np.argwhere(artefacts.slices != 1)
        ],
    }
    _write_json(Path(f"{stem}_signal.json"), truth)
    if "motion" in settings.noises:
        Path(f"{stem}_motion.tsv").write_text(_motion_table(artefacts.motion))


def _motion_table(parameters: Parameters) -> str:
    """Return a table of the displacement of every volume from M0 [mm, degrees]."""
    rows = ((i, *map("{:.4f}".format, row)) for i, row in enumerate(in_degrees(parameters)))
    return rows_text(("volume", *MOTION_COLUMNS), rows)


def _write_maps(stem: Path, phantom: Phantom, scan: SimulatedScan, fingerprint: str) -> None:
    snrs = {"RequestedSNR": scan.snr, "MeasuredSNR": scan.measured_snr}
    for name, (units, description) in TRUTH.items():
        image = scan.noise_sd if name == "noise" else getattr(phantom, name)
        is_label = image.dtype.kind in "bu"
        kind = np.uint8 if is_label else np.float32
        _save(Path(f"{stem}_{name}.nii.gz"), image.astype(kind), phantom)
        fields = {"Units": units, "Description": description, "Phantom": phantom.name}
        own = {"Fingerprint": fingerprint} if name == "cbf" else {}
        _write_json(Path(f"{stem}_{name}.json"), {**fields, **snrs, **own})


def _save(path: Path, voxels: Voxels, phantom: Phantom) -> None:
    image = nib.Nifti1Image(voxels, phantom.affine)
    image.header.set_xyzt_units("mm", "sec")
    nib.save(image, path)


def _write_json(path: Path, content: Mapping[str, object]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content, indent=2) + "\n")
