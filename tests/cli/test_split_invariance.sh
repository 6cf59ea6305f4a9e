#!/usr/bin/env bash
# tests/cli/test_split_invariance.sh - the result of a run does not depend on how it is shared out.
#
# A global batch of 8 micro-batches of very unequal length, 20 steps, on 1, 2, 3, 4 and 8 ranks and
# with 1 and 2 threads. With reduction=exact the exported weights, the optimizer's state and the
# loss curve are the same bytes; by default the loss curves agree to 1e-5. So do ZeRO stages, kept
# and recomputed activations, and (exact) the bytes sent are what dist/zero.h says.
# MB_LONG=1: more models, packing, both providers of matrix products.
set -u
# shellcheck source-path=SCRIPTDIR source=lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
start

common=(max_length=120 per_device_train_batch_size=2 global_batch_size=16 max_steps=20
    learning_rate=1e-3 logging_steps=1 save_steps=20 report_to=jsonl)
pairs=("datasets=[$rows]")

# --- models: as in tests/data, and with dropouts where the configuration says them

declare -A keys
llama="model_name_or_path=$MB_TEST_DATA/reference/llama add_eos=true"
keys[llama]="$llama"
keys[lora]="$llama finetuning_type=lora lora_r=4 lora_dropout=0.5"
keys[gpt2]="model_name_or_path=$work/gpt2 add_eos=true"
keys[packed]="$llama packing=true per_device_train_batch_size=1 global_batch_size=8"
keys[freeze]="$llama finetuning_type=freeze freeze_trainable_layers=1"
keys[mlm]="model_name_or_path=$work/bert-mlm task=masked-lm max_length=60 datasets=[$work/text.jsonl]"
keys[classes]="model_name_or_path=$work/bert-cls task=seq-classification num_labels=3 max_length=60 datasets=[$work/classes.jsonl]"
with_dropouts gpt2 attn_pdrop=0.1 embd_pdrop=0.5 resid_pdrop=0.3
with_dropouts bert-mlm hidden_dropout_prob=0.5 attention_probs_dropout_prob=0.2
with_dropouts bert-cls hidden_dropout_prob=0.2 attention_probs_dropout_prob=0.5 classifier_dropout=0.3
sed -E 's/^\{"prompt": (".*"), "completion": ".*"\}$/{"text": \1}/' "$rows" >"$work/text.jsonl"
rows_of_classes "$work/classes.jsonl"

one() { # one NAME OUT RANKS KEY...
    local name=$1 out=$2 ranks=$3 set=() more
    shift 3
    read -ra more <<<"${keys[$name]}"
    set=("${common[@]}" "${pairs[@]}" "${more[@]}")
    must_train "$ranks" "${set[@]}" output_dir="$out" "$@"
    [ "$(curve "$out" | wc -l)" = 20 ] || fail "$out has not 20 steps"
    state "$out/checkpoint-000020" >"$out/state" || fail "$out: the checkpoint cannot be read"
}

exact() { # exact NAME KEY...: every number of ranks, and two threads
    local name=$1 n begin
    begin=$(seconds)
    shift
    for n in 1 2 3 4 8; do
        one "$name" "$name-$n" "$n" reduction=exact "$@"
        [ "$n" = 1 ] || same_run "$name-1" "$name-$n" "$name on 1 and $n ranks"
    done
    for n in 1 2; do
        OMP_NUM_THREADS=2 one "$name" "$name-$n-threads" "$n" reduction=exact threads=2 "$@"
        same_run "$name-1" "$name-$n-threads" "$name on $n ranks of 2 threads"
    done
    [ "$(grep -c /optim/ "$name-1/state")" -gt 0 ] || fail "$name: no optimizer state"
    printf '%-8s 1 2 3 4 8 ranks, 1 2 threads: the same bits, %.1f s, weights %.12s\n' "$name" \
        "$(since "$begin")" "$(sha256sum "$name-1"/final/*.safetensors)"
}

# A run must depend on what it should depend on, or all of this says nothing.
one lora other-seed 1 reduction=exact seed=7

short=(llama lora gpt2)
[ "$long" = 1 ] && short=(llama lora gpt2 packed freeze mlm classes)
for name in "${short[@]}"; do
    exact "$name"
done
cmp -s other-seed/state lora-1/state && fail 'another seed gave the same state'

# --- other ways that must not matter
for name in lora gpt2; do
    one "$name" "$name-recomputed" 2 reduction=exact gradient_checkpointing=true
    same_run "$name-1" "$name-recomputed" "$name, recomputed on 2 ranks"
    one "$name" "$name-stage0" 3 reduction=exact zero_stage=0
    same_run "$name-1" "$name-stage0" "$name, zero_stage 0 on 3 ranks"
done
echo 'recomputed, zero_stage 0: the same bits'

# --- every rank keeps its share of the optimizer's state, and at most a grain more
"$helpers/checkpoint_digest" llama-3/checkpoint-000020 --shares >shares
awk '{ rank[NR] = $2; total += $2 }
    END { for (i in rank) if (rank[i] > total / NR + 2 * 4096) exit 1; exit NR != 3 }' shares ||
    fail "shares of the optimizer's state: $(tr '\n' ';' <shares)"

# --- bytes sent: the difference of 20 and 12 steps is 8 times the formula of dist/zero.h
sent() {
    grep -o '"num_bytes_sent":[0-9]*' "$1/logs/train.jsonl" | cut -d: -f2
}
trained=$(awk '$NF ~ /^\/param\// { n += $2 } END { print n }' llama-1/state)
for reduction in exact default; do
    for steps in 12 20; do
        must_train 4 "${common[@]}" "${pairs[@]}" add_eos=true "${llama% *}" reduction=$reduction logging_steps=100 \
            max_steps=$steps save_strategy=no output_dir="bytes-$steps" overwrite_output_dir=true
    done
    element=4
    [ $reduction = exact ] && element=8
    awk -v n=4 -v trained="$trained" -v e=$element \
        -v got=$(($(sent bytes-20) - $(sent bytes-12))) -v what=$reduction '
        function grains(r) { return int(g * (r + 1) / n) - int(g * r / n) }
        BEGIN {
            g = int((trained + 4095) / 4096)
            step = (n - 1) * 8 * (3 + 8 * (3 + 3))    # three votes, three metrics, 8 micro-batches
            step += 4096 * e * (g - grains(0))
            step += 8 * (g - grains(1)) + 4096 * 4 * (g - grains(1))
            printf "%s: %d bytes a step sent by rank 0 of 4, formula %d\n", what, got / 8, step
            exit got != 8 * step
        }' || fail "bytes sent, $reduction"
done

# --- without exact reduction: within rounding
for n in 1 2 3 4 8; do
    one llama "default-$n" "$n" reduction=default
    paste -d, <(curve default-1) <(curve "default-$n") | tr ':' ',' | awk -F, -v n="$n" '
        { d = ($2 - $6) / $2; d = d < 0 ? -d : d; if (d > worst) worst = d }
        END { printf "default on %d ranks: losses within %.1e of one rank\n", n, worst; exit worst > 1e-5 }' ||
        fail "default reduction on $n ranks"
done

# --- providers of matrix products: each gives its own bits on any ranks
if [ "$long" = 1 ]; then
    for provider in onednn openblas; do
        export MBUYU_GEMM=$provider
        for n in 1 3; do
            one lora "$provider-$n" "$n" reduction=exact
        done
        same_run "$provider-1" "$provider-3" "$provider on 1 and 3 ranks"
    done
    unset MBUYU_GEMM
fi
finish
