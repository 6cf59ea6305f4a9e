#!/usr/bin/env bash
# cpu.sh [--rounds N] [--steps N] [--threads N] [--no-compile] [--only ROW]... - mbuyu against PyTorch
# on this CPU.
#
#     full-f32        SmolLM2-135M, all weights, 4 rows of 512 tokens a step, float32
#     full-bf16       the same in bf16 (PyTorch: autocast over f32 weights)
#     lora-bf16       LoRA r16 on all linear layers, bf16
#     llama1b-lora    the shape of Llama-3.2-1B, LoRA r16, 1 x 512, bf16 (PyTorch: weights in bf16)
#     bert-bf16       BERT-base, classification, 16 x 128, bf16
#     scaling         full-bf16 on 1 rank and on 2, a thread each, the same rows for every rank
#     start           from the start of the process to the end of a first forward pass
#
# Both sides take turns, N rounds (3) of N steps (5) after two that are not counted, on the same
# weights; PyTorch eager and compiled. Prints versions, tokens/s, peak resident memory of the whole
# process, and lines "ratio NAME VALUE", mbuyu over PyTorch (the faster of its two).
#
# MB_PEERS is a Python with torch, transformers and peft (default: that of scripts/test.sh).
# PyTorch runs without any OPENBLAS_* variable; both run with OMP_NUM_THREADS.
set -euo pipefail
# shellcheck source-path=SCRIPTDIR source=../lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/../lib.sh"

rounds=3 steps=5 threads=2 compile=1 only=()
while [ $# -gt 0 ]; do
    case $1 in
    --rounds) rounds=$2 && shift ;;
    --steps) steps=$2 && shift ;;
    --threads) threads=$2 && shift ;;
    --no-compile) compile=0 ;;
    --only) only+=("$2") && shift ;;
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

