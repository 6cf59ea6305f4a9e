#!/usr/bin/env bash
# serve.sh [--rounds N] [--tokens N] [--requests N] [--threads N] [--clients "1 8 32"] [--same]
#          [MODEL.gguf] -
# `mbuyu serve` beside llama.cpp's server (xllamacpp) on the same GGUF.
#
# Both serve at the same time and are asked in turns, N rounds (3): so many clients at once, each with N
# requests (2) one after the other for N tokens (64), greedily, every prompt another. Prints, for each
# number of clients, the tokens per second of each and the ratio of their medians, and the peak resident
# memory of both. With --same the same prompts are then asked alone and 32 at once, and it is counted
# whose answers are equal. Nothing else should run meanwhile.
set -euo pipefail
# shellcheck source-path=SCRIPTDIR source=../lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/../lib.sh"

same=()
rounds=3 tokens=64 requests=2 threads=2 clients="1 8 32"
model=${MB_MATERIALS:-$HOME/.cache/mbuyu/materials}/smollm2/SmolLM2-135M-Instruct.Q4_1.gguf
while [ $# -gt 0 ]; do
    case $1 in
    --rounds | --tokens | --requests | --threads | --clients)
        [ $# -gt 1 ] || die "$1 wants a value"
        printf -v "${1#--}" %s "$2" && shift 2
        ;;
    --same) same=(--same) && shift ;;
    -*) die "what is $1?" ;;
    *) model=$1 && shift ;;
    esac
done
[ -f "$model" ] || die "$model is not there: scripts/fetch_materials.sh"
mbuyu=${MBUYU:-$root/build/mbuyu}
[ -x "$mbuyu" ] || die "$mbuyu is not there: build first, or say MBUYU=PROGRAM"
install_peers llama || die "the packages of scripts/peers-llama.lock are not there"

work=$(mktemp -d)
pids=()
stop() { # the last one's end is not waited for: nothing is written
    for pid in "${pids[@]}"; do kill "$pid" 2>/dev/null || true; done
    rm -rf "$work"
}
trap stop EXIT
export OMP_NUM_THREADS=$threads

"$mbuyu" serve "served=$model" --port 0 --ctx 512 --slots 32 --queue 256 --cache 16384 \
    >"$work/ours" 2>"$work/ours.log" &
pids+=($!)
"$(peers_python llama)" "$root/scripts/bench/llama_serve.py" "$model" "$threads" 32 512 \
    >"$work/theirs" 2>"$work/theirs.log" &
pids+=($!)
for who in ours theirs; do
    for _ in $(seq 600); do
        [ -s "$work/$who" ] && break
        sleep 0.2
    done
    [ -s "$work/$who" ] || die "$who did not start: $(tail -3 "$work/$who.log")"
done
"$mbuyu" --version | head -1
python3 "$root/scripts/bench/ask_servers.py" --rounds "$rounds" --tokens "$tokens" --requests "$requests" \
    "${same[@]}" --clients "$clients" "mbuyu=$(head -1 "$work/ours")=${pids[0]}" \
    "llama.cpp=$(head -1 "$work/theirs")=${pids[1]}"
