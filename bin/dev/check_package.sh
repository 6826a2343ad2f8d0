#!/usr/bin/env bash
# bash bin/dev/check_package.sh [--lowest | --lowest-torch]
# Builds wheel and sdist of the tracked files, installs the wheel into an empty environment outside
# of the repository, and runs the commands there. --lowest installs the lowest versions that
# setup.cfg allows, and runs some of the tests; torch stays at the version of bin/env.sh.
# --lowest-torch installs the lowest torch too: several GB where only GPU builds exist.
# PYTHON=/path/to/python3 chooses the interpreter; the lowest versions need Python 3.11.
set -euo pipefail

MOST_MB=40 # of a wheel
FAST_TESTS=(artefacts bids cli_fit config experiments fitting fuzz network fixed_protocol outliers
    phantoms physics quality raw_encoding reading recovery simulation_parts weights)

lowest=${1:-}
if [ $# -gt 1 ] || [[ ! "$lowest" =~ ^(--lowest(-torch)?)?$ ]]; then
    echo "Usage: bash bin/dev/check_package.sh [--lowest | --lowest-torch]" >&2
    exit 2
fi
. "$(dirname "$0")/../env.sh"

work=$(cd "$(mktemp -d)" && pwd -P)
trap 'rm -rf "$work"' EXIT

fail() { # MESSAGE
    echo "$1" >&2
    exit 1
}

megabytes() { # FILE
    wc -c <"$1" | awk '{printf "%.1f", $1 / 1e6}'
}

import_ms() { # MODULE
    python -X importtime -c "import $1" 2>&1 | awk -F'[:|]' '{us += $2} END {printf "%d", us / 1000}'
}

help_s() { # COMMAND
    local TIMEFORMAT=%R
    for _ in 1 2 3; do { time "$1" --help >/dev/null; } 2>&1; done | sort -n | head -n 1
}

echo "== Building"
mkdir "$work/source"
git ls-files -z | tar --null -T - -cf - | tar -xf - -C "$work/source"
"${PYTHON:-python}" -m venv "$work/tools"
"$work/tools/bin/python" -m pip install --quiet build packaging twine
(
    cd "$work/source"
    "$work/tools/bin/python" -m build --outdir "$work/dist" && # the wheel from the sdist
    "$work/tools/bin/python" -m build --wheel --outdir "$work/direct"
) >"$work/log" 2>&1 || fail "$(cat "$work/log")"
"$work/tools/bin/python" -m twine check --strict "$work"/dist/*
wheel=$(echo "$work"/dist/*.whl)
for made in dist direct; do
    "$work/tools/bin/python" -m zipfile -e "$work/$made"/*.whl "$work/unpacked/$made"
done
diff -r "$work/unpacked/dist" "$work/unpacked/direct"
echo "Wheel: $(megabytes "$wheel") MB, the same from the sdist: $(megabytes "$work"/dist/*.tar.gz) MB"
[ "$(wc -c <"$wheel")" -le $((MOST_MB * 1000000)) ] || fail "The wheel has more than $MOST_MB MB"

echo "== Installing"
"${PYTHON:-python}" -m venv "$work/env"
export PATH="$work/env/bin:/usr/bin:/bin" # without .venv
if [ -n "$lowest" ]; then
    held="s/^torch==.*/torch==$TORCH/"
    [ "$lowest" = --lowest ] || held=""
    "$work/tools/bin/python" bin/dev/lowest_versions.py setup.cfg | sed "$held" | tee "$work/constraints"
    pip install --quiet --constraint "$work/constraints" "$wheel" hypothesis pytest pytest-xdist
else
    pip install --quiet "torch==$TORCH"
    pip install --quiet "$wheel"
fi
pip check

echo "== Using"
cd "$work"
asl_sim --out sim --protocol pcasl6 --matrix 32,32,8 --repeats 2 --seed 1
scan=sim/sub-01/perf/sub-01_asl.nii.gz
asl_fit_ls -i "$scan" -o ls/cbf.nii.gz
asl_predict -i "$scan" -o network/cbf.nii.gz
asl_predict --list-models
asl_train --list-configs
asl_validate --phantoms shipped --quick --track matched --protocol pcasl6 --out validation | tee said
grep -qxF "phantoms: $work/env/share/aslkit/phantoms" said || fail "These are other phantoms"
if [ -n "$lowest" ]; then
    tests=("${FAST_TESTS[@]/#/source/tests/test_}")
    pytest -q -W default "${tests[@]/%/.py}"
fi

echo "== Time to start"
for name in fit_ls predict sim train validate; do
    echo "asl_$name: imports $(import_ms "aslkit.cli.$name") ms, --help $(help_s "asl_$name") s"
done
echo "The package is whole ($SECONDS s)"
