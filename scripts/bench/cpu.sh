#!/usr/bin/env bash
# cpu.sh [--rounds N] [--steps N] [--threads N] [--no-compile] [--only ROW]... [--report DIR] - mbuyu
# against PyTorch on this CPU.
#
#     full-f32        SmolLM2-135M, all weights, 4 rows of 512 tokens a step, float32
#     full-bf16       the same in bf16 (PyTorch: autocast over f32 weights)
#     lora-bf16       LoRA r16 on all linear layers, bf16
#     llama1b-lora    the shape of Llama-3.2-1B, LoRA r16, 1 x 512, bf16 (PyTorch: weights in bf16)
#     bert-bf16       BERT-base, classification, 16 x 128, bf16
#     packing         lora-bf16 on the Swahili pairs, tokens that are no padding: mbuyu packed, by rows
#                     and with rows padded as collators do; PyTorch, padded to the longest of 16 rows
#                     and to 128 tokens
#     scaling         full-bf16 on 1 rank and on 2, a thread each, the same rows for every rank
#     gemm-share      the machine's fastest product of f32 and of bf16 matrices, PyTorch's or our own;
#                     what each row above gets out of it, and the ratio at which all of it would be got
#     start           from the start of the process to the end of a first forward pass; mbuyu from
#                     GGUF, PyTorch from safetensors in f32
#     loss            200 steps on the Swahili pairs in f32 and in bf16, LoRA and full, mbuyu only: how
#                     far means over 20 steps are apart. Takes long, so only with --only loss
#
# Both sides take turns, N rounds (3) of N steps (5) after two that are not
# counted, on the same weights; PyTorch eager and compiled, the one that is more than 5 % slower in the
# first round not again. DIR (bench-results/, ignored by git) gets report.md, report.svg and
# results.json: versions, the table of tokens/s and of the peak resident memory of whole processes. The
# last lines are "ratio NAME VALUE", medians of rounds, mbuyu over the faster of PyTorch's two. Nothing
# else should run meanwhile.
#
# Installs PyTorch into a virtual environment when it is not there (5 GB), unless MB_PEERS names a
# Python with torch, transformers and peft. PyTorch runs without any OPENBLAS_* variable; both run with
# OMP_NUM_THREADS.
set -euo pipefail
# shellcheck source-path=SCRIPTDIR source=../lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/../lib.sh"

rows=(full-f32 full-bf16 lora-bf16 llama1b-lora bert-bf16 packing scaling gemm-share start)
rounds=3 steps=5 threads=2 compile=1 only=() report=$root/bench-results
while [ $# -gt 0 ]; do
    case $1 in
    --no-compile) compile=0 && shift && continue ;;
    --rounds | --steps | --threads | --only | --report) [ $# -gt 1 ] || die "$1 wants a value" ;;
    *) die "unknown option $1" ;;
    esac
    case $1 in
    --rounds) rounds=$2 ;;
    --steps) steps=$2 ;;
    --threads) threads=$2 ;;
    --report) report=$2 ;;
    --only)
        [[ " ${rows[*]} loss " == *" $2 "* ]] || die "there is no row $2: ${rows[*]} loss"
        only+=("$2")
        ;;
    esac
    shift 2
