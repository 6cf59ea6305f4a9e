#!/usr/bin/env bash
# tests/cli/test_optim.sh - AdamW with states of fewer bits trains as AdamW does, in less memory.
#
# 200 steps of a small model: with moments in bf16 every loss is within 0.5 % of that with f32, with
# 8-bit moments within 5 %. The plan says a half and 65/256 of the bytes. A run may be resumed with
# another of the three kinds, and says so. That bits depend on nothing is test_split_invariance.sh's.
set -u
# shellcheck source-path=SCRIPTDIR source=lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
start

run=("model_name_or_path=$MB_TEST_DATA/reference/llama" "datasets=[$rows]" add_eos=true max_length=120
    per_device_train_batch_size=2 global_batch_size=16 learning_rate=1e-3 logging_steps=1 report_to=jsonl device=cpu
    bf16=false)

losses() {
    grep -oE '"loss":[^,]*' "$1/logs/train.jsonl" | cut -d: -f2
}

# --- as far from f32 as said above, and not the same
for kind in adamw adamw_bf16 adamw_8bit; do
    must_train 1 "${run[@]}" max_steps=200 save_strategy=no output_dir=$kind optim=$kind
done
for way in 'adamw_bf16 0.005' 'adamw_8bit 0.05'; do
    read -r kind bound <<<"$way"
    paste <(losses adamw) <(losses "$kind") | awk -v kind="$kind" -v bound="$bound" '
        { d = ($2 - $1) / $1; d = d < 0 ? -d : d; if (d > worst) worst = d }
        END {
            printf "%s: 200 losses within %.2g of those with f32, the last %s and %s\n", kind, worst, $2, $1
            exit NR != 200 || worst > bound || worst == 0 || $2 > 1.5
        }' || fail "$kind does not train as adamw does"
done

# --- bytes
planned() {
    "$MBUYU" plan "${run[@]}" "model_name_or_path=$work/wide" optim="$1" >plan 2>&1 || fail "plan: $(cat plan)"
    awk '/^  optimizer/ { print $3 }' plan # in training
}
cp -r "$MB_TEST_DATA/reference/llama" wide
sed -i -E 's/"intermediate_size": [0-9]+/"intermediate_size": 65536/' wide/config.json
planned adamw >bytes && planned adamw_bf16 >>bytes && planned adamw_8bit >>bytes
awk '{ mib[NR] = $1 }
    function off(part) { d = mib[part > 0.4 ? 2 : 3] - part * mib[1]; return d > 0.1 || d < -0.1 }
    END { exit NR != 3 || mib[1] < 50 || off(0.5) || off(65 / 256) }' bytes ||
    fail "the plan says $(tr '\n' ' ' <bytes) MiB"
printf 'planned: %s MiB\n' "$(tr '\n' ' ' <bytes)"

# --- from one kind to another and back
goes_on() { # goes_on KIND STEP WAS: one save further
    MBUYU_LOG=info must_train "$2" "${run[@]}" max_steps="$3" save_steps=4 output_dir=changed optim="$1" \
        resume_from_checkpoint=auto
    grep -q "optim: $1, was $4" log || fail "no line about optim $1 after $4: $(cat log)"
}
must_train 2 "${run[@]}" max_steps=4 save_steps=4 output_dir=changed optim=adamw
goes_on adamw_8bit 3 8 adamw
goes_on adamw_bf16 1 12 adamw_8bit
goes_on adamw 2 16 adamw_bf16
paste <(losses changed) <(losses adamw | head -n 16) | awk '
    { d = ($2 - $1) / $1; if (d > 0.2 || d < -0.2) exit 1 }
    END { exit NR != 16 }' || fail "the run whose optimizer changed: $(losses changed | tr '\n' ' ')"
finish
