"""Random subjects: points in the head (mm) -> tissue, perfusion, arrival times and vessels there.

Anatomy is the ICBM 2009 template that nilearn bundles (Fonov 2011,
doi:10.1016/j.neuroimage.2010.07.033), warped at random; everything else is drawn. A subject can
be evaluated at any points, so that whole volumes and oblique training slices come from the same
place.
"""

from dataclasses import dataclass, field
from functools import cache

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter, map_coordinates

from aslkit.fields import Points, SmoothField, Values
from aslkit.lesions import Lesion, draw_lesions

TEMPLATE_MM = 2
TEMPLATE_BLUR_MM = 1.0
ATT_RANGE_S = (0.3, 3.8)


@dataclass(frozen=True)
class Tissue:
    """Truth at some points; all arrays have the shape of the points without their last axis.

    gm, wm, csf are volume fractions; cbf_* in ml/100 g/min and att_* in s belong to the pure
    tissues; abv is a fraction, abat in s; lesions holds classes of `lesions`, 0 elsewhere.
    """

    gm: Values
    wm: Values
    csf: Values
    cbf_gm: Values
    cbf_wm: Values
    att_gm: Values
    att_wm: Values
    abv: Values
    abat: Values
    lesions: NDArray[np.uint8]
    mask: NDArray[np.bool_]

    @property
    def cbf(self) -> Values:
        """CBF of the voxel: the sum over its tissues."""
        return self.gm * self.cbf_gm + self.wm * self.cbf_wm

    @property
    def att(self) -> Values:
        """ATT of the voxel: the flow-weighted mean over its tissues."""
        flow = np.maximum(self.gm * self.cbf_gm, 1e-6), np.maximum(self.wm * self.cbf_wm, 1e-6)
        return (flow[0] * self.att_gm + flow[1] * self.att_wm) / (flow[0] + flow[1])


@dataclass(frozen=True)
class Subject:
    """All random choices of one subject; `at` evaluates them anywhere."""

    size: Points
    sharpness: float
    cbf_gm: float
    wm_ratio: float
    att_gm: float
    att_wm_delay: float
    watershed_delay: float
    cbf_variation: tuple[float, float]
    att_variation: tuple[float, float]
    vessel_abv: float
    tissue_abv: float
    bolus_lead: float
    lesions: tuple[Lesion, ...]
    smooth: dict[str, SmoothField] = field(repr=False)

    def at(self, points_mm: Points) -> Tissue:
        """Truth at points (n, 3) [mm], centred on the middle of the brain."""
        points = np.asarray(points_mm, dtype=np.float32)
        warp = np.stack([self.smooth[f"warp {axis}"](points) for axis in "xyz"], axis=-1)
        gm, wm, brain = _template_at(points * self.size + 4.0 * warp, self.sharpness)
        s = self.smooth
        regional, fine = self.cbf_variation
        variation = np.exp(regional * s["cbf"](points) + fine * s["fine cbf"](points))
        slow, quick = self.att_variation
        att = self.att_gm + slow * s["att"](points) + quick * s["fine att"](points)
        att = att + self.watershed_delay * s["territory"].ridge(points, 0.35)
        factor, delay, labels = self._lesions_at(points, gm + wm > 0.3)
        cbf_gm = np.asarray(self.cbf_gm * variation * factor, dtype=np.float32)
        att_gm, att_wm = (np.clip(a + delay, *ATT_RANGE_S) for a in (att, att + self.att_wm_delay))
        vessels = s["vessel a"].ridge(points, 0.25) * s["vessel b"].ridge(points, 0.25)
        abv = self.vessel_abv * vessels + self.tissue_abv * gm * np.exp(
            0.7 * s["fine cbf"](points)
        )
        lead = self.bolus_lead * np.exp(0.2 * s["att"](points))
        return Tissue(
            gm=gm,
            wm=wm,
            csf=np.clip(brain - gm - wm, 0, None),
            cbf_gm=cbf_gm,
            cbf_wm=cbf_gm * np.float32(self.wm_ratio),
            att_gm=att_gm,
            att_wm=att_wm,
            abv=abv * brain,
            abat=np.clip(att_gm - lead, 0.1, None),
            lesions=labels,
            mask=brain > 0.5,
        )

    def _lesions_at(
        self, points: Points, is_tissue: NDArray[np.bool_]
    ) -> tuple[Values, Values, NDArray[np.uint8]]:
        """Factor of CBF, added ATT [s], and class at every point."""
        factor = np.ones(len(points), dtype=np.float32)
        delay = np.zeros(len(points), dtype=np.float32)
        labels = np.zeros(len(points), dtype=np.uint8)
        for lesion in self.lesions:
            for part, name, cbf, att in zip(
                lesion.parts(points),
                lesion.classes,
                lesion.cbf_factors,
                lesion.att_delays_s,
                strict=True,
            ):
                factor = factor * (1 + (np.float32(cbf) - 1) * part)
                delay = delay + np.float32(att) * part
                labels[(part > 0.5) & is_tissue] = name
        return factor, delay, labels


