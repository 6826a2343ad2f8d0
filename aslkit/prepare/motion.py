"""A run -> the rigid motion of every volume, and the run resampled to one position.

Volumes are registered to a reference T of another contrast: Gauss-Newton steps on six parameters
and an intensity curve a + b T + c T², from coarse to fine. Each control or label volume is
registered to the mean of its timing group. The positions of these means follow from the
continuity of motion in time, and the mean most similar to the reference is registered to it.
"""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from aslkit.bids.run import AslRun, timing_groups
from aslkit.core.errors import InputError
from aslkit.core.progress import Progress
from aslkit.core.series_and_maps import FloatImage, MaskImage
from aslkit.prepare.noise import finite_mean

LEVELS_SIGMA_MM = (4.0, 2.0)  # smoothing of both images, coarse to fine
MARGIN_MM = 8.0  # margin around the brain, because its edge guides the registration
N_ITERATIONS = 12
SMALL_STEP = 2e-3  # mm, or mm at HEAD_RADIUS_MM: convergence
HEAD_RADIUS_MM = 50.0  # converts rotations to displacements (Power 2012)
MM_PER_UNIT = np.array([1.0] * 3 + [HEAD_RADIUS_MM] * 3)  # of each parameter
N_THREADS = 2
MOTION_COLUMNS = ("trans_x", "trans_y", "trans_z", "rot_x", "rot_y", "rot_z")  # mm, degrees

Parameters = NDArray[np.float64]


@dataclass(frozen=True)
class Template:
    """A reference at one smoothing level: samples, positions and derivatives."""

    sigma_mm: float
    places_mm: NDArray[np.float64]
    jacobian: NDArray[np.float64]
    curve: NDArray[np.float64]


@dataclass(frozen=True)
class Frame:
    """Grid of a run: voxel indices <-> mm from the centre of the field of view, axes as stored."""

    shape: tuple[int, ...]
    size_mm: tuple[float, float, float]

    def to_mm(self, voxels: NDArray[np.floating]) -> NDArray[np.float64]:
        """Return positions (3, n) in mm from the centre."""
        return (voxels - self._centre) * np.array(self.size_mm)[:, None]

    def to_voxels(self, places_mm: NDArray[np.floating]) -> NDArray[np.float64]:
        """Return the voxel indices (3, n) of positions."""
        return places_mm / np.array(self.size_mm)[:, None] + self._centre

    @property
    def _centre(self) -> NDArray[np.float64]:
        return (np.array(self.shape)[:, None] - 1) / 2


def realign(
    run: AslRun, reference: FloatImage | None, brain: MaskImage, progress: Progress = iter
) -> tuple[AslRun, Parameters]:
    """Estimate and correct the motion of a run.

    Parameters
    ----------
    run : AslRun
        Control and label volumes.
    reference : array (x, y, z), optional
        Image to register to, such as M0; the mean of the first timing when not given.
    brain : bool array (x, y, z)
        The registration uses the brain and its surroundings.
    progress : callable
        Wraps the volumes to register, as tqdm does.

    Returns
    -------
    run : AslRun
        Control and label volumes, resampled once; NaN outside of the field of view.
    parameters : array (volumes, 6)
        Translation [mm] and rotation [rad] about the axes of the image and its centre, from the
        reference to the volume; NaN for volumes that are neither control nor label.

    Raises
    ------
    InputError
        When the run holds difference volumes, which have too little contrast.
    """
    if "deltam" in run.contexts:
        raise InputError(
            run.source,
            "--moco",
            found="difference images",
            expected="control and label images",
            fix="give --no-moco, or the images before subtraction",
        )
    frame = Frame(run.volumes.shape[:3], run.voxel_size_mm)
    region = _surroundings(brain, frame)
    groups = [sorted(i for p in g for i in p.indices) for g in timing_groups(run).values()]
    found = np.full((run.volumes.shape[3], 6), np.nan)
    bar = iter(progress(range(sum(len(g) for g in groups))))
    means = []
    for group in groups:
        images = np.moveaxis(run.volumes[..., group], 3, 0)
        templates = _templates(images.mean(axis=0), region, frame)
        with ThreadPoolExecutor(N_THREADS) as threads:
            jobs = [threads.submit(_register, image, templates, frame) for image in images]
            for i, job in zip(group, jobs, strict=True):
                found[i] = job.result()
                next(bar, None)
        aligned = [resample(v, found[i], frame) for v, i in zip(images, group, strict=True)]
        means.append(np.nan_to_num(finite_mean(np.stack(aligned, axis=3))))
    next(bar, None)  # completes the bar
    offsets = _offsets(found, groups)
    if reference is not None:
        offsets = _anchored(offsets, means, reference, region, frame)
    volumes = run.volumes.copy()
    for group, offset in zip(groups, offsets, strict=True):
        for i in group:
            found[i] = compose(found[i], offset)
            volumes[..., i] = resample(run.volumes[..., i], found[i], frame)
    return replace(run, volumes=volumes), found


