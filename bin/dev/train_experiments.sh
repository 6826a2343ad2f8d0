#!/usr/bin/env bash
# bash bin/dev/train_experiments.sh FOLDER [JOBS] [NAME[:SEED] …] [asl_train option …]
# Trains configurations in FOLDER/NAME, those with a SEED in FOLDER/NAME-seedSEED, JOBS at a time
# [1]. The default is experiments 00 to 09, with exp00 and exp02 from a second seed. A second call
# continues where the first was stopped. All runs have one budget; a small budget for a machine
# without a GPU (see docs/background/experiments-details.md):
#   bash bin/dev/train_experiments.sh runs 2 exp10 exp11 exp11:1 --set steps=1200 \
#       --set data.patches_per_step=16 --set learning_rate=0.003 --set "network.widths=[16,32,64,128]"
# data.patches_per_step counts patches of 64 x 64 pixels; exp15 and exp16 use a quarter as many, 128 x 128.
set -euo pipefail

out=${1:?Usage: bash bin/dev/train_experiments.sh FOLDER [JOBS] [NAME[:SEED] …] [option …]}
shift
jobs=1
if [[ ${1:-} =~ ^[0-9]+$ ]]; then
    jobs=$1
    shift
fi
runs=()
while (($#)) && [[ $1 != -* ]]; do
    runs+=("$1")
    shift
done
if ((${#runs[@]} == 0)); then
    runs=(exp09 exp00 exp02 exp00:1 exp02:1 exp01 exp03 exp04 exp05 exp06 exp07 exp08)
fi
options=("$@")
cores=$(getconf _NPROCESSORS_ONLN)
export OMP_NUM_THREADS=$((cores > jobs ? cores / jobs : 1))
mkdir -p "$out"

train() { # CONFIG SEED
    local name=$1 own=() option
    (($2 == 0)) || name=$1-seed$2
    for option in ${options[@]+"${options[@]}"}; do
        if [[ $1 =~ ^exp1[56]$ && $option =~ ^data\.patches_per_step=([0-9]+)$ ]]; then
            option=data.patches_per_step=$(((BASH_REMATCH[1] + 3) / 4))
        fi
        own+=("$option")
    done
    if compgen -G "$out/$name/checkpoint.safetensors" ||
        compgen -G "$out/$name/member-*/checkpoint*"; then
        own+=(--resume)
    fi >/dev/null
    asl_train --config "$1" --set seed="$2" --out "$out/$name" ${own[@]+"${own[@]}"} \
        &>>"$out/$name.log" || echo "failed: see $out/$name.log" >&2
}

for run in "${runs[@]}"; do
    while (($(jobs -rp | wc -l) >= jobs)); do wait -n; done
    IFS=: read -r config seed <<<"$run"
    train "$config" "${seed:-0}" &
done
wait
