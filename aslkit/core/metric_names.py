"""Metrics -> their names in tables and model cards."""


def coverage_at(level: float) -> str:
    """Return the name of the coverage of intervals with a nominal level (0-1)."""
    return f"coverage {100 * level:.0f} %"
