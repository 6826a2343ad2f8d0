"""What a benchmark on phantoms found -> its report in plain words."""

from collections.abc import Mapping, Sequence

from aslkit import pictures
from aslkit.benchmark import TRUTH, Benchmark, Example
from aslkit.report import Report, Section, Table
from aslkit.scoring import LS, QUANTITIES, Record, lookup
from aslkit.sections import (
    DIGITS,
    bland_altman_section,
    coverage_curve,
    listed,
    map_sections,
    number,
    percent,
    speed_section,
)

GLOSSARY = {
    "SNR": "Signal of grey matter (ΔM/M0 = 0.00616: PCASL, CBF 60, ATT 1.5 s, PLD 2.0 s) over the "
    "standard deviation of the noise of one ΔM volume. One control-label pair in vivo has about "
    "2, eight averages about 5.5.",
    "MAE": "Mean absolute error against the truth over brain voxels whose true CBF is above 5, "
    "CBF in ml/100 g/min and ATT (arterial transit time) in ms. Smaller is better.",
    "ratio": "MAE of the model over MAE of least squares (LS) on the very same data. Below 1 the "
    "model is better.",
    "wins": "Share of voxels where the model is closer to the truth than LS; 50 % is a draw.",
    "Cramér-Rao": "What the best unbiased method that looks at one voxel at a time can reach. "
    "LS sits on it where the signal is strong; only a method that uses the neighbourhood can be "
    "better.",
}


def phantom_report(benchmark: Benchmark, facts: Mapping[str, str]) -> Report:
    """Report of a run against the truth of simulated brains."""
    table = benchmark.records
    models = benchmark.models
    kind = str(table[0]["phantoms"])
    main = [r for r in table if r["phantoms"] == kind]
    n_subjects = max(int(r["n_subjects"]) for r in main)
    lead = [
        f"{listed([*models, 'least squares (LS)'])} on simulated scans of {n_subjects} {kind} "
        "phantoms whose perfusion is known. All methods saw the same noisy data, and knew the "
        "physical constants that the simulation used (matched track, no arterial signal)."
    ]
    estimators = [LS, *models]
    sections = [
        Section(
            "Error against SNR",
            "Mean absolute error in grey matter; both axes are logarithmic. The dotted line is "
            "the Cramér-Rao bound.",
            pictures.error_against_snr(main, estimators, "GM"),
        ),
        *map_sections(_noisiest(benchmark.examples, kind)),
        *_truth_agreement(_middle(benchmark.examples, kind)),
        _simulated_calibration(main, estimators),
        Section(
            "Where the errors are",
            "CBF and ATT error by tissue at the lowest SNR; lesions are in the whole-brain row.",
            table=_strata_table(main, estimators),
        ),
        speed_section(benchmark),
    ]
    return Report(
        "Validation on phantoms",
        lead,
        phantom_headline(benchmark),
        GLOSSARY,
        sections,
        benchmark.gates,
        facts,
    )


def phantom_headline(benchmark: Benchmark) -> Table:
    """Per condition: errors of each model and of LS, their ratio, and the win rate."""
    conditions = list(
        dict.fromkeys((r["phantoms"], r["protocol"], r["snr"]) for r in benchmark.records)
    )
    models = benchmark.models
    columns = ["phantoms", "protocol", "SNR"] + (["model"] if models else [])
    for heading in ("CBF", "ATT [ms]"):
        columns += [f"{heading} MAE", "LS", "ratio", "wins"] if models else [f"{heading} MAE LS"]
    rows = [
        _headline_row(benchmark.records, condition, model)
        for condition in conditions
        for model in (models or [LS])
    ]
    return Table(columns, rows, n_text=2)


def _headline_row(
    table: Sequence[Record], condition: tuple[str | float, ...], model: str
) -> list[str]:
    phantoms, protocol, snr = condition
    cells = [str(phantoms), str(protocol), f"{snr:g}"] + ([model] if model != LS else [])
    where = {"phantoms": phantoms, "protocol": protocol, "snr": snr, "stratum": "brain"}
    for q in QUANTITIES:

        def value(metric: str, estimator: str = model, quantity: str = q) -> float:
            keys = {**where, "quantity": quantity, "metric": metric, "estimator": estimator}
            return lookup(table, **keys)

        cells.append(number(value("MAE"), DIGITS[q]))
        if model != LS:
            cells += [
                number(value("MAE", LS), DIGITS[q]),
                number(value("MAE / LS"), 2),
                percent(value("win rate")),
            ]
    return cells


def _noisiest(examples: Sequence[Example], kind: str) -> list[Example]:
    """Of every protocol, the example of lowest SNR."""
    own = sorted(_own(examples, kind), key=lambda e: float(e.condition["snr"]))
    first: dict[str | float, Example] = {}
    for example in own:
        first.setdefault(example.condition["protocol"], example)
    return list(first.values())


def _middle(examples: Sequence[Example], kind: str) -> Example:
    """The example of middle SNR of the first protocol."""
    own = _own(examples, kind)
    same = [e for e in own if e.condition["protocol"] == own[0].condition["protocol"]]
    return sorted(same, key=lambda e: float(e.condition["snr"]))[len(same) // 2]


def _own(examples: Sequence[Example], kind: str) -> list[Example]:
    return [e for e in examples if e.condition["phantoms"] == kind]


def _truth_agreement(example: Example) -> list[Section]:
    inside = example.mask & (example.maps[TRUTH].cbf > 5)
    return [bland_altman_section(example, TRUTH, q, inside) for q in QUANTITIES]


def _simulated_calibration(table: Sequence[Record], estimators: Sequence[str]) -> Section:
    snrs = sorted({float(r["snr"]) for r in table})
    middle = snrs[len(snrs) // 2]
    panels = {
        f"{shown.heading}, {protocol}, SNR {middle:g}": {
            e: coverage_curve(
                table, estimator=e, quantity=q, protocol=protocol, snr=middle, stratum="brain"
            )
            for e in estimators
        }
        for protocol in dict.fromkeys(r["protocol"] for r in table)
        for q, shown in QUANTITIES.items()
    }
    return Section(
        "Can the error bars be trusted?",
        "Share of voxels whose truth lies within the interval that the reported standard "
        "deviation promises. On the dotted line they are right; below it they are too small.",
        pictures.calibration(panels),
    )


def _strata_table(table: Sequence[Record], estimators: Sequence[str]) -> Table:
    lowest = min(float(r["snr"]) for r in table)
    columns = ["protocol", "where"] + [
        f"{shown.heading} {e} [{shown.unit}]" for shown in QUANTITIES.values() for e in estimators
    ]
    places = dict.fromkeys((r["protocol"], r["stratum"]) for r in table)
    rows = [
        [str(protocol), str(stratum)]
        + [
            number(
                lookup(
                    table,
                    protocol=protocol,
                    stratum=stratum,
                    snr=lowest,
                    estimator=e,
                    quantity=q,
                    metric="MAE",
                ),
                DIGITS[q],
            )
            for q in QUANTITIES
            for e in estimators
        ]
        for protocol, stratum in places
    ]
    return Table(columns, rows, n_text=2)
