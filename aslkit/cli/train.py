"""asl_train: a network trained on simulated scans."""

import logging
import math
import os
import sys
from collections.abc import Mapping
from contextlib import nullcontext
from pathlib import Path

import click

from aslkit.cli.command import aslkit_command, listing_option
from aslkit.cli.option_types import POSITIVE
from aslkit.cli.terminal import print_result
from aslkit.core.errors import InputError

EXAMPLES = """Examples:
  asl_train --config small --out my_model --max-minutes 90
  asl_train --config small --out my_model --resume
  asl_train --config small --out quick --set steps=500 --set data.patch_size=32
  asl_train --config production_v2 --out ensemble --members 5
  torchrun --nproc-per-node 2 -m aslkit.cli.train --config small --out my_model
  asl_train --config exp14 --init-from aslnet --finetune-bids study --out adapted --max-minutes 10
  asl_predict -i sub-01_asl.nii.gz -o cbf.nii.gz --model my_model"""


def _configs() -> dict[str, str]:
    from aslkit.config import describe_configs

    return describe_configs()


@aslkit_command("asl_train", epilog=EXAMPLES)
@click.option("--config", required=True, metavar="NAME|FILE.yaml", help="Training configuration.")
@click.option(
    "-o",
    "--out",
    type=click.Path(path_type=Path),
    required=True,
    metavar="DIR",
    help="Model folder.",
)
@click.option(
    "--set",
    "changes",
    multiple=True,
    metavar="KEY=VALUE",
    help="Change one value of the configuration.",
)
@click.option(
    "--members",
    type=click.IntRange(min=1),
    metavar="N",
    help="Number of ensemble members, trained with different seeds [as configured].",
)
@click.option(
    "--max-minutes",
    type=POSITIVE,
    default=math.inf,
    metavar="N",
    help="Time limit; the learning rate reaches zero at its end [no limit].",
)
@click.option("--resume", is_flag=True, help="Continue from the checkpoint in --out.")
@click.option("--init-from", metavar="NAME|DIR", help="Start from the weights of this model.")
@click.option(
    "--finetune-bids",
    type=click.Path(path_type=Path),
    metavar="DIR",
    help="Adapt to the scans of this BIDS data set; the configuration needs a section "
    "`adaptation`.",
)
@click.option(
    "--device",
    default="auto",
    show_default=True,
    metavar="auto|cpu|cuda[:N]|mps",
    help="Device that trains the network.",
)
@click.option("--tensorboard", is_flag=True, help="Also write TensorBoard event files.")
@listing_option("--list-configs", _configs, "Print the available configurations and exit.")
def main(
    config: str,
    out: Path,
    changes: tuple[str, ...],
    members: int | None,
    max_minutes: float,
    resume: bool,
    init_from: str | None,
    finetune_bids: Path | None,
    device: str,
    tensorboard: bool,
) -> None:
    """Train a network on scans that are simulated during training.

    Writes weights, model card, resolved configuration, metrics.csv, loss.png and a checkpoint
    every few minutes, on SIGTERM and at the end. With torchrun, several processes or GPUs train
    one network; each simulates its own batches.
    """
    from aslkit.config import load_config

    is_first = os.environ.get("RANK", "0") == "0"  # process of torchrun
    if not is_first:
        logging.getLogger("aslkit").setLevel(logging.ERROR)
    if members is not None:
        changes = (*changes, f"members={members}")
    resolved = load_config(config, changes)
    if out.exists() and not out.is_dir():
        raise InputError(out, "", found="a file", expected="a folder", fix="give another --out")
    from tqdm import tqdm

    from aslkit.train.distributed import process_group
    from aslkit.train.ensemble import train_members
    from aslkit.train.loop import RunOptions, ignore_step
    from aslkit.train.tensorboard_log import write_events

    total, is_shown = resolved.members * resolved.steps, is_first and sys.stderr.isatty()
    events = write_events(out) if tensorboard and is_first else nullcontext(ignore_step)
    bar = tqdm(total=total, desc="Training", disable=not is_shown)
    with process_group(device) as own, bar, events as record:

        def show(step: int, numbers: Mapping[str, float]) -> None:
            bar.update(step - bar.n)
            bar.set_postfix(loss=f"{numbers['loss']:.3f}", refresh=False)
            record(step, numbers)

        options = RunOptions(own, max_minutes, resume, init_from, finetune_bids)
        train_members(resolved, out, options, show)
    print_result(f"written: {out} (asl_predict --model {out})")


if __name__ == "__main__":
    main()
