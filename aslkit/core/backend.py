"""What numpy and torch spell differently, under one name each."""

from dataclasses import replace
from types import ModuleType

import numpy as np

SMALLEST_NORM = 1e-20  # of a curve that vanishes (ATT beyond all delays)


def whole(values):  # type: ignore[no-untyped-def]
    """Numbers without fraction as an array that can index others."""
    return values.astype(np.intp) if isinstance(values, np.ndarray) else values.long()


def first_places(mask):  # type: ignore[no-untyped-def]
    """Place along the first axis of every voxel in a mask, (voxels,)."""
    return np.nonzero(mask)[0] if isinstance(mask, np.ndarray) else mask.nonzero()[:, 0]


def repeated(drawn, times: int):  # type: ignore[no-untyped-def]
    """An array, or a dataclass of them, with everything along the first axis several times."""
    if isinstance(drawn, np.ndarray):
        return np.repeat(drawn, times, axis=0)
    return replace(drawn, **{name: repeated(part, times) for name, part in vars(drawn).items()})


def rows_at(rows, places):  # type: ignore[no-untyped-def]
    """rows[places]; numpy's own indexing is several times slower than its `take`."""
    return np.take(rows, places, axis=0) if isinstance(rows, np.ndarray) else rows[places]


def as_complex(pairs):  # type: ignore[no-untyped-def]
    """Real and imaginary parts (…, 2) as complex numbers (…)."""
    if isinstance(pairs, np.ndarray):
        return pairs.view(np.result_type(pairs, np.complex64))[..., 0]
    import torch

    return torch.view_as_complex(pairs)


def scattered(values, mask):  # type: ignore[no-untyped-def]
    """Rows (voxels, n) as images (b, n, x, y) where a mask (b, x, y) holds, 0 elsewhere."""
    shape = *mask.shape, values.shape[-1]
    if isinstance(values, np.ndarray):
        image = np.zeros(shape, values.dtype)
    else:
        image = values.new_zeros(shape)
    image[mask] = values
    return namespace(image).moveaxis(image, -1, 1)


def standard_normal(rng: np.random.Generator, shape: tuple[int, ...], like):  # type: ignore[no-untyped-def]
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


def alike(array: np.ndarray, reference):  # type: ignore[no-untyped-def]
    """An array of the kind, type and device of another."""
    if isinstance(reference, np.ndarray):
        return array.astype(reference.dtype)
    return reference.new_tensor(array)


def positive(squares):  # type: ignore[no-untyped-def]
    """Squared norms, those of curves that vanish kept off zero."""
    return namespace(squares).clip(squares, SMALLEST_NORM, None)
