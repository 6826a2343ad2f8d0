#!/usr/bin/env python3
"""Write docs/errors.md: what asl_fit_ls says to every faulty scan of tests/faults.py.

python bin/list_faults.py
"""

import os
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

from faults import FAULTS, message  # noqa: E402

INTRODUCTION = """# Messages

What the commands say when something is wrong with their input: the file, the field, what stands
there, what should, and the fix. The exit code is 3, and nothing is written. `bin/list_faults.py`
prints this page from the faulty scans of `tests/faults.py`.

| what is wrong | message |
|---|---|
"""


def main() -> None:
    """Make every faulty scan in a folder of its own, and write the page."""
    rows = []
    for fault in FAULTS:
        with tempfile.TemporaryDirectory() as folder:
            os.chdir(folder)
            text = message(Path(folder), fault).replace("|", "\\|")
        rows.append(f"| {fault} | {text} |")
    (ROOT / "docs" / "errors.md").write_text(INTRODUCTION + "\n".join(rows) + "\n")


if __name__ == "__main__":
    main()
