"""What a benchmark on phantoms found -> its report in plain words."""

from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from aslkit.report import phantom_sections as sections
from aslkit.report.example_sections import bland_altman_sections, lesion_sections, map_sections
from aslkit.report.page import Page, Section, Table
from aslkit.report.phantom_table import PhantomTable, Setting
from aslkit.report.robustness_sections import (
    detection_sections,
    field_of_view_sections,
    scale_sections,
    single_delay_sections,
)
from aslkit.report.shared_sections import DIGITS, format_number, join_names, speed_section
from aslkit.validate.estimators import Benchmark
from aslkit.validate.records import BOUND, LS, LS_ARTERIAL, LS_ORACLE, QUANTITIES, SMOOTHED_LS

GLOSSARY = {
    "SNR": "Signal of grey matter (ΔM/M0 = 0.00616: PCASL, CBF 60, ATT 1.5 s, PLD 2.0 s) over the "
    "standard deviation of the noise of one ΔM volume. One control-label pair in vivo has about "
    "2, eight averages about 5.5.",
    "error": "Mean absolute error (MAE) against the truth over brain voxels whose true CBF is "
    "above 5: CBF in ml/100 g/min, ATT (arterial transit time) in ms. Smaller is better.",
    "ratio": "Error of a method over that of least squares (LS) on the very same data. Below 1 "
    "the method is better.",
    "wins": "Share of voxels where a method is closer to the truth than LS; 50 % is a draw.",
    "matched": "Track on which the estimators know the physical constants of the simulation.",
    "mismatched": "Track on which every subject has constants of its own (T1 of blood, labeling "
    "efficiency), arterial signal and dispersion, and the estimators assume nominal ones.",
    SMOOTHED_LS: "LS on smoothed signals, the width chosen per SNR with the truth at hand.",
    LS_ORACLE: "LS that is told the true constants of every subject.",
    LS_ARTERIAL: "LS with an arterial compartment.",
    BOUND: "What the best unbiased method that looks at one voxel at a time can reach. LS sits "
    "on it where the signal is strong; only a method that uses the neighbourhood can be better.",
}
N_HEADLINE_SNRS = 3


def phantom_report(benchmark: Benchmark, facts: Mapping[str, str]) -> Page:
    """Report of a run against the truth of simulated brains."""
    results = PhantomTable(benchmark.records)
    kind = results.main_settings[0].phantoms
    n_subjects = max(int(r["n_subjects"]) for r in benchmark.records if r["phantoms"] == kind)
    shown = join_names([s.title for s in results.shown_settings or results.main_settings])
    lead = [
        f"{join_names([*results.models, 'least squares (LS)'])} on simulated scans of "
        f"{n_subjects} {kind} "
        "phantoms whose perfusion is known. All methods saw the same noisy data. Most pictures "
        f"and tables show SNR {results.snr:g} with {shown}; results.tsv holds the rest.",
        *summary(results),
    ]
    return Page(
        "Validation on phantoms",
        lead,
        phantom_headline(benchmark),
        _glossary(results),
        [
            *sections.error_sections(results),
            *map_sections(results, benchmark.examples),
            *lesion_sections(results, benchmark.examples),
            *sections.strata_sections(results),
            *sections.ls_comparison_sections(results),
            *bland_altman_sections(results, benchmark.examples),
            *sections.reliability_sections(results),
            *sections.win_rate_sections(results),
            *sections.dilution_sections(results),
            *scale_sections(results),
            *field_of_view_sections(results),
            *detection_sections(results),
            *single_delay_sections(results),
            *_other_phantoms(results),
            speed_section(benchmark),
        ],
        benchmark.self_checks,
        facts,
    )


def phantom_headline(benchmark: Benchmark) -> Table:
    """Error of every method and its ratio to LS, at up to three SNRs, one line per method."""
    results = PhantomTable(benchmark.records)
    return _errors_table(results, results.main_settings)


def summary(results: PhantomTable) -> list[str]:
    """What a reader should take home, one paragraph per model and track."""
    tracks = {
        t: [s for s in results.main_settings if s.track == t]
        for t in (s.track for s in results.main_settings)
    }
    return [
        f"{model}, {track} track: {' '.join(_verdict(results, model, settings))}"
        for model in results.models
        for track, settings in tracks.items()
        if any(model in results.estimators_in(s) for s in settings)
    ]


