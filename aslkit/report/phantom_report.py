"""Results of a benchmark on phantoms -> its page."""

from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from aslkit.report import phantom_sections as sections
from aslkit.report.example_sections import bland_altman_sections, lesion_sections, map_sections
from aslkit.report.page import RESULTS_FOOTER, Page, Section, Table
from aslkit.report.phantom_table import PhantomTable, Setting
from aslkit.report.robustness_sections import (
    detection_sections,
    field_of_view_sections,
    scale_sections,
    single_delay_sections,
)
from aslkit.report.shared_sections import (
    DIGITS,
    format_count,
    format_number,
    join_names,
    speed_section,
)
from aslkit.validate.estimators import Benchmark
from aslkit.validate.records import BOUND, LS, LS_ARTERIAL, LS_ORACLE, QUANTITIES, SMOOTHED_LS

GLOSSARY = {
    "SNR": "Difference signal of grey matter (ΔM/M0 = 0.00616: PCASL, CBF 60 ml/100 g/min, "
    "ATT 1.5 s, PLD 2.0 s) divided by the standard deviation of the noise in one ΔM volume. "
    "In vivo, one control-label pair has an SNR of about 2, the mean of eight pairs about 5.5.",
    "error": "Mean absolute error (MAE) against the truth, over brain voxels with a true CBF "
    "above 5 ml/100 g/min. CBF in ml/100 g/min, arterial transit time (ATT) in ms. Smaller is "
    "better.",
    "ratio": "Error of a method divided by the error of least squares (LS) on the same data. "
    "Below 1, the method is better than LS.",
    "wins": "Share of voxels in which a method is closer to the truth than LS. 50 % is a draw.",
    "matched": "Track in which the estimators use the physical constants of the simulation.",
    "mismatched": "Track in which every subject has its own T1 of blood, labeling efficiency, "
    "arterial signal and dispersion, while the estimators assume nominal constants.",
    SMOOTHED_LS: "LS on smoothed signals. The width of the smoothing is the one with the smallest "
    "true error at each SNR, which a user could not know.",
    LS_ORACLE: "LS with the true constants of every subject.",
    LS_ARTERIAL: "LS with an arterial compartment.",
    BOUND: "Smallest error that an unbiased method can reach from the signal of one voxel. LS "
    "reaches it at high SNR. Methods that use neighbouring voxels can have a smaller error.",
}
N_HEADLINE_SNRS = 3
MAX_LISTED_CASES = 4


def phantom_report(benchmark: Benchmark, facts: Mapping[str, str]) -> Page:
    """Return the page of a benchmark on phantoms, where the truth is known."""
    results = PhantomTable(benchmark.records)
    kind = results.main_settings[0].phantoms
    n_subjects = max(int(r["n_subjects"]) for r in benchmark.records if r["phantoms"] == kind)
    shown = join_names([s.title for s in results.shown_settings or results.main_settings])
    methods = join_names([*results.models, "least squares (LS)"])
    lead = [
        f"This page compares {methods} with the truth on simulated scans of "
        f"{format_count(n_subjects, f'{kind} phantom')}. All methods get the same noisy data. "
        f"Most pictures and tables show SNR {results.snr:g} for {shown}; results.tsv has all "
        "results.",
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
        RESULTS_FOOTER,
    )


def phantom_headline(benchmark: Benchmark) -> Table:
    """Return the table of errors and their ratios to LS, at up to three SNRs."""
    results = PhantomTable(benchmark.records)
    return _errors_table(results, results.main_settings)


def summary(results: PhantomTable) -> list[str]:
    """Return one paragraph with the main results per model and track."""
    tracks: dict[str, list[Setting]] = {}
    for setting in results.main_settings:
        tracks.setdefault(setting.track, []).append(setting)
    return [
        f"{model}, {track} track: {' '.join(_verdict(results, model, settings))}"
        for model in results.models
        for track, settings in tracks.items()
        if any(model in results.estimators_in(s) for s in settings)
    ]


