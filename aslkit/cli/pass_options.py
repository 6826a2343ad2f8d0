"""Options of asl_predict that control the network -> `Passes`."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

import click

from aslkit.cli.command import options_as_dataclass

if TYPE_CHECKING:
    from aslkit.nets.model_store import Model
    from aslkit.predict.passes import Passes


@dataclass(frozen=True)
class PassArguments:
    """Values of the options."""

    patch: str
    overlap: float
    blend: str
    device: str
    batch: int | None
    members: int | None
    mc_dropout: int | None
    tta: bool

    def passes(self, model: "Model") -> "Passes":
        """Return the passes, after checking that the model supports them."""
        from aslkit.predict.passes import Passes
        from aslkit.predict.tiling import Tiling

        side = None if self.patch == "full" else int(self.patch)
        tiling = Tiling(side, self.overlap, self.blend)
        passes = Passes(self.members, self.mc_dropout or 0, self.tta, tiling, self.batch)
        passes.check(model)
        return passes

    def describe(self, model: "Model") -> str:
        """Describe the passes in words."""
        n = len(model.members[: self.members])
        parts = [f"{n} member" + "s" * (n > 1)]
        if self.mc_dropout:
            parts.append(f"{self.mc_dropout} runs with MC dropout")
        if self.tta:
            parts.append("4 mirrored views")
        whole = "whole slices"
        tiles = f"patches of {self.patch}, overlap {self.overlap:g}, {self.blend} blend"
        return ", ".join([*parts, whole if self.patch == "full" else tiles])


_OPTIONS = (
    click.option(
        "--patch",
        type=click.Choice(["64", "128", "full"]),
        default="full",
        show_default=True,
        help="Side of the patches that the network processes [pixels]; full: whole slices.",
    ),
    click.option(
        "--overlap",
        type=click.FloatRange(0, 0.9),
        default=0.75,
        show_default=True,
        metavar="X",
        help="Overlap of neighbouring patches, as a fraction of their side.",
    ),
    click.option(
        "--blend",
        type=click.Choice(["hann", "gaussian", "mean"]),
        default="gaussian",
        show_default=True,
        help="Weights of the pixels of overlapping patches.",
    ),
    click.option(
        "--device",
        default="auto",
        show_default=True,
        metavar="auto|cpu|cuda[:N]|mps",
        help="Device that runs the network.",
    ),
    click.option(
        "--batch",
        type=click.IntRange(min=1),
        metavar="N",
        help="Patches per batch [chosen by device and free memory].",
    ),
    click.option(
        "--members",
        type=click.IntRange(min=1),
        metavar="N",
        help="Number of ensemble members to run [all].",
    ),
    click.option(
        "--mc-dropout",
        type=click.IntRange(2),
        metavar="N",
        help="Run each member N times with random dropout (MC dropout).",
    ),
    click.option(
        "--tta",
        is_flag=True,
        help="Test-time augmentation: average over mirrored slices (x, y, and both).",
    ),
)
pass_options = options_as_dataclass(_OPTIONS, PassArguments, "pass_arguments")
