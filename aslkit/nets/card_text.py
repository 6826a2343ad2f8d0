"""Model card -> sentences: what a model is, and where a scan is outside of its training."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import cast

import numpy as np
from numpy.typing import ArrayLike

from aslkit.core.acquisition import REFERENCE_SIGNAL
from aslkit.core.errors import InputError
from aslkit.core.metric_names import coverage_at
from aslkit.core.series_and_maps import AslSeries

Card = Mapping[str, object]

LEVELS = (0.5, 0.8, 0.95)  # of the intervals in a card


@dataclass(frozen=True)
class _Range:
    """A field of the card with the lowest and the highest value in training."""

    label: str
    unit: str = ""


def describe_card(card: Card) -> list[str]:
    """Return the lines that describe a model; fields missing in the card are left out."""
    scope = [", ".join(_names(card, f)) for f in ("labelings", "kinetics")]
    ranges = [
        f"{r.label} {low:g}-{high:g}{r.unit}"
        for field, r in _RANGES.items()
        for low, high in _limits(card, field)
    ]
    training = [f"{card[f]} {f}" for f in ("steps", "patches", "hours") if f in card]
    version = [str(card["version"])] if "version" in card else []
    version += [f"trained as {card['trained_as']}"] if "trained_as" in card else []
    sha256 = str(card.get("sha256", "unknown"))[:12]
    lines = {
        "version": version,
        "about": [str(card.get("description", ""))],
        "trained for": [*scope, *ranges],
        "adapted to": _adapted_to(card),
        "training": [*training, str(card.get("machine", ""))],
        "covered by intervals of 50, 80, 95 %": _covered(card),
        "weights": [f"members {card.get('members', 1)}", f"sha256 {sha256}"],
    }
    shown = {label: "; ".join(filter(None, parts)) for label, parts in lines.items()}
    return [f"{label}: {text}" for label, text in shown.items() if text]


def interval_coverage(records: Sequence[Mapping[str, object]], model: str) -> dict[str, object]:
    """Return the field `calibration` of the card: coverage of the intervals, by SNR.

    Parameters
    ----------
    records : sequence of mapping
        `records` of results.json of `asl_validate --phantoms`, of which brain phantoms are used.

    Raises
    ------
    InputError
        If the records hold no coverage of the model.
    """
    own = [r for r in records if r["estimator"] == model and r["phantoms"] == "brain"]
    shares: dict[tuple[str, str, str], list[list[float]]] = {}
    for r in own:
        if r["stratum"] == "brain" and r["metric"] in _COVERAGES and r["value"] is not None:
            key = str(r["track"]), str(r["quantity"]), f"{r['snr']:g}"
            by_level = shares.setdefault(key, [[] for _ in _COVERAGES])
            by_level[_COVERAGES.index(str(r["metric"]))].append(cast(float, r["value"]))
    if not shares:
        raise InputError(
            "results",
            "coverage",
            found=f"none of model {model}",
            expected="its coverage in brain phantoms",
            fix="run asl_validate --phantoms shipped --model NAME",
        )
    table: dict[str, dict[str, dict[str, list[float]]]] = {}
    for (track, quantity, snr), levels in shares.items():
        covered = [round(float(np.mean(values)), 3) for values in levels]
        table.setdefault(track, {}).setdefault(quantity, {})[snr] = covered
    protocols = list(dict.fromkeys(str(r["protocol"]) for r in own))
    return {"protocols": protocols, "levels": list(LEVELS), "covered": table}


def list_deviations_from_training(card: Card, series: AslSeries) -> list[str]:
    """Return a sentence for each property of a series outside of the training of the model."""
    name, acquisition = card.get("name"), series.acquisition
    found = _never_trained(card) + [
        f"{label} {value}: model {name} was trained for {', '.join(known)}"
        for label, field, values in (
            ("labeling", "labelings", {t.labeling for t in acquisition.timings}),
            ("kinetic", "kinetics", {acquisition.kinetic}),
        )
        for known in [_names(card, field)]
        for value in sorted(values - set(known))
        if known
    ]
    for field, values in _measured(series):
        for low, high in _limits(card, field):
            least, most = np.min(values), np.max(values)
            if least < low or most > high:
                shown = f"{least:.3g}" if least == most else f"{least:.3g}-{most:.3g}"
                r = _RANGES[field]
                found.append(
                    f"{r.label} {shown}{r.unit}: model {name} was trained for "
                    f"{low:g}-{high:g}{r.unit}"
                )
    return found


def _adapted_to(card: Card) -> list[str]:
    """Return the number of real scans of an adaptation, and their checksum."""
    found = cast(Mapping[str, object], card.get("adapted_to", {}))
    counts = [f"{found[f]} {f}" for f in ("scans", "subjects") if f in found]
    return [*counts, f"sha256 {str(found['sha256'])[:12]}"] if found else []


def _covered(card: Card) -> list[str]:
    """Return the coverage per track, quantity and SNR, in %."""
    found = cast(Mapping[str, object], card.get("calibration", {}))
    table = cast(dict[str, dict[str, dict[str, list[float]]]], found.get("covered", {}))
    parts = [
        f"{track} {quantity.upper()} "
        + ", ".join(
            f"SNR {snr} {'/'.join(f'{100 * share:.0f}' for share in shares)}"
            for snr, shares in by_snr.items()
        )
        for track, quantities in table.items()
        for quantity, by_snr in quantities.items()
    ]
    return [*parts, *([", ".join(cast(list[str], found["protocols"]))] if parts else [])]


def _measured(series: AslSeries) -> Iterator[tuple[str, ArrayLike]]:
    """Yield fields of the card and the values of a series."""
    acquisition = series.acquisition
    yield "n_timings", acquisition.n_timings
    yield "plds_s", acquisition.effective_plds_s(series.mask.shape[2])
    yield "t1_blood_s", acquisition.t1_blood_s
    durations = [t.label_duration_s for t in acquisition.timings if "casl" in t.labeling]
    if durations:
        yield "label_durations_s", durations
    if series.noise_sd is not None:
        sd = series.noise_sd[series.mask]
        known = sd[np.isfinite(sd) & (sd > 0)]
        if known.size:
            yield "snr", REFERENCE_SIGNAL / np.median(known)


def _names(card: Card, field: str) -> Sequence[str]:
    return cast(Sequence[str], card.get(field, ()))


def _never_trained(card: Card) -> list[str]:
    """Return a sentence for each quantity without weight in the training loss."""
    training = cast(Mapping[str, Mapping[str, float]], card.get("training", {}))
    loss = training.get("loss", {})
    return [
        f"{quantity.upper()} means nothing: model {card.get('name')} was trained without it "
        f"(loss.{quantity}_weight 0)"
        for quantity in ("cbf", "att")
        if loss.get(f"{quantity}_weight", 1) == 0
    ]


def _limits(card: Card, field: str) -> list[tuple[float, float]]:
    """Return the range in the card, in a list; an empty list without one."""
    return [cast(tuple[float, float], card[field])] if field in card else []


_COVERAGES = [coverage_at(level) for level in LEVELS]
_RANGES = {
    "n_timings": _Range("timings"),
    "plds_s": _Range("PLDs", " s"),
    "label_durations_s": _Range("label durations", " s"),
    "t1_blood_s": _Range("T1 of blood", " s"),
    "snr": _Range("SNR"),
}
