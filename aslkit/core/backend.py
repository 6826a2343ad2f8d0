"""Array operations that numpy and torch spell differently -> one function each."""

from dataclasses import replace
from types import ModuleType
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

# numpy array or torch tensor, in functions that serve both; docstrings state shape and unit
Array: TypeAlias = Any
FloatArray: TypeAlias = NDArray[np.floating]
IndexArray: TypeAlias = NDArray[np.intp]

SMALLEST_NORM = 1e-20  # used for curves that are 0 (ATT later than all delays)


def as_indices(values: Array) -> Array:
    """Round towards zero, to integers that can index arrays."""
    return values.astype(np.intp) if isinstance(values, np.ndarray) else values.long()


def first_axis_indices(mask: Array) -> Array:
    """Return the index along the first axis of every voxel in a mask, (voxels,)."""
    return np.nonzero(mask)[0] if isinstance(mask, np.ndarray) else mask.nonzero()[:, 0]


def repeat_first_axis(values: Array, times: int) -> Array:
    """Repeat each entry along the first axis, of an array or of all arrays of a dataclass."""
    if isinstance(values, np.ndarray):
        return np.repeat(values, times, axis=0)
    return replace(
        values, **{name: repeat_first_axis(part, times) for name, part in vars(values).items()}
    )


def take_rows(rows: Array, places: Array) -> Array:
    """Return rows[places]; for numpy with `take`, which is several times faster than indexing."""
    return np.take(rows, places, axis=0) if isinstance(rows, np.ndarray) else rows[places]


def as_complex(pairs: Array) -> Array:
    """Convert real and imaginary parts (…, 2) to complex numbers (…)."""
    if isinstance(pairs, np.ndarray):
        return pairs.view(np.result_type(pairs, np.complex64))[..., 0]
    import torch

    return torch.view_as_complex(pairs)


def scatter_to_images(values: Array, mask: Array) -> Array:
    """Write rows (voxels, n) into images (b, n, x, y) inside a mask (b, x, y), 0 elsewhere."""
    shape = *mask.shape, values.shape[-1]
    if isinstance(values, np.ndarray):
        image = np.zeros(shape, values.dtype)
    else:
        image = values.new_zeros(shape)
    image[mask] = values
    return namespace(image).moveaxis(image, -1, 1)


def standard_normal(rng: np.random.Generator, shape: tuple[int, ...], like: Array) -> Array:
    """Draw standard normal numbers as an array of the type and device of another."""
    if isinstance(like, np.ndarray):
        return rng.standard_normal(shape, dtype=np.float32).astype(like.dtype, copy=False)
    import torch

    generator = torch.Generator(like.device).manual_seed(int(rng.integers(2**62)))
    return torch.randn(shape, generator=generator, device=like.device, dtype=like.dtype)


def namespace(array: object) -> ModuleType:
    """Return numpy or torch, the module of an array; both share the names used here."""
    if type(array).__module__.startswith("torch"):
        import torch

        return torch
    return np


def array_like(array: np.ndarray, reference: Array) -> Array:
    """Convert a numpy array to the type, dtype and device of another array."""
    if isinstance(reference, np.ndarray):
        return array.astype(reference.dtype)
    return reference.new_tensor(array)


def away_from_zero(squares: Array) -> Array:
    """Raise squared norms to at least `SMALLEST_NORM`."""
    return namespace(squares).clip(squares, SMALLEST_NORM, None)
