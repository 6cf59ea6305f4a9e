#!/usr/bin/env bash
# tests/cli/test_split_invariance.sh - the result of a run does not depend on how it is shared out.
#
# A global batch of 8 micro-batches of very unequal length, 20 steps, on 1, 2, 3, 4 and 8 ranks and
# with 1 and 2 threads. With reduction=exact the exported weights, the optimizer's state and the
# loss curve are the same bytes; by default the loss curves agree to 1e-5. So do ZeRO stages, kept
# and recomputed activations. The bytes every rank sends are what dist/zero.h says, at every stage.
# MB_LONG=1: more models, packing, every stage on every number of ranks, all providers of matrix
# products.
set -u
# shellcheck source-path=SCRIPTDIR source=lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
start

common=(max_length=120 per_device_train_batch_size=2 global_batch_size=16 max_steps=20
    learning_rate=1e-3 logging_steps=1 save_steps=20 report_to=jsonl device=cpu bf16=false)
pairs=("datasets=[$rows]")

# --- models: as in tests/data, and with dropouts where the configuration says them

declare -A keys
llama="model_name_or_path=$MB_TEST_DATA/reference/llama add_eos=true"
keys[llama]="$llama"
keys[lora]="$llama finetuning_type=lora lora_r=4 lora_dropout=0.5"
keys[deep]="model_name_or_path=$work/deep add_eos=true per_device_train_batch_size=1 global_batch_size=8"
keys[deep-freeze]="${keys[deep]} finetuning_type=freeze freeze_trainable_layers=4"
keys[llama16]="$llama bf16=true"
keys[lora16]="${keys[lora]} bf16=true"
keys[gpt2]="model_name_or_path=$work/gpt2 add_eos=true"
keys[gpt16]="${keys[gpt2]} bf16=true"
keys[gemma16]="model_name_or_path=$MB_TEST_DATA/reference/gemma3 add_eos=true bf16=true packing=true per_device_train_batch_size=1 global_batch_size=8"
keys[dora]="model_name_or_path=$MB_TEST_DATA/reference/qwen2 add_eos=true finetuning_type=lora lora_r=4 lora_dropout=0.5 use_dora=true"
keys[packed]="$llama packing=true per_device_train_batch_size=1 global_batch_size=8"
keys[freeze]="$llama finetuning_type=freeze freeze_trainable_layers=1"
keys[mlm]="model_name_or_path=$work/bert-mlm task=masked-lm max_length=60 datasets=[$work/text.jsonl]"
keys[classes]="model_name_or_path=$work/bert-cls task=seq-classification num_labels=3 max_length=60 datasets=[$work/classes.jsonl]"
with_dropouts gpt2 attn_pdrop=0.1 embd_pdrop=0.5 resid_pdrop=0.3
with_dropouts bert-mlm hidden_dropout_prob=0.5 attention_probs_dropout_prob=0.2
with_dropouts bert-cls hidden_dropout_prob=0.2 attention_probs_dropout_prob=0.5 classifier_dropout=0.3
sed -E 's/^\{"prompt": (".*"), "completion": ".*"\}$/{"text": \1}/' "$rows" >"$work/text.jsonl"
cp -r "$MB_TEST_DATA/reference/llama" deep # layers enough to come and go at stage 3
sed -i 's/"num_hidden_layers": 2/"num_hidden_layers": 5/' deep/config.json
"$helpers/make_model" deep >made || fail 'no model of five layers'
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

short=(llama lora gpt2 llama16)
[ "$long" = 1 ] && short=(llama lora gpt2 packed freeze mlm classes llama16 lora16 gpt16)
for name in "${short[@]}"; do
    exact "$name"
done
cmp -s other-seed/state lora-1/state && fail 'another seed gave the same state'
cmp -s llama-1/state llama16-1/state && fail 'float32 and bf16 gave the same state'

# --- other ways that must not matter: NAME RANKS STAGE [KEY]...
one deep deep-1 1 reduction=exact
one gemma16 gemma16-1 1 reduction=exact
one dora dora-1 1 reduction=exact
ways=('lora 2 1 gradient_checkpointing=true' 'gpt2 2 1 gradient_checkpointing=true' 'lora 3 0' 'gpt2 3 0'
    'llama 1 3' 'llama 2 2' 'llama 4 3' 'lora 3 3' 'lora 4 2' 'gpt2 2 3 gradient_checkpointing=true' 'gpt2 8 2'
    'deep 3 3' 'deep 8 3 gradient_checkpointing=true' 'deep 4 2'
    'deep 4 3 dp_shard_size=2' 'gpt2 8 2 dp_shard_size=4' 'lora 4 1 dp_shard_size=2' 'llama 3 2 dp_shard_size=1'
    'llama16 3 3' 'llama16 2 2 gradient_checkpointing=true' 'gemma16 3 3 gradient_checkpointing=true' 'dora 2 3')
