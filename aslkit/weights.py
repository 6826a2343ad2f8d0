"""Model folder (safetensors + JSON card) <-> network: weights that rebuild their own network."""

import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from aslkit.encoding import CHANNELS
from aslkit.errors import InputError, UnavailableError
from aslkit.networks import Network, build_network

DEFAULT_MODEL = "small"
PACKAGE_FOLDER = Path(__file__).parent / "models"
WEIGHTS, CARD = "weights.safetensors", "model.json"


@dataclass(frozen=True)
class Model:
    """A trained network and its card.

    Attributes
    ----------
    name : str
    network : Network
        In evaluation mode, on the CPU.
    card : mapping
        The model card: what it was trained for, and how.
    sha256 : str
        Of the weights file.
    """

    name: str
    network: Network
    card: Mapping[str, object]
    sha256: str

    def trained_range(self, field: str) -> tuple[float, float]:
        """Lowest and highest value of a field of the card that the model was trained for."""
        low, high = cast(list[float], self.card[field])
        return low, high


def list_models() -> dict[str, Path]:
    """Name and folder of every installed model; folders in $ASLKIT_MODELS come first."""
    folders = [PACKAGE_FOLDER]
    if os.environ.get("ASLKIT_MODELS"):
        folders.append(Path(os.environ["ASLKIT_MODELS"]))
    return {c.parent.name: c.parent for f in folders for c in sorted(f.glob(f"*/{CARD}"))}


def load_model(name_or_folder: str) -> Model:
    """A model by name or folder.

    Raises
    ------
    UnavailableError
        When there is no such model.
    InputError
        When its files are damaged or made for other channels.
    """
    folder = list_models().get(name_or_folder, Path(name_or_folder))
    if not (folder / CARD).is_file():
        known = ", ".join(list_models()) or "none"
        raise UnavailableError(
            f"model {name_or_folder!r} is not there: installed are {known}. "
            f"Give one of them, or a folder with {CARD} and {WEIGHTS}."
        )
    try:
        card = json.loads((folder / CARD).read_text())
        tensors = load_file(folder / WEIGHTS)
    except (OSError, ValueError, SafetensorError) as error:
        raise _damaged(folder, str(error)) from error
    if card.get("channels") != list(CHANNELS):
        raise _damaged(folder, "channels of another version of aslkit")
    described = card["network"]
    network = build_network(
        described.get("kind", "physics_residual"), tuple(described["widths"])
    )
    try:
        network.load_state_dict({k: v.float() for k, v in tensors.items()})
    except RuntimeError as error:
        raise _damaged(folder, "weights of another network") from error
    return Model(card["name"], network.eval(), card, file_sha256(folder / WEIGHTS))


def save_model(folder: Path, state: Mapping[str, Tensor], card: Mapping[str, object]) -> None:
    """Write weights (float16 halves the file at no measurable loss) and card."""
    folder.mkdir(parents=True, exist_ok=True)
    temporary = folder / f".{WEIGHTS}"
    save_file({k: v.to(torch.float16).contiguous() for k, v in state.items()}, temporary)
    os.replace(temporary, folder / WEIGHTS)
    complete = {**card, "channels": list(CHANNELS), "sha256": file_sha256(folder / WEIGHTS)}
    temporary = folder / f".{CARD}"
    temporary.write_text(json.dumps(complete, indent=2) + "\n")
    os.replace(temporary, folder / CARD)


def file_sha256(path: Path) -> str:
    """Checksum of a file."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _damaged(folder: Path, reason: str) -> InputError:
    return InputError(
        folder,
        "",
        found=reason,
        expected=f"a matching {CARD} and {WEIGHTS}",
        fix="install aslkit again or train the model again",
    )
