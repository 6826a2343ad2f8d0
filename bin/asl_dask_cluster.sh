#!/usr/bin/env bash
# Starts a dask scheduler and workers, runs asl_fit_ls or asl_predict on them, and stops them.
set -euo pipefail

usage() {
    cat <<'TEXT'
Usage: asl_dask_cluster.sh [--dry-run] [--slurm] N COMMAND BIDS DERIVATIVES [OPTIONS …]

  N            workers
  COMMAND      asl_fit_ls or asl_predict
  BIDS         folder of the data set
  DERIVATIVES  folder to write, which all workers can see
  OPTIONS      of the command
  --slurm      workers are jobs of SLURM; by default they run on this machine
  --dry-run    print the commands only

Finished maps are skipped, so that the same command, given again, computes the missing ones.
SBATCH_OPTIONS holds options of sbatch (default: --cpus-per-task=1 --mem=4G --time=02:00:00). aslkit
and dask have to be on the PATH of the nodes: pip install 'aslkit[cluster]'.

  asl_dask_cluster.sh 4 asl_predict /data/study /data/study/derivatives/aslkit
TEXT
}

is_dry=false is_slurm=false
while [[ ${1:-} == --* ]]; do
    case $1 in
    --dry-run) is_dry=true ;;
    --slurm) is_slurm=true ;;
    *) break ;;
    esac
    shift
done
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

file=$derivatives/logs/dask-scheduler-$$.json
scheduler=(dask scheduler --port 0 --dashboard-address :0 --scheduler-file "$file")
worker=(dask worker --nthreads 1 --scheduler-file "$file")
read -r -a options <<<"${SBATCH_OPTIONS:---cpus-per-task=1 --mem=4G --time=02:00:00}"
submit=(sbatch --parsable --job-name=aslkit "--array=1-$n"
    "--output=$derivatives/logs/slurm-%A_%a.out" "${options[@]}")
line=("$command" --bids "$bids" --derivatives "$derivatives" --skip-existing "$@" --dask)

if $is_dry; then
    printf '%q ' "${scheduler[@]}"
    if $is_slurm; then
        printf '\n%s' "$(printf '%q ' "${submit[@]}" --wrap "$(printf '%q ' "${worker[@]}")")"
    else
        printf '\n%s(%s times)' "$(printf '%q ' "${worker[@]}")" "$n"
    fi
    printf '\n%sADDRESS\n' "$(printf '%q ' "${line[@]}")"
    exit 0
fi
for needed in dask "$command" $($is_slurm && echo sbatch); do
    command -v "$needed" >/dev/null || {
        echo "Error: $needed: found no such command. Fix: pip install 'aslkit[cluster]'," \
            "and run --slurm on a login node." >&2
        exit 5
    }
done

# dask's setting returns every large array to the system, which slows networks by a third
export DASK_DISTRIBUTED__NANNY__PRE_SPAWN_ENVIRON='{"MALLOC_TRIM_THRESHOLD_": None}'
workers=() job="" running="" scheduling=""
stop() {
    # Stop the command first, because it completes the maps that it is writing, and the scheduler
    # last, because workers that lose it may hang for 8 s.
    end ${running:+"$running"}
    [ -z "$job" ] || scancel "$job" || true
    end ${workers[@]+"${workers[@]}"}
    end ${scheduling:+"$scheduling"}
    rm -f "$file"
}
end() { # processes, and wait for them
    [ $# = 0 ] || { kill "$@"; wait "$@"; } 2>/dev/null || true
}
trap stop EXIT
trap 'exit 130' INT
trap 'exit 143' TERM
mkdir -p "$derivatives/logs"
log=$derivatives/logs/dask-$$.log
"${scheduler[@]}" &>>"$log" &
scheduling=$!
for _ in {1..600}; do
    [ -s "$file" ] && break
    kill -0 "$scheduling" 2>/dev/null || {
        echo "Error: dask scheduler: it did not start, see $log" >&2
        exit 1
    }
    sleep 0.1
done
if $is_slurm; then
    job=$("${submit[@]}" --wrap "$(printf '%q ' "${worker[@]}")")
else
    for _ in $(seq "$n"); do
        "${worker[@]}" &>>"$log" &
        workers+=($!)
    done
fi
address=$(sed -n 's/.*"address": "\([^"]*\)".*/\1/p' "$file")
"${line[@]}" "$address" &
running=$!
wait "$running"
