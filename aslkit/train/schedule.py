"""Step and completed share of a run -> learning rate."""

import math

from aslkit.config.schema import TrainingConfig


def cosine_rate(config: TrainingConfig, step: int, done: float) -> float:
    """Return the learning rate of a step when a share `done` of the run is over.

    It rises linearly in the warm-up steps and falls to 0 along half a cosine.
    """
    warmup = min(1.0, (step + 1) / max(config.warmup_steps or 0, 1))
    return config.learning_rate * (warmup * 0.5 * (1 + math.cos(math.pi * min(done, 1))))
