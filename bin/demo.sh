#!/usr/bin/env bash
# bash bin/demo.sh [sub-01_asl.nii.gz]
# Makes ./.venv if needed, maps CBF and ATT of the given scan (or of a simulated one) by least
# squares and by the network, and writes maps, a picture and a report into demo/.
set -euo pipefail

scan=${1:-}
if [ -n "$scan" ]; then
    if ! [ -f "$scan" ]; then
        echo "Error: $scan is not a file. Usage: bash bin/demo.sh [sub-01_asl.nii.gz]" >&2
        exit 2
    fi
    scan=$(cd "$(dirname "$scan")" && pwd)/$(basename "$scan")
fi
. "$(dirname "$0")/env.sh"

truth=()
if [ -z "$scan" ]; then
    echo "== Simulating a scan (PCASL, 6 delays, 8 repeats) in demo/sim"
    rm -rf demo/sim
    asl_sim --out demo/sim --protocol pcasl6 --snr 6 --repeats 8 --macrovascular --seed 1
    scan=demo/sim/sub-01/perf/sub-01_asl.nii.gz
    known=demo/sim/derivatives/truth/sub-01/perf
    truth=("$known/sub-01_cbf.nii.gz" "$known/sub-01_att.nii.gz")
    name=simulated
else
    name=$(basename "$scan")
    name=${name%.gz}
    name=${name%.nii}
    name=${name%_asl}
fi
out=$PWD/demo/$name
mkdir -p "$out"

echo "== Least squares"
asl_fit_ls -i "$scan" -o "$out/${name}_desc-ls_cbf.nii.gz"
echo "== Network"
asl_predict -i "$scan" -o "$out/${name}_desc-network_cbf.nii.gz"
echo "== Report"
python bin/demo_report.py "$out/$name" ${truth[@]+"${truth[@]}"}