if [ "$long" = 1 ]; then
    one deep-freeze deep-freeze-1 1 reduction=exact
    for name in "${short[@]}" deep deep-freeze; do
        for n in 1 2 3 4 8; do
            for stage in 0 2 3; do
                [[ $name == *16 && $stage = 0 ]] && continue # stage 0 is float32's
                ways+=("$name $n $stage")
            done
        done
        ways+=("$name 4 "{1,2,3}' dp_shard_size='{1,2} "$name 8 3 dp_shard_size=4")
        ways+=("$name 3 3 gradient_checkpointing=true" "$name 2 2 gradient_checkpointing=true")
    done
fi
begin=$(seconds)
for way in "${ways[@]}"; do
    read -ra word <<<"$way"
    one "${word[0]}" "${way// /-}" "${word[1]}" reduction=exact zero_stage="${word[2]}" "${word[@]:3}" \
        overwrite_output_dir=true
    same_run "${word[0]}-1" "${way// /-}" "$way"
done
printf '%d runs at stages 0, 2, 3, with copies, or recomputed: the same bits, %s s\n' ${#ways[@]} "$(since "$begin")"

# --- collectives behind the computing, and nodes that are summed inside first (as the ranks below pretend)
begin=$(seconds)
behind=('llama 2 1' 'deep 3 1' 'deep 4 2' 'deep 4 3' 'lora 4 1 gradient_checkpointing=true' 'gpt2 4 1' 'llama16 3 1'
    'llama16 4 2' 'deep 4 1 dp_shard_size=2')
for way in "${behind[@]}"; do
    read -ra word <<<"$way"
    MBUYU_TEST_NODES=0,1,1,0 one "${word[0]}" "behind-${way// /-}" "${word[1]}" reduction=exact overlap_comm=true \
        zero_stage="${word[2]}" "${word[@]:3}"
    same_run "${word[0]}-1" "behind-${way// /-}" "$way, behind the computing, on two nodes"
done
one deep aside-deep 3 reduction=exact overlap_comm=false zero_stage=3
same_run deep-1 aside-deep 'stage 3 with nothing behind the computing'
printf '%d runs with collectives behind the computing, on two nodes: the same bits, %s s\n' ${#behind[@]} "$(since "$begin")"

# --- a run of two copies goes on as one of one, and the other way round
one deep copies 4 reduction=exact zero_stage=3 dp_shard_size=2 save_steps=10
for way in '3 1 0' '4 2 -1' '2 3 1'; do
    read -ra word <<<"$way"
    rm -rf on && cp -r copies on && rm -r on/checkpoint-000020 on/final
    MBUYU_LOG=info one deep on "${word[0]}" reduction=exact zero_stage="${word[1]}" dp_shard_size="${word[2]}" \
        save_steps=10 resume_from_checkpoint=auto
    grep -q 'resuming from .*(step 10,' log || fail "copies, $way: not resumed: $(cat log)"
    same_run deep-1 on "saved by two copies of two, gone on with $way"
done

# --- optimizers with states of fewer bits: on other ranks and stages, and stopped and resumed
for kind in adamw_bf16 adamw_8bit; do
    one llama "$kind-1" 1 reduction=exact optim=$kind save_steps=10
    cmp -s llama-1/state "$kind-1/state" && fail "$kind has the states of adamw"
    one llama "$kind-3" 3 reduction=exact optim=$kind zero_stage=3
    same_run "$kind-1" "$kind-3" "$kind on 1 and 3 ranks"
    rm -rf on && cp -r "$kind-1" on && rm -r on/checkpoint-000020 on/final
    MBUYU_LOG=info one llama on 2 reduction=exact optim=$kind zero_stage=0 resume_from_checkpoint=auto
    grep -q 'resuming from .*(step 10,' log || fail "$kind: not resumed: $(cat log)"
    same_run "$kind-1" on "$kind, stopped and gone on with on two ranks"
done
printf 'adamw_bf16, adamw_8bit on 1 and 3 ranks, and resumed on 2: the same bits\n'

# --- a run goes on in the type it began in: stage 0, which is float32's, does not change that
one llama began 2 reduction=exact save_steps=10
read -ra more <<<"${keys[llama]}"
rm -rf on && cp -r began on && rm -r on/checkpoint-000020 on/final
train 2 "${common[@]}" "${pairs[@]}" "${more[@]}" reduction=exact output_dir=on save_steps=10 bf16=auto \
    resume_from_checkpoint=auto && fail 'bf16: auto went on with what bf16: false began'
grep -q 'bf16' log || fail "bf16: auto after false: $(cat log)"
if "$MBUYU" env | grep -q avx512_bf16; then
    one llama began 2 reduction=exact save_steps=10 bf16=auto overwrite_output_dir=true
    rm -rf on && cp -r began on && rm -r on/checkpoint-000020 on/final
    train 2 "${common[@]}" "${pairs[@]}" "${more[@]}" reduction=exact output_dir=on save_steps=10 bf16=auto \
        resume_from_checkpoint=auto zero_stage=0 && fail 'stage 0 went on with what was begun in bf16'
    grep -q 'computes in float32' log || fail "stage 0 after bf16: $(cat log)"
    one llama on 3 reduction=exact save_steps=10 bf16=auto resume_from_checkpoint=auto zero_stage=2
    same_run began on 'begun in bf16, gone on'
else
    echo 'left out, without avx512_bf16: a run that auto began in bf16'
fi

# --- every rank keeps its share of the optimizer's state, and at most a grain more
"$helpers/checkpoint_digest" llama-3/checkpoint-000020 --shares >shares
awk '{ rank[NR] = $2; total += $2 }
    END { for (i in rank) if (rank[i] > total / NR + 2 * 4096) exit 1; exit NR != 3 }' shares ||
    fail "shares of the optimizer's state: $(tr '\n' ';' <shares)"

# --- bytes sent: what every rank counts in a step is what mb_zero_step_bytes says
begin=$(seconds)
checked=0 turn=0
for n in 2 3 4; do
    for stage in 0 1 2 3; do
        for kind in full lora; do
            for reduction in exact default; do
                turn=$((turn + 1))
                [ "$long" = 1 ] || [ $((turn % 4)) = $(((n + stage) % 4)) ] || continue
                for way in "overlap_comm=false" "overlap_comm=true" "overlap_comm=true communication_data_type=bf16"; do
                    read -ra word <<<"$way"
                    [ $reduction = exact ] && [ ${#word[@]} = 2 ] && continue
                    MBUYU_TEST_NODES=0,0,1,1 MBUYU_LOG=debug must_train $n "${common[@]}" "${pairs[@]}" \
                        model_name_or_path=deep add_eos=true per_device_train_batch_size=1 global_batch_size=7 \
                        max_length=40 reduction=$reduction max_steps=4 zero_stage=$stage finetuning_type=$kind \
                        save_strategy=no output_dir=bytes overwrite_output_dir=true "${word[@]}"
                    bytes_as_said $n 4 "$kind, $reduction, stage $stage on $n ranks, $way"
                    checked=$((checked + 1))
                done
            done
        done
    done
done
for way in '1 exact 2' '2 default 1' '3 exact 2'; do
    read -ra word <<<"$way"
    MBUYU_LOG=debug must_train 4 "${common[@]}" "${pairs[@]}" model_name_or_path=deep add_eos=true \
        per_device_train_batch_size=1 global_batch_size=7 max_length=40 reduction="${word[1]}" max_steps=4 \
        zero_stage="${word[0]}" dp_shard_size="${word[2]}" save_strategy=no output_dir=bytes overwrite_output_dir=true
    bytes_as_said 4 4 "stage ${word[0]}, ${word[1]}, groups of ${word[2]} of 4 ranks"
    checked=$((checked + 1))
done
printf 'bytes sent in %d runs at stages 0 to 3 on 2 to 4 ranks: exactly the formula, %s s\n' $checked "$(since "$begin")"

# --- and by hand, at stage 1: the difference of 20 and 12 steps is 8 times the formula of dist/zero.h
sent() {
    grep -o '"num_bytes_sent":[0-9]*' "$1/logs/train.jsonl" | cut -d: -f2
}
trained=$(awk '$NF ~ /^\/param\// { n += $2 } END { print n }' llama-1/state)
for way in 'exact false f32 8' 'default false f32 4' 'default true f32 4' 'default true bf16 2'; do
    read -r reduction overlap sent_as element <<<"$way"
    for steps in 12 20; do
        must_train 4 "${common[@]}" "${pairs[@]}" add_eos=true "${llama% *}" reduction="$reduction" logging_steps=100 \
            max_steps=$steps save_strategy=no output_dir="bytes-$steps" overwrite_output_dir=true \
            overlap_comm="$overlap" communication_data_type="$sent_as"
    done
    awk -v n=4 -v trained="$trained" -v e="$element" -v overlap="$overlap" \
        -v got=$(($(sent bytes-20) - $(sent bytes-12))) -v what="$way" '
        function grains(r) { return int(g * (r + 1) / n) - int(g * r / n) }
        BEGIN {
            g = int((trained + 4095) / 4096)
            step = (n - 1) * 8 * (3 + 8 * (3 + 3))    # three votes, three metrics, 8 micro-batches
            moved = overlap == "true" ? trained : 4096 * g    # unit by unit: without what fills the last grain
            step += e * (moved - 4096 * grains(0))
            step += 8 * (g - grains(1)) + 4 * (moved - 4096 * grains(1))
            printf "%s: %d bytes a step sent by rank 0 of 4, formula %d\n", what, got / 8, step
            exit got != 8 * step
        }' || fail "bytes sent, $way"
done

# --- without exact reduction: within rounding
compare() { # [base=OUT] compare OUT WHAT [MOST]
    paste -d, <(curve "${base:-default-1}") <(curve "$1") | tr ':' ',' | awk -F, -v what="$2" -v most="${3:-1e-5}" '
        { d = ($2 - $6) / $2; d = d < 0 ? -d : d; if (d > worst) worst = d }
        END { printf "default on %s: losses within %.1e of one rank\n", what, worst; exit worst > most }' ||
        fail "default reduction on $2"
}
for n in 1 2 3 4 8; do
    one llama "default-$n" "$n" reduction=default
    compare "default-$n" "$n ranks"
done
# neither when messages come nor what computes meanwhile shows; bf16 on the way does, a little
for stage in 1 2 3; do
    one llama "default-aside-$stage" 3 reduction=default zero_stage=$stage overlap_comm=false
    one llama "default-behind-$stage" 3 reduction=default zero_stage=$stage overlap_comm=true
    same_run "default-aside-$stage" "default-behind-$stage" "stage $stage on 3 ranks, aside and behind the computing"
    one llama "sent-aside-$stage" 3 zero_stage=$stage overlap_comm=false communication_data_type=bf16
    one llama "sent-behind-$stage" 3 zero_stage=$stage overlap_comm=true communication_data_type=bf16
    same_run "sent-aside-$stage" "sent-behind-$stage" "stage $stage on 3 ranks, as bf16, aside and behind the computing"
    cmp -s "sent-behind-$stage/state" "default-behind-$stage/state" && fail "stage $stage: bf16 on the way changes nothing"
    compare "sent-behind-$stage" "3 ranks at stage $stage, sent as bf16" 1e-3
done
train 2 "${common[@]}" "${pairs[@]}" "${llama% *}" output_dir=refused reduction=exact communication_data_type=bf16 &&
    fail 'exact sums were sent as bf16'
grep -q 'communication_data_type: bf16 rounds what reduction: exact' log || fail "exact, sent as bf16: $(cat log)"
for way in '2 2' '4 3'; do
    one llama "default-${way/ /-}" "${way% *}" reduction=default zero_stage="${way#* }"
    compare "default-${way/ /-}" "${way% *} ranks at stage ${way#* }"
done

# --- gradients in the step's memory: one micro-batch a rank, and in each epoch's last step none on two
head -n 62 "$rows" >few.jsonl
keys[few]="$llama datasets=[few.jsonl] per_device_train_batch_size=1 global_batch_size=4"
one few few-1 1 reduction=default
for stage in 0 1; do
    for overlap in false true; do
        one few "few-$stage-$overlap" 4 reduction=default zero_stage=$stage overlap_comm=$overlap
        base=few-1 compare "few-$stage-$overlap" "4 ranks, two of them without rows at times, stage $stage"
    done
    same_run "few-$stage-false" "few-$stage-true" "stage $stage, two ranks without rows, aside and behind"
done

# --- providers of matrix products: each gives its own bits on any ranks
if [ "$long" = 1 ]; then
    for provider in own onednn openblas; do
        export MBUYU_GEMM=$provider
        for n in 1 3; do
            one lora "$provider-$n" "$n" reduction=exact
        done
        same_run "$provider-1" "$provider-3" "$provider on 1 and 3 ranks"
    done
    unset MBUYU_GEMM
fi
finish
