"""The options of asl_predict that say how the network runs -> `Passes`."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

import click

from aslkit.cli.command import options_as_dataclass

if TYPE_CHECKING:
    from aslkit.nets.model_store import Model
    from aslkit.predict.passes import Passes


@dataclass(frozen=True)
class PassArguments:
    """What the options say."""

    patch: str
    overlap: float
    blend: str
    device: str
    batch: int | None
    members: int | None
    mc_dropout: int | None
    tta: bool

    def passes(self, model: "Model") -> "Passes":
        """The passes, which the model can make."""
        from aslkit.predict.passes import Passes
        from aslkit.predict.tiling import Tiling

        side = None if self.patch == "full" else int(self.patch)
        tiling = Tiling(side, self.overlap, self.blend)
        passes = Passes(self.members, self.mc_dropout or 0, self.tta, tiling, self.batch)
        passes.check(model)
        return passes

    def describe(self, model: "Model") -> str:
        """The passes in words."""
        n = len(model.members[: self.members])
        parts = [f"{n} member" + "s" * (n > 1)]
        if self.mc_dropout:
            parts.append(f"{self.mc_dropout} runs with MC dropout")
        if self.tta:
            parts.append("4 mirrored views")
        whole = "slices whole"
        tiles = f"patches of {self.patch}, overlap {self.overlap:g}, {self.blend} blend"
        return ", ".join([*parts, whole if self.patch == "full" else tiles])


_OPTIONS = (
    click.option(
        "--patch",
        type=click.Choice(["64", "128", "full"]),
        default="full",
        show_default=True,
        help="Patches that the network sees [pixels]; full: whole slices.",
    ),
    click.option(
        "--overlap",
        type=click.FloatRange(0, 0.9),
        default=0.75,
        show_default=True,
        metavar="X",
        help="Share of its side that a patch has in common with the next.",
    ),
    click.option(
        "--blend",
        type=click.Choice(["hann", "gaussian", "mean"]),
        default="gaussian",
        show_default=True,
        help="Weight of a pixel by its place in the patch.",
    ),
    click.option(
        "--device", default="auto", show_default=True, help="auto, cpu, cuda, cuda:N, mps."
    ),
    click.option(
        "--batch",
        type=click.IntRange(min=1),
        metavar="N",
        help="Patches at a time [what pays, and fits into the free memory].",
    ),
    click.option(
        "--members",
        type=click.IntRange(min=1),
        metavar="N",
        help="Members of the model that run [all].",
    ),
    click.option(
        "--mc-dropout",
        type=click.IntRange(2),
        metavar="N",
        help="Run each member N times with random dropout (MC dropout).",
    ),
    click.option(
        "--tta", is_flag=True, help="Also run on slices mirrored in x, in y and in both."
    ),
)
pass_options = options_as_dataclass(_OPTIONS, PassArguments, "passing")
