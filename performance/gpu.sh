#!/usr/bin/env bash
# The table of one GPU, in about ten minutes of an H200.
#
#     performance/gpu.sh MODEL OUT [ADAPTER ...]     (up to four LoRA adapters of MODEL)
#
# MODEL is a folder or a hub name. Everything that is printed is in OUT/log.txt, and OUT/table.txt
# has the last lines. DEVICE=cpu runs the same on a CPU, with small sizes, to try the script.
set -uo pipefail
cd "$(dirname "$0")/.."
: "${2:?usage: performance/gpu.sh MODEL OUT [ADAPTER ...]}"
model=$1 out=$2
shift 2
device=${DEVICE:-cuda}
python=${PYTHON:-python}
mkdir -p "$out"
languages=35 dimensions=4096 prompts=256
if [ "$device" = cpu ]; then languages=3 dimensions=256 prompts=16; fi

step() {
    echo "== $*" | tee -a "$out/log.txt"
    timeout 150 "$python" "performance/$1.py" "${@:2}" 2>&1 | tee -a "$out/log.txt" | tail -4
    if [ "${PIPESTATUS[0]}" = 124 ]; then echo "$1: more than 150 s" | tee -a "$out/log.txt"; fi
}

: > "$out/log.txt"
step throughput --model "$model" --device "$device" --prompts "$prompts" --against-cpu 4 "${@/#/--adapter=}"
step generation --model "$model" --device "$device" --dtype bfloat16 --prompts "$prompts" --turns 1
step training --model "$model" --device "$device" --dtype bfloat16 --updates 2
step alignment_step --model "$model" --device "$device" --dtype bfloat16 --turns 2
step states --model "$model" --device "$device" --dtype bfloat16 --turns 2
step retrieval --languages "$languages" --dimensions "$dimensions" --layers 16 --device "$device" --turns 1
grep -E "ratio=|items/s|share of|more than|Error" "$out/log.txt" > "$out/table.txt"
cat "$out/table.txt"
