"""This installation -> the folder of the data that are installed with the package."""

from pathlib import Path

from aslkit.core.errors import UnavailableError


def phantoms_folder() -> Path:
    """Return the folder of the benchmark phantoms.

    A checkout and an editable install keep them beside the package (data/phantoms), a wheel under
    share/aslkit/phantoms of the prefix that it was installed into.

    Raises
    ------
    UnavailableError
        If neither place exists.
    """
    package = Path(__file__).resolve().parents[1]
    checkout = package.parent / "data" / "phantoms"
    prefixes = (parent / "share" / "aslkit" / "phantoms" for parent in package.parents)
    for folder in (checkout, *prefixes):
        if folder.is_dir():
            return folder
    raise UnavailableError(
        f"The benchmark phantoms are missing: expected them in {checkout} or in "
        "share/aslkit/phantoms of the installation. Fix: install aslkit again, or give a folder."
    )
