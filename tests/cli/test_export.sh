#!/usr/bin/env bash
# tests/cli/test_export.sh - what is exported is read again and compared, or is not there.
set -u
# shellcheck source-path=SCRIPTDIR source=verbs.sh
. "$(dirname "${BASH_SOURCE[0]}")/verbs.sh"
start
m=$MBUYU ref=$MB_TEST_DATA/reference
export OMP_NUM_THREADS=1 LC_ALL=C.UTF-8 OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1

# every type, and the file is a model like others; two exports are the same file
for type in f32 f16 bf16 q8_0 q4_0 q4_1 q4_K; do
    expect 0 'read again and compared.*perplexity' -- \
        "$m" export "$ref/gpt2" output_dir="gpt2-$type" format=gguf outtype="$type"
done
expect 0 'the|is|a|.' -- "$m" generate gpt2-q8_0 prompt=Habari max_new_tokens=4
cp gpt2-q4_K/gpt2-q4_K-Q4_K_M.gguf first.gguf
OMP_NUM_THREADS=2 expect 0 'compared' -- \
    "$m" export "$ref/gpt2" output_dir=gpt2-q4_K format=gguf outtype=q4_K overwrite_output_dir=true
cmp -s first.gguf gpt2-q4_K/gpt2-q4_K-Q4_K_M.gguf || fail 'two exports differ'

# families with something of their own: halves interleaved, divisors of a rotation, two sides, a window
expect 0 'largest difference 0 ' -- "$m" export "$ref/llama" output_dir=llama format=gguf
expect 0 'compared' -- "$m" export "$ref/llama3-rope" output_dir=rope format=gguf
expect 0 'largest difference 0 ' -- "$m" export "$ref/t5" output_dir=t5 format=gguf
expect 0 'no attention window' -- "$m" export "$ref/mistral-sliding" output_dir=window format=gguf

# an adapter alone, merged, and as a folder
lora=("$ref/lora-llama" "adapter_path=$ref/lora-llama/adapter-after-10-steps")
expect 0 'largest difference 0 ' -- "$m" export "${lora[@]}" output_dir=lora format=gguf_lora
expect 0 'compared' -- "$m" export "${lora[@]}" output_dir=merged format=gguf
expect 0 'compared' -- "$m" merge "${lora[@]}" output_dir=merged-hf export_dtype=bf16
expect 0 . -- "$m" generate "$ref/lora-llama" adapter_path=lora/lora-F32.gguf prompt=Habari max_new_tokens=4
expect 4 'lora-F32.gguf is an adapter of architecture "llama", the model is gpt2' -- \
    "$m" generate "$ref/gpt2" adapter_path=lora/lora-F32.gguf prompt=Habari

# what has no place is refused by name
expect 4 'no DoRA' -- "$m" export "$ref/dora-qwen2" \
    adapter_path="$ref/dora-qwen2/adapter-after-10-steps" output_dir=none format=gguf_lora
expect 4 'no place in GGUF' -- "$m" export "$ref/bert-cls" output_dir=none format=gguf
expect 4 'has no biases' -- "$m" export "$ref/qwen3" output_dir=none format=gguf
expect 2 'q4_k is a type of GGUF' -- "$m" export "$ref/gpt2" output_dir=none outtype=q4_K
expect 2 'none is given' -- "$m" export "$ref/gpt2" output_dir=none format=gguf_lora
{ [ ! -e none ] && [ ! -e none.part ]; } || fail 'a refused export left something'

# what differs from the model is not kept: this tokenizer's normalizer has no place in the file
cp -r "$ref/t5" lower
python3 - <<'PY'
import json
t = json.load(open("lower/tokenizer.json"))
t["normalizer"] = {"type": "Lowercase"}
json.dump(t, open("lower/tokenizer.json", "w"))
PY
expect 8 'what was exported is not the model: its tokenizer' -- "$m" export lower output_dir=wrong format=gguf
{ [ ! -e wrong ] && [ ! -e wrong.part ]; } || fail 'an export that failed its check is there'
expect 0 'is in wrong' -- "$m" export lower output_dir=wrong format=gguf check=false
[ -e wrong/wrong-F32.gguf ] || fail 'check=false keeps no file'

# texts of one's own
printf 'Habari ya asubuhi\nKaribu sana\n' >texts.txt
expect 0 'compared on 2 texts' -- "$m" export "$ref/gpt2" output_dir=own check_file=texts.txt

# a run's checkpoint
for i in 1 2 3 4; do
    printf '{"text": "habari ya asubuhi %d, karibu sana"}\n' $i
done >rows.jsonl
expect 0 . -- "$m" train model_name_or_path="$ref/llama" "datasets=[rows.jsonl]" max_length=64 max_steps=2 \
    finetuning_type=lora save_steps=1 report_to=jsonl output_dir=run
expect 0 'compared' -- "$m" export run/checkpoint-000001 output_dir=at-1
[ -e at-1/final/adapter_model.safetensors ] || fail 'no adapter of a checkpoint'
expect 2 'q8_0 is a type of GGUF' -- "$m" export run/checkpoint-000001 output_dir=at-2 outtype=q8_0
expect 0 'is in at-2' -- \
    "$m" export run/checkpoint-000001 output_dir=at-2 format=gguf outtype=q8_0
[ -e at-2/at-2-Q8_0.gguf ] || fail 'no GGUF of a checkpoint'
expect 0 'is in at-3' -- "$m" export run/checkpoint-000001 output_dir=at-3 format=gguf
expect 0 'is in at-4' -- "$m" export at-1/final output_dir=at-4 format=gguf
cmp -s <(tail -c 400000 at-3/at-3-F32.gguf) <(tail -c 400000 at-4/at-4-F32.gguf) ||
    fail 'a GGUF of a checkpoint has other weights than one of its folder'
