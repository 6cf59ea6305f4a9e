#!/usr/bin/env bash
# cpu.sh [--rounds N] [--steps N] [--threads N] [--no-compile] - mbuyu against PyTorch on this CPU.
#
# SmolLM2-135M in f32, 4 rows of 512 tokens a step: full fine-tuning and LoRA r16 on all linear
# layers; PyTorch eager and compiled. Both sides take turns, N rounds (3) of N steps (5) after two
# that are not counted, on the same weights (mbuyu exports them from the GGUF first). Prints
# versions, tokens/s, peak resident memory of the whole process and seconds from start to the end of
# a first forward pass, and at the end lines "ratio NAME VALUE", mbuyu over PyTorch.
#
# MB_PEERS is a Python with torch, transformers and peft (default: that of scripts/test.sh).
# PyTorch runs without any OPENBLAS_* variable; both run with OMP_NUM_THREADS.
set -euo pipefail
# shellcheck source-path=SCRIPTDIR source=../lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/../lib.sh"

rounds=3 steps=5 threads=2 compile=1
while [ $# -gt 0 ]; do
    case $1 in
    --rounds) rounds=$2 && shift ;;
    --steps) steps=$2 && shift ;;
    --threads) threads=$2 && shift ;;
    --no-compile) compile=0 ;;
    *) die "unknown option $1" ;;
    esac
    shift
done
here=$root/scripts/bench
peers=${MB_PEERS:-${XDG_CACHE_HOME:-$HOME/.cache}/mbuyu/peers-$(sha256sum "$root/scripts/peers.lock" | cut -c1-16)/bin/python}
[ -x "$peers" ] || die "no Python with PyTorch at $peers: set MB_PEERS, or run scripts/test.sh once"
mbuyu=${MBUYU:-$root/build/mbuyu}
if [ ! -x "$mbuyu" ]; then
    need_packages "${build_packages[@]}"
    build "$root/build" -DCMAKE_BUILD_TYPE=Release -DMB_TESTS=OFF
fi
materials=$(materials_folder)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
mkdir "$work/results"
export OMP_NUM_THREADS=$threads
unset_openblas=()
while IFS='=' read -r name _; do
    unset_openblas+=(-u "$name")
done < <(env | grep '^OPENBLAS_' || true)

"$root/scripts/fetch_materials.sh" "$materials" smollm2
model=$work/model
"$mbuyu" export "model_name_or_path=$materials/smollm2/SmolLM2-135M-Instruct.Q4_1.gguf" \
    export_dtype=f32 "output_dir=$model" >"$work/log" 2>&1 || { cat "$work/log" && die 'export failed'; }

# Rows longer than 512 tokens, cut at 512; every row another.
"$peers" - "$work/rows.jsonl" $((4 * (steps + 2))) <<'PYTHON'
import json, random, sys

random.seed(0)
letters = "abcdefghijklmnopqrstuvwxyz"
with open(sys.argv[1], "w") as out:
    for _ in range(int(sys.argv[2])):
        words = ("".join(random.choices(letters, k=random.randint(2, 7))) for _ in range(600))
        out.write(json.dumps({"text": " ".join(words)}) + "\n")
PYTHON

# run_mbuyu KIND ROUND KEYS...
run_mbuyu() {
    local name=$1.mbuyu.$2
    shift 2
    "$peers" "$here/measure.py" "$work/results/$name.json" "$mbuyu" train \
        "model_name_or_path=$model" "datasets=[\"$work/rows.jsonl\"]" "output_dir=$work/run" \
        stage=pt train_on=all bf16=false max_length=512 packing=false per_device_train_batch_size=4 \
        gradient_accumulation_steps=1 "max_steps=$((steps + 2))" logging_steps=1 save_strategy=no \
        learning_rate=1e-4 lr_scheduler_type=constant weight_decay=0 max_grad_norm=1.0 \
        'report_to=[jsonl]' "$@" >"$work/log" 2>&1 || { tail -n 30 "$work/log" && die 'mbuyu train failed'; }
    "$peers" - "$work/run/logs/train.jsonl" >"$work/results/$name.log" <<'PYTHON'
import json, sys

rows = map(json.loads, open(sys.argv[1]))
print(json.dumps([r["tokens_per_second"] for r in rows if r["step"] > 2 and "tokens_per_second" in r and "loss" in r]))
PYTHON
    rm -rf "$work/run"
}

# run_torch KIND SIDE ROUND OPTIONS...
run_torch() {
    local name=$1.$2.$3
    shift 3
    env "${unset_openblas[@]}" "$peers" "$here/measure.py" "$work/results/$name.json" \
        "$peers" "$here/torch_finetune.py" "$model" --threads "$threads" --steps "$steps" "$@" \
        >"$work/log" 2>"$work/errors" || { tail -n 30 "$work/errors" && die 'PyTorch failed'; }
    tail -n 1 "$work/log" | tee "$work/versions" | "$peers" -c \
        'import json, sys; print(json.dumps(json.load(sys.stdin)["tokens_per_second"]))' \
        >"$work/results/$name.log"
}

# one_start SIDE ROUND COMMAND...: loads the model and computes once
one_start() {
    local name=start.$1.$2
    shift 2
    env "${unset_openblas[@]}" "$peers" "$here/measure.py" "$work/results/$name.json" "$@" \
        >"$work/log" 2>&1 || { tail -n 30 "$work/log" && die "start failed: $*"; }
}

for ((i = 1; i <= rounds; i++)); do
    printf 'round %d of %d\n' "$i" "$rounds" >&2
    run_mbuyu full "$i" finetuning_type=full
    run_torch full torch-eager "$i"
    [ "$compile" -eq 0 ] || run_torch full torch-compile "$i" --compile
    run_mbuyu lora "$i" finetuning_type=lora lora_r=16 lora_alpha=32 \
        lora_target_modules=all-linear lora_dropout=0.0
    run_torch lora torch-eager "$i" --lora 16
    [ "$compile" -eq 0 ] || run_torch lora torch-compile "$i" --lora 16 --compile
    one_start mbuyu "$i" "$mbuyu" generate "model_name_or_path=$model" \
        'prompt=one two three four five six' max_new_tokens=1
    one_start torch "$i" "$peers" "$here/torch_finetune.py" "$model" --threads "$threads" \
        --first-forward
done

"$mbuyu" version
"$peers" -c 'import json, sys; v = json.load(open(sys.argv[1])); print("torch", v["torch"], "transformers", v["transformers"])' "$work/versions"
sed -n 's/^model name[[:space:]]*: //p' /proc/cpuinfo | head -n 1
printf '%d threads, %d rounds of %d steps, 4 x 512 tokens, f32\n\n' "$threads" "$rounds" "$steps"
"$peers" "$here/table.py" "$work/results"
