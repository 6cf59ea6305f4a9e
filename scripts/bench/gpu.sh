#!/usr/bin/env bash
# gpu.sh [--rounds N] [--steps N] [--rows "G1 G3 ..."] [--limit SECONDS] [--no-torch] [--tiny]
#        [--emulated] - mbuyu against PyTorch on this GPU, as tables in Markdown.
#
#     F1 F3      f32 without TF32: GPT-2 124M, all weights; the shape of Llama-3.2-1B, LoRA r16
#     G1         GPT-2 124M, rows of 1024 tokens, bf16
#     G2 G3      the shape of Llama-3.2-1B in bf16: all weights, LoRA r16 on all linear layers
#     G4         the shape of Llama-3-8B, LoRA r16, bf16; QLoRA
#     G5         fp8 over bf16
#     G6         attention, forward and backward, against cuDNN through PyTorch
#     G7         kernels that memory limits, as a share of what a copy reaches
#     G8         short rows of unequal length, packed, against rows padded to the longest of a batch
#
# Both sides take turns, N rounds (5) of N steps (10); weights and tokens are random, the shapes the
# same. A round of mbuyu is a run of its own, whose first N steps do not count; PyTorch's process
# stays and is warm. Middle, least and most of the rounds are printed. What mbuyu cannot do yet is
# printed as such. PyTorch: autocast over f32 weights, for LoRA over frozen bf16 weights, SDPA,
# fused AdamW, compiled where that works.
#
# MBUYU is the program, MB_HELPERS the folder of make_model and bench_device, MB_PEERS a Python with
# torch, transformers and peft; a python3 on PATH otherwise. --emulated: numbers are not printed.
# The exit status says whether every row that can be measured was.
set -uo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
root=$(cd "$here/../.." && pwd)
mbuyu=${MBUYU:-$root/build/mbuyu}
helpers=${MB_HELPERS:-$(dirname "$mbuyu")/tests}

rounds=5 steps=10 rows='F1 F3 G1 G2 G3 G4 G5 G6 G7 G8' limit=1500 torch=1 tiny=0 emulated=0
while [ $# -gt 0 ]; do
    case $1 in
    --rounds) rounds=$2 && shift ;;
    --steps) steps=$2 && shift ;;
    --rows) rows=$2 && shift ;;
    --limit) limit=$2 && shift ;;
    --no-torch) torch=0 ;;
    --tiny) tiny=1 ;;
    --emulated) emulated=1 ;;
    *)
        echo "gpu.sh: unknown option $1" >&2
        exit 2
        ;;
    esac
    shift
done
[ "$tiny" -eq 0 ] || steps=1
work=$(mktemp -d)
peer_process='' failures=0
end() {
    [ -z "$peer_process" ] || kill "$peer_process" 2>/dev/null
    rm -rf "$work"
}
trap end EXIT
mkdir "$work/rates"
export MBUYU_CACHE=$work/cache MBUYU_LOG=warn

say() {
    printf '%s\n' "$*" >&2
}

left() {
    echo $((limit - SECONDS))
}

wanted() {
    [[ " $rows " == *" $1 "* ]]
}

# --- PyTorch

# it keeps its libraries where mbuyu comes with its own (scripts/gpu_check.sh in a bundle)
outside=(env "LD_LIBRARY_PATH=${MB_OUTER_LIBRARY_PATH-${LD_LIBRARY_PATH:-}}")
find_torch() {
    local python
    while read -r python; do
        "${outside[@]}" "$python" -c 'import torch, transformers; assert torch.cuda.is_available()' 2>/dev/null &&
            echo "$python" && return
    done < <([ -n "${MB_PEERS:-}" ] && echo "$MB_PEERS"; type -ap python3 python | awk '!seen[$0]++')
    return 1
}

peers=''
if [ "$torch" -eq 1 ]; then
    peers=$(find_torch) || torch=0
fi
peer=("${outside[@]}" "$peers" "$here/gpu_peer.py")

# --- models and rows