wanted() {
    [ ${#only[@]} -eq 0 ] || [[ " ${only[*]} " == *" $1 "* ]]
}

# --- models and rows

model=$work/smollm2
"$root/scripts/fetch_materials.sh" "$materials" smollm2 minilm
"$mbuyu" export "model_name_or_path=$materials/smollm2/SmolLM2-135M-Instruct.Q4_1.gguf" \
    export_dtype=f32 "output_dir=$model" >"$work/log" 2>&1 || { cat "$work/log" && die 'export failed'; }
[ ! -d "$model/final" ] || model=$model/final
for shape in llama1b bert; do
    if { [ $shape = llama1b ] && wanted llama1b-lora; } || { [ $shape = bert ] && wanted bert-bf16; }; then
        tokenizer=$model
        [ $shape = llama1b ] || tokenizer=$materials/minilm
        "$peers" "$here/random_model.py" $shape "$tokenizer" "$work/$shape" 2>"$work/errors" ||
            { tail -n 20 "$work/errors" && die "no model of the shape of $shape"; }
    fi
done

# Texts longer than 512 tokens, cut where a run says; every row another.
"$peers" - "$work/rows.jsonl" $((32 * (steps + 2))) <<'PYTHON'
import json, random, sys

random.seed(0)
letters = "abcdefghijklmnopqrstuvwxyz"
with open(sys.argv[1], "w") as out:
    for i in range(int(sys.argv[2])):
        words = ("".join(random.choices(letters, k=random.randint(2, 7))) for _ in range(600))
        out.write(json.dumps({"text": " ".join(words), "label": i % 2}) + "\n")
PYTHON

# run_mbuyu KIND SIDE ROUND RANKS KEYS...
run_mbuyu() {
    local name=$1.$2.$3 ranks=$4 launcher=()
    shift 4
    [ "$ranks" -eq 1 ] || launcher=(mpirun --oversubscribe --bind-to core -np "$ranks")
    "$peers" "$here/measure.py" "$work/results/$name.json" "${launcher[@]}" "$mbuyu" train \
        "datasets=[\"$work/rows.jsonl\"]" "output_dir=$work/run" packing=false \
        gradient_accumulation_steps=1 "max_steps=$((steps + 2))" logging_steps=1 save_strategy=no \
        learning_rate=1e-4 lr_scheduler_type=constant weight_decay=0 max_grad_norm=1.0 \
        'report_to=[jsonl]' "$@" >"$work/log" 2>&1 || { tail -n 30 "$work/log" && die 'mbuyu train failed'; }
    "$peers" - "$work/run/logs/train.jsonl" >"$work/results/$name.log" <<'PYTHON'
import json, sys

rows = [json.loads(line) for line in open(sys.argv[1])]
speeds = [r["tokens_per_second"] for r in rows if r["step"] > 2 and "tokens_per_second" in r and "loss" in r]
memory = [r for r in rows if "num_planned_bytes" in r][-1]
print(json.dumps(speeds))
print(json.dumps(memory["num_planned_bytes"] / memory["num_peak_bytes"]))
PYTHON
    rm -rf "$work/run"
}

# run_torch KIND SIDE ROUND MODEL OPTIONS...
run_torch() {
    local name=$1.$2.$3 of=$4
    shift 4
    env "${unset_openblas[@]}" "$peers" "$here/measure.py" "$work/results/$name.json" \
        "$peers" "$here/torch_finetune.py" "$of" --threads "$threads" --steps "$steps" "$@" \
        >"$work/log" 2>"$work/errors" || { tail -n 30 "$work/errors" && die 'PyTorch failed'; }
    tail -n 1 "$work/log" | tee "$work/versions" | "$peers" -c \
        'import json, sys; print(json.dumps(json.load(sys.stdin)["tokens_per_second"]))' \
        >"$work/results/$name.log"
}

# both KIND ROUND MODEL "KEYS of mbuyu" "OPTIONS of PyTorch"
both() {
    local keys options
    wanted "$1" || return 0
    read -ra keys <<<"$4"
    read -ra options <<<"$5"
    run_mbuyu "$1" mbuyu "$2" 1 "model_name_or_path=$3" "${keys[@]}"
    run_torch "$1" torch-eager "$2" "$3" "${options[@]}"
    [ "$compile" -eq 0 ] || run_torch "$1" torch-compile "$2" "$3" "${options[@]}" --compile
}

# one_start SIDE ROUND COMMAND...: loads the model and computes once
one_start() {
    local name=start.$1.$2
    shift 2
    env "${unset_openblas[@]}" "$peers" "$here/measure.py" "$work/results/$name.json" "$@" \
        >"$work/log" 2>&1 || { tail -n 30 "$work/log" && die "start failed: $*"; }
}

text='stage=pt train_on=all max_length=512'
lora='finetuning_type=lora lora_r=16 lora_alpha=32 lora_target_modules=all-linear lora_dropout=0.0'
for ((i = 1; i <= rounds; i++)); do
    printf 'round %d of %d\n' "$i" "$rounds" >&2
    both full-f32 "$i" "$model" "$text per_device_train_batch_size=4 bf16=false" ''
    both full-bf16 "$i" "$model" "$text per_device_train_batch_size=4 bf16=true" '--dtype bf16'
    both lora-bf16 "$i" "$model" "$text per_device_train_batch_size=4 bf16=true $lora" '--dtype bf16 --lora 16'
    both llama1b-lora "$i" "$work/llama1b" "$text per_device_train_batch_size=1 bf16=true $lora" \
        '--dtype weights --lora 16 --batch 1'
    both bert-bf16 "$i" "$work/bert" \
        'task=seq-classification num_labels=2 max_length=128 per_device_train_batch_size=16 bf16=true' \
        '--dtype bf16 --classify 2 --batch 16 --seq 128'
    if wanted scaling; then
        for ranks in 1 2; do
            # shellcheck disable=SC2086
            OMP_NUM_THREADS=1 run_mbuyu scaling "ranks-$ranks" "$i" $ranks "model_name_or_path=$model" $text \
                per_device_train_batch_size=4 bf16=true threads=1
        done
    fi
    if wanted start; then
        one_start mbuyu "$i" "$mbuyu" generate "model_name_or_path=$model" \
            'prompt=one two three four five six' max_new_tokens=1
        one_start torch "$i" "$peers" "$here/torch_finetune.py" "$model" --threads "$threads" \
            --first-forward
    fi
done

"$mbuyu" version
[ ! -f "$work/versions" ] || "$peers" -c 'import json, sys; v = json.load(open(sys.argv[1])); print("torch", v["torch"], "transformers", v["transformers"])' "$work/versions"
sed -n 's/^model name[[:space:]]*: //p' /proc/cpuinfo | head -n 1
printf '%d threads, %d rounds of %d steps\n\n' "$threads" "$rounds" "$steps"
"$peers" "$here/table.py" "$work/results"