def _verdict(results: PhantomTable, model: str, settings: Sequence[Setting]) -> Iterator[str]:
    """Yield sentences on error, cases where LS is better, baselines, and error bars."""

    def ranges(metric: str, factor: int = 1, unit: str = "") -> list[str]:
        values = {
            q: [factor * results.score(s, model, q, metric).value for s in settings]
            for q in QUANTITIES
        }
        return [
            f"{_format_range(v, 2 // factor)}{unit} ({q.upper()})"
            for q, v in values.items()
            if np.isfinite(v).any()
        ]

    errors = ranges("MAE / LS")
    if not errors:
        yield f"the model has no finite estimate at SNR {results.snr:g}."
        return
    yield f"at SNR {results.snr:g} the error is {join_names(errors)} times that of LS."
    ratios = {
        f"{q.upper()} of {s.protocol} at SNR {snr:g}": results.score(
            s, model, q, "MAE / LS", snr=snr
        )
        for s in settings
        for q in QUANTITIES
        for snr in results.snrs
    }
    known = {name: ratio for name, ratio in ratios.items() if np.isfinite(ratio.value)}
    worse = [name for name, ratio in known.items() if ratio.value > 1 and not ratio.low <= 1]
    cases = [*worse[:MAX_LISTED_CASES], *["others"] * (len(worse) > MAX_LISTED_CASES)]
    yield (
        f"LS has the smaller error in {len(worse) or 'none'} of {len(known)} cases (protocol, "
        f"SNR, quantity){f': {join_names(cases)}' if cases else ''}."
    )
    for baseline in (SMOOTHED_LS, LS_ARTERIAL):
        if wins := ranges(f"win rate over {baseline}", 100, " %"):
            yield f"It is closer to the truth than {baseline} in {join_names(wins)} of the voxels."
    if covered := ranges("coverage 95 %", 100, " %"):
        yield f"Its 95 % intervals contain the truth in {join_names(covered)} of the voxels."


def _format_range(values: Sequence[float], digits: int) -> str:
    """Return "smallest to largest" of the finite values, or one number if both are equal."""
    ends = (np.nanmin(values), np.nanmax(values))
    return " to ".join(dict.fromkeys(format_number(float(v), digits) for v in ends))


def _other_phantoms(results: PhantomTable) -> list[Section]:
    """Return the errors in the other sets of phantoms, for the shown protocols."""
    shown = {(s.track, s.protocol) for s in results.shown_settings}
    others = [
        s
        for s in results.settings
        if s not in results.main_settings and (s.track, s.protocol) in shown
    ]
    if not others:
        return []
    text = "The same scores in the other sets of phantoms, such as geometric shapes."
    return [Section("Other phantoms", text, table=_errors_table(results, others))]


def _errors_table(results: PhantomTable, settings: Sequence[Setting]) -> Table:
    """Return errors and ratios to LS at up to three SNRs, without the oracle."""
    snrs = results.snrs
    if len(snrs) > N_HEADLINE_SNRS:
        snrs = sorted({snrs[0], results.snr, snrs[-1]})
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
        "Mean absolute error over the brain; in brackets its ratio to the error of least squares "
        "(LS). CBF in ml/100 g/min, ATT in ms."
    )
    return Table(columns, rows, len(fields) + 1, caption)


def _error_and_ratio(
    results: PhantomTable, setting: Setting, estimator: str, quantity: str, snr: float
) -> str:
    error = results.score(setting, estimator, quantity, "MAE", snr=snr).value
    ratio = error / results.score(setting, LS, quantity, "MAE", snr=snr).value
    text = format_number(error, DIGITS[quantity])
    return f"{text} ({ratio:.2f})" if np.isfinite(ratio) else text


def _glossary(results: PhantomTable) -> dict[str, str]:
    """Return the terms that this page uses."""
    optional = {SMOOTHED_LS, LS_ORACLE, LS_ARTERIAL, "matched", "mismatched"}
    used = {*results.estimators, *(s.track for s in results.settings)}
    return {k: v for k, v in GLOSSARY.items() if k not in optional or k in used}
