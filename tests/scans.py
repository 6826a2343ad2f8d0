"""Small simulated ASL scans on disk, for tests of readers and commands."""

import json

import nibabel as nib
import numpy as np

from aslkit.prepare.series import select_pairs

PLDS_S = (0.5, 1.0, 1.8)
LABEL_S = 1.8
CBF, ATT_S = 60.0, 0.9
N_REPEATS = 2
SLICE_TIMING_S = (0.0, 0.05, 0.1)
M0 = 1000.0
SHAPE = (14, 14, 3)
AFFINE = np.array([[-3.5, 0, 0, 20], [0, 3.5, 0, -15], [0, 0, 5, 7], [0, 0, 0, 1.0]])
PAIR = ("label", "control")
CONTEXTS = ("m0scan", *PAIR * (len(PLDS_S) * N_REPEATS))
SIDECAR = {
    "ArterialSpinLabelingType": "PCASL",
    "PostLabelingDelay": [0.0, *(p for p in PLDS_S * N_REPEATS for _ in PAIR)],
    "LabelingDuration": LABEL_S,
    "BackgroundSuppression": False,
    "M0Type": "Included",
    "MRAcquisitionType": "2D",
    "SliceTiming": list(SLICE_TIMING_S),
    "RepetitionTimePreparation": 8.0,
    "MagneticFieldStrength": 3.0,
    "VascularCrushing": False,
}


def pcasl_signal(pld_s, cbf=CBF, att_s=ATT_S, label_s=LABEL_S):
    """Return ΔM/M0 of the white paper's model: the arrived label, decayed since labeling."""
    t1, alpha, partition = 1.65, 0.85, 0.9
    first, last = max(att_s, pld_s), max(att_s, pld_s + label_s)
    arrived = np.exp(-first / t1) - np.exp(-last / t1)
    return 2 * alpha * cbf / 6000 / partition * t1 * arrived


def head():
    """Return a mask with a disc in every slice."""
    x, y = np.ogrid[: SHAPE[0], : SHAPE[1]]
    disc = (x - 6.5) ** 2 + (y - 6.5) ** 2 < 30
    return np.broadcast_to(disc[..., None], SHAPE)


def volumes(noise_sd=0.05, signal=pcasl_signal, plds_s=SIDECAR["PostLabelingDelay"]):
    """Return the M0, label and control images in scanner units."""
    rng = np.random.default_rng(7)
    images = np.zeros((*SHAPE, len(CONTEXTS)))
    for i, (context, pld) in enumerate(zip(CONTEXTS, plds_s, strict=True)):
        delta = np.array([M0 * signal(pld + t) for t in SLICE_TIMING_S])
        level = M0 if context == "m0scan" else 0.8 * M0 - delta * (context == "label")
        images[..., i] = head() * level + rng.normal(0, noise_sd, SHAPE)
    return images.astype(np.float32)


def save(path, voxels, affine=AFFINE):
    """Write a NIfTI file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.Nifti1Image(voxels, affine).to_filename(path)
    return path


def write_scan(folder, sidecar=None, contexts=CONTEXTS, voxels=None, name="sub-01"):
    """Write a BIDS data set of one scan and return its image.

    `sidecar` changes fields (None removes one); `contexts=None` leaves out the aslcontext file.
    """
    perf = folder / "sub-01" / "perf"
    image = save(perf / f"{name}_asl.nii.gz", volumes() if voxels is None else voxels)
    (folder / "dataset_description.json").write_text('{"Name": "test", "BIDSVersion": "1.11.0"}')
    fields = {**SIDECAR, **(sidecar or {})}
    fields = {key: value for key, value in fields.items() if value is not None}
    (perf / f"{name}_asl.json").write_text(json.dumps(fields))
    if contexts is not None:
        lines = ["volume_type", *contexts, ""]
        (perf / f"{name}_aslcontext.tsv").write_text("\n".join(lines))
    return image


def write_m0(image, voxels, sidecar=None, affine=AFFINE, name="sub-01_m0scan"):
    """Write an m0scan beside an ASL image and link it by IntendedFor."""
    path = save(image.with_name(f"{name}.nii.gz"), voxels, affine)
    fields = {"IntendedFor": f"bids::sub-01/perf/{image.name}", "RepetitionTimePreparation": 8.0}
    path.with_name(f"{name}.json").write_text(json.dumps({**fields, **(sidecar or {})}))
    return path


def select_repeats(run, indices):
    """Return the run with the given repeats (counted from 0) of every timing only."""
    return select_pairs(run, lambda pairs: [pairs[n] for n in indices])
