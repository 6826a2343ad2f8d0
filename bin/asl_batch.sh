#!/usr/bin/env bash
# Runs asl_fit_ls or asl_predict on every subject of a BIDS data set, with one process and one log
# per subject. Finished subjects are skipped.
set -euo pipefail

usage() {
    cat <<'TEXT'
Usage: asl_batch.sh [--dry-run] COMMAND BIDS DERIVATIVES [OPTIONS …]

  COMMAND      asl_fit_ls or asl_predict
  BIDS         folder of the data set
  DERIVATIVES  folder to write
  OPTIONS      of the command, for all subjects
  --dry-run    print the commands only

Runs one subject after the other, each in its own process. The output of a subject is in
DERIVATIVES/logs/batch_sub-….log. Subjects with maps from the same inputs and options are skipped.
The exit code is 4 if a subject failed. On one computer, --n-jobs of the command itself is faster,
because it reads the next scan while it computes.

  asl_batch.sh asl_predict study study/derivatives/aslkit --model small
TEXT
}

is_dry=false
if [ "${1:-}" = --dry-run ]; then
    is_dry=true
    shift
fi
if [ $# -lt 3 ]; then
    usage >&2
    exit 2
fi
command=$1 bids=$2 derivatives=$3
shift 3

failed=()
n=0
for folder in "$bids"/sub-*/; do
    [ -d "$folder" ] || continue
    [ -n "$(find -L "$folder" -path '*/perf/*_asl.nii*' -print -quit)" ] || continue
    subject=$(basename "$folder")
    line=("$command" --bids "$bids" --derivatives "$derivatives" --participant-label "$subject"
        --skip-existing "$@")
    n=$((n + 1))
    if $is_dry; then
        printf '%q ' "${line[@]}"
        echo
        continue
    fi
    mkdir -p "$derivatives/logs"
    code=0
    "${line[@]}" >"$derivatives/logs/batch_$subject.log" 2>&1 || code=$?
    case $code in
    0) echo "$subject: done" ;;
    130 | 143) exit "$code" ;;
    2 | 5) # the options or the model: the same for all subjects
        cat "$derivatives/logs/batch_$subject.log" >&2
        exit "$code"
        ;;
    *)
        echo "$subject: FAILED ($code), see $derivatives/logs/batch_$subject.log" >&2
        failed+=("$subject")
        ;;
    esac
done

if [ "$n" -eq 0 ]; then
    echo "Error: $bids: found no ASL image, expected sub-*/[ses-*/]perf/*_asl.nii.gz" >&2
    exit 3
fi
$is_dry && exit 0
noun=subjects && [ "$n" -eq 1 ] && noun=subject
echo "$n $noun, ${#failed[@]} failed"
[ ${#failed[@]} -eq 0 ] || exit 4
