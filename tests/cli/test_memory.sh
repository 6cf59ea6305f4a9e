#!/usr/bin/env bash
# tests/cli/test_memory.sh - the memory a run takes is the memory that was planned before it began.
#
# Anonymous and shared memory, without what libraries had before anything was made, within 3 % of the
# plan: as the trainer measures it after steps and in saves (num_peak_bytes), and as seen from outside, where
# every rank's /proc/PID/status is read all the time, to the end of the process. So it is when a model is
# loaded and when a run resumes. Steps ask for no memory. ZeRO keeps what core/flat.h says. Models of
# 28 million parameters with random weights; with MB_LONG=1 also SmolLM2 out of MB_MATERIALS.
set -u
# shellcheck source-path=SCRIPTDIR source=lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
if ldd "$MBUYU" | grep -q libasan; then
    echo 'left out: a sanitizer takes memory of its own'
    exit 0
fi
start

mkdir model
sed -e 's/"n_embd": [0-9]*/"n_embd": 512/' -e 's/"n_layer": [0-9]*/"n_layer": 6/' \
    -e 's/"n_head": [0-9]*/"n_head": 8/' -e 's/"vocab_size": [0-9]*/"vocab_size": 16384/' \
    "$MB_TEST_DATA/reference/gpt2/config.json" >model/config.json
cp "$MB_TEST_DATA/reference/gpt2/tokenizer.json" model/
"$helpers/make_model" model || fail 'no model'
mkdir classifier
sed -e 's/"hidden_size": [0-9]*/"hidden_size": 512/' -e 's/"num_hidden_layers": [0-9]*/"num_hidden_layers": 6/' \
    -e 's/"num_attention_heads": [0-9]*/"num_attention_heads": 8/' -e 's/"vocab_size": [0-9]*/"vocab_size": 16384/' \
    -e 's/"intermediate_size": [0-9]*/"intermediate_size": 2048/' \
    "$MB_TEST_DATA/reference/bert-cls/config.json" >classifier/config.json
cp "$MB_TEST_DATA"/reference/bert-cls/tokenizer*.json classifier/
"$helpers/make_model" classifier || fail 'no classifier'
rows_of_classes classes.jsonl

# watch PID: the most anonymous and shared memory it ever had, in bytes. What stood between two looks is
# seen in VmHWM, less the most that files ever had of it.
watch() {
    local key value anon shared hwm=0 file=0 most=0
    while [ -d "/proc/$1" ]; do
        anon=0 shared=0
        while read -r key value _; do
            case $key in
            VmHWM:) hwm=$value ;;
            RssAnon:) anon=$value ;;
            RssFile:) [ "$value" -gt "$file" ] && file=$value ;;
            RssShmem:) shared=$value ;;
            esac
        done <"/proc/$1/status"
        [ $((anon + shared)) -gt "$most" ] && most=$((anon + shared))
        [ $((hwm - file)) -gt "$most" ] && most=$((hwm - file))
        sleep 0.004
    done 2>/dev/null
    echo $((most * 1024))
}

number() { # number NAME: out of the last line of the log
    sed -nE '$s/.*"num_'"$1"'":([0-9]+).*/\1/p' out/logs/train.jsonl
}

# outside WHAT RANKS KEY...: a run in the folder out; sets outside, the most that any rank had
outside() {
    local what=$1 n=$2 pids=() pid launcher tries=0
    shift 2
    MBUYU_LOG=info "${mpi[@]}" -np "$n" "$MBUYU" train logging_steps=1 report_to=jsonl \
        output_dir=out "$@" >log 2>&1 &
    launcher=$!
    while [ "${#pids[@]}" -lt "$n" ] && [ $tries -lt 2000 ]; do
        read -ra pids <"/proc/$launcher/task/$launcher/children"
        tries=$((tries + 1))
        sleep 0.005
    done 2>/dev/null
    rm -f outside.*
    for pid in "${pids[@]}"; do
        watch "$pid" >"outside.$pid" &
    done
    wait "$launcher" || {
        fail "$what: exit code $?: $(tail -n 3 log)"
        outside=0
    }
    wait
    outside=$(cat outside.* | sort -n | tail -n 1)
}

# memory WHAT RANKS KEY...
memory() {
    local what=$1 n=$2 outside
    rm -rf out
    outside "$@"
    grep 'memory per rank' log
    awk -v what="$what" -v planned="$(number planned_bytes)" -v inside="$(number peak_bytes)" \
        -v libraries="$(number library_bytes)" -v outside="$outside" -v n="$n" '
        function share(x) { return 100 * (x / planned - 1) }
        function bad(x) { return x < -3 || x > 3 }
        BEGIN {
            outside -= libraries
            printf "%s, ranks %d: planned %.1f MiB, by the trainer %.1f (%+.1f %%), from outside %.1f (%+.1f %%), libraries %.1f\n",
                what, n, planned / 2^20, inside / 2^20, share(inside), outside / 2^20, share(outside),
                libraries / 2^20
            exit planned <= 0 || bad(share(inside)) || bad(share(outside))
        }' || fail "$what: more than 3 % beside the plan"
    [ "$(number step_allocations)" = 0 ] || fail "$what: $(number step_allocations) allocations in steps"
}

full=(model_name_or_path=model "datasets=[$rows]" add_eos=true max_length=120
    per_device_train_batch_size=4 global_batch_size=16 max_steps=5 save_steps=3 device=cpu bf16=false)
few=(max_steps=2 save_steps=1) # bf16 takes long where processors have no instructions for it
classes=(model_name_or_path=classifier task=seq-classification num_labels=3 'datasets=[classes.jsonl]' max_length=64
    add_eos=false)
