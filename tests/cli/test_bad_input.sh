#!/usr/bin/env bash
# tests/cli/test_bad_input.sh - what people and disks get wrong: recipes, data, models, folders.
#
# Every case must end with its documented exit code and one line on standard error that names the
# thing and the place; under mpirun all ranks must be gone at once, with that exit code. Runs with a
# sanitized MBUYU too: a sanitizer's report fails a case.
set -u
# shellcheck source-path=SCRIPTDIR source=verbs.sh
. "$(dirname "${BASH_SOURCE[0]}")/verbs.sh"
shopt -s lastpipe # functions at the end of a pipe count in this shell
work=$(mktemp -d)
export OMP_WAIT_POLICY=passive OMP_NUM_THREADS=1 MBUYU_LOG=error
export ASAN_OPTIONS=detect_leaks=1 # of a sanitized program; MPI's plugins leave some of their own
export LSAN_OPTIONS=suppressions=$MB_TEST_DATA/../lsan.supp:print_suppressions=0
export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1
cases=$MB_TEST_DATA/reference
count=0 runner=()
other=''
trap '[ -z "$other" ] || kill -9 "$other" 2>/dev/null; rm -rf "$work"' EXIT

# judge CODE PATTERN COMMAND...: runs it; its exit code, its one sentence, its silence otherwise
judge() {
    local code=$1 pattern=$2 got
    shift 2
    count=$((count + 1))
    timeout 100 "${runner[@]}" "$@" >"$work/stdout" 2>"$work/stderr" </dev/null
    got=$?
    grep '^mbuyu: ' "$work/stderr" >"$work/sentence"
    [ $got -eq "$code" ] || fail "exit code $got, not $code: $* -> $(head -c 2000 "$work/stderr")"
    if grep -qE 'Sanitizer|runtime error:' "$work/stderr"; then
        fail "a sanitizer's report: $* -> $(head -c 4000 "$work/stderr")"
    fi
    [ "$code" -ne 0 ] || return 0
    [ "$(wc -l <"$work/sentence")" = 1 ] || fail "not one sentence: $* -> $(cat "$work/stderr")"
    [ ${#runner[@]} -gt 0 ] || [ "$(wc -l <"$work/stderr")" = 1 ] ||
        fail "more than a sentence: $* -> $(cat "$work/stderr")"
    [ "$(wc -c <"$work/sentence")" -le 1200 ] || fail "a sentence of $(wc -c <"$work/sentence") bytes: $*"
    grep -qE -e "$pattern" "$work/sentence" || fail "no '$pattern' from: $* -> $(cat "$work/sentence")"
    [ -z "${VERBOSE:-}" ] || echo "$got $(cat "$work/sentence")"
}

# Rows, models and a recipe that are in order; what a case gives comes after and wins.
for i in 1 2 3 4 5 6 7 8; do
    printf '{"prompt": "Swahili: mti %d\\nEnglish:", "completion": " tree %d"}\n' $i $i
done >"$work/rows.jsonl"
for i in 0 1 2 0 1 2 0 1; do
    echo "{\"text\": \"mti $i\", \"label\": $i}"
done >"$work/classes.jsonl"
good=(model_name_or_path="$cases/llama" datasets="$work/rows.jsonl" max_steps=2 max_length=64
    per_device_train_batch_size=2 save_strategy=no report_to=none)

# bad CODE PATTERN [key=value...]: train with these settings
bad() {
    local code=$1 pattern=$2
    shift 2
    judge "$code" "$pattern" "$MBUYU" train "${good[@]}" output_dir="$work/out-$count" "$@"
}

# file NAME: standard input into a file of that name; prints its path
file() {
    cat >"$work/$1"
    printf '%s' "$work/$1"
}

# model NAME [FROM]: a copy of a model's folder to break; prints its path
model() {
    rm -rf "${work:?}/$1"
    cp -r "$cases/${2:-llama}" "$work/$1"
    printf '%s' "$work/$1"
}

bad 0 ''

# --- recipes: keys and values
bad 2 "command line: unknown key 'learning_rat'; did you mean 'learning_rate'" learning_rat=1e-3
bad 2 "max_steps is the text 'many'" max_steps=many
bad 2 'learning_rate is the number -1, expected a number > 0' learning_rate=-1
bad 2 "task is .*'translate'|task .*translate" task=translate
bad 2 'time_limit.*soon' time_limit=soon
bad 2 'lora_r is set, but finetuning_type is full' lora_r=4
bad 2 'warmup_ratio and warmup_steps' warmup_ratio=0.1 warmup_steps=3
bad 2 'packing is for language models' task=seq-classification packing=true
bad 2 'there is nothing to evaluate on' eval_strategy=epoch
bad 2 'val_set_size is 2.5, expected a fraction below 1 or a whole number' val_set_size=2.5
bad 2 'global_batch_size 3 is not a multiple of per_device_train_batch_size 2' global_batch_size=3
bad 2 "chat_template.*klingon" chat_template=klingon
bad 2 'needs output_dir' '~output_dir'
bad 2 'needs datasets' '~datasets'
bad 2 'no recipe file .*none.yaml|there is no .*none.yaml' "$work/none.yaml"
lr=$(file aliases.yaml <<<$'lr: 1e-4\nlearning_rate: 2e-4')
bad 2 'aliases.yaml:.*learning_rate.*lr|aliases.yaml:.*lr.*learning_rate' "$lr"
bad 2 'twice.yaml:2' "$(file twice.yaml <<<$'seed: 1\nseed: 2')"
bad 2 'broken.yaml:3:3: not YAML' "$(file broken.yaml <<<$'seed: 1\nmax_steps: [1, 2\nlr: 3')"
bad 2 'bomb.yaml:1' "$(file bomb.yaml <<<$'stop: &a [x, x]\nlabel_names: [*a, *a]')"
# shellcheck disable=SC2016
bad 2 'itself' run_name='${run_name}'
bad 2 'nul.yaml' "$(printf 'seed: 1\n\x00' | file nul.yaml)"

# --- recipes: against the model
bad 2 'max_length 4096 is beyond the 128 positions of' max_length=4096
bad 2 "lora_target_modules: no module of this llama model is called 'w_proj'" finetuning_type=lora \
    lora_target_modules='[q_proj, w_proj]'
bad 2 "'\\(q_proj' is not a regular expression" finetuning_type=lora lora_target_modules="'(q_proj'"
bad 4 'lm_head|embed_tokens' finetuning_type=lora lora_target_modules='[embed_tokens]'
bad 2 "lora_modules_to_save: no module of this llama model is called 'classifier'" \
    finetuning_type=lora lora_modules_to_save='[classifier]'
bad 4 'model.embed_tokens is also the output head of this model' finetuning_type=lora \
    lora_modules_to_save='[embed_tokens]'
bad 2 '9 layers are to be trained, the model has 2' finetuning_type=freeze freeze_trainable_layers=9
bad 2 "trainable_parameters: 'nothing' matches no parameter" finetuning_type=freeze \
    trainable_parameters='[nothing]'
bad 2 "trainable_token_indices: '3-5' is none of an id" finetuning_type=trainable_tokens \
    trainable_token_indices='[3-5]'
bad 2 'trains nothing: trainable_token_indices is empty' finetuning_type=trainable_tokens
bad 2 'is for finetuning_type: lora or trainable_tokens, not full' trainable_token_indices='[5]'
bad 2 'without trainable_token_indices names no row' finetuning_type=lora trainable_token_modules='[lm_head]'
bad 2 'has rows for the ids 0 to 383, none for 384' finetuning_type=lora trainable_token_indices='[380..384]'
bad 2 'no table of tokens called q_proj' finetuning_type=lora trainable_token_indices='[5]' \
    trainable_token_modules='[q_proj]'
bad 4 'masked-lm|MaskedLM|masked' task=masked-lm stage=pt
bad 4 'classif|Sequence' task=seq-classification datasets="$work/classes.jsonl"
bad 4 'none/adapter_config.json|none' finetuning_type=lora adapter_path="$work/none"
bad 4 "lora-gpt2-conv1d/adapter-before/adapter_config.json: .*no module of this llama model is called 'c_" finetuning_type=lora \
    adapter_path="$cases/lora-gpt2-conv1d/adapter-before"
bad 2 "device is the text 'tpu', expected auto, cpu or cuda" device=tpu
MBUYU_CUDA_LIBRARY=$work/none.so bad 4 'none.so cannot be loaded' device=cuda
bad 4 'fp16: true is for GPUs' device=cpu fp16=true
bad 2 'zero_stage is the number 4' zero_stage=4

# --- data
bad 3 'there is no .*none.jsonl|none.jsonl' datasets="$work/none.jsonl"
bad 3 'empty.jsonl' datasets="$(file empty.jsonl </dev/null)"
bad 3 'lines.jsonl' datasets="$(file lines.jsonl <<<$'\n\n\n')"
bad 3 'comma.jsonl:2' datasets="$(file comma.jsonl <<<$'{"text": "a"}\n{"text": "b",}')"
bad 3 'latin.jsonl:2' datasets="$(printf '{"text": "a"}\n{"text": "caf\xe9"}\n' | file latin.jsonl)"
bad 3 'kind.jsonl:2' datasets="$(file kind.jsonl <<<$'{"prompt": "a", "completion": "b"}\n{"prompt": "a", "completion": 7}')"
bad 3 'lost.jsonl:2' datasets="$(file lost.jsonl <<<$'{"prompt": "a", "completion": "b"}\n{"prompt": "a"}')"
bad 3 'odd.jsonl' datasets="$(file odd.jsonl <<<'{"colour": "red"}')"
bad 3 'list.jsonl' datasets="$(file list.jsonl <<<'[1, 2]')"
bad 3 'deep.jsonl:1' datasets="$({ printf '{"text": '; printf '[%.0s' {1..5000}; echo; } | file deep.jsonl)"
bad 3 'masked.jsonl|no token|trained' add_eos=false \
    datasets="$(file masked.jsonl <<<$'{"prompt": "a", "completion": ""}\n{"prompt": "b", "completion": ""}')"
bad 3 'val_set_size takes 8 rows of 8' val_set_size=8 eval_strategy=epoch
bad 3 'val_set_size takes 99 rows of 8' val_set_size=99 eval_strategy=epoch
bad 3 'rows.jsonl' field_map='{prompt: question}'
bad 3 'rows.jsonl:1' excess_length_strategy=raise max_length=4
bad 3 'is a (directory|folder)|not a (regular )?file|folder' datasets="$work"
bad 3 'rows.xyz' datasets="$(file rows.xyz <"$work/rows.jsonl")"
bad 3 'words.jsonl:1' task=seq-classification model_name_or_path="$cases/bert-cls" \
    datasets="$(file words.jsonl <<<'{"text": "mti"}')"
bad 3 '3 classes, num_labels is 2' task=seq-classification model_name_or_path="$cases/bert-cls" \
    datasets="$work/classes.jsonl" num_labels=2
bad 3 '5 classes, .*bert-cls tells 3 apart' task=seq-classification model_name_or_path="$cases/bert-cls" \
    datasets="$(file five.jsonl <<<'{"text": "mti", "label": 4}')"
bad 3 'label' task=seq-classification model_name_or_path="$cases/bert-cls" label_names='[a, b, c]' \
    datasets="$(file names.jsonl <<<'{"text": "mti", "label": "d"}')"
bad 3 'minus.jsonl' task=seq-classification model_name_or_path="$cases/bert-cls" \
    datasets="$(file minus.jsonl <<<'{"text": "mti", "label": -1}')"

# --- models: folders and their small files
bad 4 'there is no model|none' model_name_or_path="$work/none"
mkdir "$work/nothing"
bad 4 'nothing' model_name_or_path="$work/nothing"
m=$(model m) && rm "$m/model.safetensors" && echo x >"$m/pytorch_model.bin"
bad 4 'pytorch_model.bin.*save_pretrained' model_name_or_path="$m"
m=$(model m) && rm "$m/model.safetensors"
bad 4 'neither model.safetensors' model_name_or_path="$m"
m=$(model m) && rm "$m/config.json"
bad 4 'config.json' model_name_or_path="$m"
m=$(model m) && echo '{"model_type": ' >"$m/config.json"
bad 4 'config.json' model_name_or_path="$m"
m=$(model m) && sed -i 's/"model_type": "llama"/"model_type": "mamba"/' "$m/config.json"
bad 4 'config.json.*mamba' model_name_or_path="$m"
m=$(model m) && sed -i 's/"num_hidden_layers": 2/"num_hidden_layers": 2000000000/' "$m/config.json"
bad 4 'config.json.*num_hidden_layers' model_name_or_path="$m"
m=$(model m) && sed -i 's/"num_attention_heads": 4/"num_attention_heads": 0/' "$m/config.json"
bad 4 'config.json' model_name_or_path="$m"
m=$(model m) && sed -i 's/"hidden_size": 64/"hidden_size": -64/' "$m/config.json"
bad 4 'config.json.*hidden_size' model_name_or_path="$m"
m=$(model m) && sed -i 's/"num_hidden_layers": 2/"num_hidden_layers": 3/' "$m/config.json"
bad 4 "tensor 'model.layers.2.* is missing" model_name_or_path="$m"
m=$(model m) && sed -i 's/"num_hidden_layers": 2/"num_hidden_layers": 1/' "$m/config.json"
bad 4 "tensor 'model.layers.1.* is unknown" model_name_or_path="$m"
m=$(model m) && sed -i 's/"vocab_size": 384/"vocab_size": 100/' "$m/config.json"
bad 4 'vocab|100' model_name_or_path="$m"
m=$(model m) && rm "$m/tokenizer.json"
bad 4 'tokenizer' model_name_or_path="$m"
m=$(model m) && rm "$m/tokenizer.json" && printf '\012\377\377\001x' >"$m/tokenizer.model"
bad 4 'tokenizer.model.*field 1 has 32767 bytes, but only 1 follow' model_name_or_path="$m"
m=$(model m) && rm "$m/tokenizer.json" && echo text >"$m/spiece.model"
bad 4 'spiece.model' model_name_or_path="$m"
m=$(model m) && echo '{"model": {"type": "BPE"' >"$m/tokenizer.json"
bad 4 'tokenizer.json' model_name_or_path="$m"
m=$(model m) && sed -i 's/"type": *"BPE"/"type": "WordLevel"/' "$m/tokenizer.json"
bad 4 'tokenizer.json.*WordLevel' model_name_or_path="$m"
m=$(model m) && head -c -4 "$m/model.safetensors" >"$m/x" && mv "$m/x" "$m/model.safetensors"
bad 4 'm/model.safetensors' model_name_or_path="$m"
m=$(model m) && mkdir "$m/shards" && mv "$m/model.safetensors" "$m/shards/"
echo '{"weight_map": {"model.norm.weight": "../m/shards/model.safetensors"}}' >"$m/model.safetensors.index.json"
bad 4 'index.json' model_name_or_path="$m"
echo '{"weight_map": {"model.norm.weight": "model-00001-of-00002.safetensors"}}' >"$m/model.safetensors.index.json"
bad 4 'model-00001-of-00002.safetensors' model_name_or_path="$m"

# --- safetensors
u64() { # u64 N: eight bytes, least first
    local n=$1 i
    for ((i = 0; i < 8; i++)); do
        # shellcheck disable=SC2059
        printf "\\x$(printf %02x $(((n >> (8 * i)) & 255)))"
    done
}
u32() {
    u64 "$1" | head -c 4
}

# safetensors CODE PATTERN HEADER [BYTES]: a file of this header and so many zeros, to train and export
safetensors() {
    { u64 ${#3} && printf '%s' "$3" && head -c "${4:-0}" /dev/zero; } >"$work/m/model.safetensors"
    broken "$1" "$2"
}

# broken CODE PATTERN: the folder m as a model
broken() {
    bad "$1" "/m(/model.safetensors)?:.*($2)" model_name_or_path="$work/m"
    judge "$1" "/m(/model.safetensors)?:.*($2)" "$MBUYU" export "$work/m" output_dir="$work/export-$count"
    [ ! -e "$work/export-$((count - 1))/model.safetensors" ] || fail "something was exported: $2"
}

m=$(model m)
: >"$m/model.safetensors"
broken 4 'too short'
{ u64 $((1 << 62)) && echo '{}'; } >"$m/model.safetensors"
broken 4 'header would have'
{ u64 -1 && echo '{}'; } >"$m/model.safetensors"
broken 4 'header would have'
{ u64 100 && echo '{}'; } >"$m/model.safetensors"
broken 4 'a header of 100 bytes in a file of'
safetensors 4 "begin with '\\{'" '[1]'
safetensors 4 'line|expected|near' '{"a":{"dtype":"F32","shape":[1]'
safetensors 4 'tensor .a.*unknown dtype .F33' '{"a":{"dtype":"F33","shape":[1],"data_offsets":[0,4]}}' 4
safetensors 4 'more than 2\^63' '{"a":{"dtype":"F32","shape":[4294967296,4294967296],"data_offsets":[0,4]}}' 4
safetensors 4 'shape' '{"a":{"dtype":"F32","shape":[-1],"data_offsets":[0,4]}}' 4
safetensors 4 'data_offsets \[0, 400\]' '{"a":{"dtype":"F32","shape":[100],"data_offsets":[0,400]}}' 4
safetensors 4 'its shape and dtype F32 need 8' '{"a":{"dtype":"F32","shape":[2],"data_offsets":[0,4]}}' 4
safetensors 4 'inside another' \
    '{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]},"b":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}' 4
safetensors 4 'nothing describes' '{"a":{"dtype":"F32","shape":[1],"data_offsets":[4,8]}}' 8
safetensors 4 'belong to none' '{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}' 5
safetensors 4 'duplicate' \
    '{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]},"a":{"dtype":"F32","shape":[1],"data_offsets":[4,8]}}' 8
safetensors 4 "tensor 'model.embed_tokens.weight' is missing" '{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}' 4

# --- GGUF
string() {
    u64 ${#1}
    printf '%s' "$1"
}
text_key() { # text_key KEY VALUE
    string "$1"
    u32 8
    string "$2"
}
head_of() { # head_of TENSORS KEYS [VERSION]
    printf 'GGUF'
    u32 "${3:-3}"
    u64 "$1"
    u64 "$2"
}

# gguf CODE PATTERN: standard input as a model, to train and to export
gguf() {
    cat >"$work/x.gguf"
    bad "$1" "x.gguf.*($2)" model_name_or_path="$work/x.gguf"
    judge "$1" "x.gguf.*($2)" "$MBUYU" export "$work/x.gguf" output_dir="$work/export-$count"
    [ ! -e "$work/export-$((count - 1))/model.safetensors" ] || fail "something was exported: $2"
}

gguf 4 'GGUF' </dev/null
gguf 4 'does not begin with' <<<'GGML and more than that'
head_of 0 0 1 | gguf 4 'version 1 is not supported'
head_of 0 0 $((3 << 24)) | gguf 4 'big-endian'
head_of 0 0 9 | gguf 4 'version 9 is unknown'
head_of $((1 << 60)) 0 | gguf 4 'do not fit in a file'
head_of 0 -1 | gguf 4 'do not fit in a file'
{ head_of 0 1 && u64 $((1 << 40)) && printf 'general.architecture'; } | gguf 4 'bytes'
{ head_of 0 1 && text_key general.architecture mamba; } | gguf 4 'mamba'
{ head_of 0 1 && text_key general.name x; } | gguf 4 "'general.architecture' is missing"
{ head_of 0 2 && text_key a x && text_key a x; } | gguf 4 "'a' is there twice"
{ head_of 0 1 && string a && u32 77 && u64 0; } | gguf 4 'unknown type 77'
{ head_of 0 1 && string a && u32 9 && u32 9 && u64 1 && u32 4 && u64 0; } | gguf 4 'array of arrays'
{ head_of 0 1 && string a && u32 9 && u32 4 && u64 $((1 << 61)) && u64 0; } | gguf 4 'would have'
{ head_of 0 2 && text_key general.architecture llama && string general.alignment && u32 4 && u32 3; } |
    gguf 4 'alignment is 3'
{ head_of 0 2 && text_key general.architecture llama && string llama.block_count && u32 4 && u32 2; } |
    gguf 4 "tensor 'token_embd.weight' is missing"
one_tensor() { # one_tensor DIMENSION TYPE OFFSET
    head_of 1 1
    text_key general.architecture llama
    string output.weight
    u32 2
    u64 "$1"
    u64 "$1"
    u32 "$2"
    u64 "$3"
    head -c 100 /dev/zero
}
one_tensor 4 0 $((1 << 50)) | gguf 4 'output.weight.*offset'
one_tensor $((1 << 33)) 0 0 | gguf 4 'output.weight.*2\^63|output.weight.*needs'
one_tensor 4 0 0 | gguf 4 "tensor 'token_embd.weight' is missing"
one_tensor 5 2 0 | gguf 4 'output.weight.*no multiple'
one_tensor 4 99 0 | gguf 4 'output.weight.*unknown type 99'

# --- where the output goes
bad 7 'file-not-folder' output_dir="$(file file-not-folder <<<'')"
bad 7 'file-not-folder' output_dir="$work/file-not-folder/out"
bad 7 '/proc/mbuyu' output_dir=/proc/mbuyu
judge 7 'file-not-folder' "$MBUYU" export "$cases/llama" output_dir="$work/file-not-folder"
judge 2 'is the base model itself' "$MBUYU" export "$work/m" model_name_or_path="$cases/llama" \
    output_dir="$cases/llama" overwrite_output_dir=true
judge 2 'needs adapter_path' "$MBUYU" merge "$cases/llama" output_dir="$work/merged"
judge 2 'needs output_dir' "$MBUYU" export "$cases/llama"

# a run that never began leaves nothing; a dry run the rows; eval and plan make no folder
bad 3 'none would be left' output_dir="$work/never" val_set_size=8 eval_strategy=epoch
bad 4 'none' output_dir="$work/never" model_name_or_path="$work/none"
bad 0 '' output_dir="$work/dry" dry_run=true
[ "$(ls -A "$work/dry")" = cache ] || fail "a dry run leaves $(ls -A "$work/dry")"
for verb in eval plan; do
    MBUYU_LOG=info "$MBUYU" $verb "${good[@]}" output_dir="$work/never" >/dev/null 2>"$work/err" || fail "$verb: $(cat "$work/err")"
    [ $verb = plan ] || grep -q 'there are no eval_datasets' "$work/err" || fail "eval does not say of what: $(cat "$work/err")"
done
[ ! -e "$work/never" ] || fail "left in a folder of no run: $(find "$work/never")"

run=$work/run
bad 0 '' output_dir="$run" save_strategy=steps save_steps=1
bad 7 'run holds checkpoints up to step 2 of an earlier run' output_dir="$run"
bad 2 'learning_rate' output_dir="$run" resume_from_checkpoint=auto max_steps=3 learning_rate=3e-3
bad 4 "run/checkpoint-000002 does not have tensor 'lm_head.weight'" output_dir="$run" resume_from_checkpoint=auto max_steps=3 \
    model_name_or_path="$cases/llama3-rope"
m=$(model m) && printf '\x01' | dd of="$m/model.safetensors" bs=1 seek=400000 conv=notrunc status=none
adapter=(output_dir="$work/adapter" finetuning_type=lora save_strategy=steps global_batch_size=4)
bad 0 '' "${adapter[@]}"
bad 4 '/m is not the base model this run was started from' "${adapter[@]}" max_steps=3 \
    resume_from_checkpoint=auto model_name_or_path="$m"
bad 7 'no-checkpoint' output_dir="$work/out-none" resume_from_checkpoint="$work/no-checkpoint"
cp -r "$run" "$work/damaged"
damaged=$work/damaged/checkpoint-000002
printf 'x' | dd of="$damaged/rank-00000-of-00001.000.h5" bs=1 seek=5000 conv=notrunc status=none
bad 7 'damaged/checkpoint-000002.*rank-00000' output_dir="$work/damaged" max_steps=3 \
    resume_from_checkpoint="$damaged"
sed -i 's/"step": 2/"step": 3/' "$damaged/manifest.json"
bad 7 'damaged/checkpoint-000002.*manifest' output_dir="$work/damaged" max_steps=3 \
    resume_from_checkpoint="$damaged"

"$MBUYU" train "${good[@]}" output_dir="$work/busy" max_steps=1000000 >/dev/null 2>&1 &
other=$!
for ((i = 0; i < 300; i++)); do
    [ -e "$work/busy/recipe.resolved.yaml" ] && break
    sleep 0.1
done
bad 7 "busy' is in use by another run" output_dir="$work/busy"
kill -9 "$other"
wait "$other" 2>/dev/null
other=''
bad 0 '' output_dir="$work/busy"
alone=$count

# --- two ranks: one sentence, the same exit code, nobody left behind
if command -v mpirun >/dev/null; then
    export ASAN_OPTIONS=detect_leaks=0
    runner=(mpirun --oversubscribe --mca mpi_yield_when_idle 1 -np 2)
    # what a rank leaves behind would still have its own folder's name in its arguments
    gone() {
        local left
        left=$(grep -las -e "output_dir=${work}[/]" /proc/[0-9]*/cmdline)
        [ -z "$left" ] || fail "ranks are left: $left"
    }
    both() {
        local start=$SECONDS
        bad "$@"
        [ $((SECONDS - start)) -le 30 ] || fail "$((SECONDS - start)) seconds: $*"
        gone
    }
    both 0 ''
    both 2 "unknown key 'learning_rat'" learning_rat=1e-3
    both 2 '2 ranks for 1 micro-batches' global_batch_size=2
    both 2 'max_length 4096 is beyond' max_length=4096
    both 2 "is called 'w_proj'" finetuning_type=lora lora_target_modules='[w_proj]'
    both 3 'comma.jsonl:2' datasets="$work/comma.jsonl"
    both 3 'latin.jsonl:2' datasets="$work/latin.jsonl"
    both 3 'val_set_size takes 8 rows of 8' val_set_size=8 eval_strategy=epoch
    both 4 'there is no model|none' model_name_or_path="$work/none"
    both 4 '/m is not the base model this run was started from' "${adapter[@]}" max_steps=3 \
        resume_from_checkpoint=auto model_name_or_path="$m"
    : >"$m/model.safetensors"
    both 4 'm/model.safetensors' model_name_or_path="$m"
    both 4 'x.gguf' model_name_or_path="$work/x.gguf"
    both 7 'file-not-folder' output_dir="$work/file-not-folder"
    both 7 '/proc/mbuyu' output_dir=/proc/mbuyu
    both 2 'learning_rate' output_dir="$run" resume_from_checkpoint=auto max_steps=3 learning_rate=3e-3
    both 7 'damaged/checkpoint-000002' output_dir="$work/damaged" max_steps=3 \
        resume_from_checkpoint="$damaged"
fi

[ $failures -eq 0 ] && echo "$alone cases alone, $((count - alone)) on two ranks: as documented"
exit $((failures > 0))
