"""A metric -> its name in tables and model cards."""


def coverage_at(level: float) -> str:
    """Name of the metric that tells how often nominal intervals of a level (0-1) hold."""
    return f"coverage {100 * level:.0f} %"
