"""Faults of a scan -> functions that create a scan with this fault.

Each function writes the data set into a folder and returns the options of asl_fit_ls without -o.
`python bin/dev/list_faults.py` prints the faults and their messages into docs/errors.md.
"""

import gzip
import json
import os

import nibabel as nib
import numpy as np
from click.testing import CliRunner
from scans import AFFINE, CONTEXTS, PLDS_S, SHAPE, SIDECAR, save, volumes, write_m0, write_scan

from aslkit.cli.fit_ls import main

JSON, TSV = "sub-01_asl.json", "sub-01_aslcontext.tsv"
NIFTI_DATATYPE, NIFTI_DIM, NIFTI_MAGIC = 70, 40, 344  # offsets of header fields [bytes]
NO_M0 = {"M0Type": "Separate", "PostLabelingDelay": SIDECAR["PostLabelingDelay"][1:]}
PASL = {"ArterialSpinLabelingType": "PASL", "LabelingDuration": None, "BolusCutOffFlag": True}


def run(folder, options):
    """Run asl_fit_ls with its output in folder/out and return the result."""
    out = folder / "out"
    out.mkdir(exist_ok=True)
    if "-o" not in options:
        options = [*options, "-o", out / "cbf.nii.gz"]
    return CliRunner().invoke(main, [str(option) for option in options])


def message(folder, fault):
    """Return the error message with paths relative to the folder."""
    stderr = run(folder, FAULTS[fault](folder)).stderr
    return stderr.strip().removeprefix("Error: ").replace(f"{folder}/", "")


def scan(**changes):
    """Return a function that writes a scan with changed sidecar fields."""
    return lambda folder: ["-i", write_scan(folder, changes)]


def contexts(*values):
    """Return a function that writes a scan with other volume types."""
    return lambda folder: ["-i", write_scan(folder, contexts=values)]


def voxels(change):
    """Return a function that writes a scan with voxels altered by `change`."""

    def make(folder):
        image = volumes()
        return ["-i", write_scan(folder, voxels=change(image))]

    return make


def part(value, *where):
    """Return a function that sets the volumes `where` of an image to `value`."""

    def change(image):
        for volume in where:
            image[..., volume] = value
        return image

    return change


def options(*more):
    """Return a function that writes a valid scan and adds options."""
    return lambda folder: ["-i", write_scan(folder), *more]


def separate(**changes):
    """Return a function that writes a scan without m0scan and returns its path."""
    return lambda folder: write_scan(
        folder, {**NO_M0, **changes}, contexts=CONTEXTS[1:], voxels=volumes()[..., 1:]
    )


def m0(image=None, affine=AFFINE, after=None, **sidecar):
    """Return a function that writes a scan with a separate m0scan, damaged by `after`."""

    def make(folder):
        asl = separate()(folder)
        path = write_m0(asl, volumes()[..., 0] if image is None else image, sidecar, affine)
        if after is not None:
            after(path)
        return ["-i", asl]

    return make


def file(name, content):
    """Return a function that writes a scan and replaces (or, with None, removes) a file."""

    def make(folder):
        image = write_scan(folder)
        path = image.with_name(name)
        path.unlink()
        if isinstance(content, bytes):
            path.write_bytes(content)
        elif content is not None:
            path.write_text(content, newline="")
        return ["-i", image]

    return make


def renamed(name):
    """Return a function that writes a scan under another name."""
    return lambda folder: ["-i", write_scan(folder, name=name)]


def renamed_to_mgz(folder):
    """Write a scan with the file extension of another format."""
    return ["-i", write_scan(folder).rename(folder / "asl.mgz")]


def uncompressed(path):
    """Decompress a .nii.gz without renaming it."""
    path.write_bytes(gzip.decompress(path.read_bytes()))


def header(offset, content, cut=None):
    """Return a function that writes an uncompressed scan with other header bytes or cut off."""

    def make(folder):
        image = write_scan(folder)
        raw = bytearray(gzip.decompress(image.read_bytes()))
        raw[offset : offset + len(content)] = content
        plain = image.with_suffix("")
        plain.write_bytes(raw[:cut])
        image.unlink()
        return ["-i", plain]

    return make


def affine(matrix):
    """Return a function that writes a scan with another affine in the sform."""

    def make(folder):
        path = write_scan(folder)
        new = nib.Nifti1Image(volumes(), None).header
        new["sform_code"] = 1
        new["srow_x"], new["srow_y"], new["srow_z"] = matrix[:3]
        path.write_bytes(gzip.compress(new.binaryblock + bytes(4) + volumes().tobytes("F")))
        return ["-i", path]

    return make


