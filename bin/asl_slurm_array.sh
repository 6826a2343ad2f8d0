#!/usr/bin/env bash
# Submits asl_fit_ls or asl_predict as a SLURM job array; each task maps a part of a data set.
set -euo pipefail

usage() {
    cat <<'TEXT'
Usage: asl_slurm_array.sh [--dry-run] N COMMAND BIDS DERIVATIVES [OPTIONS …]

  N            tasks of the array
  COMMAND      asl_fit_ls or asl_predict
  BIDS         folder of the data set
  DERIVATIVES  folder to write
  OPTIONS      of the command, for all tasks
  --dry-run    print the sbatch command and its script only

Task k maps part k/N of the scans and skips finished ones, so that the same command, given again,
maps the missing scans. SBATCH_OPTIONS holds options of sbatch: partition, time, memory
(default: --cpus-per-task=2 --mem=4G --time=02:00:00). The command has to be on the PATH of the
nodes. Output of the tasks is in DERIVATIVES/logs/slurm-….out.

  SBATCH_OPTIONS="--partition=short --mem=8G" \
      asl_slurm_array.sh 20 asl_predict /data/study /data/study/derivatives/aslkit
TEXT
}

is_dry=false
if [ "${1:-}" = --dry-run ]; then
    is_dry=true
    shift
fi
if [ $# -lt 4 ]; then
    usage >&2
    exit 2
fi
n=$1 command=$2 bids=$3 derivatives=$4
shift 4
if ! [[ $n =~ ^[1-9][0-9]*$ ]]; then
    echo "Error: N: found $n, expected a whole number, 1 or more" >&2
    exit 2
fi

read -r -a options <<<"${SBATCH_OPTIONS:---cpus-per-task=2 --mem=4G --time=02:00:00}"
printf -v quoted '%q ' "$command" --bids "$bids" --derivatives "$derivatives" --skip-existing "$@"
# only the node knows the number of its task
script="#!/usr/bin/env bash
exec $quoted--part \"\$SLURM_ARRAY_TASK_ID/$n\""
line=(sbatch --job-name=aslkit "--array=1-$n" "--output=$derivatives/logs/slurm-%A_%a.out"
    "${options[@]}")

if $is_dry; then
    printf '%q ' "${line[@]}"
    printf "<<'END'\n%s\nEND\n" "$script"
    exit 0
fi
command -v sbatch >/dev/null || {
    echo "Error: sbatch: found no such command, expected SLURM. Fix: run this on a login node." >&2
    exit 5
}
mkdir -p "$derivatives/logs"
"${line[@]}" <<<"$script"
