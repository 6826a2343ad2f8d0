#!/usr/bin/env bash
# bash bin/dev/make_phantoms.sh FOLDER
# Writes the phantoms of data/phantoms again, bit for bit, into a new folder.
set -euo pipefail

out=${1:?Usage: bash bin/dev/make_phantoms.sh FOLDER}
mkdir "$out"

make() { # PARTICIPANTS SEED OPTION…
    asl_sim --phantoms-only --out "$out/part" --participants "$1" --seed "$2" "${@:3}"
    mv "$out"/part/* "$out"
    rmdir "$out/part"
}

make 4 1
make 1 5 --voxel-size 2.5
make 3 1 --anatomy plan
for shape in uniform disc checker ramp; do make 1 1 --anatomy "$shape"; done
