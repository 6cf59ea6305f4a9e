#!/usr/bin/env bash
# tests/cli/test_device.sh - whole runs on a GPU, here the emulated one (tests/emu).
#
#     every reference case within the bounds of the CPU
#     reduction=exact: weights, optimizer state, losses and evaluations are the same bytes on any
#         number of ranks, at any stage of ZeRO, recomputed or not, and whatever order the emulator
#         runs blocks and streams in (MBUYU_EMU_SEED)
#     otherwise, and against the CPU, both in float32: losses within 1e-5
#     checkpoints go from CPU to GPU and back, on other ranks and at another stage
#     the bytes every rank sends are what dist/zero.h says
#     a step that forgets an order between streams gives other bits or ends with an error
#     a wrong request is one sentence, its exit code, and nothing left behind
#
# MB_LONG=1: every model on 1, 2, 3, 4 ranks at stages 0 to 3, and more seeds.
set -u
# shellcheck source-path=SCRIPTDIR source=lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
if [ ! -f "${MBUYU_CUDA_LIBRARY:-}" ]; then
    echo 'left out: no emulator was built'
    exit 77
fi
start
begin=$(seconds)

cases=$MB_TEST_DATA/reference
common=("datasets=[$rows]" max_length=40 per_device_train_batch_size=1 global_batch_size=5 max_steps=4
    learning_rate=1e-3 logging_steps=1 save_steps=2 val_set_size=5 eval_strategy=steps eval_steps=2
    report_to=jsonl)
declare -A keys
# in float32, in float16, and the others in what they get when they ask for nothing: bfloat16
keys[llama]="model_name_or_path=$cases/llama add_eos=true bf16=false fp16=false"
keys[llama16]="model_name_or_path=$cases/llama add_eos=true fp16=true max_steps=8 eval_steps=4" # the scale is found first
keys[lora]="model_name_or_path=$cases/llama add_eos=true finetuning_type=lora lora_r=4 lora_dropout=0.5"
keys[gpt2]="model_name_or_path=$work/gpt2 add_eos=true"
keys[deep]="model_name_or_path=$work/deep add_eos=true finetuning_type=freeze freeze_trainable_layers=4 bf16=false fp16=false"
keys[classes]="model_name_or_path=$work/bert-cls task=seq-classification num_labels=3 datasets=[$work/classes.jsonl]"
with_dropouts gpt2 attn_pdrop=0.1 embd_pdrop=0.5 resid_pdrop=0.3
with_dropouts bert-cls hidden_dropout_prob=0.2 attention_probs_dropout_prob=0.5 classifier_dropout=0.3
rows_of_classes "$work/classes.jsonl"
cp -r "$cases/llama" deep # layers enough to come and go
sed -i 's/"num_hidden_layers": 2/"num_hidden_layers": 5/' deep/config.json
rm deep/golden*
"$helpers/make_model" deep >made || fail 'no model of five layers'

# one NAME OUT RANKS KEY...: a run on the device, and what its checkpoints hold
one() {
    local name=$1 out=$2 ranks=$3 more
    shift 3
    read -ra more <<<"${keys[$name]}"
    must_train "$ranks" "${common[@]}" "${more[@]}" device=cuda output_dir="$out" "$@"
    [ "$(curve "$out" | wc -l)" -ge 6 ] || fail "$out: steps or evaluations are missing"
    cat <(state "$out/checkpoint-000002") <(state "$out/checkpoint-000004") >"$out/state"
}

