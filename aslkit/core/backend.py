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

SMALLEST_NORM = 1e-20  # of a curve that vanishes (ATT beyond all delays)


def as_indices(values: Array) -> Array:
    """Numbers without fraction as an array that can index others."""
    return values.astype(np.intp) if isinstance(values, np.ndarray) else values.long()


def first_axis_indices(mask: Array) -> Array:
    """Place along the first axis of every voxel in a mask, (voxels,)."""
    return np.nonzero(mask)[0] if isinstance(mask, np.ndarray) else mask.nonzero()[:, 0]


def repeat_first_axis(drawn: Array, times: int) -> Array:
    """An array, or a dataclass of them, with everything along the first axis several times."""
    if isinstance(drawn, np.ndarray):
        return np.repeat(drawn, times, axis=0)
    return replace(
        drawn, **{name: repeat_first_axis(part, times) for name, part in vars(drawn).items()}
    )


def take_rows(rows: Array, places: Array) -> Array:
    """rows[places]; numpy's own indexing is several times slower than its `take`."""
    return np.take(rows, places, axis=0) if isinstance(rows, np.ndarray) else rows[places]


def as_complex(pairs: Array) -> Array:
    """Real and imaginary parts (…, 2) as complex numbers (…)."""
    if isinstance(pairs, np.ndarray):
        return pairs.view(np.result_type(pairs, np.complex64))[..., 0]
    import torch

    return torch.view_as_complex(pairs)


def scatter_to_images(values: Array, mask: Array) -> Array:
    """Rows (voxels, n) as images (b, n, x, y) where a mask (b, x, y) holds, 0 elsewhere."""
    shape = *mask.shape, values.shape[-1]
    if isinstance(values, np.ndarray):
        image = np.zeros(shape, values.dtype)
    else:
        image = values.new_zeros(shape)
    image[mask] = values
    return namespace(image).moveaxis(image, -1, 1)


def standard_normal(rng: np.random.Generator, shape: tuple[int, ...], like: Array) -> Array:
    """Random numbers of the kind and on the device of another array."""
    if isinstance(like, np.ndarray):
        return rng.standard_normal(shape, dtype=np.float32).astype(like.dtype, copy=False)
    import torch

    generator = torch.Generator(like.device).manual_seed(int(rng.integers(2**62)))
    return torch.randn(shape, generator=generator, device=like.device, dtype=like.dtype)


def namespace(array: object) -> ModuleType:
    """numpy or torch, whichever made the array (both share the names used here)."""
    if type(array).__module__.startswith("torch"):
        import torch

        return torch
    return np


def array_like(array: np.ndarray, reference: Array) -> Array:
    """An array of the kind, type and device of another."""
    if isinstance(reference, np.ndarray):
        return array.astype(reference.dtype)
    return reference.new_tensor(array)


def away_from_zero(squares: Array) -> Array:
    """Squared norms, those of curves that vanish kept off zero."""
    return namespace(squares).clip(squares, SMALLEST_NORM, None)
