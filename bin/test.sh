#!/usr/bin/env bash
# bash bin/test.sh [--fast] [OPTIONS of pytest]
# Makes ./.venv if needed, then checks lint, format and types and runs all tests; --fast leaves out
# the slow ones. Works offline once installed. Some tests by name: bash bin/test.sh -k physics
set -euo pipefail

chosen=()
if [ "${1:-}" = --fast ]; then
    chosen=(-m "not slow")
    shift
    echo "The fast tests take about one and a half minutes on two cores."
else
    echo "All checks take about five minutes on two cores; bash bin/test.sh --fast takes a third."
fi
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
step Tests python -m pytest -q ${chosen[@]+"${chosen[@]}"} "$@"

if [ -n "$failed" ]; then
    echo "FAILED:$failed ($SECONDS s)"
    exit 1
fi
echo "All checks passed ($SECONDS s)"
