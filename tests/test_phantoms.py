"""Phantoms: plausible anatomy, simple shapes, and files."""

import gzip
from dataclasses import fields
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from nilearn import datasets

from aslkit.cli.sim import main as asl_sim
from aslkit.core.errors import InputError
from aslkit.fit.least_squares import fit_least_squares
from aslkit.fit.settings import FreeAtt
from aslkit.simulate.anatomy import Subjects, Tissue, draw_planes, draw_subjects
from aslkit.simulate.lesions import LESION_CLASSES
from aslkit.simulate.phantoms import (
    PHANTOM_SEED,
    SHAPES,
    brain_phantom,
    find_phantoms,
    load_phantom,
    save_phantom,
    shape_phantom,
)
from aslkit.simulate.random_fields import Planes, draw_random_fields
from aslkit.simulate.signal import PROTOCOLS, simulate_series, truth_maps
from aslkit.simulate.template import TEMPLATE_MM
from aslkit.simulate.vessels import (
    CENTRE_MNI_MM,
    TERRITORY_CENTRES_MM,
    artery_distance_mm,
    territory_weights,
)

SHIPPED = Path(__file__).parents[1] / "data" / "phantoms"
MOST_BYTES = 20e6


@pytest.fixture(scope="module")
def brain():
    return brain_phantom("brain", 5, voxel_size_mm=6)


@pytest.fixture(scope="module")
def many():
    """Draw slices of many subjects."""
    rng = np.random.default_rng(0)
    return draw_subjects(rng, 200).at(draw_planes(rng, 200, 32))


def test_random_fields_are_sums_of_waves_with_unit_variance():
    rng = np.random.default_rng(1)
    random_fields, planes = draw_random_fields(rng, np.full((2, 5), 20.0)), draw_planes(rng, 2, 16)
    waves = np.einsum("pxyd,pdkn->pkxyn", planes.points, random_fields.waves)
    expected = np.cos(waves + random_fields.phases[:, 0, :, None, None]).sum(-1) * np.sqrt(2 / 16)
    np.testing.assert_allclose(random_fields.at(planes), expected, atol=1e-10)
    far = Planes(1e4 * rng.standard_normal((2, 40, 3)), 1e4 * rng.standard_normal((2, 40, 3)))
    assert random_fields.at(far).var() == pytest.approx(1, rel=0.1)


def test_numpy_and_torch_evaluate_the_same_subjects():
    rng = np.random.default_rng(2)
    subjects, planes = draw_subjects(rng, 3), draw_planes(rng, 3, 24)
    tensors = Planes(torch.as_tensor(planes.x), torch.as_tensor(planes.y))
    here, there = subjects.at(planes), subjects.at(tensors)
    for f in fields(Tissue):
        np.testing.assert_allclose(
            getattr(there, f.name).numpy(), getattr(here, f.name), rtol=1e-9, atol=1e-9
        )


def test_a_slice_in_a_batch_equals_the_slice_of_the_whole_brain():
    subject = draw_subjects(np.random.default_rng([PHANTOM_SEED, 5]), 1)
    brain = brain_phantom("brain", 5, voxel_size_mm=6)
    z = 12
    corner = brain.affine[:3, 3]
    x, y = (
        corner[i] * np.eye(3)[i] + 6 * np.arange(n)[:, None] * np.eye(3)[i]
        for i, n in enumerate(brain.mask.shape[:2])
    )
    height = (corner[2] + 6 * z) * np.eye(3)[2]
    tissue = subject.at(Planes(x[None], y[None] + height))
    inside = brain.mask[:, :, z]
    np.testing.assert_array_equal(tissue.mask[0], inside)
    np.testing.assert_allclose(tissue.cbf_gm[0][inside], brain.cbf_gm[:, :, z][inside], atol=0.04)


def test_tissue_values_stay_in_their_ranges(brain):
    inside = brain.mask
    assert 5_000 < inside.sum() < 12_000  # about 1.1-2.6 litres at 6 mm
    fractions = brain.gm + brain.wm + brain.csf
    assert fractions[inside].min() >= 0 and fractions[inside].max() < 1.01
    assert brain.att[inside].min() >= 0.3 and brain.att[inside].max() < 3.801
    assert np.all(brain.cbf[~inside] == 0) and 10 < np.median(brain.cbf[inside]) < 90


def test_abv_is_small_and_highest_near_arteries_and_sulci_and_abat_is_early(many):
    inside = many.mask
    assert many.abv.min() >= 0 and many.abv.max() < 0.0501
    assert 0.001 < many.abv[inside].mean() < 0.008
    assert np.all(many.abat <= many.att_gm) and np.all(many.att_gm <= many.att_wm)
    sulci = inside & (many.gm * many.csf > 0.15)
    white = inside & (many.wm > 0.9)
    assert many.abv[sulci].mean() > 2 * many.abv[white].mean()
    assert np.median((many.att_gm - many.abat)[inside]) > 0.15


def test_arteries_and_territories_are_at_anatomical_positions():
    sites = {"M1": (-25, 6, -18), "pericallosal": (3, 20, 36), "white matter": (28, -20, 32)}
    points = np.array(list(sites.values())) - CENTRE_MNI_MM
    near, midline, far = artery_distance_mm(points)
    assert near < 3 and midline < 3 and far > 12
    weights = territory_weights(TERRITORY_CENTRES_MM)
    assert weights.argmax(axis=-1).tolist() == [0, 1, 2, 0, 1, 2] and weights.max(-1).min() > 0.8


