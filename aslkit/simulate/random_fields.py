"""Random generator -> smooth random functions of position (random fields), for several subjects.

A field is a sum of plane waves. On a plane of points x_i + y_j a wave is a sum of two products,

    cos(w·(x_i + y_j)) = cos(w·x_i) cos(w·y_j) - sin(w·x_i) sin(w·y_j),

so that one matrix product evaluates all waves of all fields, with few cosines. The functions
accept arrays of numpy and of torch.
"""

from dataclasses import dataclass

import numpy as np

from aslkit.core.backend import Array, FloatArray, array_like, namespace

N_WAVES = 16  # plane waves of a random field
RIDGE_WIDTH = 0.25  # half width of a ridge, in standard deviations of the field


@dataclass(frozen=True)
class Planes:
    """Planes of points in space [mm]: point (i, j) of plane p is x[p, i] + y[p, j].

    Attributes
    ----------
    x : array (planes, nx, 3)
    y : array (planes, ny, 3)
    """

    x: FloatArray
    y: FloatArray

    @property
    def points(self) -> FloatArray:
        """Return all points, (planes, nx, ny, 3)."""
        return self.x[:, :, None] + self.y[:, None]

    def on(self, device: str | None) -> "Planes":
        """Return the planes in single precision, as tensors on a device or as numpy arrays."""
        if device is None:
            return Planes(self.x.astype(np.float32), self.y.astype(np.float32))
        import torch

        x, y = (torch.as_tensor(p, dtype=torch.float32, device=device) for p in (self.x, self.y))
        return Planes(x, y)  # type: ignore[arg-type]


@dataclass(frozen=True)
class RandomFields:
    """Random fields of zero mean and unit variance, `k` for each of `b` subjects.

    Attributes
    ----------
    waves : array (b, 3, k, waves)
        Wave vectors [rad/mm].
    phases : array (b, 1, k, waves)
    """

    waves: FloatArray
    phases: FloatArray

    def at(self, planes: Planes) -> FloatArray:
        """Evaluate the fields, (planes, k, nx, ny); plane p shows subject p or the only one."""
        xp = namespace(planes.x)
        waves, phases = array_like(self.waves, planes.x), array_like(self.phases, planes.x)
        b, _, k, n = waves.shape

        def angles(points: Array) -> Array:
            turned = xp.matmul(points, waves.reshape(b, 3, k * n))
            return turned.reshape(*points.shape[:2], k, n).swapaxes(1, 2)

        a, c = angles(planes.x) + phases.swapaxes(1, 2), angles(planes.y)
        rows = xp.concatenate([xp.cos(a), -xp.sin(a)], -1)
        columns = xp.concatenate([xp.cos(c), xp.sin(c)], -1)
        return xp.matmul(rows, columns.swapaxes(-1, -2)) * float(np.sqrt(2 / n))


def draw_random_fields(rng: np.random.Generator, lengths_mm: FloatArray) -> RandomFields:
    """Draw random fields with correlation lengths (b, k) [mm]."""
    b, k = lengths_mm.shape
    waves = rng.standard_normal((b, 3, k, N_WAVES)) / lengths_mm[:, None, :, None]
    return RandomFields(waves, rng.uniform(0, 2 * np.pi, (b, 1, k, N_WAVES)))


def ridge(field: FloatArray) -> FloatArray:
    """Return 1 where a field is 0, falling to 0 within about `RIDGE_WIDTH`."""
    return namespace(field).exp(-((field / RIDGE_WIDTH) ** 2))


def smoothstep_at_zero(x: FloatArray) -> FloatArray:
    """Increase smoothly from 0 at -1 to 1 at 1."""
    return smoothstep(namespace(x).clip((x + 1) / 2, 0, 1))


def smoothstep(s: FloatArray) -> FloatArray:
    """Map [0, 1] to [0, 1] with zero slope at both ends: 3 s² - 2 s³."""
    return s * s * (3 - 2 * s)
