#!/usr/bin/env bash
# Makes ./.venv if needed, then runs lint and all tests. Works offline once installed.
set -euo pipefail
cd "$(dirname "$0")/.."
stamp=$(cat setup.cfg pyproject.toml | sha256sum | cut -d' ' -f1)
if [ "$(cat .venv/stamp 2>/dev/null || true)" != "$stamp" ]; then
    echo "Installing aslkit into ./.venv"
    python3 -m venv .venv
    .venv/bin/pip install -q torch==2.13.0
    .venv/bin/pip install -q -e '.[dev]'
    echo "$stamp" >.venv/stamp
fi
echo "Lint"
.venv/bin/ruff check aslkit tests
echo "Tests"
OMP_NUM_THREADS=1 .venv/bin/python -m pytest -q
