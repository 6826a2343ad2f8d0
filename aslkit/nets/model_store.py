"""Model folder (safetensors and JSON card) <-> Model: networks, built as their card says."""

import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any, cast

import torch
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from aslkit.config.schema import DEFAULT_KINDS, NETWORKS
from aslkit.core.acquisition import Acquisition
from aslkit.core.errors import InputError, UnavailableError
from aslkit.nets.encoding_registry import Encoding, read_encoding
from aslkit.nets.network import Network
from aslkit.nets.profile_encoding import ProfileEncoding
from aslkit.nets.registry import build_network
from aslkit.outputs.atomic_write import write_together

DEFAULT_MODEL = "aslnet"
ALIASES = {"exp21": DEFAULT_MODEL}  # earlier names of installed models
DEFAULT_KIND = DEFAULT_KINDS["network"]  # of cards without a kind of network
PACKAGE_FOLDER = Path(__file__).parents[1] / "models"
WEIGHT_SECTIONS = "network", "encoding"  # sections of the card that the weights depend on
NOTHING = "nothing"
WEIGHTS, CARD = "weights.safetensors", "model.json"


_Limits = Annotated[list[float], Field(min_length=2, max_length=2)]


class _Card(BaseModel):
    """Fields of a card that this version reads, and their types."""

    model_config = ConfigDict(strict=True)

    name: str
    version: str = ""
    trained_as: str = ""
    network: dict[str, Any]
    encoding: dict[str, Any] = {}
    members: int = Field(1, ge=1)
    labelings: list[str] = []
    kinetics: list[str] = []
    n_timings: _Limits = [0, 0]
    plds_s: _Limits = [0, 0]
    label_durations_s: _Limits = [0, 0]
    t1_blood_s: _Limits = [0, 0]
    snr: _Limits = [0, 0]


@dataclass(frozen=True)
class Model:
    """Trained networks and their card.

    Attributes
    ----------
    name : str
    network : Network
        The first member, in evaluation mode, on the CPU.
    card : mapping
        The model card: how and for which scans the model was trained.
    sha256 : str
        Checksum of the weights file.
    others : tuple of Network
        Further members, trained from other seeds.
    encoding : Encoding
        Input of the networks and meaning of their outputs.
    """

    name: str
    network: Network
    card: Mapping[str, object]
    sha256: str
    others: tuple[Network, ...] = ()
    encoding: Encoding = ProfileEncoding()  # noqa: RUF009  # frozen

    @property
    def members(self) -> tuple[Network, ...]:
        """All members of the model."""
        return self.network, *self.others

    @property
    def kind(self) -> str:
        """Kind of its networks, in words."""
        described = cast(dict[str, str], self.card["network"])
        return described.get("kind", DEFAULT_KIND).replace("_", "-")

    @property
    def corrects_least_squares(self) -> bool:
        """Whether the outputs are corrections of least squares, not CBF and ATT themselves."""
        return isinstance(self.encoding, ProfileEncoding)

    def covers(self, acquisition: Acquisition) -> bool:
        """Return whether the model can estimate CBF and ATT of scans with this protocol."""
        fewest = cast(list[float], self.card.get("n_timings", [2]))[0]
        is_trained = acquisition.n_timings > 1 or fewest == 1
        return is_trained and self.encoding.covers(acquisition)

    def to(self, device: torch.device) -> "Model":
        """Return the model for inference on a device, with shift-equivariant networks."""
        first, *others = (member.to_shift_equivariant().to(device) for member in self.members)
        return replace(self, network=first, others=tuple(others))


def list_models() -> dict[str, Path]:
    """Return name and folder of every installed model; $ASLKIT_MODELS has precedence."""
    folders = [PACKAGE_FOLDER]
    if os.environ.get("ASLKIT_MODELS"):
        folders.append(Path(os.environ["ASLKIT_MODELS"]))
    return {c.parent.name: c.parent for f in folders for c in sorted(f.glob(f"*/{CARD}"))}


def resolve_alias(name: str) -> str:
    """Return the name of an installed model for an earlier name of it, other names unchanged."""
    return name if name in list_models() else ALIASES.get(name, name)


def load_model(name_or_folder: str) -> Model:
    """Load a model by its name, an earlier name, or its folder.

    Raises
    ------
    UnavailableError
        If there is no such model.
    InputError
        If its files are damaged or from another version of aslkit.
    """
    folder = list_models().get(resolve_alias(name_or_folder), Path(name_or_folder))
    if not (folder / CARD).is_file():
        known = ", ".join(list_models()) or "none"
        raise UnavailableError(
            f"model {name_or_folder!r} is not there: installed are {known}. "
            f"Give one of them, or a folder with {CARD} and {WEIGHTS}."
        )
    card = read_card(folder)
    try:
        tensors = _tensors(folder, card)
        encoding = read_encoding(card)
        described = NETWORKS.validate_python({"kind": DEFAULT_KIND, **card["network"]})
        members = []
        for start, state in _states(tensors, int(card.get("members", 1))).items():
            network = build_network(described, encoding)
            _check(folder, start, state, network.state_dict())
            network.load_state_dict(state)
            members.append(network.eval())
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(["network", *(str(p) for p in first["loc"][1:])])
        raise _disagrees(folder / CARD, field, repr(first["input"]), first["msg"]) from error
    except (OSError, SafetensorError, KeyError, TypeError, ValueError) as error:
        raise _damaged(folder, " ".join(str(error).split())) from error
    first_one, *others = members
    sha256 = file_sha256(folder / WEIGHTS)
    if card.get("sha256", sha256) != sha256:
        raise _disagrees(folder / WEIGHTS, "sha256", sha256, f"{card['sha256']}, as in {CARD}")
    return Model(card["name"], first_one, card, sha256, tuple(others), encoding)


