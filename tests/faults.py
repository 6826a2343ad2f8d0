"""Everything that can be wrong with a scan, one entry each: how to make it from a valid one.

An entry maps a sentence to a function that writes the data set into a folder and returns the
options of asl_fit_ls, -o aside. `python bin/dev/list_faults.py` prints them into docs/errors.md.
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
    """The result of asl_fit_ls with an output in folder/out."""
    out = folder / "out"
    out.mkdir(exist_ok=True)
    if "-o" not in options:
        options = [*options, "-o", out / "cbf.nii.gz"]
    return CliRunner().invoke(main, [str(option) for option in options])


def message(folder, fault):
    """The sentence on stderr, with the folder left out of the paths."""
    stderr = run(folder, FAULTS[fault](folder)).stderr
    return stderr.strip().removeprefix("Error: ").replace(f"{folder}/", "")


def scan(**changes):
    """A scan of changed sidecar fields."""
    return lambda folder: ["-i", write_scan(folder, changes)]


def contexts(*values):
    """A scan of other volume types."""
    return lambda folder: ["-i", write_scan(folder, contexts=values)]


def voxels(change):
    """A scan whose voxels `change` has altered."""

    def make(folder):
        image = volumes()
        return ["-i", write_scan(folder, voxels=change(image))]

    return make


def part(value, *where):
    """A change of voxels: `value` at volume `where`."""

    def change(image):
        for volume in where:
            image[..., volume] = value
        return image

    return change


def options(*more):
    """A valid scan with more options."""
    return lambda folder: ["-i", write_scan(folder), *more]


def separate(**changes):
    """A scan without m0scan, written into a folder; returns the image."""
    return lambda folder: write_scan(
        folder, {**NO_M0, **changes}, contexts=CONTEXTS[1:], voxels=volumes()[..., 1:]
    )


def m0(image=None, affine=AFFINE, after=None, **sidecar):
    """A scan with a separate m0scan, which `after` may damage."""

    def make(folder):
        asl = separate()(folder)
        path = write_m0(asl, volumes()[..., 0] if image is None else image, sidecar, affine)
        if after is not None:
            after(path)
        return ["-i", asl]

    return make


def file(name, content):
    """A scan with the content (text, bytes, or None for absent) of one file replaced."""

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
    """A scan under another name."""
    return lambda folder: ["-i", write_scan(folder, name=name)]


def renamed_to_mgz(folder):
    """A scan with the extension of another format."""
    return ["-i", write_scan(folder).rename(folder / "asl.mgz")]


def uncompressed(path):
    """Damage of a .nii.gz: it is a .nii."""
    path.write_bytes(gzip.decompress(path.read_bytes()))


def header(offset, content, cut=None):
    """An uncompressed scan with bytes of its header replaced, or its end cut off."""

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
    """A scan of another affine, stored in the sform."""

    def make(folder):
        path = write_scan(folder)
        new = nib.Nifti1Image(volumes(), None).header
        new["sform_code"] = 1
        new["srow_x"], new["srow_y"], new["srow_z"] = matrix[:3]
        path.write_bytes(gzip.compress(new.binaryblock + bytes(4) + volumes().tobytes("F")))
        return ["-i", path]

    return make


def mask(image, matrix=AFFINE):
    """A valid scan with a mask."""
    return lambda folder: [
        *options()(folder),
        "-m",
        save(folder / "mask.nii.gz", image, matrix),
    ]


def loop(folder):
    """An image that is a symbolic link to itself."""
    path = folder / "loop.nii.gz"
    os.symlink(path, path)
    return ["-i", path]


def as_folder(name):
    """A scan with a folder in place of one file."""

    def make(folder):
        image = write_scan(folder)
        image.with_name(name).unlink()
        image.with_name(name).mkdir()
        return ["-i", image]

    return make


def cut(n_bytes):
    """Damage of a file: only its first bytes are kept."""
    return lambda path: path.write_bytes(path.read_bytes()[:n_bytes])


def damaged(after):
    """A scan whose image is damaged."""

    def make(folder):
        image = write_scan(folder)
        after(image)
        return ["-i", image]

    return make


def below_a_file(folder):
    """An output folder that is a file."""
    (folder / "file").write_text("")
    return [*options()(folder), "-o", folder / "file" / "cbf.nii.gz"]


def onto_the_input(folder):
    """The scan itself as output."""
    image = write_scan(folder)
    return ["-i", image, "-o", image]


def without_json(*more):
    """A NIfTI without any BIDS file."""
    return lambda folder: ["-i", save(folder / "asl.nii.gz", volumes()[..., 1:]), *more]


def joint(**changes):
    """Two runs, the second of other fields."""
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
    "the image is no NIfTI by its name": renamed_to_mgz,
    "the sidecar is missing": file(JSON, None),
    "the aslcontext file is missing": file(TSV, None),
    # image
    "the image is empty": damaged(cut(0)),
    "the .nii.gz is cut off in its header": damaged(cut(20)),
    "the .nii.gz is cut off in its voxels": damaged(cut(4000)),
    "the .nii is cut off in its header": header(0, b"", 100),
    "the .nii is cut off in its voxels": header(0, b"", 2000),
    "the .nii.gz is not compressed": damaged(uncompressed),
    "the magic of the NIfTI is wrong": header(NIFTI_MAGIC, b"abc"),
    "the header claims a huge image": header(NIFTI_DIM + 2, b"\xff\x7f" * 3),
    "the header claims a negative size": header(NIFTI_DIM + 2, b"\xff\xff"),
    "the voxels are complex numbers": voxels(lambda v: v.astype(np.complex64)),
    "the voxels are RGB colours": voxels(lambda v: np.zeros(SHAPE, [(c, "u1") for c in "RGB"])),
    "the image has two dimensions": voxels(lambda v: v[:, :, 0, 0]),
    "the image has five dimensions": voxels(lambda v: np.stack([v, v], axis=4)),
    "the affine is not a number": affine(np.full((4, 4), np.nan)),
    "the affine is singular": affine(FLAT),
    "the affine is in metres": affine(np.diag([0.0035, 0.0035, 0.005, 1])),
    "a volume has no numbers": voxels(part(np.nan, 4)),
    "a volume is all zeros": voxels(part(0, 4)),
    "a voxel has no scanner's value": voxels(part(1e30, 4)),
    "no volume has numbers": voxels(lambda v: np.full_like(v, np.nan)),
    # volume types
    "the aslcontext file is empty": file(TSV, ""),
    "the aslcontext file has no header line": file(TSV, "\n".join(CONTEXTS)),
    "the header of the aslcontext file has a capital": file(TSV, TEXT.replace("vol", "Vol")),
    "the aslcontext file has a line too few": contexts(*CONTEXTS[:-1]),
    "the aslcontext file has a line too many": contexts(*CONTEXTS, "label"),
    "a volume type is unknown": contexts("M0", *CONTEXTS[1:]),
    "a volume type has a capital": contexts("m0scan", "Label", *CONTEXTS[2:]),
    "there are label volumes only": contexts("m0scan", *["label"] * 12),
    "there are m0scan volumes only": contexts(*["m0scan"] * 13),
    "there are cbf volumes": contexts("m0scan", *["cbf"] * 12),
    "there are deltam besides control volumes": contexts(*CONTEXTS[:-2], "deltam", "deltam"),
    "--order does not fit the number of volumes": lambda f: [
        "-i",
        save(f / "asl.nii.gz", volumes()),
        *("--order", "tc"),
    ],
    # sidecar
    "the sidecar is empty": file(JSON, ""),
    "the sidecar is no JSON": file(JSON, '{"PostLabelingDelay": 1.8,,}'),
    "the sidecar is a list": file(JSON, "[]"),
    "the sidecar is nested without end": file(JSON, "[" * 10_000),
    "the sidecar names a field twice": file(JSON, '{"M0Type": "Absent", "M0Type": "Included"}'),
    "the sidecar is no UTF-8": file(JSON, b"\xff\xfe\x00"),
    "the sidecar has 12 MB": file(JSON, " " * 12_000_000 + JSON_TEXT),
    "the sidecar holds a number of 5000 digits": file(JSON, f'{{"EchoTime": {"9" * 5000}}}'),
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
    "slices lie along another axis": scan(SliceEncodingDirection="j"),
    "MRAcquisitionType is unknown": scan(MRAcquisitionType="4D"),
    "BolusCutOffDelayTime is missing": scan(**PASL),
    "BolusCutOffDelayTime is in milliseconds": scan(**PASL, BolusCutOffDelayTime=[800, 1600]),
    "BolusCutOffDelayTime decreases": scan(**PASL, BolusCutOffDelayTime=[1.6, 0.8]),
    "BolusCutOffTechnique is unknown": scan(
        **PASL, BolusCutOffDelayTime=0.8, BolusCutOffTechnique="Q3TIPS"
    ),
    "--slice-dt is in milliseconds": options("--slice-dt", "45"),
    "--plds are in milliseconds": options("--plds", "500,1000,1800"),
    "--plds are of a wrong number": options("--plds", "0.5,1,1.5,2"),
    # labeling
    "ArterialSpinLabelingType is unknown": scan(ArterialSpinLabelingType="VENC"),
    "ArterialSpinLabelingType is a number": scan(ArterialSpinLabelingType=3),
    "LabelingEfficiency is in percent": scan(LabelingEfficiency=85),
    "LabelingEfficiency is a list": scan(LabelingEfficiency=[0.85, 0.85]),
    "BackgroundSuppression is text": scan(BackgroundSuppression="yes"),
    "the number of suppression pulses is no whole number": scan(
        BackgroundSuppression=True, BackgroundSuppressionNumberPulses=1.5
    ),
    "the number of suppression pulses is impossible": scan(
        BackgroundSuppression=True, BackgroundSuppressionNumberPulses=40
    ),
    "TotalAcquiredPairs is negative": scan(TotalAcquiredPairs=-6),
    "there is no sidecar, and no --labeling": without_json("--order", "tc"),
    # another signal model
    "the readout is Look-Locker": scan(LookLocker=True),
    "the labeling is time-encoded and not decoded": scan(TimeEncodedMatrixSize=8),
    "the file holds several echoes": scan(EchoTime=[0.014 + 0.01 * (i % 2) for i in range(13)]),
    "the file is one of several echoes": renamed("sub-01_echo-1"),
    "the image shows the phase": renamed("sub-01_part-phase"),
    # M0
    "M0Type is Separate and there is no m0scan": lambda f: ["-i", separate()(f)],
    "M0Type is Included and no volume is an m0scan": lambda f: [
        "-i",
        separate(M0Type="Included")(f),
    ],
    "M0Type is Absent and a volume is an m0scan": scan(M0Type="Absent"),
    "M0Type is Absent and background suppression on": lambda f: [
        "-i",
        separate(M0Type="Absent", BackgroundSuppression=True)(f),
    ],
    "M0Type is unknown": scan(M0Type="separate"),
    "M0Type is Estimate without M0Estimate": lambda f: ["-i", separate(M0Type="Estimate")(f)],
    "M0Estimate is 0": lambda f: ["-i", separate(M0Type="Estimate", M0Estimate=0)(f)],
    "the m0scan is not linked to the series": m0(IntendedFor="bids::sub-01/perf/other.nii.gz"),
    "IntendedFor points out of the data set": m0(IntendedFor=FOREIGN),
    "IntendedFor is a number": m0(IntendedFor=7),
    "the m0scan is cut off": m0(after=cut(500)),
    "the m0scan is empty": m0(after=cut(0)),
    "M0 is all zeros": m0(np.zeros(SHAPE, np.float32)),
    "M0 is not a number": m0(np.full(SHAPE, np.nan, np.float32)),
    "M0 lies on another grid at the same place": m0(np.ones((7, 7, 3), np.float32)),
    "M0 lies elsewhere": m0(np.ones(SHAPE, np.float32), ELSEWHERE),
    "the m0scan volume of the series is all zeros": voxels(part(0, 0)),
    "RepetitionTimePreparation is in milliseconds": scan(RepetitionTimePreparation=4100),
    "RepetitionTimePreparation is negative": scan(RepetitionTimePreparation=-1),
    "the TR of the M0 volumes differs": m0(
        np.stack([volumes()[..., 0]] * 2, axis=3), RepetitionTimePreparation=[4.0, 8.0]
    ),
    "M0 is in another unit": m0(np.full(SHAPE, 1e-3, np.float32)),
    "--m0 is 0": options("--m0", "0"),
    "--m0 is not a number": options("--m0", "nan"),
    "--m0 names no file": options("--m0", "nowhere.nii.gz"),
    # other input and output
    "the mask lies on another grid": mask(np.ones((5, 5, 5), np.uint8)),
    "the mask lies elsewhere": mask(np.ones(SHAPE, np.uint8), ELSEWHERE),
    "the mask is empty": mask(np.zeros(SHAPE, np.uint8)),
    "the mask is not a number": mask(np.full(SHAPE, np.nan, np.float32)),
    "the mask is missing": options("-m", "nowhere.nii.gz"),
    "--att is negative": options("--att", "-1"),
    "--macrovascular on has too few delays": options("--macrovascular", "on"),
    "the runs of a joint acquisition differ in slice timing": joint(SliceTiming=[0, 0.1, 0.2]),
    "the output is no NIfTI by its name": options("-o", "cbf.txt"),
    "the output lies in a folder that is a file": below_a_file,
    "the output is the input": onto_the_input,
}
