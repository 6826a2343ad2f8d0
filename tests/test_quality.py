"""Quality figures and diagnostic maps compared with values computed by hand."""

import json
from dataclasses import replace
from math import exp, log
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from click.testing import CliRunner
from nibabel.processing import smooth_image
from scans import AFFINE, CBF, PLDS_S, SHAPE, SLICE_TIMING_S, head, save, write_scan
from scans import volumes as scan_volumes
from scipy.stats import gmean

from aslkit.bids.tissue_maps import TissueMaps, read_tissue
from aslkit.cli.fit_ls import main
from aslkit.core.acquisition import Acquisition, Timing, protocol
from aslkit.core.errors import InputError
from aslkit.core.series_and_maps import AslSeries, Flag, ParameterMaps
from aslkit.fit.least_squares import fit_least_squares, fitted_signal
from aslkit.fit.settings import Arterial, FixedAtt, FreeAtt
from aslkit.quality.figures import FIGURES, quality_evaluation_index, quality_figures, temporal_snr
from aslkit.quality.goodness_of_fit import adequacy, diagnostic_maps, missing_diagnostics

NO_SMOOTHING_MM = (100.0, 100.0, 100.0)  # so large that a kernel of 5 mm changes nothing
FOUR_PLDS = Acquisition(protocol("pcasl", [0.5, 1.0, 1.5, 2.0], 1.8))
NO_ARTERY = FreeAtt()


def row(*values):
    """Return an image (n, 1, 1) of the values."""
    return np.array(values, dtype=np.float32).reshape(-1, 1, 1)


def maps_of(cbf, **others):
    """Return maps; the defaults are an ATT of 1 s and standard deviations of 1."""
    ones = np.ones_like(cbf)
    fields = {"att": ones, "cbf_std": ones, "att_std": ones, "flags": (0 * cbf).astype(np.uint8)}
    return ParameterMaps(cbf=cbf, **{**fields, **others})


def series_of(shape, acquisition=FOUR_PLDS, **fields):
    """Return a series of zeros with a mask that covers the image."""
    delta_m = np.zeros((*shape, acquisition.n_timings), dtype=np.float32)
    fields = {"affine": np.diag([*NO_SMOOTHING_MM, 1]), **fields}
    return AslSeries(
        **{"delta_m": delta_m, "mask": np.ones(shape, bool), **fields}, acquisition=acquisition
    )


def tissue_of(gm, wm):
    return TissueMaps(gm, wm, 1 - gm - wm)


def figures_of(maps, tissue=None, settings=NO_ARTERY, **fields):
    return quality_figures(series_of(maps.cbf.shape, **fields), maps, settings, tissue)


def qei_scores(similarity, dispersion, negative):
    """Return the three scores of the QEI, with the constants of ASLPrep."""
    return (
        1 - exp(-3.0126 * similarity**2.4419),
        exp(-0.054 * dispersion**0.9272),
        exp(-2.8478 * negative**0.5196),
    )


def test_the_qei_of_a_map_of_two_tissues_equals_the_value_computed_by_hand():
    cbf, gm = row(50, 70, 20, 20), row(1, 1, 0, 0)
    qei = quality_evaluation_index(cbf, tissue_of(gm, 1 - gm), gm > -1, NO_SMOOTHING_MM)
    between, within = 20.0**2, (10.0**2 + 10.0**2) / 4  # variances between and within the tissues
    assert qei.similarity == pytest.approx((between / (between + within)) ** 0.5)
    assert qei.dispersion == pytest.approx((1 * 100 + 1 * 0) / 2 / 60)
    assert qei.negative == 0
    expected = gmean(qei_scores(qei.similarity, qei.dispersion, 0))
    assert qei.index == pytest.approx(expected)


def test_a_quarter_of_negative_grey_matter_lowers_the_qei_by_its_published_factor():
    cbf, gm = row(60, 60, 60, -60, 20, 20), row(1, 1, 1, 1, 0, 0)
    qei = quality_evaluation_index(cbf, tissue_of(gm, 1 - gm), gm > -1, NO_SMOOTHING_MM)
    assert qei.negative == 0.25
    similarity, dispersion = qei_scores(qei.similarity, qei.dispersion, 0)[:2]
    assert qei.index**3 == pytest.approx(similarity * dispersion * exp(-2.8478 * 0.25**0.5196))


