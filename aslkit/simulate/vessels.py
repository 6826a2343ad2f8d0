"""Position in the brain -> vascular territory and distance from the large arteries.

This is a coarse atlas, symmetric about the midline. Its points are MNI coordinates [mm] of the
right side.
"""

import numpy as np
from numpy.typing import NDArray

CENTRE_MNI_MM = np.array([0.0, -17.0, 5.0])  # of the brain; points are relative to it
TERRITORY_SIGMA_MM = 18.0  # width of the Gaussian weight of a territory's sites
MAX_ARTERY_DISTANCE_MM = 80.0  # larger distances are set to this

_ACA = ((5, 45, -5), (5, 40, 25), (8, 15, 55), (6, -15, 62), (6, -40, 58))
_MCA = (
    *((45, 25, 10), (52, -5, 25), (50, -35, 30), (55, -25, -5)),
    *((40, 5, -20), (45, -55, 35), (35, 0, 48), (25, 5, 5)),
)
_PCA = (
    *((8, -85, 8), (20, -75, -8), (25, -50, -10), (10, -25, 0)),
    *((12, -65, 22), (20, -62, -38), (4, -30, -35)),
)
TERRITORY_SITES = (_ACA, _MCA, _PCA)  # PCA includes thalamus, cerebellum and brainstem
TERRITORIES = ("ACA left", "MCA left", "PCA left", "ACA right", "MCA right", "PCA right")
_CENTRES = np.array([(7, 25, 38), (46, -12, 15), (18, -72, 2)]) - CENTRE_MNI_MM
TERRITORY_CENTRES_MM = np.concatenate([_CENTRES * (-1, 1, 1), _CENTRES])

ARTERIES = (
    ((12, 4, -34), (12, 4, -18), (22, 6, -18), (36, 4, -14)),  # carotid, M1
    ((36, 4, -14), (41, 12, 0), (46, 22, 14)),  # insular branches
    ((36, 4, -14), (41, -4, 2), (40, -2, 16), (50, 0, 28)),
    ((36, 4, -14), (42, -16, 0), (44, -32, 12), (55, -42, 22)),
    ((12, 4, -18), (4, 16, -14), (2, 38, 0), (2, 34, 22), (2, 10, 40), (2, -22, 46)),  # ACA
    ((0, -32, -46), (0, -24, -18), (14, -26, -12), (22, -44, -6), (12, -72, 4)),  # basilar, PCA
)


def territory_weights(points_mm: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return membership (0-1) of ACA, MCA and PCA (n, 3) for points (n, 3) of both sides."""
    folded = _folded(points_mm)

    def nearness(sites: tuple[tuple[int, int, int], ...]) -> NDArray[np.float64]:
        squares = (((folded - site) ** 2).sum(axis=-1) for site in sites)
        return sum(np.exp(-s / (2 * TERRITORY_SIGMA_MM**2)) for s in squares) + 1e-12

    weights = np.stack([nearness(sites) for sites in TERRITORY_SITES], axis=-1)
    return weights / weights.sum(axis=-1, keepdims=True)


def artery_distance_mm(points_mm: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the distance [mm] of points (n, 3) from the nearest large artery, (n,)."""
    folded = _folded(points_mm)
    nearest = np.full(len(folded), MAX_ARTERY_DISTANCE_MM)
    for path in ARTERIES:
        for start, end in zip(np.array(path[:-1]), np.array(path[1:]), strict=True):
            along = end - start
            place = np.clip((folded - start) @ along / (along @ along), 0, 1)
            beside = folded - start - place[:, None] * along
            nearest = np.minimum(nearest, np.sqrt((beside**2).sum(axis=-1)))
    return nearest


def _folded(points_mm: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return MNI coordinates, mirrored to the right side."""
    mni = points_mm + CENTRE_MNI_MM
    return np.concatenate([np.abs(mni[:, :1]), mni[:, 1:]], axis=-1)