done
[ ${#only[@]} -gt 0 ] || only=("${rows[@]}")
wanted() {
    [[ " ${only[*]} " == *" $1 "* ]]
}

here=$root/scripts/bench
mbuyu=${MBUYU:-$root/build/mbuyu}
if [ ! -x "$mbuyu" ]; then
    need_packages "${build_packages[@]}"
    build "$root/build" -DCMAKE_BUILD_TYPE=Release -DMB_TESTS=OFF
fi
[ -x "$(peers_python)" ] || need_packages python3 python3-pip python3-venv g++ # torch.compile needs g++
install_peers '' || die 'PyTorch cannot be installed'
peers=$(peers_python)
materials=$(materials_folder)
pairs=$materials/swahili/train.jsonl
gguf=$materials/smollm2/SmolLM2-135M-Instruct.Q4_1.gguf
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
mkdir "$work/results"
export OMP_NUM_THREADS=$threads HF_HUB_OFFLINE=1 TOKENIZERS_PARALLELISM=false
unset_openblas=()
while IFS='=' read -r name _; do
    unset_openblas+=(-u "$name")
done < <(env | grep '^OPENBLAS_' || true)

# quietly NAME COMMAND...: its output is shown when it fails
quietly() {
    local name=$1
    shift
    "$@" >"$work/log" 2>&1 || { tail -n 30 "$work/log" >&2 && die "$name failed"; }
}

# --- models and rows

"$root/scripts/fetch_materials.sh" "$materials" smollm2 minilm swahili
model=$work/smollm2
quietly export "$mbuyu" export "model_name_or_path=$gguf" export_dtype=f32 "output_dir=$model"
[ ! -d "$model/final" ] || model=$model/final
! wanted llama1b-lora ||
    quietly 'a model of the shape of Llama-3.2-1B' \
        "$peers" "$here/random_model.py" llama1b "$model" "$work/llama1b"
! wanted bert-bf16 ||
    quietly "BERT's shape" "$peers" "$here/random_model.py" bert "$materials/minilm" "$work/bert"
"$peers" "$here/make_rows.py" texts $((16 * (steps + 3))) "$work/rows.jsonl"

# --- one run of one side

# run_mbuyu KIND SIDE ROUND RANKS TOKENS KEYS...: a step of TOKENS tokens, each of them exactly
run_mbuyu() {
    local name=$work/results/$1.$2.$3 ranks=$4 tokens=$5 launcher=()
    shift 5
    [ "$ranks" -eq 1 ] || launcher=(mpirun --oversubscribe --bind-to core -np "$ranks")
    quietly 'mbuyu train' "$peers" "$here/measure.py" "$name.json" "${launcher[@]}" "$mbuyu" train \
        "output_dir=$work/run" gradient_accumulation_steps=1 "max_steps=$((steps + 2))" \
        logging_steps=1 save_strategy=no learning_rate=1e-4 lr_scheduler_type=constant \
        weight_decay=0 max_grad_norm=1.0 'report_to=[jsonl]' "$@"
    "$peers" "$here/mbuyu_log.py" "$work/run/logs/train.jsonl" --tokens "$tokens" >"$name.run" ||
        die "mbuyu's log is not as it should be"
    rm -rf "$work/run"
}

# run_torch KIND SIDE ROUND MODEL OPTIONS...
run_torch() {
    local name=$work/results/$1.$2.$3
    shift 3
    env "${unset_openblas[@]}" "$peers" "$here/measure.py" "$name.json" "$peers" \
        "$here/torch_finetune.py" "$@" --threads "$threads" --steps "$steps" \
        >"$work/log" 2>"$work/errors" || { tail -n 30 "$work/errors" >&2 && die 'PyTorch failed'; }
    tail -n 1 "$work/log" >"$name.run"
}

# dropped KIND.SIDE OTHER ROUND: in the first round it was slower than the other by more than 5 %
dropped() {
    [ "$3" -gt 1 ] && [ -f "$work/results/$1.1.run" ] && [ -f "$work/results/$2.1.run" ] &&
        "$peers" "$here/slower.py" "$work/results/$1.1.run" "$work/results/$2.1.run" 5
}

# torch KIND SIDE ROUND MODEL OPTIONS...: eager and compiled
torch() {
    local kind=$1 side=$2 round=$3
    shift 3
    dropped "$kind.$side-eager" "$kind.$side-compile" "$round" ||
        run_torch "$kind" "$side-eager" "$round" "$@"
    [ "$compile" -eq 0 ] || dropped "$kind.$side-compile" "$kind.$side-eager" "$round" ||
        run_torch "$kind" "$side-compile" "$round" "$@" --compile
}

# both KIND ROUND MODEL TOKENS "KEYS of mbuyu" "OPTIONS of PyTorch"
both() {
    local keys options
    wanted "$1" || return 0
    read -ra keys <<<"$5"
    read -ra options <<<"$6"
    cp "$3/config.json" "$work/results/$1.model"
    run_mbuyu "$1" mbuyu "$2" 1 "$4" "model_name_or_path=$3" "datasets=[\"$work/rows.jsonl\"]" "${keys[@]}"
    torch "$1" torch "$2" "$3" "${options[@]}"
}

# --- rows that are more than both sides on texts

text='train_on=all max_length=512 per_device_train_batch_size=4'
lora='finetuning_type=lora lora_r=16 lora_alpha=32 lora_target_modules=all-linear lora_dropout=0.0'

packing() { # packing ROUND
    local keys pad
    read -ra keys <<<"$lora bf16=true max_length=512 add_bos=false add_eos=false"
    keys+=("model_name_or_path=$model" 'completion_suffix="\n"')
    run_mbuyu packing mbuyu-packed "$1" 1 any "datasets=[\"$pairs\"]" "${keys[@]}" packing=true \
        per_device_train_batch_size=4
    run_mbuyu packing mbuyu-rows "$1" 1 any "datasets=[\"$pairs\"]" "${keys[@]}" \
        per_device_train_batch_size=16
    for pad in longest 128; do
        [ -f "$work/pairs-$pad.jsonl" ] ||
            "$peers" "$here/make_rows.py" padded "$model" "$pairs" "$pad" "$work/pairs-$pad.jsonl" \
                >"$work/share-$pad"
        run_mbuyu packing "mbuyu-pad-$pad" "$1" 1 "$([ $pad = 128 ] && echo 2048 || echo any)" \
            "datasets=[\"$work/pairs-$pad.jsonl\"]" "${keys[@]}" per_device_train_batch_size=16
        cp "$work/share-$pad" "$work/results/packing.mbuyu-pad-$pad.share"
        torch packing "torch-pad-$pad" "$1" "$model" --dtype bf16 --lora 16 --batch 16 \
            --rows "$pairs" --pad "$pad"
    done
}

scaling() { # scaling ROUND
    local keys ranks
    read -ra keys <<<"$text bf16=true threads=1"
    for ranks in 1 2; do
        OMP_NUM_THREADS=1 run_mbuyu scaling "ranks-$ranks" "$1" "$ranks" $((2048 * ranks)) \
            "model_name_or_path=$model" "datasets=[\"$work/rows.jsonl\"]" "${keys[@]}"
    done
}

gemm_share() { # gemm_share ROUND
    local type program own
    program=$(dirname "$mbuyu")/tests/bench_gemm
    for type in f32 bf16; do
        env "${unset_openblas[@]}" "$peers" "$here/torch_gemm.py" "$threads" $type \
            >"$work/results/gemm-$type.torch.$1.run"
        [ -x "$program" ] || continue
        own=$("$program" "$threads" $type | sed -nE 's|.* ([0-9.]+) GFLOP/s.*|\1|p' | sort -n | tail -n 1)
        [ -z "$own" ] || printf '%s\n' "$own" >"$work/results/gemm-$type.mbuyu.$1.run"
    done
}

# one_start SIDE ROUND COMMAND...: loads the model and computes once
one_start() {
    local name=$work/results/start.$1.$2.json
    shift 2
    quietly "$1" env "${unset_openblas[@]}" "$peers" "$here/measure.py" "$name" "$@"
}

start() { # start ROUND
    one_start mbuyu "$1" "$mbuyu" generate "model_name_or_path=$gguf" \
        'prompt=one two three four five six' max_new_tokens=1
    one_start torch "$1" "$peers" "$here/torch_finetune.py" "$model" --threads "$threads" --first-forward
}

loss() {
    local kind bf16
    for kind in lora full; do
        for bf16 in false true; do
            printf 'loss: %s, bf16=%s\n' $kind $bf16 >&2
            quietly 'mbuyu train' "$mbuyu" train "$root/recipes/configs/swahili-$kind.yaml" \
                "model_name_or_path=$gguf" "datasets=[\"$pairs\"]" 'eval_datasets=[]' \
                eval_strategy=no eval_on_start=false save_strategy=no logging_steps=1 max_steps=200 \
                seed=1 bf16=$bf16 'report_to=[jsonl]' "output_dir=$work/loss-$kind-$bf16"
            rm -rf "$work/loss-$kind-$bf16/final"
        done
        "$peers" "$here/mbuyu_log.py" "$work/loss-$kind-false/logs/train.jsonl" \
            --against "$work/loss-$kind-true/logs/train.jsonl" >"$work/results/loss.$kind.run"
    done
}

# --- all of it

cat /proc/loadavg >"$work/results/load"
for ((i = 1; i <= rounds; i++)); do
    [ "${only[*]}" = loss ] || printf 'round %d of %d\n' "$i" "$rounds" >&2
    both full-f32 "$i" "$model" 2048 "$text bf16=false" ''
    both full-bf16 "$i" "$model" 2048 "$text bf16=true" '--dtype bf16'
    ! wanted gemm-share || gemm_share "$i"
    both lora-bf16 "$i" "$model" 2048 "$text bf16=true $lora" '--dtype bf16 --lora 16'
    both llama1b-lora "$i" "$work/llama1b" 512 \
        "$text per_device_train_batch_size=1 bf16=true $lora" '--dtype weights --lora 16 --batch 1'
    both bert-bf16 "$i" "$work/bert" 2048 \
        'task=seq-classification num_labels=2 max_length=128 per_device_train_batch_size=16 bf16=true' \
        '--dtype bf16 --classify 2 --batch 16 --seq 128'
    ! wanted packing || packing "$i"
    ! wanted scaling || scaling "$i"
    ! wanted start || start "$i"
done
! wanted loss || loss

{
    "$mbuyu" version | head -n 1
    "$peers" -c 'import torch, transformers; print("torch", torch.__version__, "transformers", transformers.__version__)'
    sed -n 's/^model name[[:space:]]*: //p' /proc/cpuinfo | head -n 1
    printf '%d threads, %d rounds of %d steps\n' "$threads" "$rounds" "$steps"
} >"$work/results/about"
mkdir -p "$report"
"$peers" "$here/table.py" "$work/results" "$report"
