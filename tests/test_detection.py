"""Detection of scans with artefacts: the artefacts change scans, and the scores detect them."""

from dataclasses import replace

import numpy as np
import pytest

from aslkit.report.phantom_table import PhantomTable
from aslkit.report.robustness_sections import detection_sections
from aslkit.simulate.phantoms import brain_phantom, save_phantom
from aslkit.simulate.signal import PROTOCOLS
from aslkit.validate.design import Design
from aslkit.validate.detection import (
    ARTEFACTS,
    detection_rows,
    draw_images,
    energy,
    scan_with_artefact,
)
from aslkit.validate.estimators import least_squares
from aslkit.validate.invariance import middle_slices
from aslkit.validate.on_phantoms import validate_phantoms

LS = {"LS": least_squares("off")}


def least_squares_alone(_):
    return LS


@pytest.fixture(scope="module")
def brain():
    return middle_slices(brain_phantom("brain", 60, voxel_size_mm=8))


def acquisition(phantom):
    return PROTOCOLS["joint6"].acquisition(phantom.mask.shape[2])


@pytest.fixture(scope="module")
def images(brain):
    return draw_images(brain, acquisition(brain), 10.0, np.random.default_rng(0))


def scan_of(images, kind="clean"):
    return scan_with_artefact(images, kind, np.random.default_rng(1))


def test_artefacts_are_detected_at_moderate_snr(brain):
    rows = detection_rows([brain], acquisition, 10.0, least_squares_alone, n_scans=4, seed=1)
    areas = {row.metric: row.value for row in rows}
    assert len(areas) == len(ARTEFACTS) - 1
    for kind in ("motion", "spikes", "ghost"):
        assert areas[f"AUROC of {kind}"] >= 0.95, kind


def test_an_artefact_changes_only_the_signal_or_the_sidecar(images):
    clean = scan_of(images)
    for kind in ("motion", "spikes", "ghost"):
        change = scan_of(images, kind).delta_m - clean.delta_m
        assert np.abs(change).max() > 3e-4, kind
    wrong = scan_of(images, "PLDs + 0.5 s in the sidecar")
    np.testing.assert_array_equal(wrong.delta_m, clean.delta_m)
    plds = [[t.pld_s for t in s.acquisition.timings] for s in (wrong, clean)]
    np.testing.assert_allclose(np.subtract(*plds), 0.5)


def test_a_constant_score_has_an_auroc_of_one_half(brain, monkeypatch):
    monkeypatch.setattr(
        "aslkit.validate.detection.residual_structure", lambda *_: type("", (), {"score": 1.0})
    )
    rows = detection_rows([brain], acquisition, 10.0, least_squares_alone, n_scans=1, seed=1)
    assert {row.value for row in rows} == {0.5}


def doubtful_of(series):
    """Least squares with a confidence that decreases with the variance."""
    maps = LS["LS"](series)
    sure = np.full(maps.cbf.shape, 1 / (1 + series.delta_m[series.mask].std()), np.float32)
    return replace(maps, cbf_confidence=sure, att_confidence=sure)


def test_energy_is_a_second_score_of_networks_with_confidence(brain):
    def estimators(stated):
        is_known = stated.timings == acquisition(brain).timings
        return {"net": doubtful_of} if is_known else {}

    rows = detection_rows([brain], acquisition, 10.0, estimators, n_scans=1, seed=1)
    areas = {row.metric: row.value for row in rows}
    assert set(areas) == {f"AUROC of {k}{s}" for k in KINDS for s in ("", " by energy")}
    assert areas["AUROC of ghost by energy"] == areas["AUROC of spikes by energy"] == 1


KINDS = ("motion", "spikes", "ghost")  # artefacts that keep the protocol


def test_the_energy_equals_that_of_the_logits(brain, images):
    maps, logits = LS["LS"](scan_of(images)), np.array([1.5, -0.5])
    cbf, att = (np.full(maps.cbf.shape, 1 / (1 + np.exp(-x)), np.float32) for x in logits)
    stated = replace(maps, cbf_confidence=cbf, att_confidence=att)
    expected = -np.logaddexp(logits, 0).sum()
    assert energy(stated, brain.mask) == pytest.approx(expected, rel=1e-5)
    assert energy(replace(stated, cbf_confidence=cbf**0), brain.mask) < -13
    assert energy(maps, brain.mask) is None


def test_the_benchmark_measures_detection_at_one_snr_and_the_report_shows_it(tmp_path):
    save_phantom(brain_phantom("brain-11", 11, voxel_size_mm=8), tmp_path)
    design = Design(("matched",), ("pcasl1", "pcasl6"), (10.0, 30.0), n_artefact_scans=1)
    found = PhantomTable(validate_phantoms(tmp_path, design=design).records)
    (section,) = detection_sections(found)
    assert section.table.columns == ["artefact", "maps by", "SNR", "AUROC"]
    assert [row[0] for row in section.table.rows] == list(ARTEFACTS)[1:]
    assert {row[2] for row in section.table.rows} == {"10"}
    assert section.table.rows[0][3] in {"0.00", "0.50", "1.00"}
