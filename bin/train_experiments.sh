#!/usr/bin/env bash
# bash bin/train_experiments.sh FOLDER [JOBS [asl_train option …]]
# Trains experiments 00 to 09 in FOLDER/exp00 … FOLDER/exp09, and exp00 and exp02 once more from
# another seed, JOBS at a time [1]. Called again, it goes on where it was stopped.
# All with one budget; a small one for a machine without a GPU (see docs/experiments.md):
#   bash bin/train_experiments.sh runs 2 --set steps=1200 --set data.patches=16 \
#       --set learning_rate=0.003 --set "network.widths=[16,32,64,128]"
set -euo pipefail

out=${1:?Usage: bash bin/train_experiments.sh FOLDER [JOBS [asl_train option …]]}
jobs=${2:-1}
options=("${@:3}")
cores=$(getconf _NPROCESSORS_ONLN)
export OMP_NUM_THREADS=$((cores > jobs ? cores / jobs : 1))
mkdir -p "$out"

train() { # NAME CONFIG SEED
    local resume=()
    if compgen -G "$out/$1/checkpoint.safetensors" || compgen -G "$out/$1/member-*/checkpoint*"; then
        resume=(--resume)
    fi >/dev/null
    asl_train --config "$2" --set seed="$3" --out "$out/$1" "${options[@]}" \
        ${resume[@]+"${resume[@]}"} &>>"$out/$1.log" || echo "failed: see $out/$1.log" >&2
}

runs=("exp09 exp09 0" "exp00 exp00 0" "exp02 exp02 0" "exp00-seed1 exp00 1" "exp02-seed1 exp02 1")
for number in 01 03 04 05 06 07 08; do runs+=("exp$number exp$number 0"); done
for run in "${runs[@]}"; do
    while (($(jobs -rp | wc -l) >= jobs)); do wait -n; done
    read -r name config seed <<<"$run"
    train "$name" "$config" "$seed" &
done
wait
