"""The environment -> number of threads to compute with."""

import os


def n_threads() -> int:
    """As many as cores, or as the user allows."""
    allowed = os.environ.get("OMP_NUM_THREADS", "")
    return int(allowed) if allowed.isdecimal() and int(allowed) else os.cpu_count() or 1
