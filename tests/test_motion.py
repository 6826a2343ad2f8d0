"""Rigid realignment recovers and corrects known motion despite changing contrast."""

import json
from functools import cache

import numpy as np
import pytest
from click.testing import CliRunner
from scans import save, write_m0, write_scan
from scipy import ndimage

from aslkit.bids.reader import read_run
from aslkit.cli.fit_ls import main
from aslkit.core.errors import InputError
from aslkit.prepare.motion import (
    Frame,
    compose,
    framewise_displacement,
    realign,
    register,
    resample,
    rigid_matrix,
)
from aslkit.prepare.series import series_from_runs

SHAPE, SIZE_MM = (48, 48, 14), (3.5, 3.5, 5.0)
FRAME = Frame(SHAPE, SIZE_MM)
LEVELS = {0.5: (0.5, 0.35, 0.9), 1.0: (0.3, 0.5, 0.7), 1.8: (0.4, 0.6, 0.5)}  # of three tissues
PAIR = ("control", "label")
PER_REPEAT = len(PAIR) * len(LEVELS)  # volumes
N_VOLUMES, NOISE_SD = 2 * PER_REPEAT, 8.0


@cache
def tissues():
    """Return fractions of three tissues in an ellipsoid head, (tissue, x, y, z)."""
    rng = np.random.default_rng(2)
    x, y, z = FRAME.to_mm(np.indices(SHAPE).reshape(3, -1)).reshape(3, *SHAPE)
    inside = (x / 62) ** 2 + (y / 70) ** 2 + (z / 45) ** 2 < 1
    texture = ndimage.gaussian_filter(rng.normal(0, 1, SHAPE), (2.5, 2.5, 1.5))
    is_rim = (x / 54) ** 2 + (y / 62) ** 2 + (z / 39) ** 2 > 1
    grey = inside & ~is_rim & (texture > 0)
    white = inside & ~is_rim & ~grey
    parts = np.stack([grey, white, inside & is_rim]).astype(float)
    return np.stack([ndimage.gaussian_filter(p, (0.7, 0.7, 0.4)) for p in parts])


def moved(image, parameters):
    """Move an image with splines of order 5, which the code under test does not use."""
    if not np.any(parameters):
        return image
    rigid = rigid_matrix(parameters)
    grid = FRAME.to_mm(np.indices(SHAPE).reshape(3, -1))
    places = FRAME.to_voxels(rigid[:, :3].T @ (grid - rigid[:, 3:]))
    return ndimage.map_coordinates(image, places, order=5, mode="nearest").reshape(SHAPE)


def random_walk(step=0.1):
    """Return motion (volumes, 6) [mm, rad] with normal steps of SD `step` [mm, degrees]."""
    rng = np.random.default_rng(4)
    steps = rng.normal(0, step, (N_VOLUMES, 6)) * ([1] * 3 + [np.deg2rad(1)] * 3)
    return np.cumsum(steps, axis=0) - steps[0]