# shape NAME: a config.json, a tokenizer of as many words as it has rows of the embedding, weights
shape() {
    local folder=$work/$1 words
    [ -f "$folder/model.safetensors" ] && return
    mkdir -p "$folder"
    config "$1" >"$folder/config.json"
    words=$(sed -nE 's/.*"vocab_size": ([0-9]+).*/\1/p' "$folder/config.json")
    awk -v n="$words" 'BEGIN {
        printf "{\"version\": \"1.0\", \"added_tokens\": [], \"normalizer\": null, "
        printf "\"pre_tokenizer\": {\"type\": \"WhitespaceSplit\"}, \"post_processor\": null, "
        printf "\"decoder\": null, \"model\": {\"type\": \"WordPiece\", \"unk_token\": \"[UNK]\", "
        printf "\"continuing_subword_prefix\": \"##\", \"vocab\": {\"[UNK]\": 0"
        for (i = 1; i < n; i++)
            printf ", \"w%d\": %d", i, i
        print "}}}"
    }' >"$folder/tokenizer.json"
    say "  random weights of $1"
    "$helpers/make_model" "$folder" bf16 >&2
}

config() {
    local llama='"architectures": ["LlamaForCausalLM"], "model_type": "llama", "attention_bias": false,
 "mlp_bias": false, "hidden_act": "silu", "rms_norm_eps": 1e-05, "rope_theta": 500000.0,
 "max_position_embeddings": 8192, "num_key_value_heads": 8, "head_dim": '
    case $1 in
    gpt2 | tiny)
        local of='"n_embd": 768, "n_head": 12, "n_layer": 12, "n_positions": 1024,
 "vocab_size": 50257'
        [ "$1" = gpt2 ] || of='"n_embd": 64, "n_head": 4, "n_layer": 1, "n_positions": 64,
 "vocab_size": 384'
        printf '{"architectures": ["GPT2LMHeadModel"], "model_type": "gpt2", "activation_function": "gelu_new",
 "attn_pdrop": 0.0, "embd_pdrop": 0.0, "resid_pdrop": 0.0, "layer_norm_epsilon": 1e-05,
 "bos_token_id": 0, "eos_token_id": 0, "tie_word_embeddings": true,
 %s}\n' "$of"
        ;;
    llama-1b)
        printf '{%s64, "hidden_size": 2048, "intermediate_size": 8192, "num_hidden_layers": 16,
 "num_attention_heads": 32, "bos_token_id": 0, "eos_token_id": 0, "tie_word_embeddings": true,
 "vocab_size": 128256}\n' "$llama"
        ;;
    llama-8b)
        printf '{%s128, "hidden_size": 4096, "intermediate_size": 14336, "num_hidden_layers": 32,
 "num_attention_heads": 32, "bos_token_id": 0, "eos_token_id": 0, "tie_word_embeddings": false,
 "vocab_size": 128256}\n' "$llama"
        ;;
    esac
}

# words COUNT LENGTH VOCABULARY FILE: rows of random words; LENGTH 0: as unequal as instructions with
# their answers are (log-normal, middle 90, from 16 to 1024)
words() {
    awk -v rows="$1" -v length_="$2" -v n="$3" 'BEGIN {
        srand(1)
        for (r = 0; r < rows; r++) {
            l = length_
            if (l == 0) {
                z = sqrt(-2 * log(1 - rand())) * cos(6.2831853 * rand())
                l = int(exp(log(90) + 0.8 * z))
                l = l < 16 ? 16 : l > 1024 ? 1024 : l
            }
            printf "{\"text\": \""
            for (i = 0; i < l; i++)
                printf "%sw%d", i ? " " : "", 1 + int(rand() * (n - 1))
            print "\"}"
        }
    }' >"$4"
}

# --- one side, one round

# ours NAME SHAPE FILE KEYS...: a run; adds a line to rates/NAME.mbuyu
ours() {
    local name=$1 shape=$2 file=$3 rate
    shift 3
    rm -rf "$work/run"
    timeout "$(($(left) + 1))" "$mbuyu" train "model_name_or_path=$work/$shape" "datasets=[\"$file\"]" \
        "output_dir=$work/run" device=cuda stage=pt train_on=all add_bos=false add_eos=false \
        "max_steps=$((2 * steps))" "logging_steps=$steps" num_train_epochs=1000 save_strategy=no \
        learning_rate=1e-4 lr_scheduler_type=constant weight_decay=0 max_grad_norm=1.0 \
        lora_r=16 lora_alpha=32 lora_dropout=0.0 lora_target_modules=all-linear \
        export_dtype=bf16 'report_to=[jsonl]' "$@" >"$work/log" 2>&1 || {
        tail -n 5 "$work/log" >&2
        return 1
    }
    rate=$(grep '"loss"' "$work/run/logs/train.jsonl" | tail -n 1 |
        sed -nE 's/.*"tokens_per_second":([0-9.eE+]+).*/\1/p')
    rm -rf "$work/run"
    [ -n "$rate" ] && echo "$rate" >>"$work/rates/$name.mbuyu"
}