def test_a_map_with_brighter_white_matter_has_a_qei_of_0():
    gm = row(1, 1, 0, 0)
    qei = quality_evaluation_index(row(20, 22, 60, 60), tissue_of(gm, 1 - gm), gm > -1, (9, 9, 9))
    assert (qei.similarity, qei.index) == (0, 0)


def test_the_qei_equals_another_implementation_with_smoothing_and_three_tissues():
    rng = np.random.default_rng(3)
    gm, wm, csf = rng.dirichlet([0.2, 0.2, 0.2], (12, 13, 9)).transpose(3, 0, 1, 2)
    brain = rng.random(gm.shape) > 0.1
    cbf = np.where(brain, 70 * gm + 25 * wm + rng.normal(0, 60, gm.shape), 0)
    image = nib.Nifti1Image(cbf, np.diag([3.0, 3.5, 5.0, 1]))
    smooth = smooth_image(image, 5).get_fdata()
    tissues = [smooth[brain & (p > 0.7)] for p in (gm, wm, csf)]
    pooled = sum(t.var() * (t.size - 1) for t in tissues) / sum(t.size - 1 for t in tissues)
    similarity = np.corrcoef(smooth.ravel(), (2.5 * gm + wm).ravel())[0, 1]
    dispersion, negative = pooled / tissues[0].mean(), np.mean(tissues[0] < 0)
    qei = quality_evaluation_index(cbf, TissueMaps(gm, wm, csf), brain, (3.0, 3.5, 5.0))
    assert (qei.similarity, qei.dispersion, qei.negative) == pytest.approx(
        (similarity, dispersion, negative)
    )
    assert qei.index == pytest.approx(gmean(qei_scores(similarity, dispersion, negative)))
    assert negative > 0


def test_figures_of_tissues_equal_the_values_computed_by_hand():
    gm, wm = row(1, 1, 1, 0.5, 0, 0, 0), row(0, 0, 0, 0.5, 1, 1, 0)
    maps = maps_of(row(40, 80, -30, 500, 10, 20, 0), att=row(1, 2, 1.8, 9, 9, 9, 9))
    found = figures_of(maps, tissue_of(gm, wm))
    assert found["mean_gm_cbf"] == pytest.approx(30)
    assert found["median_gm_cbf"] == 40
    assert found["mean_wm_cbf"] == 15
    assert found["ratio_gm_wm_cbf"] == pytest.approx(2)
    assert found["spatial_cov_gm_cbf"] == pytest.approx(np.std([40, 80, -30]) / 30)
    assert found["percentage_negative_cbf"] == pytest.approx(100 / 3)
    assert found["mean_gm_att"] == pytest.approx(1.6)
    assert found["median_gm_att"] == pytest.approx(1.8)


def test_figures_of_the_brain_use_mask_voxels_with_an_estimate():
    flags = row(0, 0, 0, 0, Flag.NOT_FINITE, Flag.OUTSIDE).astype(np.uint8)
    maps = maps_of(row(60, 120, 180, 240, 1e6, 1e6), flags=flags)
    found = figures_of(maps, mask=row(1, 1, 1, 1, 1, 0) > 0)
    assert found["mean_brain_cbf"] == found["median_brain_cbf"] == 150
    assert found["spatial_cov_brain_cbf"] == pytest.approx(np.std([60, 120, 180, 240]) / 150)
    assert [found[f"percentage_cbf_above_{limit}"] for limit in (100, 150, 200)] == [75, 50, 25]
    assert found["percentage_negative_brain_cbf"] == 0
    assert found["percentage_flagged"] == 20


def test_att_is_averaged_where_it_is_determined():
    flags = row(0, 0, Flag.ATT_UNDETERMINED).astype(np.uint8)
    found = figures_of(maps_of(row(1, 1, 1), att=row(1, 2, 4), flags=flags))
    assert found["mean_brain_att"] == found["median_brain_att"] == 1.5


def test_without_tissue_maps_the_figures_of_tissues_are_none():
    found = figures_of(maps_of(row(60, 20)))
    of_tissue = [n for n in FIGURES if n.startswith("qei") or "gm" in n or "wm" in n]
    assert {found[n] for n in (*of_tissue, "percentage_negative_cbf")} == {None}
    assert list(found) == list(FIGURES)


def test_undefined_figures_are_none():
    found = figures_of(maps_of(row(-1, -2)), settings=FixedAtt(1.3))
    undefined = ("spatial_cov_brain_cbf", "mean_brain_att", "median_reduced_chi2", "temporal_snr")
    assert {found[n] for n in undefined} == {None}
    everything = row(Flag.NOT_FINITE).astype(np.uint8)
    assert figures_of(maps_of(row(0), flags=everything))["mean_brain_cbf"] is None