expect 0 'is in at-5' -- "$m" export run/checkpoint-000001 output_dir=at-5 format=gguf_lora
expect 2 'holds a training run' -- "$m" export run/checkpoint-000001 format=gguf
# what is not said here, and may be overwritten, is as the run's recipe says
expect 0 . -- "$m" train model_name_or_path="$ref/llama" "datasets=[rows.jsonl]" max_length=64 max_steps=1 \
    save_steps=1 report_to=jsonl output_dir='run: again' overwrite_output_dir=true export_dtype=f16
expect 0 'is in run: again' -- "$m" export 'run: again/checkpoint-000001' format=gguf
[ -e 'run: again/run: again-F16.gguf' ] || fail 'no GGUF of the type and in the place that the run has'
for left in at-*.part run*.part; do
    [ ! -e "$left" ] || fail "$left stays"
done

# rows that the run held out, of a checkpoint, of the model it left, and of its adapter; what else there is
printf '{"text": "habari za jioni"}\n{"text": "kwaheri ya kuonana, rafiki"}\n' >held.jsonl
for how in full lora; do
    expect 0 . -- "$m" train model_name_or_path="$ref/llama" "datasets=[rows.jsonl]" "eval_datasets=[held.jsonl]" \
        max_length=64 max_steps=1 finetuning_type=$how save_steps=1 report_to=jsonl output_dir=held-$how
    expect 0 'compared on 2 rows held out by .*/held-'$how', [0-9]+ places' -- \
        "$m" export held-$how/final output_dir=held-$how-gguf format=gguf
    expect 0 'compared on 2 rows held out' -- "$m" export held-$how/checkpoint-000001 output_dir=held-$how-at
done
expect 0 . -- "$m" train model_name_or_path="$ref/llama" "datasets=[rows.jsonl]" val_set_size=1 max_length=64 \
    max_steps=1 save_strategy=no report_to=jsonl output_dir=split
expect 0 'compared on 1 rows held out' -- "$m" export split/final output_dir=split-gguf format=gguf
expect 0 'compared on 2 texts' -- "$m" export split/final output_dir=split-own check_file=texts.txt

# rows of a split are drawn by what they say: that of the day the run began, from the run's own token store
for i in $(seq 20); do
    printf '{"messages": [{"role": "user", "content": "habari %d"}, {"role": "assistant", "content": "nzuri %d"}]}\n' "$i" "$i"
done >talk.jsonl
dated=(model_name_or_path="$ref/llama" "datasets=[talk.jsonl]" val_set_size=5 max_length=120 max_steps=1 report_to=jsonl
    chat_template="{% for m in messages %}{{ strftime_now('%d') }} {{ m.content }} {% endfor %}")
SOURCE_DATE_EPOCH=86400 expect 0 . -- "$m" train "${dated[@]}" save_steps=1 output_dir=dated
for left in final checkpoint-000001; do
    SOURCE_DATE_EPOCH=864000 expect 0 'compared on 5 rows held out' -- \
        "$m" export dated/$left output_dir=dated-$left format=gguf
    grep -q '20 rows.*from the cache' said || fail "of dated/$left other rows were made than were trained: $(cat said)"
done
expect 0 . -- "$m" train "${dated[@]}" save_strategy=no output_dir=undated
expect 0 'undated held out are not to be had: the chat template says the date, and no checkpoint of the run knows when it began' -- \
    "$m" export undated/final output_dir=undated-gguf format=gguf
rm held.jsonl
expect 0 'the rows that .*/held-full held out are not to be had' -- \
    "$m" export held-full/final output_dir=held-gone format=gguf
grep -q 'compared on 8 texts' said || fail 'without its rows a run is compared on no text'

# the end of a run is read again number by number, its base too where that was a GGUF
expect 0 'final/adapter_model.safetensors, read again: 28 tensors, .* each as in memory' -- \
    "$m" train model_name_or_path=llama "datasets=[rows.jsonl]" max_length=64 max_steps=1 finetuning_type=lora \
    save_strategy=no report_to=jsonl output_dir=again
grep -q 'again/base, read again: 20 tensors, 110912 numbers, each as in memory' said || fail 'a base is not read again'
expect 0 'unread/final' -- "$m" train model_name_or_path="$ref/llama" "datasets=[rows.jsonl]" max_length=64 max_steps=1 \
    save_strategy=no report_to=jsonl output_dir=unread check=false
! grep -q 'read again' said || fail 'check=false reads again'

# the template it was trained with goes along, also where the model has another or none
echo '{"messages": [{"role": "user", "content": "Habari?"}, {"role": "assistant", "content": "Nzuri."}]}' >talk.jsonl
for how in full lora; do
    expect 0 'read again: .* each as in memory' -- "$m" train model_name_or_path="$ref/llama" "datasets=[talk.jsonl]" max_length=128 max_steps=1 \
        finetuning_type=$how chat_template=chatml save_strategy=no report_to=jsonl output_dir=talk-$how
    "$m" tokenize talk-$how/final --messages talk.jsonl --ids >carried 2>said
    "$m" tokenize "$ref/llama" --messages talk.jsonl --chat-template chatml --ids >named 2>said
    { [ -s carried ] && cmp -s carried named; } || fail "the template of a $how run is not in its model: $(cat carried said)"
done

finish