# theirs_start NAME ARGUMENTS...: PyTorch's process, warm; theirs NAME: a round of it
theirs_start() {
    local name=$1 answer
    shift
    mkfifo "$work/ask" "$work/answer"
    "${peer[@]}" train "$@" --steps "$steps" <"$work/ask" >"$work/answer" 2>"$work/peer.log" &
    peer_process=$!
    exec 8>"$work/ask" 9<"$work/answer"
    if ! read -r -t "$(left)" answer <&9 || [[ $answer != ready* ]]; then
        tail -n 3 "$work/peer.log" >&2
        theirs_end
        return 1
    fi
    echo "${answer#ready }" >"$work/rates/$name.how"
}

theirs() {
    local answer
    echo go >&8
    read -r -t "$(left)" answer <&9 && [[ $answer == rate* ]] || return 1
    echo "${answer#rate }" >>"$work/rates/$1.torch"
}

theirs_end() {
    exec 8>&- 9<&-
    [ -z "$peer_process" ] || kill "$peer_process" 2>/dev/null
    peer_process=''
    rm -f "$work/ask" "$work/answer"
}

# --- numbers

# summary FILE: "middle (least to most)"
summary() {
    [ -s "$1" ] || return 1
    if [ "$emulated" -eq 1 ]; then
        echo 'ran'
        return
    fi
    sort -n "$1" | awk '{ x[NR] = $1 } END {
        m = NR % 2 ? x[(NR + 1) / 2] : (x[NR / 2] + x[NR / 2 + 1]) / 2
        printf "%.0f (%.0f to %.0f, %d)", m, x[1], x[NR], NR }'
}

middle() {
    sort -n "$1" 2>/dev/null | awk '{ x[NR] = $1 } END {
        if (NR) print NR % 2 ? x[(NR + 1) / 2] : (x[NR / 2] + x[NR / 2 + 1]) / 2 }'
}

# ratio FILE FILE
ratio() {
    [ -s "$1" ] && [ -s "$2" ] && [ "$emulated" -eq 0 ] &&
        awk -v a="$(middle "$1")" -v b="$(middle "$2")" 'BEGIN { printf "%.2f", a / b }'
}

line() { # line ID WHAT OURS THEIRS RATIO GOAL
    printf '| %s | %s | %s | %s | %s | %s |\n' "$@"
}

not_yet() { # not_yet ID WHAT GOAL
    line "$1" "$2" 'not there yet' '' '' "$3"
}

missed() { # a measurement that should have been
    failures=$((failures + 1))
    say "gpu.sh: $*"
}

# 16-bit training is a key of the recipe; a version without it says so there
has_bf16() {
    ! "$mbuyu" help keys | grep -q 'this version computes in float32'
}

# training ID WHAT SHAPE TYPE FULL|LORA LENGTH BATCH GOAL: both sides in turns, one line
training() {
    local id=$1 what=$2 shape=$3 type=$4 kind=$5 length=$6 batch=$7 goal=$8
    local lora=0 keys=(finetuning_type=full) vocabulary i how='' theirs_too=$torch
    wanted "$id" || return 0
    if [ "$type" = bf16 ] && ! has_bf16; then
        not_yet "$id" "$what" "$goal"
        return
    fi
    if [ "$(left)" -lt 30 ]; then
        line "$id" "$what" 'not measured: no time left' '' '' "$goal"
        return
    fi
    say "$id: $what"
    [ "$kind" = full ] || { lora=16 && keys=(finetuning_type=lora); }
    keys+=(packing=false "max_length=$length" "per_device_train_batch_size=$batch" "bf16=$([ "$type" = bf16 ] && echo true || echo false)")
    shape "$shape" || { missed "$id: no model" && line "$id" "$what" failed '' '' "$goal" && return; }
    vocabulary=$(sed -nE 's/.*"vocab_size": ([0-9]+).*/\1/p' "$work/$shape/config.json")
    words $((2 * steps * batch)) "$length" "$vocabulary" "$work/$id.jsonl"
    if [ "$theirs_too" -eq 1 ]; then
        theirs_start "$id" --config "$work/$shape" --dtype "$type" --lora "$lora" --batch "$batch" \
            --seq "$length" || { theirs_too=0 && missed "$id: PyTorch failed"; }
    fi
    for ((i = 1; i <= rounds && $(left) > 5; i++)); do
        say "  round $i of $rounds, $(left) s left"
        ours "$id" "$shape" "$work/$id.jsonl" "${keys[@]}" || { missed "$id: mbuyu failed" && break; }
        [ "$theirs_too" -eq 0 ] || theirs "$id" || { missed "$id: PyTorch failed" && break; }
    done
    [ "$theirs_too" -eq 0 ] || theirs_end
    how=$(cat "$work/rates/$id.how" 2>/dev/null)
    line "$id" "$what" "$(summary "$work/rates/$id.mbuyu" || echo failed)" \
        "$(summary "$work/rates/$id.torch" || echo 'not measured')${how:+ $how}" \
        "$(ratio "$work/rates/$id.mbuyu" "$work/rates/$id.torch")" "$goal"
}