def test_the_temporal_snr_refers_to_a_single_pair():
    timings = tuple(replace(t, n_averages=4) for t in FOUR_PLDS.timings)
    scan = series_of((1, 1, 1), Acquisition(timings), noise_sd=row(0.1))
    scan = replace(scan, delta_m=np.array([[[[0.2, 0.4, 0.4, 0.2]]]], dtype=np.float32))
    assert temporal_snr(scan) == pytest.approx(0.3 / (0.1 * 2))
    assert quality_figures(scan, maps_of(row(1)), NO_ARTERY)["temporal_snr"] == pytest.approx(1.5)


@pytest.mark.parametrize(
    ("settings", "n_free"),
    [
        (FreeAtt(), 4),
        (Arterial(), 3),
        (FixedAtt(1.3), 5),
    ],
)
def test_every_free_parameter_uses_a_degree_of_freedom(settings, n_free):
    six_plds = Acquisition(protocol("pcasl", [0.5, 1.0, 1.5, 2.0, 2.5, 3.0], 1.8))
    assert settings.degrees_of_freedom(six_plds) == n_free


def test_chi2_counts_squared_residuals_by_weight_and_noise():
    timings = tuple(Timing("pcasl", 1.0 + i, 1.8, 0.85, n) for i, n in enumerate((1, 1, 1, 5)))
    acquisition = Acquisition(timings)
    maps = maps_of(row(60, 60, 60), flags=row(0, 0, Flag.NOT_FINITE).astype(np.uint8))
    scan = series_of((3, 1, 1), acquisition, noise_sd=row(0.001, 0.002, 0.001))
    off = np.array([0.001, 0, 0, 0.002], dtype=np.float32)
    scan = replace(scan, delta_m=fitted_signal(maps, acquisition) + off)
    found = diagnostic_maps(scan, maps, NO_ARTERY)
    expected = (0.5 * 1 + 2.5 * 4) / 2  # weights 1/2 and 5/2, two degrees of freedom
    assert found["chi2"].ravel()[:2] == pytest.approx([expected, expected / 4], rel=1e-3)
    assert np.isnan(found["chi2"].ravel()[2])
    assert found["adequacy"].ravel()[:2] == pytest.approx(np.exp([-expected, -expected / 4]), 1e-2)


def test_with_two_degrees_of_freedom_adequacy_and_expected_median_have_closed_forms():
    assert adequacy(row(0, 1, 3), 2).ravel() == pytest.approx([1, exp(-1), exp(-3)])
    found = figures_of(maps_of(row(1, 1)), noise_sd=row(1, 1))
    assert found["degrees_of_freedom"] == 2
    assert found["expected_reduced_chi2"] == pytest.approx(log(2))


def test_a_true_model_is_inadequate_at_the_rate_expected_by_chance():
    rng = np.random.default_rng(5)
    shape, sd = (40, 40, 2), 0.0004
    truth = maps_of(np.full(shape, 60, np.float32), att=np.full(shape, 1.2, np.float32))
    clean = fitted_signal(truth, FOUR_PLDS)
    noisy = clean + rng.normal(0, sd, clean.shape).astype(np.float32)
    scan = series_of(shape, noise_sd=np.full(shape, sd, np.float32))
    scan = replace(scan, delta_m=noisy)
    maps = fit_least_squares(scan, NO_ARTERY)
    found = diagnostic_maps(scan, maps, NO_ARTERY)
    assert np.mean(found["adequacy"] < 0.05) == pytest.approx(0.05, abs=0.015)
    assert np.mean(found["chi2"]) == pytest.approx(1, abs=0.05)
    figures = quality_figures(scan, maps, NO_ARTERY)
    assert figures["median_reduced_chi2"] == pytest.approx(log(2), abs=0.05)
    low, high = found["cbf-ci95"][..., 0], found["cbf-ci95"][..., 1]
    assert np.mean((low < 60) & (high > 60)) == pytest.approx(0.95, abs=0.015)


