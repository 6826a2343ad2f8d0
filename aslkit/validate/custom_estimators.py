"""Names of functions in other packages -> estimators that are evaluated beside the models.

A name is that of an entry point of the group `aslkit.estimators`, or MODULE:FUNCTION.
"""

import os
import sys
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from hashlib import sha256
from importlib import import_module
from importlib.metadata import entry_points
from pathlib import Path

from aslkit.core.acquisition import Acquisition
from aslkit.core.errors import InputError, UnavailableError
from aslkit.core.series_and_maps import AslSeries, ParameterMaps
from aslkit.validate.estimators import Estimator
from aslkit.validate.records import BASELINES

GROUP = "aslkit.estimators"  # entry points that other packages define
OPTION = "--estimator"


@dataclass(frozen=True)
class CustomEstimator:
    """A function of another package; its result is checked.

    Attributes
    ----------
    name : str
        Name in the tables.
    function : callable
        From an `AslSeries` to `ParameterMaps` of the same shape.
    """

    name: str
    function: Estimator

    def __call__(self, series: AslSeries) -> ParameterMaps:
        """Estimate the maps of the series.

        Raises
        ------
        InputError
            When the function returns anything but maps of the shape of the series.
        """
        maps: object = self.function(series)
        if not isinstance(maps, ParameterMaps):
            raise InputError(
                OPTION,
                self.name,
                found=f"a function that returns {type(maps).__name__}",
                expected="a function that returns aslkit.ParameterMaps",
                fix="return ParameterMaps",
            )
        if maps.cbf.shape != series.mask.shape:
            raise InputError(
                OPTION,
                self.name,
                found=f"maps of shape {maps.cbf.shape}",
                expected=f"the shape of the series, {series.mask.shape}",
                fix="return one value per voxel",
            )
        return maps

    def covers(self, acquisition: Acquisition) -> bool:
        """Return True: a function gets the scans of every protocol."""
        return True

    @property
    def is_scale_equivariant(self) -> bool:
        """False: the self-check of scale equivariance is not applied."""
        return False


def load_estimators(names: Sequence[str]) -> dict[str, Estimator]:
    """Import estimators by name.

    Parameters
    ----------
    names : sequence of str
        Entry points of the group `aslkit.estimators`, or MODULE:FUNCTION. Modules are also
        searched for in the current folder.

    Returns
    -------
    dict
        Functions by their name in the tables: the name of the entry point or of the function;
        of several functions of one name, MODULE:FUNCTION.

    Raises
    ------
    UnavailableError
        When an entry point, module or function does not exist.
    InputError
        When the object is not callable.
    """
    functions = {name: _import_function(name) for name in names}
    short = {name: name.rpartition(":")[2].rpartition(".")[2] for name in functions}
    labels = list(short.values())
    return {s if labels.count(s) == 1 else name: functions[name] for name, s in short.items()}


def wrap_estimators(
    functions: Mapping[str, Estimator], model_names: Collection[str] = ()
) -> dict[str, CustomEstimator]:
    """Check the names of the functions, and wrap the functions in checks of what they return.

    Raises
    ------
    InputError
        When a name is that of a baseline or of a model.
    """
    for name in functions:
        if name in BASELINES or name in model_names:
            raise InputError(
                OPTION,
                "",
                found=f"the name {name!r}, which another estimator of this run has",
                expected="a name of its own for each estimator",
                fix="rename the function",
            )
    return {name: CustomEstimator(name, function) for name, function in functions.items()}


def source_sha256(function: Estimator) -> str:
    """Return the SHA-256 of the source file of a function, empty where there is none."""
    module = sys.modules.get(getattr(function, "__module__", ""))
    path = Path(getattr(module, "__file__", None) or "")
    return sha256(path.read_bytes()).hexdigest() if path.is_file() else ""


def _import_function(name: str) -> Estimator:
    """Return the function of an entry point or of MODULE:FUNCTION."""
    known = {point.name: point.value for point in entry_points(group=GROUP)}
    module, colon, path = known.get(name, name).partition(":")
    if not (module and colon and path):
        raise UnavailableError(
            f"estimator {name!r} is not installed. Installed estimators: "
            f"{', '.join(sorted(known)) or 'none'}. Fix: give one of them, or MODULE:FUNCTION."
        )
    try:
        with _current_folder_in_path():
            found: object = import_module(module)
        for part in path.split("."):
            found = getattr(found, part)
    except (ImportError, SyntaxError, AttributeError) as error:
        raise UnavailableError(
            f"estimator {name!r} cannot be imported ({error}). Fix: install its package, or run "
            "the command in the folder of the module."
        ) from error
    if not callable(found):
        raise InputError(
            OPTION,
            name,
            found=f"an object of type {type(found).__name__}",
            expected="a function from AslSeries to ParameterMaps",
            fix="name a function",
        )
    return found


@contextmanager
def _current_folder_in_path() -> Iterator[None]:
    """Let Python import modules of the current folder, which commands do not search."""
    before = sys.path.copy()
    sys.path.insert(0, os.getcwd())
    try:
        yield
    finally:
        sys.path[:] = before
