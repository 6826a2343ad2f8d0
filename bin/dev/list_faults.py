#!/usr/bin/env python3
"""Write docs/errors.md and docs/faults.md: the message of the commands for every tested fault.

python bin/dev/list_faults.py
"""

import os
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

import pytest  # noqa: E402
import run_faults  # noqa: E402
from faults import FAULTS, message  # noqa: E402

INTRODUCTION = """# Messages

The messages of the commands for wrong input: the file, the field, what was found, what was
expected, and the fix. The exit code is 3, and nothing is written. `bin/dev/list_faults.py` prints
this page from the faulty scans of `tests/faults.py`. Faults while a command runs are on
[another page](faults.md).

| what is wrong | message |
|---|---|
"""
RUN_MARK = "<!-- written by bin/dev/list_faults.py -->\n"


def main() -> None:
    """Cause every fault in its own folder and write the pages."""
    rows = []
    for fault in FAULTS:
        with tempfile.TemporaryDirectory() as folder:
            os.chdir(folder)
            text = message(Path(folder), fault).replace("|", "\\|")
        rows.append(f"| {fault} | {text} |")
    (ROOT / "docs" / "errors.md").write_text(INTRODUCTION + "\n".join(rows) + "\n")
    page = ROOT / "docs" / "faults.md"
    above, _, _ = page.read_text().partition(RUN_MARK)
    page.write_text(above + RUN_MARK + run_faults.HEADER + "".join(run_rows()))


def run_rows() -> list[str]:
    """Return the rows about faults while a command runs."""
    os.chdir(ROOT)
    rows = []
    for fault in run_faults.FAULTS:
        with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as monkeypatch:
            rows.append(run_faults.row(Path(folder), fault, monkeypatch) + "\n")
    return rows


if __name__ == "__main__":
    main()
