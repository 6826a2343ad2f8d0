"""Faults of a run end with the documented message and exit code, and no partial files."""

from pathlib import Path

import pytest
import run_faults

DOCS = Path(__file__).parents[1] / "docs"
PAGE = (DOCS / "faults.md").read_text().splitlines()
ROWS = {
    line.split(" | ")[0].removeprefix("| "): line
    for line in PAGE
    if line[:2] == "| "
    and line.count(" | ") == 4
    and not line.startswith("| seed")
    and not line[2].isdigit()
}


@pytest.mark.usefixtures("own_batches")
@pytest.mark.filterwarnings("default")  # dask warns
@pytest.mark.parametrize("fault", run_faults.FAULTS)
def test_a_fault_of_a_run_ends_as_documented(fault, tmp_path, monkeypatch):
    if fault == "a dask worker is killed":
        pytest.importorskip("distributed")
    monkeypatch.chdir(tmp_path)
    assert run_faults.row(tmp_path, fault, monkeypatch) == ROWS.get(fault), (
        "run bin/dev/list_faults.py"
    )
    assert not list((tmp_path / "out").rglob(".aslkit-*")) or fault == "SIGKILL"


def test_the_table_lists_exactly_these_faults():
    assert set(ROWS) - {"fault"} == set(run_faults.FAULTS)


def test_no_fault_is_an_internal_error_or_a_traceback():
    assert not [line for line in ROWS.values() if "Internal error" in line]


def test_nothing_that_reads_files_can_run_code():
    sources = [p.read_text() for p in (DOCS.parent / "aslkit").rglob("*.py")]
    for unsafe in ("torch.load(", "yaml.unsafe", "yaml.full", "allow_pickle=True", "joblib"):
        assert not any(unsafe in source for source in sources), unsafe
