"""Environment -> number of threads for computations."""

import os


def n_threads() -> int:
    """Return `OMP_NUM_THREADS` where it is set, else the number of cores."""
    allowed = os.environ.get("OMP_NUM_THREADS", "")
    return int(allowed) if allowed.isdecimal() and int(allowed) else os.cpu_count() or 1
