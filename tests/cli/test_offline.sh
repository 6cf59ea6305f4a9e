#!/usr/bin/env bash
# No network at all: a bundle on two sticks, unpacked, shared by `mbuyu hub`, pulled and trained by
# another, served and asked. In a network of its own (unshare) with nothing in it but itself, where that is
# permitted; elsewhere on the loopback of the machine.
set -euo pipefail
if [ -z "${MB_ALONE:-}" ] && unshare -rn true 2>/dev/null && command -v ip >/dev/null; then
    MB_ALONE=1 exec unshare -rn bash "$0" "$@"
fi
[ -z "${MB_ALONE:-}" ] || ip link set lo up
# shellcheck source-path=SCRIPTDIR source=lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
start
unset HF_ENDPOINT HF_HOME HF_HUB_CACHE HF_TOKEN HF_HUB_OFFLINE TRANSFORMERS_OFFLINE
export no_proxy='*' MBUYU_LOG=info
servers=()
stop_servers() {
    local pid
    for pid in "${servers[@]}"; do
        kill "$pid" 2>/dev/null || true
        wait "$pid" 2>/dev/null || true
    done
    servers=()
}
trap 'stop_servers; rm -rf "$work"' EXIT

run() { # run PROGRAM ARG...: it must end well
    timeout 300 "$@" >said 2>log || {
        fail "exit code $? of: $*: $(tail -n 5 log)"
        finish
        exit 1
    }
}

# address FILE: what a server says it listens at
address() {
    local url
    for _ in $(seq 1 200); do
        url=$(grep -oE 'http://[0-9.:]+[0-9]' "$1" | head -n 1) || true
        [ -z "$url" ] || { echo "$url" && return; }
        sleep 0.05
    done
    return 1
}

# ask URL [JSON]: the answer of a server
ask() {
    python3 - "$@" <<'END'
import sys, urllib.request
data = sys.argv[2].encode() if len(sys.argv) > 2 else None
request = urllib.request.Request(sys.argv[1], data, {"Content-Type": "application/json"})
print(urllib.request.build_opener(urllib.request.ProxyHandler({})).open(request, timeout=120).read().decode())
END
}

# --- at home: a model, rows, a recipe, and the program
mkdir -p home/models/acme/tiny home/data usb1 usb2
cp "$MB_TEST_DATA"/reference/llama/*.json "$MB_TEST_DATA"/reference/llama/model.safetensors home/models/acme/tiny
cp "$rows" home/data/rows.jsonl
cat >home/tiny.yaml <<'END'
model_name_or_path: models/acme/tiny
datasets: [data/rows.jsonl]
finetuning_type: full
max_steps: 80
max_length: 64
per_device_train_batch_size: 4
learning_rate: 1.0e-2
logging_steps: 1
report_to: [jsonl]
output_dir: out/tiny
END
(cd home && run "$MBUYU" bundle tiny.yaml --data acme/rows=data/rows.jsonl --program --to ../usb1 --split 1MB)
parts=$(wc -l <usb1/tiny.sha256)
mv usb1/tiny.mbuyu.tar.zst.00[13579] usb2
# --- elsewhere: out of the sticks; from here on the program of the bundle
run "$MBUYU" unbundle usb1/tiny.sha256 usb2 --to elsewhere/tiny
bag=$work/elsewhere/tiny/data
program=$bag/bin/mbuyu
run "$program" version
grep -q '^mbuyu ' said || fail "the program says: $(cat said)"

# --- the hub, and who pulls from it
"$program" hub "$bag" --port 0 >hub.said 2>hub.log &
servers+=($!)
hub=$(address hub.said) || fail "the hub says: $(cat hub.said hub.log)"
mkdir user
HF_ENDPOINT=$hub HF_HOME=$work/user/hf run "$program" pull acme/tiny
HF_ENDPOINT=$hub HF_HOME=$work/user/hf run "$program" pull dataset:acme/rows --to user/rows
cmp user/rows/rows.jsonl home/data/rows.jsonl || fail 'the rows changed on their way'
find -L user/hf -name model.safetensors -exec cmp {} home/models/acme/tiny/model.safetensors \; -print |
    grep -q snapshots || fail 'the model is not in the cache'
stop_servers

# --- trained by the hub's name from the cache, and by the bundle's own recipe, to the same model
(cd user && HF_HOME=$work/user/hf run "$program" train "$bag/recipes/tiny.yaml" model_name_or_path=acme/tiny \
    'datasets=[rows/rows.jsonl]' output_dir=out)
(cd "$bag" && run "$program" train recipes/tiny.yaml output_dir="$work/out")
cmp user/out/final/model.safetensors out/final/model.safetensors || fail 'two models'
first=$(grep -oE '"loss":[0-9.]+' out/logs/train.jsonl | head -n 1 | cut -d: -f2)
last=$(grep -oE '"loss":[0-9.]+' out/logs/train.jsonl | tail -n 1 | cut -d: -f2)
awk -v a="$first" -v b="$last" 'BEGIN { exit !(b < a) }' || fail "the loss went from $first to $last"

# --- served, and asked
HF_HOME=$work/user/hf "$program" serve out/final --port 0 >serve.said 2>serve.log &
servers+=($!)
api=$(address serve.said) || fail "serve says: $(cat serve.said serve.log)"
model=$(ask "$api/v1/models" | grep -oE '"id": ?"[^"]+"' | head -n 1 | cut -d'"' -f4)
ask "$api/v1/completions" "{\"model\": \"$model\", \"prompt\": \"Kitabu kiko wapi? =\", \"max_tokens\": 12, \"temperature\": 0}" >answer ||
    fail "no completion: $(tail -n 3 serve.log)"
grep -q '"text_completion"' answer || fail "$(cat answer)"
python3 -c 'import json; print(json.load(open("answer"))["choices"][0]["text"])' >text
run "$program" generate out/final prompt='"Kitabu kiko wapi? ="' max_new_tokens=12 do_sample=false
cmp text said || fail "served: '$(cat text)', generated: '$(cat said)'"
grep -q '[^ ]' text || fail 'nothing is said'

# --- and on to the next one, by the names of the hub
HF_HOME=$work/user/hf run "$program" bundle --model acme/tiny --run out --name next --to next
run "$program" unbundle next/next.sha256 --list
grep -q ' models/acme/tiny/model.safetensors$' said || fail "the next bundle: $(cat said)"
grep -q ' checkpoints/out/final/model.safetensors$' said || fail "the next bundle: $(cat said)"
stop_servers
echo "$parts parts on two sticks; ${MB_ALONE:+in a network of its own; }loss $first to $last; served: '$(cat text)'"
finish