def test_intervals_are_95_percent_wide_and_stay_within_the_search_range():
    flags = row(0, Flag.ATT_UNDETERMINED, Flag.NOT_FINITE).astype(np.uint8)
    att = {"att": row(1, 3.5, 0), "att_std": row(0.1, 1, 0)}
    maps = maps_of(row(50, 50, 0), cbf_std=row(10, 20, 0), flags=flags, **att)
    found = diagnostic_maps(series_of((3, 1, 1)), maps, NO_ARTERY)
    cbf, att = found["cbf-ci95"][:, 0, 0], found["att-ci95"][:, 0, 0]
    assert cbf[:2] == pytest.approx(np.array([[30.4, 69.6], [10.8, 89.2]]), abs=0.01)
    assert att[:2] == pytest.approx(np.array([[0.804, 1.196], [1.54, 4.0]]), abs=0.001)
    assert np.isnan(cbf[2]).all() and np.isnan(att[2]).all()


def test_the_delay_map_includes_slice_timing():
    acquisition = replace(FOUR_PLDS, slice_offsets_s=(0.0, 0.04, 0.08))
    scan = series_of((2, 2, 3), acquisition)
    maps = maps_of(np.ones((2, 2, 3), np.float32))
    plds = diagnostic_maps(scan, maps, NO_ARTERY)["pld"]
    assert plds.shape == (2, 2, 3, 4)
    assert plds[1, 0, 2] == pytest.approx([0.58, 1.08, 1.58, 2.08])


@pytest.mark.parametrize(
    ("acquisition", "settings", "noise", "missing", "reason"),
    [
        (FOUR_PLDS, NO_ARTERY, None, {"adequacy"}, "without repeats"),
        (FOUR_PLDS, FixedAtt(1.0), row(1), {"att-ci95"}, "ATT is not estimated"),
        (
            Acquisition(protocol("pcasl", [1.0, 2.0], 1.8)),
            NO_ARTERY,
            row(1),
            {"chi2", "adequacy"},
            "no more timings than fitted parameters",
        ),
        (FOUR_PLDS, NO_ARTERY, row(1), set(), None),
    ],
)
def test_an_undefined_diagnostic_map_is_omitted_with_a_reason(
    acquisition, settings, noise, missing, reason
):
    scan = series_of((1, 1, 1), acquisition, noise_sd=noise)
    found = diagnostic_maps(scan, maps_of(row(50)), settings)
    assert {"chi2", "adequacy", "cbf-ci95", "att-ci95", "pld"} - set(found) == missing
    reasons = list(missing_diagnostics(scan, settings))
    assert len(reasons) == (reason is not None)
    assert all(reason in r for r in reasons)


def probabilities():
    """Return grey matter in one half of the simulated head and white matter in the other."""
    left = np.arange(SHAPE[0])[:, None, None] < SHAPE[0] / 2
    return (head() & left).astype(np.float32), (head() & ~left).astype(np.float32)


@pytest.mark.parametrize(
    ("change", "affine", "message"),
    [
        (lambda gm: 100 * gm, AFFINE, r"gm.nii: found values from 0 to 100, expected probab"),
        (lambda gm: gm - 0.5, AFFINE, "found values from -0.5"),
        (lambda gm: np.where(gm > 0, gm, np.nan), AFFINE, "found values from nan to nan"),
        (lambda gm: 0.5 * gm, AFFINE, "found no brain voxel above 0.7"),
        (lambda gm: 1.0 * head(), AFFINE, r"sum with gm.nii: found up to 2 in the brain"),
        (lambda gm: gm[:-1], AFFINE, r"expected the grid of the ASL series, 14 x 14 x 3 voxels"),
        (lambda gm: gm, np.eye(4), "found another affine"),
    ],
)
def test_invalid_tissue_maps_are_refused(tmp_path, change, affine, message):
    gm, wm = probabilities()
    grey = save(tmp_path / "gm.nii", change(gm).astype(np.float32), affine)
    white = save(tmp_path / "wm.nii", wm)
    with pytest.raises(InputError, match=message):
        read_tissue(grey, white, head(), AFFINE)


def test_csf_is_one_minus_the_other_tissues_within_the_brain(tmp_path):
    gm, wm = (0.8 * p for p in probabilities())
    tissue = read_tissue(
        save(tmp_path / "g.nii", gm), save(tmp_path / "w.nii", wm), head(), AFFINE
    )
    assert np.allclose(tissue.csf[head()], 0.2) and not tissue.csf[~head()].any()


def fit(scan, out, *options):
    arguments = ["-i", scan, "-o", out, *options]
    return CliRunner().invoke(main, [str(a) for a in arguments])