packing() {
    local what='Llama-3.2-1B shape, LoRA r16, unequal rows: packed into 2048 / padded' goal='2'
    local shape=llama-1b length=2048 batch=4 type=f32 i n=3000 keys theirs_too=$torch
    wanted G8 || return 0
    [ "$(left)" -ge 30 ] || { line G8 "$what" 'not measured: no time left' '' '' "$goal" && return; }
    say "G8: $what"
    if has_bf16; then type=bf16; fi
    if [ "$tiny" -eq 1 ]; then
        shape=tiny length=64 batch=1 n=20
    fi
    shape "$shape" || { missed 'G8: no model' && return; }
    words $n 0 "$(sed -nE 's/.*"vocab_size": ([0-9]+).*/\1/p' "$work/$shape/config.json")" "$work/G8.jsonl"
    keys=(finetuning_type=lora "max_length=$length" "bf16=$([ $type = bf16 ] && echo true || echo false)")
    if [ "$theirs_too" -eq 1 ]; then
        theirs_start G8 --config "$work/$shape" --dtype "$type" --lora 16 --batch $((4 * batch)) \
            --seq "$length" --padded "$work/G8.jsonl" || { theirs_too=0 && missed 'G8: PyTorch failed'; }
    fi
    for ((i = 1; i <= rounds && $(left) > 5; i++)); do
        say "  round $i of $rounds, $(left) s left"
        if ! ours G8 "$shape" "$work/G8.jsonl" "${keys[@]}" packing=true "per_device_train_batch_size=$batch" ||
            ! ours G8-rows "$shape" "$work/G8.jsonl" "${keys[@]}" packing=false \
                "per_device_train_batch_size=$((4 * batch))"; then
            missed 'G8: mbuyu failed'
            break
        fi
        [ "$theirs_too" -eq 0 ] || theirs G8 || { missed 'G8: PyTorch failed' && break; }
    done
    [ "$theirs_too" -eq 0 ] || theirs_end
    line G8 "$what, $type" "$(summary "$work/rates/G8.mbuyu" || echo failed)" \
        "$(summary "$work/rates/G8.torch" || echo 'not measured') padded" \
        "$(ratio "$work/rates/G8.mbuyu" "$work/rates/G8.torch")" "$goal"
    line G8 "the same, mbuyu without packing (rows end to end, no padding)" \
        "$(summary "$work/rates/G8-rows.mbuyu" || echo failed)" '' '' ''
}

