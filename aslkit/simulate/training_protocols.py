"""Random generator -> realistic acquisitions for training."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from aslkit.core.acquisition import (
    EFFICIENCY,
    EFFICIENCY_PER_PULSE,
    T1_BLOOD_S,
    Acquisition,
    Timing,
    protocol,
)
from aslkit.kinetics.model import KineticModel, kinetic_model
from aslkit.simulate.signal import PROTOCOLS

PROTOCOL_KINDS = ("joint", "pcasl", "pasl", "vsasl")
KIND_FRACTIONS = (0.35, 0.45, 0.1, 0.1)
BENCHMARK_FRACTION = 0.3
BENCHMARK_NAMES = ("joint6", "pcasl6", "pcasl6-2d", "pcasl5", "joint5", "pasl8")
SINGLE_FRACTION = 0.12  # fraction of the other protocols that have a single delay
USUAL_FRACTION = 0.8  # fraction of the multi-delay protocols that have 4 to 8 delays per run
MAX_TIMINGS = 20
LONGEST_OFFSET_S = 1.1  # readout offset of the last slice of a 2D readout


def draw_acquisition(rng: np.random.Generator) -> Acquisition:
    """Draw an acquisition of one slice, with mostly 4 to 8 delays per run."""
    is_2d = rng.random() < 0.3
    timings = _benchmark(rng) if rng.random() < BENCHMARK_FRACTION else _free(rng)
    t1_blood = T1_BLOOD_S if rng.random() < 0.8 else rng.uniform(1.5, 1.9)
    return Acquisition(
        timings,
        slice_offsets_s=(rng.uniform(0, LONGEST_OFFSET_S) if is_2d else 0.0,),
        t1_blood_s=t1_blood,
        kinetic="single" if rng.random() < 0.6 else "tissue",
    )


def draw_mismatched_model(
    rng: np.random.Generator, acquisition: Acquisition, b: int
) -> KineticModel:
    """Draw the true models of `b` subjects: the same timings, other constants, maybe kinetics."""
    other = "tissue" if acquisition.kinetic == "single" else "single"
    return replace(
        kinetic_model(acquisition),
        t1_blood=acquisition.t1_blood_s * rng.normal(1, 0.06, (b, 1, 1)),
        t1_tissue=rng.uniform(0.9, 1.6, (b, 1, 1)),
        kinetic=other if rng.random() < 0.6 else acquisition.kinetic,
    )


def _benchmark(rng: np.random.Generator) -> tuple[Timing, ...]:
    return sum(PROTOCOLS[str(rng.choice(BENCHMARK_NAMES))].runs, ())


def _free(rng: np.random.Generator) -> tuple[Timing, ...]:
    kind = rng.choice(PROTOCOL_KINDS, p=KIND_FRACTIONS)
    if rng.random() < SINGLE_FRACTION:
        return _single(rng, "pcasl" if kind == "joint" else kind)
    n = _n_delays(rng, MAX_TIMINGS // (2 if kind == "joint" else 1))
    if kind == "pasl":
        bolus = rng.uniform(0.6, 1.0) if rng.random() < 0.8 else np.inf
        return _run(
            rng, "pasl", np.linspace(rng.uniform(0.2, 0.8), rng.uniform(1.8, 3.2), n), bolus
        )
    plds = np.linspace(rng.uniform(0.1, 1.0), rng.uniform(1.3, 3.5), n)
    plds = np.clip(plds + rng.normal(0, 0.05, n), 0.05, None)
    duration = rng.uniform(1.2, 2.0) if rng.random() < 0.8 else rng.uniform(0.8, 2.5, n)
    pcasl = () if kind == "vsasl" else _run(rng, "pcasl", plds, duration)
    return pcasl + (() if kind == "pcasl" else _run(rng, "vsasl", plds, 0.0))


def _n_delays(rng: np.random.Generator, most: int) -> int:
    """Draw the number of delays per run, mostly 4 to 8."""
    if rng.random() < USUAL_FRACTION:
        return int(rng.integers(4, 9))
    return int(rng.integers(2, 4)) if rng.random() < 0.5 else int(rng.integers(9, most + 1))


def _single(rng: np.random.Generator, kind: str) -> tuple[Timing, ...]:
    """Draw a single-delay run; the delay is long enough for most of the label to arrive."""
    if kind == "pasl":
        return _run(rng, kind, [rng.uniform(1.4, 2.8)], rng.uniform(0.6, 1.0))
    duration = rng.uniform(1.4, 2.0) if kind == "pcasl" else 0.0
    return _run(rng, kind, [rng.uniform(1.0, 2.6)], duration)


def _run(
    rng: np.random.Generator,
    labeling: str,
    plds: Sequence[float] | NDArray[np.float64],
    duration: float | NDArray[np.float64],
) -> tuple[Timing, ...]:
    """Return the timings of one run with up to four background-suppression pulses."""
    bs_efficiency = EFFICIENCY_PER_PULSE ** rng.integers(0, 5)
    return protocol(labeling, plds, duration, EFFICIENCY[labeling] * bs_efficiency)