def mask(image, matrix=AFFINE):
    """Return a function that writes a valid scan with a mask."""
    return lambda folder: [
        *options()(folder),
        "-m",
        save(folder / "mask.nii.gz", image, matrix),
    ]


def loop(folder):
    """Create an image that is a symbolic link to itself."""
    path = folder / "loop.nii.gz"
    os.symlink(path, path)
    return ["-i", path]


def as_folder(name):
    """Return a function that writes a scan and replaces one file by a folder."""

    def make(folder):
        image = write_scan(folder)
        image.with_name(name).unlink()
        image.with_name(name).mkdir()
        return ["-i", image]

    return make


def cut(n_bytes):
    """Return a function that truncates a file to `n_bytes`."""
    return lambda path: path.write_bytes(path.read_bytes()[:n_bytes])


def damaged(after):
    """Return a function that writes a scan and damages its image with `after`."""

    def make(folder):
        image = write_scan(folder)
        after(image)
        return ["-i", image]

    return make


def below_a_file(folder):
    """Create a file in place of the output folder."""
    (folder / "file").write_text("")
    return [*options()(folder), "-o", folder / "file" / "cbf.nii.gz"]


def onto_the_input(folder):
    """Write a scan that is also the output."""
    image = write_scan(folder)
    return ["-i", image, "-o", image]


def without_json(*more):
    """Return a function that writes a NIfTI without BIDS files."""
    return lambda folder: ["-i", save(folder / "asl.nii.gz", volumes()[..., 1:]), *more]


def joint(**changes):
    """Return a function that writes two runs, the second with changed fields."""
    return lambda folder: [
        "-i",
        write_scan(folder, name="sub-01_acq-pcasl"),
        "-i",
        write_scan(folder, changes, name="sub-01_acq-vsasl"),
    ]


PLDS = SIDECAR["PostLabelingDelay"]
FLAT = np.diag([3.5, 3.5, 0, 1.0])
TEXT = "\n".join(["volume_type", *CONTEXTS])
JSON_TEXT = json.dumps({k: v for k, v in SIDECAR.items() if k != "SliceTiming"})
FOREIGN = "bids::../elsewhere/sub-01_asl.nii.gz"
ELSEWHERE = AFFINE + np.array([[0, 0, 0, 90.0], [0] * 4, [0] * 4, [0] * 4])
UNEQUAL = [p + 0.1 * (i == 2) for i, p in enumerate(PLDS)]

