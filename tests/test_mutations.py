"""A valid scan with one random change is fitted or refused without a crash."""

import gzip
import json
import shutil
import tempfile
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from faults import PASL, run
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from scans import CONTEXTS, SHAPE, SIDECAR, volumes, write_m0, write_scan

from aslkit.bids.aslcontext import VOLUME_TYPES
from aslkit.core.series_and_maps import Flag

N_EXAMPLES = 150
FIELDS = (
    *SIDECAR,
    *PASL,
    *("LookLocker", "EchoTime", "FlipAngle", "RepetitionTime", "M0Estimate", "LabelingEfficiency"),
    *("BackgroundSuppressionNumberPulses", "TotalAcquiredPairs", "SliceEncodingDirection"),
    *("MultibandAccelerationFactor", "BolusCutOffDelayTime", "BolusCutOffTechnique"),
    *("IntendedFor", "TimeEncodedMatrixSize"),
)
NUMBERS = st.one_of(
    st.integers(-10, 5000), st.floats(0, 5), st.floats(), st.integers(-(10**400), 10**400)
)
VALUES = st.one_of(
    st.none(),
    st.booleans(),
    NUMBERS,
    st.text(max_size=8),
    st.sampled_from(["PASL", "CASL", "VSASL", "3D", "k-", "Absent", "Separate", "Estimate"]),
    st.lists(NUMBERS, max_size=14),
    st.lists(st.floats(0, 3), min_size=13, max_size=13),
    st.dictionaries(st.text(max_size=3), NUMBERS, max_size=2),
)
VOXEL_VALUES = [np.nan, np.inf, -np.inf, 0.0, -1000.0, 1e38, -1e38, 1e-38]
OPTIONS = (
    "--plds",
    "--label-duration",
    "--slice-dt",
    "--m0",
    "--m0-scale",
    "--m0-tr",
    "--alpha",
    "--n-bs",
)
OPTIONS = (*OPTIONS, "--t1b", "--lambda", "--att", "--att-bounds", "--cbf-bounds", "--smooth")


def field(draw, image):
    """Change a field in the sidecar of the series or of the M0."""
    path = draw(st.sampled_from(files(image, ".json")))
    content = {**json.loads(path.read_text()), draw(st.sampled_from(FIELDS)): draw(VALUES)}
    path.write_text(json.dumps(content))


def volume_type(draw, image):
    """Change, add or remove a line of the aslcontext file."""
    path = image.with_name("sub-01_aslcontext.tsv")
    lines = path.read_text().split("\n")
    where = draw(st.integers(0, len(lines) - 1))
    words = st.one_of(st.sampled_from(VOLUME_TYPES), st.text(max_size=6))
    lines[where : where + draw(st.integers(0, 1))] = draw(st.lists(words, max_size=2))
    path.write_text("\n".join(lines), encoding="utf-8", errors="replace")


def header_bytes(draw, image):
    """Change bytes in the header of an image."""
    path = draw(st.sampled_from(files(image, ".nii.gz")))
    raw = bytearray(gzip.decompress(path.read_bytes()))
    where, new = draw(st.integers(0, 351)), draw(st.binary(min_size=1, max_size=8))
    raw[where : where + len(new)] = new
    path.write_bytes(gzip.compress(bytes(raw), 1))


def file_bytes(draw, image):
    """Change bytes of a file, or cut off its end."""
    path = draw(st.sampled_from(files(image, "")))
    raw = bytearray(path.read_bytes())
    where = draw(st.integers(0, len(raw) - 1))
    new = draw(st.binary(max_size=8))
    raw[where : draw(st.sampled_from([where + len(new), len(raw)]))] = new
    path.write_bytes(raw)


def voxels(draw, image):
    """Change the value of a volume, a slice or a voxel."""
    path = draw(st.sampled_from(files(image, ".nii.gz")))
    loaded = nib.load(path)
    data = loaded.get_fdata(dtype=np.float32).copy()
    block = draw(st.sampled_from([(..., slice(None)), (7, 7, 1), (slice(None), slice(None), 1)]))
    chosen = data[..., draw(st.integers(0, data.shape[3] - 1))] if data.ndim == 4 else data
    chosen[block] = draw(st.sampled_from(VOXEL_VALUES))
    nib.Nifti1Image(data, loaded.affine).to_filename(path)


def file_itself(draw, image):
    """Remove a file, or replace it by a folder."""
    path = draw(st.sampled_from(files(image, "")))
    path.unlink()
    if draw(st.booleans()):
        path.mkdir()


def option(draw, image):
    """Return an option with random numbers."""
    numbers = draw(st.lists(NUMBERS, min_size=1, max_size=3))
    return [draw(st.sampled_from(OPTIONS)), ",".join(str(n) for n in numbers)]


MUTATIONS = (field, field, volume_type, header_bytes, file_bytes, voxels, file_itself, option)


def files(image, extension):
    """Return the files of a scan whose names end in `extension`."""
    return sorted(p for p in image.parent.iterdir() if p.name.endswith(extension))


@pytest.fixture(scope="module")
def templates(tmp_path_factory):
    """Write two valid scans: M0 within the series, and M0 in a separate file."""
    included, separate = (tmp_path_factory.mktemp(name) for name in ("included", "separate"))
    write_scan(included)
    fields = {"M0Type": "Separate", "PostLabelingDelay": SIDECAR["PostLabelingDelay"][1:]}
    image = write_scan(separate, fields, CONTEXTS[1:], volumes()[..., 1:])
    write_m0(image, volumes()[..., 0])
    return included, separate


def check(data, templates, mutate):
    """Change a copy of a scan, run the command, and check its output files."""
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place) / "data"
        shutil.copytree(data.draw(st.sampled_from(templates)), folder)
        image = folder / "sub-01" / "perf" / "sub-01_asl.nii.gz"
        more = mutate(data.draw, image) or []
        result = run(folder, ["-i", image, *more])
        written = sorted(p.name for p in (folder / "out").iterdir())
        assert result.exit_code in (0, 2, 3), result.output
        if result.exit_code:
            assert written == []
            is_usage = result.exit_code == 2
            assert is_usage or len(result.stderr.splitlines()) == 1, result.stderr
            return
        assert result.stderr == ""
        maps = {
            name: nib.load(folder / "out" / name).get_fdata() for name in written if "nii" in name
        }
        is_ok = maps["flags.nii.gz"] == Flag.OK
        assert maps["cbf.nii.gz"].shape == SHAPE
        assert np.isfinite(maps["cbf.nii.gz"][is_ok]).all()
        assert np.isfinite(maps["att.nii.gz"][is_ok]).all()


def test_valid_scans_are_fitted(templates):
    for template in templates:
        image = template / "sub-01" / "perf" / "sub-01_asl.nii.gz"
        assert run(template, ["-i", image]).exit_code == 0
        shutil.rmtree(template / "out")


@pytest.mark.slow
@settings(max_examples=N_EXAMPLES, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data(), mutate=st.sampled_from(MUTATIONS))
def test_a_scan_with_one_change_is_fitted_or_refused(data, mutate, templates):
    check(data, templates, mutate)
