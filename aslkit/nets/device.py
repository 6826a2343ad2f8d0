"""Name of a device -> torch device, checked."""

import torch

from aslkit.core.errors import UnavailableError


def select_device(name: str) -> torch.device:
    """A device by name; "auto" takes CUDA where there is one.

    Raises
    ------
    UnavailableError
        When it is not there.
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
    except (RuntimeError, AssertionError) as error:  # each build of torch says it in other words
        raise UnavailableError(
            f"device {name!r}: found none that torch can use on this machine, expected a GPU with "
            "its driver and a build of torch for it. Fix: give --device cpu or auto."
        ) from error
    return device