def moving_run(folder, walk, noise_sd=NOISE_SD):
    """Write a run with static contrast that depends on the delay, and its M0."""
    rng = np.random.default_rng(6)
    parts, voxels = tissues(), []
    contexts = PAIR * (len(walk) // len(PAIR))
    plds_s = [pld for pld in LEVELS for _ in PAIR] * (len(walk) // PER_REPEAT)
    for pld, context, parameters in zip(plds_s, contexts, walk, strict=True):
        signal = 1000 * np.tensordot(LEVELS[pld], parts, 1) - 6.0 * parts[0] * (context == "label")
        voxels.append(moved(signal, parameters) + rng.normal(0, noise_sd, SHAPE))
    affine = np.diag([*SIZE_MM, 1.0])
    sidecar = {"PostLabelingDelay": plds_s, "M0Type": "Separate", "SliceTiming": None}
    sidecar["MRAcquisitionType"] = "3D"
    image = write_scan(folder, sidecar, contexts, np.zeros((2, 2, 2)))
    save(image, np.stack(voxels, axis=3).astype(np.float32), affine)
    m0 = 1000 * np.tensordot((0.85, 0.75, 1.0), parts, 1)
    write_m0(image, m0.astype(np.float32), affine=affine)
    return image


@pytest.fixture(scope="module")
def moving_scan(tmp_path_factory):
    """Write a run in which the head moves in a random walk."""
    return moving_run(tmp_path_factory.mktemp("moving_scan"), random_walk())


def brain():
    return tissues().sum(axis=0) > 0.5


def test_a_random_walk_is_recovered_despite_changing_contrast(moving_scan):
    walk, run = random_walk(), read_run(moving_scan)
    _, found = realign(run, run.calibration.m0, brain())
    error = np.abs(found - walk).mean(axis=0)
    assert error[:3].mean() < 0.15
    assert np.rad2deg(error[3:]).mean() < 0.15
    between = np.abs((found - found[0]) - walk).mean(axis=0)
    assert between[:3].max() < 0.1
    assert np.rad2deg(between[3:]).max() < 0.1


def test_realignment_halves_the_error_of_the_difference(tmp_path):
    walks = {"rest": 0 * random_walk(), "moving": random_walk()}
    still, run = (read_run(moving_run(tmp_path / n, w, 0.5)) for n, w in walks.items())
    inside = ndimage.binary_erosion(brain(), np.ones((5, 5, 3)))
    realigned, _ = realign(run, run.calibration.m0, brain())
    runs = (still, run, realigned)
    truth, before, after = (series_from_runs([r], brain()).delta_m for r in runs)
    error = [np.sqrt(np.nanmean((d - truth)[inside] ** 2)) for d in (before, after)]
    assert error[1] < 0.5 * error[0]


@pytest.mark.slow
def test_simpleitk_finds_the_same_motion():
    sitk = pytest.importorskip("SimpleITK")
    fixed = 1000 * np.tensordot((0.85, 0.75, 1.0), tissues(), 1)
    parameters = np.array([1.2, -0.8, 0.9, *np.deg2rad([1.0, -1.5, 2.0])])
    images = []
    for voxels in (fixed, moved(fixed, parameters)):
        image = sitk.GetImageFromArray(voxels.transpose().astype(np.float32))
        image.SetSpacing(SIZE_MM)
        image.SetOrigin([-(n - 1) / 2 * s for n, s in zip(SHAPE, SIZE_MM, strict=True)])
        images.append(sitk.SmoothingRecursiveGaussian(image, 2.0))
    method = sitk.ImageRegistrationMethod()
    method.SetMetricAsCorrelation()
    method.SetInterpolator(sitk.sitkBSpline)
    method.SetOptimizerAsRegularStepGradientDescent(1.0, 1e-4, 100, 0.5, 1e-10)
    method.SetOptimizerScales([50.0**2] * 3 + [1.0] * 3)
    method.SetInitialTransform(sitk.Euler3DTransform())
    theirs = method.Execute(*images)
    ours = register(moved(fixed, parameters), fixed, brain(), FRAME)
    places = FRAME.to_mm(np.argwhere(brain()).T)
    there = np.array([theirs.TransformPoint(p) for p in places.T[::50].tolist()])
    truth, here = (
        (rigid[:, :3] @ places + rigid[:, 3:]).T[::50]
        for rigid in (rigid_matrix(parameters), rigid_matrix(ours))
    )
    assert np.linalg.norm(here - truth, axis=1).mean() < 0.15
    assert (
        np.linalg.norm(here - there, axis=1).mean() < 0.4
    )  # SimpleITK stops 0.3 mm from the truth


def test_realignment_without_motion_preserves_the_difference(tmp_path):
    run = read_run(moving_run(tmp_path, np.zeros((N_VOLUMES, 6))))
    realigned, found = realign(run, run.calibration.m0, brain())
    assert np.abs(found - found[0]).max() < 0.1
    before, after = (series_from_runs([r], brain()).delta_m[brain()] for r in (run, realigned))
    assert np.nanmean(after) == pytest.approx(np.nanmean(before), rel=0.01)


@pytest.mark.slow
def test_voxels_outside_the_field_of_view_are_ignored_in_the_average(tmp_path):
    walk = np.zeros((3 * PER_REPEAT, 6))
    walk[6:12, 2] = 6.0  # the second repeat of every delay moves out by more than a slice
    run = read_run(moving_run(tmp_path, walk))
    realigned, _ = realign(run, run.calibration.m0, brain())
    assert np.isnan(realigned.volumes[..., 6]).any()
    shown = brain() & np.isfinite(realigned.volumes[..., 0])
    series = series_from_runs([realigned], brain())
    assert np.isfinite(series.delta_m[shown]).all()
    assert np.isfinite(series.noise_sd[shown]).all()


def test_resampling_without_motion_returns_the_image():
    image = np.random.default_rng(1).normal(0, 1, SHAPE).astype(np.float32)
    assert np.allclose(resample(image, np.zeros(6), FRAME), image, atol=1e-5)


def test_composed_motions_equal_the_product_of_their_matrices():
    rng = np.random.default_rng(8)
    first, second = rng.normal(0, 0.3, (2, 6))
    matrices = [np.vstack([rigid_matrix(p), [0, 0, 0, 1]]) for p in (first, second)]
    both = np.vstack([rigid_matrix(compose(first, second)), [0, 0, 0, 1]])
    assert np.allclose(both, matrices[0] @ matrices[1])


def test_framewise_displacement_sums_translations_and_arcs_and_skips_nan():
    parameters = np.zeros((4, 6))
    parameters[1] = np.nan
    parameters[2:] = [0.1, -0.2, 0.3, 0.01, 0.0, -0.02]
    found = framewise_displacement(parameters)
    assert np.allclose(found[[0, 2, 3]], [0, 0.6 + 50 * 0.03, 0])
    assert np.isnan(found[1])


def test_the_command_writes_the_motion_and_records_it(moving_scan, tmp_path):
    arguments = ["-i", str(moving_scan), "-o", str(tmp_path / "cbf.nii.gz"), "--moco"]
    result = CliRunner().invoke(main, arguments, catch_exceptions=False)
    assert "motion: framewise displacement" in result.output
    header, *rows = [r.split("\t") for r in (tmp_path / "motion.tsv").read_text().splitlines()]
    assert header[3:] == [
        *("trans_x", "trans_y", "trans_z", "rot_x", "rot_y", "rot_z", "framewise_displacement")
    ]
    assert len(rows) == N_VOLUMES
    assert (tmp_path / "motion.png").read_bytes().startswith(b"\x89PNG")
    sidecar = json.loads((tmp_path / "cbf.json").read_text())
    assert sidecar["MotionCorrection"].startswith("rigid")
    assert sidecar["MeanFramewiseDisplacement"] > 0


def test_difference_images_cannot_be_realigned(tmp_path):
    voxels = np.ones((14, 14, 3, 1), dtype=np.float32)
    sidecar = {"PostLabelingDelay": 1.8, "M0Type": "Estimate", "M0Estimate": 800.0}
    run = read_run(write_scan(tmp_path, sidecar, ["deltam"], voxels))
    with pytest.raises(InputError, match="--moco.*difference images"):
        realign(run, None, np.ones((14, 14, 3), dtype=bool))