def register(
    image: FloatImage, reference: FloatImage, brain: MaskImage, frame: Frame
) -> Parameters:
    """Estimate the motion from a reference to an image, (6,) [mm, rad]."""
    return _register(image, _templates(reference, _surroundings(brain, frame), frame), frame)


def resample(image: FloatImage, parameters: Parameters, frame: Frame) -> FloatImage:
    """Resample an image to the reference's position by cubic splines; NaN outside of the view."""
    grid = frame.to_mm(np.indices(frame.shape, dtype=np.float64).reshape(3, -1))
    places = frame.to_voxels(_moved(grid, parameters))
    top = np.array(frame.shape)[:, None] - 1
    is_inside = ((places >= -0.5) & (places <= top + 0.5)).all(axis=0)
    values = ndimage.map_coordinates(image, places, order=3, mode="nearest")
    return np.where(is_inside, values, np.nan).reshape(frame.shape).astype(np.float32)


def framewise_displacement(parameters: Parameters) -> NDArray[np.float64]:
    """Return the sum of the six absolute changes, rotations at 50 mm, (volumes,) [mm].

    Power et al. 2012, doi:10.1016/j.neuroimage.2011.10.018. The first volume has 0. Volumes
    that were not registered are skipped and have NaN.
    """
    moved = np.isfinite(parameters[:, 0])
    scaled = parameters[moved] * MM_PER_UNIT
    displacement = np.full(len(parameters), np.nan)
    displacement[moved] = np.abs(np.diff(scaled, axis=0, prepend=scaled[:1])).sum(axis=1)
    return displacement


def in_degrees(parameters: Parameters) -> Parameters:
    """Convert parameters [mm, rad] to [mm, degrees]."""
    return np.column_stack([parameters[:, :3], np.rad2deg(parameters[:, 3:])])


def compose(inner: Parameters, outer: Parameters) -> Parameters:
    """Return the parameters of the motion `outer` followed by the motion `inner`."""
    first, second = rigid_matrix(outer), rigid_matrix(inner)
    rotation = second[:, :3] @ first[:, :3]
    shift = second[:, :3] @ first[:, 3] + second[:, 3]
    y = np.arcsin(np.clip(rotation[0, 2], -1, 1))
    x = np.arctan2(-rotation[1, 2], rotation[2, 2])
    z = np.arctan2(-rotation[0, 1], rotation[0, 0])
    return np.array([*shift, x, y, z])


def rigid_matrix(parameters: Parameters) -> NDArray[np.float64]:
    """Return the (3, 4) matrix of a translation [mm] after rotations [rad] about z, y, x."""
    (cx, cy, cz), (sx, sy, sz) = np.cos(parameters[3:]), np.sin(parameters[3:])
    about_x = np.array([[1, 0, 0], [0, cx, -sx], [0, sx, cx]])
    about_y = np.array([[cy, 0, sy], [0, 1, 0], [-sy, 0, cy]])
    about_z = np.array([[cz, -sz, 0], [sz, cz, 0], [0, 0, 1]])
    return np.column_stack([about_x @ about_y @ about_z, parameters[:3]])


def _moved(places_mm: NDArray[np.float64], parameters: Parameters) -> NDArray[np.float64]:
    matrix = rigid_matrix(parameters)
    return matrix[:, :3] @ places_mm + matrix[:, 3:]