def _verdict(results: PhantomTable, model: str, settings: Sequence[Setting]) -> Iterator[str]:
    """How large the error is, where LS is better, who else is, and whether error bars hold."""

    def spread(metric: str, factor: int = 1) -> list[str]:
        of = {
            q: [factor * results.figure(s, model, q, metric)[0] for s in settings]
            for q in QUANTITIES
        }
        return [f"{_range(v, 2 // factor)} ({q.upper()})" for q, v in of.items() if _is_known(v)]

    errors = spread("MAE / LS")
    if not errors:
        yield f"at SNR {results.snr:g} it has no finite estimate."
        return
    yield f"at SNR {results.snr:g} its error is {join_names(errors)} times that of LS."
    judged = {
        f"{q.upper()} of {s.protocol} at SNR {snr:g}": results.figure(
            s, model, q, "MAE / LS", snr=snr
        )
        for s in settings
        for q in QUANTITIES
        for snr in results.snrs
    }
    known = {name: figure for name, figure in judged.items() if np.isfinite(figure[0])}
    worse = [name for name, (value, low, _) in known.items() if value > 1 and not low <= 1]
    names = f": {join_names(worse[:4])}{' and more' if len(worse) > 4 else ''}" if worse else ""
    count = f"{len(worse) or 'none'} of {len(known)} cases"
    yield f"LS is better in {count} (protocol, SNR, quantity){names}."
    for rival in (SMOOTHED_LS, LS_ARTERIAL):
        if wins := spread(f"win rate over {rival}", 100):
            yield f"It is closer to the truth than {rival} in {join_names(wins)} % of the voxels."
    if held := spread("coverage 95 %", 100):
        yield f"Its 95 % intervals hold {join_names(held)} % of the truth."


def _is_known(values: Sequence[float]) -> bool:
    return bool(np.isfinite(values).any())


def _range(values: Sequence[float], digits: int) -> str:
    """Smallest to largest of the finite values, or the one that all are."""
    ends = (np.nanmin(values), np.nanmax(values))
    return " to ".join(dict.fromkeys(format_number(float(v), digits) for v in ends))


def _other_phantoms(results: PhantomTable) -> list[Section]:
    """The errors in the other kinds of phantoms, measured in the shown ways."""
    shown = {(s.track, s.protocol) for s in results.shown_settings}
    others = [
        s
        for s in results.settings
        if s not in results.main_settings and (s.track, s.protocol) in shown
    ]
    text = "Flat shapes and other phantoms, scored in the same way."
    return (
        [Section("Other phantoms", text, table=_errors_table(results, others))] if others else []
    )


def _errors_table(results: PhantomTable, settings: Sequence[Setting]) -> Table:
    """Error and ratio to LS at up to three SNRs, a line per method that could really be used."""
    snrs = (
        results.snrs
        if len(results.snrs) <= N_HEADLINE_SNRS
        else sorted({results.snrs[0], results.snr, results.snrs[-1]})
    )
    fields = [k for k in ("track", "phantoms") if len({getattr(s, k) for s in settings}) > 1]
    fields.append("protocol")
    columns = [*fields, "method", *(f"{q.upper()} SNR {s:g}" for q in QUANTITIES for s in snrs)]
    rows = [
        [*(getattr(s, k) for k in fields), e]
        + [_error_and_ratio(results, s, e, q, snr) for q in QUANTITIES for snr in snrs]
        for s in settings
        for e in results.estimators_in(s)
        if e != LS_ORACLE
    ]
    caption = (
        "Mean absolute error over the brain and, in brackets, its ratio to that of least squares "
        "(LS). CBF in ml/100 g/min, ATT in ms."
    )
    return Table(columns, rows, len(fields) + 1, caption)


def _error_and_ratio(
    results: PhantomTable, setting: Setting, estimator: str, q: str, snr: float
) -> str:
    error, _, _ = results.figure(setting, estimator, q, "MAE", snr=snr)
    ratio = error / results.figure(setting, LS, q, "MAE", snr=snr)[0]
    own = format_number(error, DIGITS[q])
    return f"{own} ({ratio:.2f})" if np.isfinite(ratio) else own


def _glossary(results: PhantomTable) -> dict[str, str]:
    """The terms that this report uses."""
    optional = {SMOOTHED_LS, LS_ORACLE, LS_ARTERIAL, "matched", "mismatched"}
    used = {*results.estimators, *(s.track for s in results.settings)}
    return {k: v for k, v in GLOSSARY.items() if k not in optional or k in used}