memory 'full' 1 "${full[@]}"
memory 'full, one micro-batch a step' 1 "${full[@]}" global_batch_size=4
memory 'full, exact' 2 "${full[@]}" reduction=exact save_async=false
memory 'LoRA, recomputed' 1 "${full[@]}" finetuning_type=lora gradient_checkpointing=true
memory 'full, recomputed, no checkpoints' 2 "${full[@]}" gradient_checkpointing=true save_strategy=no
memory 'full, exact, stage 2' 2 "${full[@]}" reduction=exact zero_stage=2
memory 'full, bf16' 1 "${full[@]}" "${few[@]}" bf16=true save_strategy=no
memory 'full, bf16' 2 "${full[@]}" "${few[@]}" bf16=true
memory 'LoRA, bf16' 1 "${full[@]}" "${few[@]}" finetuning_type=lora bf16=true
memory 'classifier, bf16' 1 "${full[@]}" "${few[@]}" bf16=true "${classes[@]}" save_strategy=no
memory 'classifier, evaluated' 1 "${full[@]}" "${classes[@]}" val_set_size=20 eval_strategy=steps eval_steps=2 \
    per_device_eval_batch_size=16 gradient_checkpointing=true
memory 'full, stage 3' 4 "${full[@]}" zero_stage=3
memory 'full, moments in 8 bits' 1 "${full[@]}" optim=adamw_8bit
memory 'full, moments in bf16' 2 "${full[@]}" optim=adamw_bf16 save_async=false

# --- before the first step: a dry run loads the model, and resumes where there is a checkpoint

# planned PHASE: the total of a column of the plan in out.plan, in bytes
planned() {
    awk -v phase="$1" '
        /^ +loading/ { for (i = 1; i <= NF; i++) if ($i == phase) column = i + 1 }
        /^  total/ { gsub(/\*/, ""); printf "%.0f\n", $column * 2^20 }' out.plan
}

# before PHASE KEY...
before() {
    local phase=$1 outside
    shift
    "$MBUYU" plan "${full[@]}" "$@" >out.plan 2>log || fail "plan: $(cat log)"
    outside "$phase" 1 "${full[@]}" dry_run=true "$@"
    awk -v what="$phase, $*" -v planned="$(planned "$phase")" -v libraries="$libraries" -v outside="$outside" '
        BEGIN {
            x = 100 * ((outside - libraries) / planned - 1)
            printf "%s: planned %.1f MiB, from outside %.1f (%+.1f %%)\n", what, planned / 2^20,
                (outside - libraries) / 2^20, x
            exit !(planned > 0 && x > (what ~ /^loading/ ? -25 : -3) && x < 3) # loading: over too soon to see all
        }' || fail "$phase: more than 3 % beside the plan: $(cat out.plan)"
}

for type in false true; do
    rm -rf out
    outside "a run" 1 "${full[@]}" "${few[@]}" bf16=$type
    libraries=$(number library_bytes)
    before resuming bf16=$type max_steps=3 resume_from_checkpoint=auto
    rm -rf out
    before loading bf16=$type
done

# --- what ZeRO keeps of weights, gradients and exact sums: the own range and a window for what is
# outside the layers and for two layers (core/flat.h), to the 0.1 MiB that is printed

# sizes: of the model's f32 weights in MiB: all, outside the layers, of one layer
read -r whole outside layer < <(awk 'BEGIN { e = 512; v = 16384; p = '"$(sed -nE 's/.*"n_positions": *([0-9]+).*/\1/p' model/config.json)"'
    out = v * e + p * e + 2 * e; layer = 12 * e * e + 13 * e
    printf "%.6f %.6f %.6f\n", (out + 6 * layer) / 2^18, out / 2^18, layer / 2^18 }')
for n in 2 4; do
    for stage in 1 2 3; do
        "${mpi[@]}" -np $n "$MBUYU" plan "${full[@]}" reduction=exact zero_stage=$stage >out.plan 2>log ||
            fail "plan of stage $stage on $n ranks: $(cat log)"
        awk -v n=$n -v stage=$stage -v whole="$whole" -v outside="$outside" -v kept="$(awk "BEGIN { print $whole / $n + $outside + 2 * $layer }")" '
            /^  weights/ { weights = $3 } # in training
            /^  gradients/ { gradients = $3 }
            /^  exact sums/ { exact = $4 }
            /^  optimizer/ { optimizer = $3 }
            function near(x, y) { return x - y < 0.11 && y - x < 0.11 }
            END {
                printf "%d ranks, stage %d: weights %.1f MiB, gradients %.1f, exact %.1f, optimizer %.1f\n", n,
                    stage, weights, gradients, exact, optimizer
                # at stage 1 many gradients of layers lie where activations were
                exit !(near(weights, stage == 3 ? kept : whole) &&
                       (stage > 1 ? near(gradients, kept) : gradients > outside && gradients < 0.8 * whole) &&
                       near(exact, 2 * (stage > 1 ? kept : whole)) && near(optimizer, 2 * whole / n))
            }' out.plan || fail "the plan of stage $stage on $n ranks: $(cat out.plan)"
    done
done

smollm2=${MB_MATERIALS:-}/smollm2/SmolLM2-135M-Instruct.Q4_1.gguf
if [ "$long" = 1 ] && [ -f "$smollm2" ]; then
    memory 'SmolLM2, LoRA' 2 "${full[@]}" model_name_or_path="$smollm2" finetuning_type=lora
    memory 'SmolLM2, full' 1 "${full[@]}" model_name_or_path="$smollm2"
fi
finish