def read_card(folder: Path) -> dict[str, Any]:
    """Read the card of a model.

    Raises
    ------
    InputError
        If it is damaged.
    """
    try:
        card = dict(json.loads((folder / CARD).read_text()))
    except (OSError, ValueError, TypeError, RecursionError) as error:
        raise _damaged(folder, str(error)) from error
    try:
        _Card.model_validate(card)
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(str(part) for part in first["loc"])
        found = NOTHING if first["type"] == "missing" else json.dumps(first["input"])
        raise _disagrees(folder / CARD, field, found, first["msg"]) from error
    return card


def save_model(folder: Path, state: Mapping[str, Tensor], card: Mapping[str, object]) -> None:
    """Write weights, as float16 without measurable loss, and card.

    The weights file repeats the sections of the card that the weights depend on.
    """
    with write_together(folder, CARD) as temporary:
        halves = {k: v.to(torch.float16).contiguous() for k, v in state.items()}
        sections = {name: card[name] for name in WEIGHT_SECTIONS if name in card}
        meta = {"meaning": json.dumps(sections)}  # one entry: several have a random order
        (temporary / WEIGHTS).write_bytes(save(halves, meta))  # save_file denies others access
        complete = {**card, "sha256": file_sha256(temporary / WEIGHTS)}
        (temporary / CARD).write_text(json.dumps(complete, indent=2) + "\n")


def read_tensors(path: Path) -> tuple[dict[str, str], dict[str, Tensor]]:
    """Read the metadata and the tensors of a safetensors file.

    Raises
    ------
    OSError, SafetensorError
        If it cannot be read, or is damaged.
    """
    with safe_open(path, "pt") as opened:
        tensors = {key: opened.get_tensor(key) for key in opened.keys()}  # noqa: SIM118
        return opened.metadata() or {}, tensors


def file_sha256(path: Path) -> str:
    """Return the SHA-256 checksum of a file."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _tensors(folder: Path, card: Mapping[str, Any]) -> dict[str, Tensor]:
    """Read the tensors of the weights file, and check that the card belongs to it."""
    meta, tensors = read_tensors(folder / WEIGHTS)
    meaning = json.loads(meta.get("meaning", "{}"))
    for section in (s for s in WEIGHT_SECTIONS if s in meaning):
        in_weights, in_card = (
            {key: json.dumps(value) for key, value in values.items()}
            for values in (meaning[section], card.get(section, {}))
        )
        for key in sorted(in_weights.keys() | in_card.keys()):
            found, expected = (values.get(key, NOTHING) for values in (in_card, in_weights))
            if found != expected:
                source = f"{expected}, as in {WEIGHTS}"
                raise _disagrees(folder / CARD, f"{section}.{key}", found, source)
    return tensors


def _check(
    folder: Path, start: str, state: Mapping[str, Tensor], expected: Mapping[str, Tensor]
) -> None:
    """Check that the tensors of a member have the shapes of the network of the card."""
    for name in [*expected, *state]:
        found, own = (_describe_shape(tensors.get(name)) for tensors in (state, expected))
        if found != own:
            source = f"{own} for the network of {CARD}"
            raise _disagrees(folder / WEIGHTS, start + name, found, source)


def _describe_shape(tensor: Tensor | None) -> str:
    return NOTHING if tensor is None else f"a tensor {tuple(tensor.shape)}"


def _states(tensors: Mapping[str, Tensor], n_members: int) -> dict[str, dict[str, Tensor]]:
    """Return the tensors of each member, by the first part of their names: `0.`, `1.`, …"""
    starts = [""] if n_members == 1 else [f"{member}." for member in range(n_members)]
    return {
        s: {k.removeprefix(s): v.float() for k, v in tensors.items() if k.startswith(s)}
        for s in starts
    }


def _disagrees(file: Path, field: str, found: str, expected: str) -> InputError:
    fix = f"put {CARD} and {WEIGHTS} back as they were trained together"
    return InputError(file, field, found=found, expected=expected, fix=fix)


def _damaged(folder: Path, reason: str) -> InputError:
    return InputError(
        folder,
        "",
        found=reason,
        expected=f"a matching {CARD} and {WEIGHTS}",
        fix="install aslkit again or train the model again",
    )
