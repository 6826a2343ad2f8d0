"""Random generator -> lesions, which change CBF and ATT in parts of the brain.

A subject has up to `MAX_LESIONS` lesions. A lesion is an ellipsoid with an irregular boundary; its
inner part has a class of its own. A vascular lesion is confined to the territory of one artery.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from aslkit.core.backend import Array, FloatArray, array_like, namespace
from aslkit.simulate.random_fields import Planes, smoothstep_at_zero
from aslkit.simulate.vessels import TERRITORIES, TERRITORY_CENTRES_MM

LESION_CLASSES = {
    1: "infarct core",
    2: "penumbra",
    3: "hyperperfused rim",
    4: "hyperperfused core",
    5: "delayed territory",
    6: "steno-occlusive",
}
MAX_LESIONS = 3
CENTRE_SD_MM = 14.0  # distance of a lesion's centre from that of its territory, per axis
TERRITORY_EDGE = 0.15  # half width of a territory's border, as a difference in membership
MIN_TISSUE = 0.3  # smallest fraction of GM and WM in voxels with a lesion class

Range = tuple[float, float]


@dataclass(frozen=True)
class LesionKind:
    """Ranges for drawing a lesion; pairs are (outer part, inner part)."""

    radius_mm: Range
    classes: tuple[int, int]
    cbf_factors: tuple[Range, Range]
    att_delays_s: tuple[Range, Range]
    is_vascular: bool


NO_LESION = LesionKind((20, 20), (0, 0), ((1, 1), (1, 1)), ((0, 0), (0, 0)), True)
STROKE = LesionKind((18, 42), (2, 1), ((0.4, 0.8), (0.0, 0.3)), ((0.3, 1.2), (0.4, 1.5)), True)
TUMOUR = LesionKind((10, 25), (3, 4), ((1.2, 2.2), (1.2, 2.8)), ((-0.2, 0.1), (-0.3, 0.3)), False)
DELAYED = LesionKind((35, 65), (5, 5), ((0.6, 1.0),) * 2, ((0.3, 1.2),) * 2, True)
STENOSIS = LesionKind((40, 75), (6, 6), ((0.4, 0.9),) * 2, ((1.0, 1.8), (1.4, 2.2)), True)
LESION_KINDS = (NO_LESION, STROKE, TUMOUR, DELAYED, STENOSIS)


@dataclass(frozen=True)
class Lesions:
    """Lesions of `b` subjects, `MAX_LESIONS` each; the last axis of pairs is (outer, inner).

    Attributes
    ----------
    centres, axes : array (b, lesions, 3)
        Centres and half axes of the ellipsoids [mm].
    edges, irregularity, inner_fractions : array (b, lesions)
        Width of the edge, irregularity of the boundary, radius of the inner part: fractions of
        the radius.
    territories : array (b, lesions)
        Indices into `TERRITORIES`.
    is_vascular : bool array (b, lesions)
    classes : array (b, lesions, 2)
    cbf_factors, att_delays_s : array (b, lesions, 2)
    """

    centres: FloatArray
    axes: FloatArray
    edges: FloatArray
    irregularity: FloatArray
    inner_fractions: FloatArray
    territories: NDArray[np.intp]
    is_vascular: NDArray[np.bool_]
    classes: NDArray[np.intp]
    cbf_factors: FloatArray
    att_delays_s: FloatArray

    @property
    def boundary_lengths_mm(self) -> FloatArray:
        """Correlation lengths of the random fields that deform the boundaries, (b, lesions)."""
        return np.maximum(self.axes.mean(axis=-1) / 2, 6)

    def at(
        self, planes: Planes, boundaries: Array, territories: Array
    ) -> tuple[Array, Array, Array]:
        """Return the factor of CBF, the added ATT [s] and the class, (planes, nx, ny) each.

        Parameters
        ----------
        boundaries : array (planes, lesions, nx, ny)
            Values of the random fields that deform the boundaries.
        territories : array (planes, territories, nx, ny)
            Membership (0-1) of the vascular territories.
        """
        xp = namespace(planes.x)
        factor, delay, label = 1.0, 0.0, 0.0
        for i in range(MAX_LESIONS):
            parts = self._parts(i, planes, boundaries[:, i], territories)
            for j, part in enumerate(parts):
                cbf, att, name = (
                    array_like(v[:, i, j, None, None], planes.x)
                    for v in (self.cbf_factors, self.att_delays_s, self.classes)
                )
                factor = factor * (1 + (cbf - 1) * part)
                delay = delay + att * part
                label = xp.where((part > 0.5) & (name > 0), name, label)
        return factor, delay, label

    def _parts(
        self, i: int, planes: Planes, boundary: Array, territories: Array
    ) -> tuple[Array, Array]:
        """Return membership (0-1) of the outer and the inner part of lesion i of all subjects."""
        like = planes.x
        centre, axes = (array_like(v[:, i, None], like) for v in (self.centres, self.axes))
        x, y = (planes.x - centre) / axes, planes.y / axes
        square = (x**2).sum(-1)[:, :, None] + (y**2).sum(-1)[:, None]
        square = square + 2 * namespace(like).matmul(x, y.swapaxes(-1, -2))
        edge, irregular, inner_fraction = (
            array_like(v[:, i, None, None], like)
            for v in (self.edges, self.irregularity, self.inner_fractions)
        )
        distance = namespace(like).clip(square, 0, None) ** 0.5 + irregular * boundary
        outer, inner = (
            smoothstep_at_zero((1 - distance) / edge),
            smoothstep_at_zero((inner_fraction - distance) / edge),
        )
        chosen = np.arange(len(TERRITORIES)) == self.territories[:, i, None]
        own = (array_like(chosen[..., None, None].astype(float), like) * territories).sum(1)
        within = smoothstep_at_zero((own - 0.5) / TERRITORY_EDGE)
        vascular = array_like(self.is_vascular[:, i, None, None].astype(float), like)
        within = 1 + vascular * (within - 1)
        return (outer - inner) * within, inner * within


def draw_lesions(rng: np.random.Generator, b: int) -> Lesions:
    """Draw up to `MAX_LESIONS` lesions of random kinds for each of b subjects."""
    shape = b, MAX_LESIONS
    kinds = rng.integers(1, len(LESION_KINDS), shape)
    kinds[np.arange(MAX_LESIONS) >= rng.integers(0, MAX_LESIONS + 1, (b, 1))] = 0

    def pick(values: Array) -> NDArray[np.floating]:
        return np.array([getattr(k, values) for k in LESION_KINDS], dtype=float)[kinds]

    def draw(ranges: str) -> FloatArray:
        low, high = np.moveaxis(pick(ranges), -1, 0)
        return rng.uniform(low, high)

    radius = draw("radius_mm")
    territories = rng.integers(0, len(TERRITORIES), shape)
    centres = TERRITORY_CENTRES_MM[territories] + CENTRE_SD_MM * rng.standard_normal((*shape, 3))
    return Lesions(
        centres=centres,
        axes=radius[..., None] * rng.uniform(0.7, 1.4, (*shape, 3)),
        edges=rng.uniform(0.05, 0.3, shape),
        irregularity=rng.uniform(0, 0.12, shape),
        inner_fractions=rng.uniform(0.4, 0.7, shape),
        territories=territories,
        is_vascular=pick("is_vascular") > 0,
        classes=pick("classes").astype(np.intp),
        cbf_factors=draw("cbf_factors"),
        att_delays_s=draw("att_delays_s"),
    )
