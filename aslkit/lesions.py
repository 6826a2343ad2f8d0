"""Random generator -> lesions: where perfusion and arrival times are changed, and how."""

from dataclasses import dataclass

import numpy as np

from aslkit.fields import Points, SmoothField, Values

LESION_CLASSES = {
    1: "infarct core",
    2: "penumbra",
    3: "hyperperfused rim",
    4: "hyperperfused core",
    5: "delayed territory",
    6: "steno-occlusive",
}


@dataclass(frozen=True)
class Lesion:
    """A region with changed perfusion: a ragged ellipsoid with an inner part of another class."""

    centre: Points
    axes: Points
    edge: float
    raggedness: float
    boundary: SmoothField
    inner_share: float
    classes: tuple[int, int]  # outer, inner
    cbf_factors: tuple[float, float]
    att_delays_s: tuple[float, float]

    def parts(self, points: Points) -> tuple[Values, Values]:
        """Membership (0-1) of the outer and of the inner part."""
        distance = np.sqrt((((points - self.centre) / self.axes) ** 2).sum(axis=-1))
        distance = distance + self.raggedness * self.boundary(points)
        whole = _step((1 - distance) / self.edge)
        inner = _step((self.inner_share - distance) / self.edge)
        return whole - inner, inner


def draw_lesions(rng: np.random.Generator) -> tuple[Lesion, ...]:
    """Up to three lesions of random kinds."""
    return tuple(_KINDS[k](rng) for k in rng.choice(len(_KINDS), rng.integers(0, 4)))


def _step(x: Values) -> Values:
    """A soft step from 0 to 1 at 0."""
    return np.asarray(0.5 * (1 + np.tanh(x)))


def _lesion(
    rng: np.random.Generator,
    radius_mm: tuple[float, float],
    classes: tuple[int, int],
    cbf: tuple[tuple[float, float], tuple[float, float]],
    att: tuple[tuple[float, float], tuple[float, float]],
    inner_share: tuple[float, float] = (0.4, 0.7),
) -> Lesion:
    """A lesion with every number drawn uniformly from its range (outer part, inner part)."""
    radius = rng.uniform(*radius_mm)
    return Lesion(
        centre=rng.uniform((-55, -70, -35), (55, 70, 60)).astype(np.float32),
        axes=(radius * rng.uniform(0.7, 1.4, 3)).astype(np.float32),
        edge=rng.uniform(0.03, 0.2),
        raggedness=rng.uniform(0, 0.12),
        boundary=SmoothField(rng, max(radius / 2, 6)),
        inner_share=rng.uniform(*inner_share),
        classes=classes,
        cbf_factors=(rng.uniform(*cbf[0]), rng.uniform(*cbf[1])),
        att_delays_s=(rng.uniform(*att[0]), rng.uniform(*att[1])),
    )


def _stroke(rng: np.random.Generator) -> Lesion:
    return _lesion(rng, (14, 40), (2, 1), ((0.4, 0.8), (0.0, 0.3)), ((0.3, 1.2), (0.4, 1.5)))


def _tumour(rng: np.random.Generator) -> Lesion:
    return _lesion(rng, (10, 25), (3, 4), ((1.2, 2.2), (0.3, 2.8)), ((-0.2, 0.1), (-0.3, 0.3)))


def _delayed(rng: np.random.Generator) -> Lesion:
    return _lesion(rng, (25, 55), (5, 5), ((0.6, 1.0),) * 2, ((0.3, 1.2),) * 2)


def _stenosis(rng: np.random.Generator) -> Lesion:
    return _lesion(rng, (30, 60), (6, 6), ((0.4, 0.9),) * 2, ((1.0, 1.8), (1.4, 2.2)))


_KINDS = (_stroke, _tumour, _delayed, _stenosis)
