"""Step and completed share of a run -> learning rate, for schedules other than the default."""

import math

from aslkit.config.schema import TrainingConfig
from aslkit.train.schedule import cosine_rate

PEAK, FIRST_RATE = 0.3, 0.04  # of one cycle: share of the run at its peak, rate at its start


def learning_rate(config: TrainingConfig, step: int, done: float) -> float:
    """Return the learning rate of a step; from `swa_start` on it is constant."""
    if config.swa_start is not None:
        done = min(done, config.swa_start)
    return _SCHEDULES[config.schedule](config, step, min(done, 1))


def _one_cycle(config: TrainingConfig, step: int, done: float) -> float:
    """Rise along half a cosine in the first 30 % of the run, then fall to 0 along another."""
    if done < PEAK:
        rise = 0.5 * (1 - math.cos(math.pi * done / PEAK))
        return config.learning_rate * (FIRST_RATE + (1 - FIRST_RATE) * rise)
    return config.learning_rate * (0.5 * (1 + math.cos(math.pi * (done - PEAK) / (1 - PEAK))))


_SCHEDULES = {"cosine": cosine_rate, "one_cycle": _one_cycle}