attention() {
    local direction length ours_ theirs_ least_ most_
    wanted G6 || return 0
    say 'G6: attention'
    : >"$work/peer-attention"
    timeout "$(($(left) + 1))" "$helpers/bench_device" attention --rounds $((rounds + 2)) \
        ${small:+--tiny} >"$work/attention" 2>"$work/log" ||
        { missed "G6: $(tail -n 1 "$work/log")"; }
    [ "$torch" -eq 0 ] || "${peer[@]}" attention --rounds $((rounds + 2)) >"$work/peer-attention" 2>"$work/peer.log" ||
        missed "G6: PyTorch: $(tail -n 1 "$work/peer.log")"
    printf '\nG6: milliseconds, bf16, causal, 8192 tokens in rows of T, 32 heads over 8 of 128; goal: own / cuDNN at least 45 %% of its speed\n\n'
    printf '| T | direction | mbuyu ms (least to most) | cuDNN ms (least to most) | speed over cuDNN |\n|---|---|---|---|---|\n'
    while read -r _ direction length ours_ least_ most_; do
        theirs_=$(awk -v d="$direction" -v t="$length" '$2 == d && $3 == t { print $4, $5, $6 }' "$work/peer-attention")
        if [ "$emulated" -eq 1 ]; then
            printf '| %s | %s | ran | | |\n' "$length" "$direction"
            continue
        fi
        # shellcheck disable=SC2086 # three numbers
        printf '| %s | %s | %s (%s to %s) | %s | %s |\n' "$length" "$direction" "$ours_" "$least_" "$most_" \
            "$([ -n "$theirs_" ] && printf '%s (%s to %s)' $theirs_ || echo 'not measured')" \
            "$([ -n "$theirs_" ] && awk -v a="$ours_" -v b="${theirs_%% *}" 'BEGIN { printf "%.2f", b / a }')"
    done < <(grep ^attention "$work/attention")
}

memory_bound() {
    wanted G7 || return 0
    say 'G7: kernels'
    timeout "$(($(left) + 1))" "$helpers/bench_device" copy kernels --rounds $((rounds + 2)) \
        ${small:+--tiny} >"$work/kernels" 2>"$work/log" || missed "G7: $(tail -n 1 "$work/log")"
    printf '\nG7: GB/s of kernels that memory limits; goal: 75 %% of a copy\n\n'
    printf '| kernel | type | GB/s (least to most) | share of a copy |\n|---|---|---|---|\n'
    awk -v emulated="$emulated" '
        emulated && ($1 == "copy" || $1 == "kernel") { printf "| %s | %s | ran | |\n", $2, $1 == "copy" ? "" : $3; next }
        $1 == "copy" { copy = $3; printf "| copy, device to device | | %s (%s to %s) | |\n", $3, $4, $5 }
        $1 == "kernel" { printf "| %s | %s | %s (%s to %s) | %.2f |\n", $2, $3, $4, $5, $6, $4 / copy }' "$work/kernels"
}

small=''
[ "$tiny" -eq 0 ] || small=1
"$mbuyu" version
[ "$torch" -eq 0 ] || "${peer[@]}" versions
[ "$torch" -eq 1 ] || echo 'PyTorch: not used, no comparison'
[ "$emulated" -eq 0 ] || echo 'Emulated device: this shows that the benchmark runs. There is no measurement in it.'
printf '\n%s rounds of %s steps in turns; tokens/s: middle (least to most, rounds)\n\n' "$rounds" "$steps"
printf '| row | what | mbuyu tokens/s | PyTorch tokens/s | ratio | goal |\n|---|---|---|---|---|---|\n'
if [ "$tiny" -eq 1 ]; then
    training F1 'a tiny GPT-2, f32' tiny f32 full 32 2 'none'
    training G1 'a tiny GPT-2, bf16' tiny bf16 full 32 2 'none'
else
    training F1 'GPT-2 124M, all weights, 16 x 1024, f32 without TF32' gpt2 f32 full 1024 16 'none'
    training G1 'GPT-2 124M, all weights, 16 x 1024, bf16' gpt2 bf16 full 1024 16 'ratio 1.0'
    training G2 'Llama-3.2-1B shape, all weights, 4 x 2048, bf16' llama-1b bf16 full 2048 4 '45000 tokens/s (H100)'
    training G3 'Llama-3.2-1B shape, LoRA r16, 4 x 2048, bf16' llama-1b bf16 lora 2048 4 '55000 tokens/s (H100), ratio 1.2'
    training F3 'Llama-3.2-1B shape, LoRA r16, 4 x 2048, f32 without TF32' llama-1b f32 lora 2048 4 'none'
fi
packing
[ "$tiny" -eq 1 ] || training G4 'Llama-3-8B shape, LoRA r16, 2 x 2048, bf16' llama-8b bf16 lora 2048 2 '9400 tokens/s (H100)'
wanted G4 && not_yet G4 'the same, QLoRA: speed and peak memory' 'at most 15 % slower, 10 GB'
wanted G5 && not_yet G5 'fp8 over bf16' 'none'
attention
memory_bound
[ $failures -eq 0 ]
