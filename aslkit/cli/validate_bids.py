"""Scans of a BIDS data set -> one page per scan, a page of the group, and tables."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from aslkit.cli.data_set_options import select_part
from aslkit.cli.terminal import console, print_result
from aslkit.core.constants import OUTLIER_Z

if TYPE_CHECKING:
    from aslkit.batch.outcomes import Outcome

RunPaths = tuple[Path, ...]  # the runs of one acquisition


@dataclass(frozen=True)
class InVivoArguments:
    """The options of asl_validate that are for --bids only, with their defaults."""

    outliers: float | None = OUTLIER_Z
    moco: bool = False
    participants: tuple[str, ...] = ()
    sessions: tuple[str, ...] = ()
    reference: Path | None = None
    part: tuple[int, int] | None = None
    n_jobs: int | None = None
    dask: str | None = None
    skip_existing: bool = False


@dataclass(frozen=True)
class Study:
    """Data set to validate, and the options of asl_validate."""

    folder: Path
    models: tuple[str, ...]
    estimators: tuple[str, ...]
    macrovascular: str
    kinetic: str
    seed: int
    out: Path
    in_vivo: InVivoArguments


def validate_study(study: Study) -> None:
    """Validate every scan, write the pages and tables, and print the table of the group.

    Raises
    ------
    SubjectsFailedError
        When at least one scan failed, after all others are done.
    """
    from aslkit.batch.driver import BatchSettings, OneStepWork, run_batch
    from aslkit.bids.layout import find_acquisitions, scan_name
    from aslkit.outputs.dataset import open_logs

    found = find_acquisitions(study.folder, study.in_vivo.participants, study.in_vivo.sessions)
    scans = select_part(found, study.in_vivo.part)
    work = OneStepWork(
        scan_name,
        partial(_fingerprint, study, _parameters(study)),
        partial(_is_current, study),
        partial(_validate_scan, study),
    )
    open_logs(study.out)
    settings = BatchSettings(
        study.out, study.in_vivo.skip_existing, study.in_vivo.n_jobs, study.in_vivo.dask
    )

    def summarize(outcomes: "Sequence[Outcome]") -> None:
        if study.in_vivo.part is None:
            _write_group(study.out, outcomes)
        else:
            print_result(
                "For the page of the group, run the command again with --skip-existing and "
                "without --part."
            )

    run_batch(scans, work, settings, console(), summarize)


def _fingerprint(study: Study, parameters: Mapping[str, object], paths: RunPaths) -> str:
    """Return the hash of the scan, its reference maps, the options and the version."""
    from aslkit.bids.layout import scan_name
    from aslkit.bids.reference_maps import reference_files
    from aslkit.outputs.fingerprints import fingerprint

    maps = (
        reference_files(study.in_vivo.reference, scan_name(paths)).values()
        if study.in_vivo.reference
        else ()
    )
    return fingerprint(paths, parameters, tuple(maps))


def _is_current(study: Study, paths: RunPaths, fingerprint: str) -> bool:
    """Whether the page of the scan exists with this fingerprint."""
    from aslkit.bids.layout import scan_name
    from aslkit.report.scan_files import is_current

    return is_current(study.out, scan_name(paths), fingerprint)


def _parameters(study: Study) -> dict[str, object]:
    """Return the options that the results depend on; UnavailableError for a missing model."""
    from aslkit.outputs.provenance import version
    from aslkit.validate.custom_estimators import load_estimators, source_sha256, wrap_estimators
    from aslkit.validate.estimators import load_networks

    models = {n: own.model.sha256 for n, own in load_networks(study.models).items()}
    functions = load_estimators(study.estimators)
    wrap_estimators(functions, models)  # checks the names
    device = ""
    if models:
        from aslkit.nets.device import select_device

        device = str(select_device("auto"))
    return {
        "version": version(),
        "models": list(models.items()),
        "estimators": [(name, source_sha256(f)) for name, f in functions.items()],
        "device": device,
        "macrovascular": study.macrovascular,
        "kinetic": study.kinetic,
        "outliers": study.in_vivo.outliers,
        "moco": study.in_vivo.moco,
        "seed": study.seed,
    }


def _validate_scan(study: Study, paths: RunPaths, fingerprint: str) -> None:
    """Validate a scan and write its page."""
    from aslkit.bids.layout import scan_name
    from aslkit.bids.overrides import Overrides
    from aslkit.bids.reader import read_run
    from aslkit.prepare.pipeline import PreparationSettings, prepare_runs
    from aslkit.report.page import provenance
    from aslkit.report.scan_files import ScanResults, write_scan_files
    from aslkit.report.scan_report import scan_report, scan_thumbnail
    from aslkit.validate.custom_estimators import load_estimators
    from aslkit.validate.in_vivo import validate_run

    name = scan_name(paths)
    runs = [read_run(path, Overrides(kinetic=study.kinetic)) for path in paths]
    preparation = PreparationSettings(realign=study.in_vivo.moco, outlier_z=study.in_vivo.outliers)
    result = validate_run(
        prepare_runs(runs, preparation),
        models=study.models,
        macrovascular=study.macrovascular,
        seed=study.seed,
        name=name,
        reference=study.in_vivo.reference,
        estimators=load_estimators(study.estimators),
    )
    results = ScanResults(result.benchmark, scan_thumbnail(result))
    page = scan_report(result, provenance())
    write_scan_files(study.out, name, page, results, fingerprint)


def _write_group(out: Path, outcomes: "Sequence[Outcome]") -> None:
    """Write the page and tables of the group without failed scans, and print the table."""
    from aslkit.report.group_report import group_report
    from aslkit.report.page import provenance, write_benchmark
    from aslkit.report.scan_files import read_scan_results
    from aslkit.report.scan_tables import headline_per_scan, scan_tables
    from aslkit.validate.estimators import merge_benchmarks

    failed = {o.name: o.message for o in outcomes if o.exit_code}
    found = {o.name: read_scan_results(out, o.name) for o in outcomes if not o.exit_code}
    if not found:
        return
    total = merge_benchmarks([one.benchmark for one in found.values()])
    pictures = {name: one.picture for name, one in found.items()}
    report = group_report(total, provenance(), failed, pictures)
    files = write_benchmark(out, total, report)
    tables = scan_tables(total.records)
    table = report.headline if len(tables) > 1 else headline_per_scan(tables, {})
    print_result(table.as_text())
    print_result("\n" + "\n".join(f"wrote {path}" for path in files))
