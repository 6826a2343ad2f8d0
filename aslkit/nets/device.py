"""Name of a device -> torch device that works."""

import torch

from aslkit.core.errors import UnavailableError


def select_device(name: str) -> torch.device:
    """Return a device by name; "auto" is CUDA if available, else the CPU.

    Raises
    ------
    UnavailableError
        If torch does not know or cannot use the device.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise UnavailableError(
            f"device {name!r}: found a name that torch does not know, expected auto, cpu, cuda, "
            "cuda:1 or mps. Fix: give one of these."
        ) from error
    try:
        torch.zeros(1, device=device)
    except (RuntimeError, AssertionError) as error:  # depends on the build of torch
        raise UnavailableError(
            f"device {name!r}: found none that torch can use on this machine, expected a GPU with "
            "its driver and a build of torch for it. Fix: give --device cpu or auto."
        ) from error
    return device
