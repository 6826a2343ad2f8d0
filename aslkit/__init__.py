"""Multi-delay ASL MRI -> maps of CBF and ATT; every public name is imported on first use."""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from aslkit.bids.reader import read_run
    from aslkit.core.acquisition import Acquisition
    from aslkit.core.series_and_maps import AslSeries, Flag, ParameterMaps
    from aslkit.fit.least_squares import fit_least_squares
    from aslkit.nets.model_store import load_model
    from aslkit.outputs.maps import write_maps
    from aslkit.predict.inference import predict_maps
    from aslkit.prepare.pipeline import prepare_runs
    from aslkit.quality.figures import quality_figures

    __version__: str

__all__ = [
    "Acquisition",
    "AslSeries",
    "Flag",
    "ParameterMaps",
    "__version__",
    "fit_least_squares",
    "load_model",
    "predict_maps",
    "prepare_runs",
    "quality_figures",
    "read_run",
    "write_maps",
]

_MODULES = {
    "Acquisition": "core.acquisition",
    "AslSeries": "core.series_and_maps",
    "Flag": "core.series_and_maps",
    "ParameterMaps": "core.series_and_maps",
    "fit_least_squares": "fit.least_squares",
    "load_model": "nets.model_store",
    "predict_maps": "predict.inference",
    "prepare_runs": "prepare.pipeline",
    "quality_figures": "quality.figures",
    "read_run": "bids.reader",
    "write_maps": "outputs.maps",
}


def __getattr__(name: str) -> object:
    """Import a public name from its module, or read the version of the installation."""
    if name == "__version__":
        from aslkit.outputs.provenance import version

        return version()
    if name not in _MODULES:
        raise AttributeError(f"module 'aslkit' has no attribute {name!r}")
    return getattr(import_module(f"aslkit.{_MODULES[name]}"), name)


def __dir__() -> list[str]:
    """List the public names."""
    return sorted(__all__)