def draw_subject(rng: np.random.Generator) -> Subject:
    """A random subject; values span those of benchmark.md's brain phantoms."""
    lengths = {f"warp {a}": 45.0 for a in "xyz"} | {
        "cbf": rng.uniform(20, 40),
        "fine cbf": rng.uniform(5, 10),
        "att": rng.uniform(25, 45),
        "fine att": rng.uniform(7, 14),
        "territory": 45.0,
        "vessel a": 16.0,
        "vessel b": 16.0,
    }
    return Subject(
        size=(rng.uniform(0.9, 1.12) * rng.uniform(0.95, 1.05, 3)).astype(np.float32),
        sharpness=rng.uniform(1, 3),
        cbf_gm=rng.uniform(35, 95),
        wm_ratio=rng.uniform(0.2, 0.5),
        att_gm=rng.uniform(0.6, 1.7),
        att_wm_delay=rng.uniform(0, 0.5),
        watershed_delay=rng.uniform(0, 0.6),
        cbf_variation=(rng.uniform(0.05, 0.2), rng.uniform(0.05, 0.2)),
        att_variation=(rng.uniform(0.05, 0.25), rng.uniform(0.02, 0.12)),
        vessel_abv=rng.uniform(0, 0.08),
        tissue_abv=rng.exponential(0.003),
        bolus_lead=rng.uniform(0.0, 0.4),
        lesions=draw_lesions(rng),
        smooth={name: SmoothField(rng, length) for name, length in lengths.items()},
    )


def draw_slice(rng: np.random.Generator, n: int) -> Points:
    """Points (n*n, 3) [mm] of a random oblique slice with a random pixel size."""
    pixel = rng.uniform(2.0, 4.5)
    line = (np.arange(n) - (n - 1) / 2) * pixel
    x, y = np.meshgrid(line, line, indexing="ij")
    plane = np.stack([x.ravel(), y.ravel(), np.zeros(n * n)], axis=-1)
    plane[:, :2] += rng.uniform(-12, 12, 2)
    tilted = plane @ _rotation(rng.uniform(-0.3, 0.3), 0).T @ _rotation(rng.normal(0, 0.2), 2).T
    tilted[:, 2] += rng.uniform(-45, 60)
    return tilted.astype(np.float32)


@cache
def _templates() -> tuple[NDArray[np.float32], NDArray[np.float64]]:
    """GM, WM and brain mask (3, x, y, z), blurred, and the matrix from centred mm to voxels."""
    from nilearn import datasets

    loaders = (
        datasets.load_mni152_gm_template,
        datasets.load_mni152_wm_template,
        datasets.load_mni152_brain_mask,
    )
    images = [load(resolution=TEMPLATE_MM) for load in loaders]
    sigma = TEMPLATE_BLUR_MM / TEMPLATE_MM
    data = np.stack([gaussian_filter(i.get_fdata(dtype=np.float32), sigma) for i in images])
    inside = np.argwhere(data[2] > 0.5)
    centre = (inside.min(axis=0) + inside.max(axis=0)) / 2
    to_voxels = np.eye(4)
    to_voxels[:3, :3] /= TEMPLATE_MM
    to_voxels[:3, 3] = centre
    return data, to_voxels


def _template_at(points: Points, sharpness: float) -> tuple[Values, Values, Values]:
    """GM and WM fractions and brain membership at points, with steeper tissue borders."""
    data, to_voxels = _templates()
    voxels = (points @ to_voxels[:3, :3].T + to_voxels[:3, 3]).T
    gm, wm, brain = (np.clip(map_coordinates(t, voxels, order=1), 0, 1) for t in data)
    gm, wm = (p**sharpness / (p**sharpness + (1 - p) ** sharpness) for p in (gm, wm))
    total = np.maximum(gm + wm, 1e-6)
    share = np.minimum(total, brain) / total
    return gm * share, wm * share, brain


def _rotation(angle: float, axis: int) -> NDArray[np.float64]:
    c, s = np.cos(angle), np.sin(angle)
    matrix = np.eye(3)
    i, j = [(1, 2), (0, 2), (0, 1)][axis]
    matrix[[i, i, j, j], [i, j, i, j]] = c, -s, s, c
    return matrix