# near A B BOUND WHAT: losses and evaluations, relative; sets apart
near() {
    apart=$(paste -d: <(curve "$1") <(curve "$2") | tr ',' ':' | awk -F: -v bound="$3" '
        { d = $1 ~ /loss/ ? ($2 - $(NF / 2 + 2)) / $2 : 0; d = d < 0 ? -d : d; if (d > worst) worst = d }
        END { printf "%.1e", worst; exit !(NR > 0 && worst <= bound) }') ||
        fail "$4: losses of $1 and $2 are $apart apart, not within $3"
}

floats() {
    tail -c +$((9 + $(od -An -tu8 -N8 "$1"))) "$1" | od -An -v -w4 -tf4
}

# near_weights A B BOUND WHAT: of two exported models, absolute; sets apart
near_weights() {
    apart=$(paste <(floats "$1") <(floats "$2") | awk -v bound="$3" '
        NF != 2 { exit 1 }
        { d = $1 - $2; d = d < 0 ? -d : d; if (!(d <= worst)) worst = d }
        END { printf "%.1e", worst; exit !(NR > 0 && worst <= bound) }') ||
        fail "$4: weights of $1 and $2 are $apart apart, not within $3"
}

# --- the reference

n=0
for case in "$cases"/*/; do
    "$MBUYU" verify "$case" "$case/golden.safetensors" --device cuda >out 2>&1 ||
        fail "verify $(basename "$case"): $(cat out)"
    [ "$(grep -cE '^ *(logits|loss|gradients|losses|parameters) *ok ' out)" = 5 ] ||
        fail "verify $(basename "$case"): $(cat out)"
    grep -q 'emulator' out || fail "verify $(basename "$case") ran elsewhere: $(cat out)"
    n=$((n + 1))
done
[ $n -ge 33 ] || fail "$n reference cases, not 33 or more"
printf 'verify: %d cases, %s s\n' $n "$(since "$begin")"

# --- exact reduction: the same bits. NAME RANKS STAGE [ENVIRONMENT or KEY]...

runs=('llama 2 2' 'llama 4 3' 'lora 4 1' 'lora 2 3 gradient_checkpointing=true' 'gpt2 2 1' 'gpt2 3 3'
    'classes 2 2' 'classes 4 3' 'deep 3 3' 'deep 2 2 gradient_checkpointing=true'
    'llama16 3 3' 'llama 4 3 dp_shard_size=2' 'deep 4 1 dp_shard_size=2' 'gpt2 1 1 MBUYU_EMU_SEED=7' 'llama 2 1 MBUYU_EMU_SEED=11')
if [ "$long" = 1 ]; then
    for name in "${!keys[@]}"; do
        for ranks in 1 2 3 4; do
            for stage in 0 1 2 3; do
                runs+=("$name $ranks $stage")
            done
        done
        runs+=("$name 4 "{1,2,3}" dp_shard_size=2")
        for seed in 1 2 3 4 5; do
            runs+=("$name $((seed % 4 + 1)) $((seed % 3 + 1)) MBUYU_EMU_SEED=$seed")
        done
        runs+=("$name 3 3 gradient_checkpointing=true" "$name 1 2 gradient_checkpointing=true")
    done
fi

begin=$(seconds)
for name in llama llama16 lora gpt2 classes deep; do
    one "$name" "$name" 1 reduction=exact zero_stage=1
    [ "$(grep -c /optim/ "$name/state")" -gt 0 ] || fail "$name: no optimizer state"
done
for run in "${runs[@]}"; do
    read -ra word <<<"$run"
    more=("${word[@]:3}")
    seed=
    [[ ${more[*]} == MBUYU_EMU_SEED=* ]] && seed=${more[0]#*=} more=()
    out=${run// /-}
    MBUYU_EMU_SEED=$seed one "${word[0]}" "$out" "${word[1]}" reduction=exact zero_stage="${word[2]}" "${more[@]}" \
        overwrite_output_dir=true
    same_run "${word[0]}" "$out" "$run"
done
printf 'exact: %d runs have the bits of one rank at stage 1, %s s\n' ${#runs[@]} "$(since "$begin")"

# --- bytes sent

begin=$(seconds)
sends=('2 1 exact full' '3 2 exact lora' '4 3 default full' '2 3 exact lora' '4 1 exact full dp_shard_size=2'
    '4 3 exact full dp_shard_size=2')
if [ "$long" = 1 ]; then
    sends=()
    for ranks in 2 3 4; do
        for stage in 0 1 2 3; do
            sends+=("$ranks $stage "{exact,default}' '{full,lora})
        done
    done
fi
for run in "${sends[@]}"; do
    read -ra word <<<"$run"
    MBUYU_LOG=debug must_train "${word[0]}" "${common[@]}" model_name_or_path=deep add_eos=true device=cuda \
        global_batch_size=7 logging_steps=100 save_strategy=no eval_strategy=no zero_stage="${word[1]}" \
        reduction="${word[2]}" finetuning_type="${word[3]}" output_dir=bytes overwrite_output_dir=true "${word[@]:4}"
    bytes_as_said "${word[0]}" 4 "bytes sent, $run"
done
printf 'bytes sent: %d runs send what the formula says, %s s\n' ${#sends[@]} "$(since "$begin")"

# --- default reduction, and the CPU: within rounding

begin=$(seconds)
keys[classes]+=' bf16=false fp16=false'
for name in llama classes; do
    one "$name" "$name-cpu" 1 reduction=exact device=cpu
    [ $name = llama ] || one "$name" "$name-f32" 2 reduction=exact
    near "$name$([ $name = llama ] || echo -f32)" "$name-cpu" 1e-5 "$name, exact, GPU and CPU"
    printf '%s: GPU and CPU %s apart, ' "$name" "$apart"
    one "$name" "$name-default-cpu" 2 reduction=default device=cpu
    one "$name" "$name-default" 1 reduction=default
    for run in '2 1' '4 3'; do
        one "$name" "$name-default-${run/ /-}" "${run% *}" reduction=default zero_stage="${run#* }"
        near "$name-default" "$name-default-${run/ /-}" 1e-5 "$name, default, on 1 and ${run% *} ranks"
        printf 'default 1 and %d ranks %s, ' "${run% *}" "$apart"
        near "$name-default-cpu" "$name-default-${run/ /-}" 1e-5 "$name, default, CPU and ${run% *} GPUs"
        printf 'from the CPU %s, ' "$apart"
    done
    echo 'all within 1e-5'
done
printf 'default: %s s\n' "$(since "$begin")"

# --- checkpoints between CPU and GPU, stopped half way; the run nobody disturbed is the other kind's

begin=$(seconds)
cross() { # cross FROM DEVICE RANKS STAGE OUT KEY...: goes on behind step 2 of a copy of FROM
    local more dir=$5
    cp -r "$1" "$dir"
    rm -r "$dir/checkpoint-000004" "$dir/final"
    read -ra more <<<"${keys[llama]} device=$2 zero_stage=$4"
    MBUYU_LOG=info must_train "$3" "${common[@]}" "${more[@]}" reduction=exact output_dir="$dir" \
        resume_from_checkpoint=auto "${@:6}"
    cat <(state "$dir/checkpoint-000002") <(state "$dir/checkpoint-000004") >"$dir/state"
    grep -q 'resuming from .*(step 2,' log || fail "$dir: not resumed: $(cat log)"
}

one llama cpu 2 reduction=exact zero_stage=3 device=cpu
same_run llama-cpu cpu 'the CPU on 1 and 2 ranks'
cmp -s llama/state cpu/state && fail 'GPU and CPU give the same bits: was it the GPU?'
for way in 'cpu cuda 3 2' 'llama cpu 4 3' 'llama-4-3-dp_shard_size=2 cpu 1 1' 'llama-cpu cuda 2 3'; do
    read -ra word <<<"$way"
    out=cross-${way// /-}
    cross "${word[@]}" "$out"
    grep -q 'was saved on other hardware (.*mbuyu emulator, sm_80.*): the run goes on' log ||
        fail "$way: the hardware changed and nobody says so: $(cat log)"
    near cpu "$out" 1e-5 "$way"
    near_weights cpu/final/model.safetensors "$out/final/model.safetensors" 5e-5 "$way"
    printf 'from %s on %s, %d ranks at stage %d: weights %s apart at the end\n' "${word[@]}" "$apart"
done
for way in 'llama-4-3 cuda 1 2' 'llama cuda 3 3'; do # on the GPU from end to end: the same bits
    read -ra word <<<"$way"
    cross "${word[@]}" "same-${way// /-}" resume_strict=true
    grep -q 'other hardware' log && fail "$way: it is the same hardware: $(cat log)"
    same_run llama "same-${way// /-}" "$way"
done
# refused DIRECTORY LEFT CODE PATTERN RANKS KEY...: one sentence; then only LEFT is in the directory
refused() {
    local dir=$1 left=$2 code=$3 pattern=$4 ranks=$5 got more
    shift 5
    read -ra more <<<"${keys[llama]}"
    train "$ranks" "${common[@]}" "${more[@]}" device=cuda output_dir="$dir" "$@"
    got=$?
    [ $got = "$code" ] || fail "exit code $got, not $code, where expected '$pattern': $(cat log)"
    [ "$(grep -c 'mbuyu: ' log)" = 1 ] || fail "not one sentence: $(cat log)"
    grep -qE "mbuyu: .*$pattern" log || fail "no '$pattern' in: $(cat log)"
    got=$([ ! -d "$dir" ] || find "$dir" -mindepth 1 -maxdepth 1 -printf '%f\n' | sort | tr '\n' ' ')
    [ "$got" = "$left" ] || fail "'$got' in the folder, not '$left', where expected '$pattern'"
}
cp -r cpu strict
rm -r strict/checkpoint-000004
refused strict "$(find strict -mindepth 1 -maxdepth 1 -printf '%f\n' | sort | tr '\n' ' ')" 2 \
    'other hardware .* resume_strict is set' 2 reduction=exact resume_from_checkpoint=auto resume_strict=true
printf 'checkpoints: %s s\n' "$(since "$begin")"

# --- a dependency between streams that is forgotten is noticed: a planted fault in every step. Streams in
# order of creation: 1 compute, 2 comm. Other bits, or an error, under one of a few seeds.

begin=$(seconds)
# remembers SEED FORGOTTEN: the run ends well and with the bits it should have
remembers() {
    local more
    read -ra more <<<"${keys[deep]}"
    rm -rf forgot
    MBUYU_EMU_SEED=$1 MBUYU_EMU_FORGET=$2 train 2 "${common[@]}" "${more[@]}" device=cuda \
        reduction=exact zero_stage=3 comm_timeout=20 output_dir=forgot &&
        cmp -s deep/final/model.safetensors forgot/final/model.safetensors
}
for seed in 1 2; do
    remembers $seed '' || fail "nothing is forgotten, and the run is another (seed $seed): $(cat log)"
done
for forgotten in 12 21; do
    noticed=
    for seed in 1 2 3 4 5; do
        remembers $seed $forgotten || noticed=$seed
        [ -z "$noticed" ] || break
    done
    [ -n "$noticed" ] || fail "nobody notices that stream ${forgotten:0:1} never waits for stream ${forgotten:1}"
done
printf 'forgotten edges between streams: both ways noticed, %s s\n' "$(since "$begin")"

# --- wrong requests

begin=$(seconds)
plugin=$MBUYU_CUDA_LIBRARY
mkdir alone
cp "$MBUYU" alone # where no plug-in is beside it
MBUYU_CUDA_LIBRARY='' MBUYU=$work/alone/mbuyu refused bad '' 4 'built without CUDA' 2
MBUYU_CUDA_LIBRARY=$MBUYU_NCCL_LIBRARY refused bad '' 4 'not a back end of mbuyu' 2
MBUYU_CUDA_LIBRARY=$rows refused bad '' 4 'unequal.jsonl cannot be loaded' 1
MBUYU_CUDA_LIBRARY=$work/none.so refused bad '' 4 'none.so cannot be loaded' 1
MBUYU_EMU_DEVICES=1 refused bad '' 4 'process 1 of this node has no GPU of its own' 2
MBUYU_EMU_DEVICES=0 refused bad '' 4 'no GPU' 1
MBUYU_EMU_DRIVER=11000 refused bad '' 4 'driver is too old' 1
MBUYU_NCCL_LIBRARY=$work/none.so refused bad '' 4 'several GPUs need NCCL' 2
MBUYU_EMU_MEMORY=4194304 refused bad '' 5 'needs [0-9]+ MiB on each GPU, [0-9]+ of 4 MiB.*mbuyu plan' 2
MBUYU_EMU_MEMORY=4194304 refused bad '' 5 'needs [0-9]+ MiB on each GPU' 1
grep -q zero_stage log && fail "there is nothing to share on one rank: $(cat log)"
refused bad '' 2 "device is the text 'gpu'" 1 device=gpu
"$MBUYU" verify "$cases/llama" "$cases/llama/golden.safetensors" --device gpu >out 2>log
[ $? = 2 ] || fail "verify on a gpu: $(cat log)"
MBUYU_EMU_DEVICES=0 "$MBUYU" verify "$cases/llama" "$cases/llama/golden.safetensors" --device cuda >out 2>log
[ $? = 4 ] || fail "verify without a GPU: $(cat log)"
MBUYU_CUDA_LIBRARY=$work/none.so one llama auto 1 reduction=exact device=auto # then the CPU it is
same_run llama-cpu auto 'auto without a GPU'
MBUYU_CUDA_LIBRARY=$plugin one llama auto-gpu 2 reduction=exact device=auto
same_run llama auto-gpu 'auto with a GPU'
printf 'wrong requests: %s s\n' "$(since "$begin")"
finish
