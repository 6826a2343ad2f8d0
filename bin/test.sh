#!/usr/bin/env bash
# Makes ./.venv if needed, then checks lint, format and types and runs all tests.
# Works offline once installed. Options are passed on to pytest: bash bin/test.sh -k physics
set -euo pipefail
. "$(dirname "$0")/env.sh"

failed=""

step() {
    local name=$1 start=$SECONDS
    shift
    echo "== $name"
    "$@" || failed="$failed $name"
    echo "-- $name: $((SECONDS - start)) s"
}

step Lint ruff check aslkit bin docs tests
step Format ruff format --check aslkit bin docs tests
step Types mypy
export OMP_NUM_THREADS=1 # the test workers share the cores
step Tests python -m pytest -q "$@"

if [ -n "$failed" ]; then
    echo "FAILED:$failed ($SECONDS s)"
    exit 1
fi
echo "All checks passed ($SECONDS s)"