def test_the_quality_table_has_one_row_equal_to_the_sidecar(tmp_path):
    gm, wm = (save(tmp_path / f"{i}.nii", p) for i, p in enumerate(probabilities()))
    scan = write_scan(tmp_path / "data")
    result = fit(scan, tmp_path / "x_cbf.nii.gz", "--gm", gm, "--wm", wm)
    names, values = (tmp_path / "x_quality.tsv").read_text().splitlines()
    table = dict(zip(names.split("\t"), values.split("\t"), strict=True))
    sidecar = json.loads((tmp_path / "x_cbf.json").read_text())
    assert {n: float(v) for n, v in table.items()} == pytest.approx(
        sidecar["QualityFigures"], rel=1e-5
    )
    assert list(table) == list(json.loads((tmp_path / "x_quality.json").read_text()))
    assert float(table["mean_gm_cbf"]) == pytest.approx(CBF, rel=0.01)
    assert sidecar["TissueMaps"] == [gm.name, wm.name]
    assert "QualityFigures" not in json.loads((tmp_path / "x_att.json").read_text())
    (line,) = (text for text in result.output.splitlines() if text.startswith("quality:"))
    assert line.startswith("quality: QEI 0.") and line.endswith("(grey matter)")


def test_without_tissue_maps_the_table_and_summary_state_the_proxy(tmp_path):
    result = fit(write_scan(tmp_path / "data"), tmp_path / "cbf.nii.gz")
    names, values = (tmp_path / "quality.tsv").read_text().splitlines()
    assert dict(zip(names.split("\t"), values.split("\t"), strict=True))["qei_cbf"] == "n/a"
    assert json.loads((tmp_path / "cbf.json").read_text())["QualityFigures"]["qei_cbf"] is None
    assert (
        "(whole brain instead of grey matter; QEI and GM figures need --gm and --wm)"
        in result.output
    )
    assert "\nfit: median chi2 " in result.output


def test_one_tissue_map_alone_is_a_usage_error(tmp_path):
    gm = save(tmp_path / "gm.nii", probabilities()[0])
    result = fit(write_scan(tmp_path / "data"), tmp_path / "cbf.nii.gz", "--gm", gm)
    assert result.exit_code == 2
    assert "give both tissue maps: --gm FILE --wm FILE" in result.output


def test_a_bad_tissue_map_is_refused_before_anything_is_written(tmp_path):
    gm = save(tmp_path / "gm.nii", 100 * probabilities()[0])
    result = fit(write_scan(tmp_path / "data"), tmp_path / "cbf.nii.gz", "--gm", gm, "--wm", gm)
    assert result.exit_code == 3
    assert not (tmp_path / "cbf.nii.gz").exists()


def test_diagnostic_maps_are_written_with_their_meaning(tmp_path):
    scan = write_scan(tmp_path / "data")
    fit(scan, tmp_path / "sub-01_cbf.nii.gz", "--diagnostics")
    for kind, units, n in (
        ("chi2", "1", ()),
        ("adequacy", "1", ()),
        ("cbf-ci95", "mL/100 g/min", (2,)),
        ("att-ci95", "s", (2,)),
        ("pld", "s", (len(PLDS_S),)),
    ):
        assert nib.load(tmp_path / f"sub-01_{kind}.nii.gz").shape == (*SHAPE, *n)
        sidecar = json.loads((tmp_path / f"sub-01_{kind}.json").read_text())
        assert sidecar["Units"] == units
        assert sidecar.get("Volumes") == (["low", "high"] if n == (2,) else None)
        assert sidecar["DegreesOfFreedom"] == 1
    plds = nib.load(tmp_path / "sub-01_pld.nii.gz").get_fdata()
    assert plds[0, 0, 2] == pytest.approx(np.array(PLDS_S) + SLICE_TIMING_S[2])


def test_an_omitted_diagnostic_map_is_named_on_screen_and_in_the_sidecar(tmp_path):
    scan = write_scan(tmp_path / "data", {"PostLabelingDelay": 1.8}, voxels=scan_volumes())
    result = fit(scan, tmp_path / "cbf.nii.gz", "--diagnostics")
    assert not (tmp_path / "att-ci95.nii.gz").exists()
    assert "note: no att-ci95 map: ATT is not estimated" in result.output
    assert "no att-ci95 map" in json.loads((tmp_path / "cbf.json").read_text())["Notes"][-1]


def test_the_manual_explains_every_figure():
    manual = (Path(__file__).parents[1] / "docs" / "quality.md").read_text()
    assert [name for name in FIGURES if f"`{name}`" not in manual] == []
