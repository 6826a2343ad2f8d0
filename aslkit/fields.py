"""Random generator -> smooth random functions of position."""

import numpy as np
from numpy.typing import NDArray

Points = NDArray[np.float32]
Values = NDArray[np.float32]

N_WAVES = 16  # of a random smooth field


class SmoothField:
    """A random smooth function of position with zero mean, unit variance and a length in mm."""

    def __init__(self, rng: np.random.Generator, length_mm: float) -> None:
        self._waves = (rng.standard_normal((3, N_WAVES)) / length_mm).astype(np.float32)
        self._phases = rng.uniform(0, 2 * np.pi, N_WAVES).astype(np.float32)

    def __call__(self, points: Points) -> Values:
        """Values (n,) at points (n, 3)."""
        waves = np.cos(points @ self._waves + self._phases).sum(axis=-1)
        return np.asarray(waves * np.float32(np.sqrt(2 / N_WAVES)))

    def ridge(self, points: Points, width: float) -> Values:
        """1 on the surfaces where the field vanishes, falling to 0 at about `width` beside."""
        return np.exp(-((self(points) / width) ** 2))
