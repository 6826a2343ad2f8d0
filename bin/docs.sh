#!/usr/bin/env bash
# bash bin/docs.sh
# Makes ./.venv if needed, and builds the pages of docs/ into build/docs; a warning is an error.
set -euo pipefail
. "$(dirname "$0")/env.sh"

python -m sphinx -W --keep-going -q docs build/docs
echo "Pages: $PWD/build/docs/index.html"
