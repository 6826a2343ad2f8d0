"""Step and done share of a run -> learning rate."""

import math

from aslkit.config.schema import TrainingConfig

CYCLE_TOP, CYCLE_START = 0.3, 0.04  # of one cycle: where it is highest, how low it begins


def learning_rate(config: TrainingConfig, step: int, done: float) -> float:
    """The learning rate of a step when a share `done` of the run is over."""
    if config.swa_start is not None:
        done = min(done, config.swa_start)
    return config.learning_rate * _SCHEDULES[config.schedule](config, step, min(done, 1))


def _cosine(config: TrainingConfig, step: int, done: float) -> float:
    """Up in the warm-up steps, then down to 0 along half a cosine."""
    warmup = min(1.0, (step + 1) / max(config.warmup_steps or 0, 1))
    return warmup * 0.5 * (1 + math.cos(math.pi * done))


def _one_cycle(config: TrainingConfig, step: int, done: float) -> float:
    """Up along half a cosine in the first 30 % of the run, then down to 0 along another."""
    if done < CYCLE_TOP:
        return CYCLE_START + (1 - CYCLE_START) * 0.5 * (1 - math.cos(math.pi * done / CYCLE_TOP))
    return 0.5 * (1 + math.cos(math.pi * (done - CYCLE_TOP) / (1 - CYCLE_TOP)))


_SCHEDULES = {"cosine": _cosine, "one_cycle": _one_cycle}
