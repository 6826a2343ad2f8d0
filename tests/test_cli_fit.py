"""asl_fit_ls from input files to output files."""

import json
import os
import subprocess
import sys
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from click.testing import CliRunner
from scans import (
    AFFINE,
    ATT_S,
    CBF,
    CONTEXTS,
    PLDS_S,
    SIDECAR,
    SLICE_TIMING_S,
    head,
    pcasl_signal,
    save,
    volumes,
    write_m0,
    write_scan,
)

from aslkit.cli.fit_ls import main

REAL = Path(os.environ.get("ASLKIT_REALDATA", Path(__file__).parents[2] / "shared" / "realdata"))
PCASL = REAL / "pcasl-2d-6pld"
needs_real_data = pytest.mark.skipif(not REAL.is_dir(), reason="the real scans are not available")


def fit(*arguments):
    """Run the command, check that it succeeds, and return its output."""
    result = CliRunner().invoke(main, [str(a) for a in arguments], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.output


def voxels(path):
    return nib.load(path).get_fdata()


@pytest.fixture
def scan(tmp_path):
    return write_scan(tmp_path / "data")


def test_cbf_and_att_of_a_simulated_scan_are_recovered_in_every_slice(scan, tmp_path):
    fit("-i", scan, "-o", tmp_path / "cbf.nii.gz")
    inside = head()
    cbf, att = voxels(tmp_path / "cbf.nii.gz"), voxels(tmp_path / "att.nii.gz")
    for z in range(inside.shape[2]):
        assert cbf[..., z][inside[..., z]].mean() == pytest.approx(CBF, rel=0.01)
        assert att[..., z][inside[..., z]].mean() == pytest.approx(ATT_S, abs=0.01)


def test_the_maps_are_named_after_the_cbf_map_and_keep_the_affine(scan, tmp_path):
    out = tmp_path / "new folder" / "sub-01_desc-ls_cbf.nii"
    fit("-i", scan, "-o", out, "--fitted")
    kinds = ("cbf", "att", "cbf-std", "att-std", "flags", "fit")
    names = {f"sub-01_desc-ls_{kind}{end}" for kind in kinds for end in (".nii", ".json")}
    names |= {"sub-01_desc-ls_quality.tsv", "sub-01_desc-ls_quality.json"}
    names.add("sub-01_desc-ls_outliers.tsv")
    assert {path.name for path in out.parent.iterdir()} == names
    assert np.allclose(nib.load(out).affine, AFFINE)
    assert nib.load(out).get_data_dtype() == np.float32


def test_the_sidecar_contains_the_parameters(scan, tmp_path):
    fit("-i", scan, "-o", tmp_path / "cbf.nii.gz", "--t1b", 1.7, "--alpha", 0.8)
    sidecar = json.loads((tmp_path / "cbf.json").read_text())
    assert sidecar["Units"] == "mL/100 g/min"
    assert json.loads((tmp_path / "att.json").read_text())["Units"] == "s"
    assert sidecar["BloodT1"] == 1.7
    assert sidecar["LabelingEfficiency"] == [0.8] * len(PLDS_S)
    assert sidecar["PostLabelingDelay"] == list(PLDS_S)
    assert sidecar["SliceOffsets"] == list(SLICE_TIMING_S)
    assert sidecar["Overrides"] == {"alpha": 0.8, "t1_blood_s": 1.7}
    assert "sub-01/perf/sub-01_asl.nii.gz" in sidecar["Sources"]


def test_the_fitted_signal_has_one_volume_per_delay_and_matches_the_measured_signal(
    scan, tmp_path
):
    fit("-i", scan, "-o", tmp_path / "cbf.nii.gz", "--fitted")
    fitted = voxels(tmp_path / "fit.nii.gz")
    expected = [pcasl_signal(pld + SLICE_TIMING_S[1]) for pld in PLDS_S]
    assert np.allclose(fitted[:, :, 1][head()[..., 1]].mean(axis=0), expected, rtol=0.01)


def test_options_replace_the_sidecar_and_the_aslcontext(scan, tmp_path):
    bare = save(tmp_path / "bare" / "scan.nii.gz", volumes()[..., 1:])
    m0 = save(tmp_path / "bare" / "calibration.nii.gz", volumes()[..., 0])
    fit("-i", scan, "-o", tmp_path / "cbf.nii.gz")
    options = "--labeling pcasl --order tc --label-duration 1.8 --slice-dt 0.05 --m0-tr 8"
    plds = ",".join(str(p) for p in PLDS_S)
    arguments = (*options.split(), "--plds", plds, "--m0", m0, "--n-bs", 0)
    fit("-i", bare, "-o", tmp_path / "bare_cbf.nii.gz", *arguments)
    with_sidecar, without = voxels(tmp_path / "cbf.nii.gz"), voxels(tmp_path / "bare_cbf.nii.gz")
    assert np.allclose(with_sidecar, without, rtol=1e-4, atol=1e-3)


def test_the_opposite_order_of_volumes_changes_the_sign_of_cbf(scan, tmp_path):
    fit("-i", scan, "-o", tmp_path / "cbf.nii.gz", "--order", "ct")
    assert voxels(tmp_path / "cbf.nii.gz")[head()].mean() == pytest.approx(-CBF, rel=0.02)


def test_m0_options_scale_the_cbf(scan, tmp_path):
    fit("-i", scan, "-o", tmp_path / "cbf.nii.gz", "--m0", 500, "--m0-scale", 4)
    assert voxels(tmp_path / "cbf.nii.gz")[head()].mean() == pytest.approx(CBF / 2, rel=0.01)


def test_a_dry_run_prints_the_timing_table_and_writes_nothing(scan, tmp_path):
    output = fit("-i", scan, "-o", tmp_path / "cbf.nii.gz", "--dry-run")
    assert "PCASL, efficiency 0.85 (default of PCASL)" in output
    assert "1.8 to 1.9" in output  # effective PLD of the first and last slice
    assert not (tmp_path / "cbf.nii.gz").exists()


def test_quiet_prints_nothing(scan, tmp_path):
    assert fit("-i", scan, "-o", tmp_path / "cbf.nii.gz", "-q") == ""


def test_att_is_fixed_for_single_delay_data_and_a_note_is_printed(tmp_path):
    plds = [0.0] + [1.8] * (len(CONTEXTS) - 1)
    scan = write_scan(tmp_path, {"PostLabelingDelay": 1.8}, voxels=volumes(plds_s=plds))
    output = fit("-i", scan, "-o", tmp_path / "cbf.nii.gz")
    assert "ATT is held at 1.3 s" in output
    assert voxels(tmp_path / "cbf.nii.gz")[head()].mean() == pytest.approx(CBF, rel=0.01)


def test_att_can_be_fixed_to_a_map(scan, tmp_path):
    att = save(tmp_path / "known.nii.gz", np.full(head().shape, ATT_S, dtype=np.float32))
    fit("-i", scan, "-o", tmp_path / "cbf.nii.gz", "--att", att)
    assert voxels(tmp_path / "cbf.nii.gz")[head()].mean() == pytest.approx(CBF, rel=0.01)
    assert np.allclose(voxels(tmp_path / "att.nii.gz")[head()], ATT_S)


def test_runs_of_a_joint_acquisition_are_fitted_together(tmp_path):
    def vsasl_signal(pld_s):
        return 2 * 0.56 * CBF / 6000 / 0.9 * min(pld_s, ATT_S) * np.exp(-pld_s / 1.65)

    pcasl = write_scan(tmp_path, name="sub-01_acq-pcasl")
    vsasl = write_scan(
        tmp_path,
        {"ArterialSpinLabelingType": "VSASL", "LabelingDuration": None},
        voxels=volumes(signal=vsasl_signal),
        name="sub-01_acq-vsasl",
    )
    fit("-i", pcasl, "-i", vsasl, "-o", tmp_path / "cbf.nii.gz")
    assert voxels(tmp_path / "cbf.nii.gz")[head()].mean() == pytest.approx(CBF, rel=0.01)
    assert voxels(tmp_path / "att.nii.gz")[head()].mean() == pytest.approx(ATT_S, abs=0.01)
    sidecar = json.loads((tmp_path / "cbf.json").read_text())
    assert sidecar["ArterialSpinLabelingType"] == ["PCASL"] * 3 + ["VSASL"] * 3


def test_a_separate_m0_gives_the_same_maps_as_an_included_m0(scan, tmp_path):
    fit("-i", scan, "-o", tmp_path / "cbf.nii.gz")
    image = write_scan(
        tmp_path / "separate",
        {"M0Type": "Separate", "PostLabelingDelay": SIDECAR["PostLabelingDelay"][1:]},
        contexts=CONTEXTS[1:],
        voxels=volumes()[..., 1:],
    )
    write_m0(image, volumes()[..., 0])
    fit("-i", image, "-o", tmp_path / "separate_cbf.nii.gz")
    assert np.allclose(voxels(tmp_path / "cbf.nii.gz"), voxels(tmp_path / "separate_cbf.nii.gz"))


@pytest.mark.realdata
@needs_real_data
def test_median_cbf_and_att_of_a_real_scan_are_physiological(tmp_path):
    command = [sys.executable, "-m", "aslkit.cli.fit_ls", "-o", str(tmp_path / "cbf.nii.gz")]
    image = PCASL / "bids" / "sub-01" / "perf" / "sub-01_asl.nii.gz"
    subprocess.run([*command, "-i", str(image)], check=True, capture_output=True)
    brain = voxels(PCASL / "automask.nii.gz") > 0
    cbf, att = voxels(tmp_path / "cbf.nii.gz"), voxels(tmp_path / "att.nii.gz")
    assert 30 < np.median(cbf[brain]) < 60
    assert 0.7 < np.median(att[brain]) < 1.6


@pytest.mark.realdata
@needs_real_data
def test_included_and_separate_m0_of_a_real_scan_give_similar_maps(tmp_path):
    medians = []
    for variant in ("bids", "bids-m0included-2rep"):
        image = PCASL / variant / "sub-01" / "perf" / "sub-01_asl.nii.gz"
        fit("-i", image, "-o", tmp_path / "cbf.nii.gz")
        brain = voxels(PCASL / "automask.nii.gz") > 0
        medians.append(np.median(voxels(tmp_path / "cbf.nii.gz")[brain]))
    assert medians[0] == pytest.approx(medians[1], rel=0.1)


@pytest.mark.realdata
@needs_real_data
def test_a_water_phantom_has_no_perfusion(tmp_path):
    folder = REAL / "philips-waterphantom-3d-pcasl" / "bids" / "sub-01" / "perf"
    output = fit("-i", folder / "sub-01_asl.nii.gz", "-o", tmp_path / "cbf.nii.gz")
    assert "number of pulses unknown" in output
    cbf, att = voxels(tmp_path / "cbf.nii.gz"), voxels(tmp_path / "att.nii.gz")
    assert abs(np.median(cbf[att > 0])) < 4
