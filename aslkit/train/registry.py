"""TrainingConfig -> the recipe of its run: the default one, or that of an experiment."""

from pathlib import Path

from aslkit.config.schema import AnyProtocolConfig, TrainingConfig
from aslkit.train.experimental.adaptation import read_adaptation_scans
from aslkit.train.experimental.recipe import ExperimentalRecipe
from aslkit.train.recipe import Recipe


def build_recipe(
    config: TrainingConfig, device: str = "cpu", bids_dir: Path | None = None
) -> Recipe:
    """Return the recipe of a run.

    Parameters
    ----------
    device : str
        Device of the network.
    bids_dir : Path, optional
        Data set of real scans, for a configuration with a section `adaptation`.

    Raises
    ------
    InputError
        If only one of section and data set is given, or no scan of the data set can be used.
    """
    scans = read_adaptation_scans(config, bids_dir)
    if is_default(config):
        return Recipe(config)
    return ExperimentalRecipe(config, device, scans)


def is_default(config: TrainingConfig) -> bool:
    """Return whether a configuration uses the default recipe, without any experiment."""
    experiments = (
        config.swa_start,
        config.pretraining_fraction,
        config.cbf_first_fraction,
        config.loss_weighting,
        config.validation,
        config.adaptation,
        config.loss,
    )
    has_default_data = isinstance(config.data, AnyProtocolConfig) and config.schedule == "cosine"
    return has_default_data and not any(experiments)
