"""Names in the options of asl_sim -> protocol, noise and artefacts."""

from typing import TYPE_CHECKING

import click

from aslkit.core.errors import InputError

if TYPE_CHECKING:
    from aslkit.simulate.signal import Protocol

ANATOMIES = ("brain", "uniform", "disc", "checker", "ramp", "plan")
DEFAULT_PROTOCOL = "joint6"
PROTOCOLS = "joint6 joint5 pcasl6 pcasl6-2d pcasl5 pcasl-varied pasl8 vsasl6 pcasl1"
NOISES = "thermal, coil, physio, drift, motion, spikes, dropouts, suppression"
VOXEL_SIZE_MM = 3.5


def parse_noises(text: str, n_pulses: int) -> tuple[str, ...]:
    """Return the names in a comma-separated list; InputError for an unknown name."""
    from aslkit.simulate.artefacts import NOISES

    names = tuple(text.split(","))
    unknown = [name for name in names if name not in NOISES]
    if unknown:
        raise InputError(
            "--noise",
            "",
            found=unknown[0] or "nothing",
            expected=f"some of {', '.join(NOISES)}",
            fix="give --noise thermal,motion",
        )
    if "suppression" in names and not n_pulses:
        raise InputError(
            "--noise",
            "",
            found="suppression, and no background-suppression pulses",
            expected="background-suppression pulses",
            fix="give --n-bs 2",
        )
    return names


def choose_protocol(
    name: str | None, plds: tuple[float, ...] | None, labeling: str, label_duration: float
) -> "Protocol":
    """Return a named protocol or the one of the options; InputError for an unknown name."""
    from aslkit.core.acquisition import protocol
    from aslkit.simulate.signal import PROTOCOLS, Protocol

    if plds is not None and name is not None:
        raise click.UsageError("give --protocol or --plds, not both")
    if plds is not None:
        duration = 0.0 if labeling == "vsasl" else label_duration
        try:
            return Protocol((protocol(labeling, plds, duration),))
        except ValueError as error:
            raise InputError(
                "--plds", "", found=str(error), expected="seconds", fix="give --plds 0.5,1,1.5"
            ) from error
    if (name or DEFAULT_PROTOCOL) not in PROTOCOLS:
        raise InputError(
            "--protocol",
            "",
            found=name,
            expected=f"one of {', '.join(PROTOCOLS)}",
            fix="name one of them, or give --plds",
        )
    return PROTOCOLS[name or DEFAULT_PROTOCOL]