def _offsets(found: Parameters, groups: Sequence[Sequence[int]]) -> Parameters:
    """Return the position of every group, (groups, 6), with the least motion between volumes.

    Contrast differs between groups, which biases a registration of one group to another by up
    to a millimetre. The head moves little between successive volumes, so the groups are placed
    by least squares on the changes between successive volumes.
    """
    group_of = {i: g for g, members in enumerate(groups) for i in members}
    order = sorted(group_of)
    changes = list(pairwise(order))
    design = np.zeros((len(changes) + 1, len(groups)))
    target = np.zeros((len(changes) + 1, 6))
    for row, (i, j) in enumerate(changes):
        design[row, group_of[j]] += 1
        design[row, group_of[i]] -= 1
        target[row] = found[i] - found[j]
    design[-1, 0] = 1  # the first group is fixed
    return np.asarray(np.linalg.lstsq(design, target, rcond=None)[0], dtype=np.float64)


def _anchored(
    offsets: Parameters,
    means: Sequence[FloatImage],
    reference: FloatImage,
    region: MaskImage,
    frame: Frame,
) -> Parameters:
    """Return the offsets from the reference, by the group mean most similar to it."""
    likeness = [np.corrcoef(m[region], np.nan_to_num(reference[region]))[0, 1] for m in means]
    best = int(np.argmax(likeness))
    anchor = _register(means[best], _templates(reference, region, frame), frame)
    return np.stack([compose(o - offsets[best], anchor) for o in offsets])


def _surroundings(brain: MaskImage, frame: Frame) -> MaskImage:
    distance = ndimage.distance_transform_edt(~brain, sampling=frame.size_mm)
    return np.asarray(distance <= MARGIN_MM)


def _templates(image: FloatImage, region: MaskImage, frame: Frame) -> list[Template]:
    return [_template(image, region, frame, sigma) for sigma in LEVELS_SIGMA_MM]


def _template(image: FloatImage, region: MaskImage, frame: Frame, sigma_mm: float) -> Template:
    """Compute a template; its derivatives give the constant left side of the normal equations."""
    smooth = _smooth_finite(image, frame, sigma_mm)
    smooth /= max(float(np.abs(smooth[region]).mean()), np.finfo(float).tiny)
    places = frame.to_mm(np.argwhere(region).T.astype(np.float64))
    gradient = np.stack(
        [g[region] / s for g, s in zip(np.gradient(smooth), frame.size_mm, strict=True)]
    )
    values = smooth[region]
    curve = np.stack([np.ones_like(values), values, values**2], axis=1)
    rotations = np.cross(places.T, gradient.T)
    return Template(sigma_mm, places, np.column_stack([gradient.T, rotations]), curve)


def _smooth_finite(image: FloatImage, frame: Frame, sigma_mm: float) -> NDArray[np.float64]:
    finite = np.where(np.isfinite(image), image, 0.0).astype(np.float64)
    return ndimage.gaussian_filter(finite, sigma_mm / np.array(frame.size_mm), mode="nearest")


def _register(image: FloatImage, templates: Sequence[Template], frame: Frame) -> Parameters:
    """Return the motion from the reference to an image."""
    found = np.zeros(6)
    for template in templates:
        smooth = _smooth_finite(image, frame, template.sigma_mm)
        coefficients = ndimage.spline_filter(smooth, order=3, mode="nearest")
        for _ in range(N_ITERATIONS):
            places = frame.to_voxels(_moved(template.places_mm, found))
            values = ndimage.map_coordinates(
                coefficients, places, order=3, mode="nearest", prefilter=False
            )
            step = _step(values, template)
            found = compose(found, step)
            if np.abs(step * MM_PER_UNIT).max() < SMALL_STEP:
                break
    return found


def _step(values: NDArray[np.float64], template: Template) -> Parameters:
    """Return the parameter update that best explains the values, with the intensity curve."""
    curve, *_ = np.linalg.lstsq(template.curve, values, rcond=None)
    slope = curve[1] + 2 * curve[2] * template.curve[:, 1]
    design = np.column_stack([template.jacobian * slope[:, None], template.curve])
    solution, *_ = np.linalg.lstsq(design, values, rcond=None)
    return -np.asarray(solution[:6])