FAULTS = {
    # files
    "the image is missing": lambda folder: ["-i", folder / "nothing.nii.gz"],
    "the image is a folder": as_folder("sub-01_asl.nii.gz"),
    "the image is a symbolic link to itself": loop,
    "the image has no NIfTI file extension": renamed_to_mgz,
    "the sidecar is missing": file(JSON, None),
    "the aslcontext file is missing": file(TSV, None),
    # image
    "the image is empty": damaged(cut(0)),
    "the .nii.gz is cut off in its header": damaged(cut(20)),
    "the .nii.gz is cut off in its voxels": damaged(cut(4000)),
    "the .nii is cut off in its header": header(0, b"", 100),
    "the .nii is cut off in its voxels": header(0, b"", 2000),
    "the .nii.gz is not compressed": damaged(uncompressed),
    "the NIfTI magic string is wrong": header(NIFTI_MAGIC, b"abc"),
    "the header claims a huge image": header(NIFTI_DIM + 2, b"\xff\x7f" * 3),
    "the header claims a negative size": header(NIFTI_DIM + 2, b"\xff\xff"),
    "the voxels are complex numbers": voxels(lambda v: v.astype(np.complex64)),
    "the voxels are RGB colours": voxels(lambda v: np.zeros(SHAPE, [(c, "u1") for c in "RGB"])),
    "the image has two dimensions": voxels(lambda v: v[:, :, 0, 0]),
    "the image has five dimensions": voxels(lambda v: np.stack([v, v], axis=4)),
    "the affine is not a number": affine(np.full((4, 4), np.nan)),
    "the affine is singular": affine(FLAT),
    "the affine is in metres": affine(np.diag([0.0035, 0.0035, 0.005, 1])),
    "a volume is all NaN": voxels(part(np.nan, 4)),
    "a volume is all zeros": voxels(part(0, 4)),
    "a voxel value is impossibly large": voxels(part(1e30, 4)),
    "all volumes are NaN": voxels(lambda v: np.full_like(v, np.nan)),
    # volume types
    "the aslcontext file is empty": file(TSV, ""),
    "the aslcontext file has no header line": file(TSV, "\n".join(CONTEXTS)),
    "the aslcontext column name has a capital letter": file(TSV, TEXT.replace("vol", "Vol")),
    "the aslcontext file has one line too few": contexts(*CONTEXTS[:-1]),
    "the aslcontext file has one line too many": contexts(*CONTEXTS, "label"),
    "a volume type is unknown": contexts("M0", *CONTEXTS[1:]),
    "a volume type has a capital letter": contexts("m0scan", "Label", *CONTEXTS[2:]),
    "there are label volumes only": contexts("m0scan", *["label"] * 12),
    "there are m0scan volumes only": contexts(*["m0scan"] * 13),
    "there are cbf volumes": contexts("m0scan", *["cbf"] * 12),
    "there are both deltam and control volumes": contexts(*CONTEXTS[:-2], "deltam", "deltam"),
    "--order does not fit the number of volumes": lambda f: [
        "-i",
        save(f / "asl.nii.gz", volumes()),
        *("--order", "tc"),
    ],
    # sidecar
    "the sidecar is empty": file(JSON, ""),
    "the sidecar is not valid JSON": file(JSON, '{"PostLabelingDelay": 1.8,,}'),
    "the sidecar is a list": file(JSON, "[]"),
    "the sidecar is nested too deeply": file(JSON, "[" * 10_000),
    "the sidecar contains a field twice": file(JSON, '{"M0Type": "Absent", "M0Type": "Included"}'),
    "the sidecar is not UTF-8": file(JSON, b"\xff\xfe\x00"),
    "the sidecar has 12 MB": file(JSON, " " * 12_000_000 + JSON_TEXT),
    "the sidecar contains a number of 5000 digits": file(JSON, f'{{"EchoTime": {"9" * 5000}}}'),
    "the sidecar is a folder": as_folder(JSON),
    # timing
    "PostLabelingDelay is missing": scan(PostLabelingDelay=None),
    "PostLabelingDelay is in milliseconds": scan(PostLabelingDelay=[1000 * p for p in PLDS]),
    "PostLabelingDelay has one entry per delay": scan(PostLabelingDelay=list(PLDS_S)),
    "PostLabelingDelay is negative": scan(PostLabelingDelay=-1.8),
    "PostLabelingDelay is text": scan(PostLabelingDelay="1.8"),
    "PostLabelingDelay is not a number": scan(PostLabelingDelay=float("nan")),
    "PostLabelingDelay is an empty list": scan(PostLabelingDelay=[]),
    "PostLabelingDelay is a nested list": scan(PostLabelingDelay=[[1.8] * 13]),
    "control and label differ in PostLabelingDelay": scan(PostLabelingDelay=UNEQUAL),
    "LabelingDuration is missing": scan(LabelingDuration=None),
    "LabelingDuration is 0": scan(LabelingDuration=0),
    "LabelingDuration is in milliseconds": scan(LabelingDuration=1800),
    "LabelingDuration has a wrong number of entries": scan(LabelingDuration=[1.8, 1.8]),
    "SliceTiming has a wrong number of entries": scan(SliceTiming=[0.0, 0.05]),
    "SliceTiming is in milliseconds": scan(SliceTiming=[0.0, 50.0, 100.0]),
    "SliceTiming is negative": scan(SliceTiming=[-0.1, 0.0, 0.1]),
    "SliceTiming is text": scan(SliceTiming="ascending"),
    "the slices are not along the third axis": scan(SliceEncodingDirection="j"),
    "MRAcquisitionType is unknown": scan(MRAcquisitionType="4D"),
    "BolusCutOffDelayTime is missing": scan(**PASL),
    "BolusCutOffDelayTime is in milliseconds": scan(**PASL, BolusCutOffDelayTime=[800, 1600]),
    "BolusCutOffDelayTime decreases": scan(**PASL, BolusCutOffDelayTime=[1.6, 0.8]),
    "BolusCutOffTechnique is unknown": scan(
        **PASL, BolusCutOffDelayTime=0.8, BolusCutOffTechnique="Q3TIPS"
    ),
    "--slice-dt is in milliseconds": options("--slice-dt", "45"),
    "--plds are in milliseconds": options("--plds", "500,1000,1800"),
    "--plds has a wrong number of values": options("--plds", "0.5,1,1.5,2"),
    # labeling
    "ArterialSpinLabelingType is unknown": scan(ArterialSpinLabelingType="VENC"),
    "ArterialSpinLabelingType is a number": scan(ArterialSpinLabelingType=3),
    "LabelingEfficiency is in percent": scan(LabelingEfficiency=85),
    "LabelingEfficiency is a list": scan(LabelingEfficiency=[0.85, 0.85]),
    "BackgroundSuppression is text": scan(BackgroundSuppression="yes"),
    "the number of suppression pulses is not an integer": scan(
        BackgroundSuppression=True, BackgroundSuppressionNumberPulses=1.5
    ),
    "the number of suppression pulses is out of range": scan(
        BackgroundSuppression=True, BackgroundSuppressionNumberPulses=40
    ),
    "TotalAcquiredPairs is negative": scan(TotalAcquiredPairs=-6),
    "there is no sidecar, and no --labeling": without_json("--order", "tc"),
    # another signal model
    "the readout is Look-Locker": scan(LookLocker=True),
    "the time-encoded series is not decoded": scan(TimeEncodedMatrixSize=8),
    "the file contains several echoes": scan(EchoTime=[0.014 + 0.01 * (i % 2) for i in range(13)]),
    "the file is one of several echoes": renamed("sub-01_echo-1"),
    "the image is a phase image": renamed("sub-01_part-phase"),
    # M0
    "M0Type is Separate and there is no m0scan": lambda f: ["-i", separate()(f)],
    "M0Type is Included and no volume is an m0scan": lambda f: [
        "-i",
        separate(M0Type="Included")(f),
    ],
    "M0Type is Absent and a volume is an m0scan": scan(M0Type="Absent"),
    "M0Type is Absent and background suppression is on": lambda f: [
        "-i",
        separate(M0Type="Absent", BackgroundSuppression=True)(f),
    ],
    "M0Type is unknown": scan(M0Type="separate"),
    "M0Type is Estimate without M0Estimate": lambda f: ["-i", separate(M0Type="Estimate")(f)],
    "M0Estimate is 0": lambda f: ["-i", separate(M0Type="Estimate", M0Estimate=0)(f)],
    "the m0scan is not linked to the series": m0(IntendedFor="bids::sub-01/perf/other.nii.gz"),
    "IntendedFor is outside the data set": m0(IntendedFor=FOREIGN),
    "IntendedFor is a number": m0(IntendedFor=7),
    "the m0scan is cut off": m0(after=cut(500)),
    "the m0scan is empty": m0(after=cut(0)),
    "M0 is all zeros": m0(np.zeros(SHAPE, np.float32)),
    "M0 is not a number": m0(np.full(SHAPE, np.nan, np.float32)),
    "M0 has another grid at the same position": m0(np.ones((7, 7, 3), np.float32)),
    "M0 is at another position": m0(np.ones(SHAPE, np.float32), ELSEWHERE),
    "the m0scan volume of the series is all zeros": voxels(part(0, 0)),
    "RepetitionTimePreparation is in milliseconds": scan(RepetitionTimePreparation=4100),
    "RepetitionTimePreparation is negative": scan(RepetitionTimePreparation=-1),
    "the TR of the M0 volumes differs": m0(
        np.stack([volumes()[..., 0]] * 2, axis=3), RepetitionTimePreparation=[4.0, 8.0]
    ),
    "M0 is in another unit": m0(np.full(SHAPE, 1e-3, np.float32)),
    "--m0 is 0": options("--m0", "0"),
    "--m0 is not a number": options("--m0", "nan"),
    "the file of --m0 is missing": options("--m0", "nowhere.nii.gz"),
    # other input and output
    "the mask has another grid": mask(np.ones((5, 5, 5), np.uint8)),
    "the mask is at another position": mask(np.ones(SHAPE, np.uint8), ELSEWHERE),
    "the mask is empty": mask(np.zeros(SHAPE, np.uint8)),
    "the mask is not a number": mask(np.full(SHAPE, np.nan, np.float32)),
    "the mask is missing": options("-m", "nowhere.nii.gz"),
    "--att is negative": options("--att", "-1"),
    "--macrovascular on has too few delays": options("--macrovascular", "on"),
    "the runs of a joint acquisition differ in slice timing": joint(SliceTiming=[0, 0.1, 0.2]),
    "the output has no NIfTI file extension": options("-o", "cbf.txt"),
    "the output folder is a file": below_a_file,
    "the output is the input": onto_the_input,
}