def test_blood_arrives_late_between_the_territories():
    rng = np.random.default_rng(3)
    subjects, planes = draw_subjects(rng, 40), draw_planes(rng, 40, 32)
    early = {**vars(subjects), "watershed_delay": np.zeros(40)}
    with_delay, without = subjects.at(planes), Subjects(**early).at(planes)
    delay = (with_delay.att_gm - without.att_gm)[with_delay.mask]
    assert delay.min() >= 0 and 0.3 < delay.max() <= 0.6
    assert 0.1 < np.mean(delay > 0.05) < 0.6


def test_every_kind_of_lesion_occurs_with_its_effect_on_cbf_and_att(many):
    grey = many.mask & (many.gm > 0.5) & (many.lesions == 0)
    for number, name in LESION_CLASSES.items():
        inside = many.mask & (many.lesions == number)
        assert inside.sum() > 100, name
        is_hyper = "hyperperfused" in name
        relative = np.median(many.cbf_gm[inside]) / np.median(many.cbf_gm[grey])
        later = np.median(many.att_gm[inside]) - np.median(many.att_gm[grey])
        assert (relative > 1.1) if is_hyper else (relative < 1 and later > 0.2), name


def test_the_seed_determines_the_phantom(brain):
    again = brain_phantom("brain", 5, voxel_size_mm=6)
    other = brain_phantom("brain", 6, voxel_size_mm=6)
    np.testing.assert_array_equal(brain.cbf, again.cbf)
    assert not np.array_equal(brain.cbf, other.cbf)


def test_any_matrix_has_the_same_brain_around_its_centre(brain):
    shape = brain.mask.shape
    matrix = (shape[0] - 4, shape[1] + 6, shape[2] - 2)
    other = brain_phantom("brain", 5, voxel_size_mm=6, matrix=matrix)
    assert other.mask.shape == matrix
    np.testing.assert_array_equal(other.cbf[:, 3:-3], brain.cbf[2:-2, :, 1:-1])
    assert other.affine[:3, 3].tolist() == (brain.affine[:3, 3] + (12, -18, 6)).tolist()


@pytest.mark.parametrize("kind", SHAPES)
def test_shapes_are_recovered_by_least_squares(kind):
    phantom = shape_phantom(kind, 1)
    acquisition = PROTOCOLS["joint6"].acquisition(phantom.mask.shape[2])
    series = simulate_series(phantom, acquisition, 1e4, seed=0)
    maps = fit_least_squares(series, FreeAtt())
    error = np.abs(maps.cbf - truth_maps(phantom).cbf)[phantom.mask]
    assert phantom.mask.any() and error.mean() < 0.01


def test_an_unknown_shape_is_named():
    with pytest.raises(ValueError, match="'blob' is not one of brain"):
        shape_phantom("blob", 1)


def test_the_phantom_plan_has_its_tissues_a_tumour_and_a_stroke():
    plan = shape_phantom("plan", 1)
    healthy = plan.lesions == 0
    for tissue, cbf, att in (("gm", (50, 70), (1.0, 1.6)), ("wm", (18, 28), (1.2, 1.8))):
        where = healthy & (getattr(plan, tissue) == 1)
        for values, (low, high) in ((plan.cbf, cbf), (plan.att, att)):
            assert low - 0.05 <= values[where].min() and values[where].max() <= high + 0.05
    assert {1, 4} <= set(np.unique(plan.lesions))


def test_a_phantom_is_written_and_read_back(brain, tmp_path):
    save_phantom(brain, tmp_path)
    (path,) = find_phantoms(tmp_path)
    loaded = load_phantom(path)
    for f in fields(Tissue):
        np.testing.assert_array_equal(getattr(loaded, f.name), getattr(brain, f.name))
    (tmp_path / "brain.json").write_text("{}")
    with pytest.raises(InputError, match="brain.json: Maps: found nothing"):
        load_phantom(path)
    with pytest.raises(InputError, match="found no phantom"):
        find_phantoms(tmp_path / "nothing")


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("brain-003", ["--seed", "3"]),
        ("plan-02", ["--seed", "2", "--anatomy", "plan"]),
        ("disc-01", ["--seed", "1", "--anatomy", "disc"]),
    ],
)
def test_the_shipped_phantoms_equal_the_output_of_their_command(tmp_path, name, options):
    done = CliRunner().invoke(
        asl_sim, ["--phantoms-only", "--out", str(tmp_path / "out"), *options]
    )
    assert done.exit_code == 0, done.output
    made = tmp_path / "out" / f"{name}.nii.gz"
    shipped = SHIPPED / made.name
    assert gzip.decompress(made.read_bytes()) == gzip.decompress(shipped.read_bytes())
    assert made.with_name(f"{name}.json").read_bytes() == (SHIPPED / f"{name}.json").read_bytes()
    assert made.read_bytes()[3:8] == b"\0\0\0\0\0"  # neither a file name nor a time


def test_the_shipped_phantoms_are_complete_and_small():
    phantoms = [load_phantom(path) for path in find_phantoms(SHIPPED)]
    kinds = [p.name.split("-")[0] for p in phantoms]
    assert kinds.count("brain") == 5 and set(kinds) == {"brain", *SHAPES}
    assert sorted({p.affine[0, 0] for p in phantoms}) == [2.5, 3.5]
    brains = [p for p in phantoms if p.name.startswith("brain")]
    for number, name in LESION_CLASSES.items():
        assert sum((p.lesions == number).sum() for p in brains) >= 20, name
    assert sum(p.stat().st_size for p in SHIPPED.iterdir()) < MOST_BYTES


def test_every_second_voxel_of_the_template_equals_resampling():
    load = datasets.load_mni152_gm_template
    every = slice(None, None, TEMPLATE_MM)
    fine, coarse = (load(resolution=mm).get_fdata() for mm in (1, TEMPLATE_MM))
    np.testing.assert_allclose(fine[every, every, every], coarse, atol=1e-6)
