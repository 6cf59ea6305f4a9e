#!/usr/bin/env bash
# tests/cli/test_tokenizer.sh - mbuyu tokenizer: what is learned cuts text well and comes back as it
# went in; threads change nothing; what cannot be done is one sentence.
#
# That merges are those of the library's trainer is shown by tests/peers/token_pieces.py.
set -u
# shellcheck source-path=SCRIPTDIR source=lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
start
cp "$MB_TEST_DATA"/rows/*.jsonl "$MB_TEST_DATA"/reference/gpt2/config.json .
cat ./*.jsonl config.json >text.txt
printf 'Habari ya asubuhi, \xe6\x97\xa5\xe6\x9c\xac\xe8\xaa\x9e  naïve\ttext\n' >odd.txt

for kind in bpe llama unigram; do
    size=700
    [ $kind = unigram ] && size=400 # the text has no more pieces worth having
    "$MBUYU" tokenizer train --kind $kind --vocab-size $size --output $kind --special '<|user|>' text.txt >out 2>log ||
        fail "$kind: $(cat log)"
    grep -q "vocabulary *$size tokens" out || fail "$kind: $(cat out)"
    OMP_NUM_THREADS=3 "$MBUYU" tokenizer train --kind $kind --vocab-size $size --output $kind-threads \
        --special '<|user|>' text.txt >out 2>log || fail "$kind: $(cat log)"
    same $kind/tokenizer.json $kind-threads/tokenizer.json "$kind with three threads"
    "$MBUYU" tokenize $kind odd.txt --ids >ids 2>log || fail "$kind: $(cat log)"
    [ "$(wc -w <ids)" -lt 60 ] || fail "$kind: $(wc -w <ids) tokens of $(wc -c <odd.txt) bytes"
    [ "$("$MBUYU" tokenize $kind --text '<|user|>' --parse-special --ids 2>log | wc -w)" -eq 1 ] ||
        fail "$kind: <|user|> is not one token"
done

refused 2 'there are bpe, llama and unigram' tokenizer train --kind word --vocab-size 700 --output x text.txt
refused 2 'alone are' tokenizer train --kind llama --vocab-size 100 --output x text.txt
refused 2 'vocab-size is "many"' tokenizer train --kind bpe --vocab-size many --output x text.txt
refused 2 'no option --size' tokenizer train --kind bpe --size 3 --output x text.txt
refused 2 'usage: mbuyu tokenizer train' tokenizer train --kind bpe --vocab-size 700 --output x
refused 2 'usage: mbuyu tokenizer' tokenizer learn
refused 3 "'absent.txt' cannot be opened" tokenizer train --kind bpe --vocab-size 700 --output x absent.txt
{
    cat text.txt
    printf '%070000d\n' 0
} >long.txt
"$MBUYU" tokenizer train --kind llama --vocab-size 700 --output llama-long text.txt >out 2>log || fail "$(cat log)"
if grep 'left out' out; then fail 'a word of ordinary length is left out'; fi
"$MBUYU" tokenizer train --kind llama --vocab-size 700 --output llama-long long.txt >out 2>log || fail "$(cat log)"
grep -q 'left out *1 words of more than 64 KiB' out || fail "a word of 70000 bytes: $(cat out)"
printf 'fine\nnot \xff fine\n' >bad.txt
refused 3 'bad.txt: line 2 is not UTF-8 at byte 4' tokenizer train --kind unigram --vocab-size 700 --output x bad.txt
: >empty.txt
refused 3 'no words' tokenizer train --kind bpe --vocab-size 700 --output x empty.txt

# --- extend: a model with more tokens, trained alone and with an adapter
cp -r "$MB_TEST_DATA/reference/llama3-rope" model # its head is a table of its own
rows_of() { # rows_of FOLDER: vocab_size of its config.json
    grep -oE '"vocab_size": *[0-9]+' "$1/config.json" | grep -oE '[0-9]+'
}
before=$(rows_of model)
"$MBUYU" tokenizer extend model --add 40 --output larger text.txt >out 2>log || fail "extend: $(cat log)"
grep -q 'added *40 tokens' out || fail "extend: $(cat out)"
[ "$(grep -cE "resized .*(embed_tokens|lm_head).weight" out)" -eq 2 ] || fail "extend: $(cat out)"
awk '/^tokens a word/ { exit !($4 > $6) }' out || fail "extend: no shorter: $(cat out)"
[ "$(rows_of larger)" -ge "$before" ] || fail "extend: vocab_size $(rows_of larger)"
[ "$("$MBUYU" tokenize larger text.txt --ids 2>log | wc -w)" -lt "$("$MBUYU" tokenize model text.txt --ids 2>log | wc -w)" ] ||
    fail 'extend: not fewer tokens'
common=(model_name_or_path=larger "datasets=[$rows]" max_length=64 per_device_train_batch_size=2 max_steps=2
    save_steps=100 bf16=false device=cpu learning_rate=0.001)
must_train 1 "${common[@]}" output_dir=rows finetuning_type=freeze freeze_trainable_layers=0 \
    'trainable_parameters=[".*(embed_tokens|lm_head).*"]'
must_train 1 "${common[@]}" output_dir=adapter finetuning_type=lora 'lora_target=[q_proj]' \
    'lora_modules_to_save=[embed_tokens,lm_head]'
ls rows/final/model.safetensors adapter/final/adapter_model.safetensors >/dev/null || fail 'nothing saved'

# The new rows alone, then with LoRA on top of them; merged, everything but these rows is as it was.
# Two and three ranks, every stage of ZeRO and a resumed run give the bits of one.
tied=$MB_TEST_DATA/reference/llama
"$MBUYU" tokenizer extend "$tied" --add 40 --output tied text.txt >out 2>log || fail "extend: $(cat log)"
common[0]=model_name_or_path=tied
rows_alone=(finetuning_type=trainable_tokens trainable_token_indices=new)
rows_lora=(finetuning_type=lora 'lora_target=[q_proj]' 'trainable_token_indices=[new,5,9..11]' reduction=exact
    per_device_train_batch_size=2 global_batch_size=6 max_steps=4 save_steps=2)
must_train 1 "${common[@]}" "${rows_alone[@]}" output_dir=alone
grep -q '"peft_type": "TRAINABLE_TOKENS"' alone/final/adapter_config.json || fail 'rows alone: not of that type'
"$MBUYU" merge tied adapter_path=alone/final output_dir=merged >out 2>log || fail "rows alone, merged: $(cat log)"
common[0]=model_name_or_path=merged # knows its new tokens still
must_train 1 "${common[@]}" "${rows_lora[@]}" output_dir=one
state one/checkpoint-000004 >one/state
[ -s one/state ] || fail 'rows and LoRA: no state'
for ranks in 2 3; do
    for stage in 0 3; do
        must_train $ranks "${common[@]}" "${rows_lora[@]}" output_dir=some zero_stage=$stage
        state some/checkpoint-000004 >some/state
        same_run one some "rows and LoRA on $ranks ranks, stage $stage"
        rm -r some
    done
done
must_train 1 "${common[@]}" "${rows_lora[@]}" output_dir=again resume_from_checkpoint="$PWD/one/checkpoint-000002"
state again/checkpoint-000004 >again/state
same one/state again/state 'rows and LoRA, resumed'
same one/final/adapter_model.safetensors again/final/adapter_model.safetensors 'rows and LoRA, resumed: weights'
"$MBUYU" plan "${common[@]}" "${rows_alone[@]}" output_dir=planned >out 2>log || fail "plan: $(cat log)"
grep -q "trained $((40 * $(grep -oE '"hidden_size": *[0-9]+' tied/config.json | grep -oE '[0-9]+')))" out ||
    fail "plan: $(cat out)"
must_train 1 "${common[@]}" finetuning_type=lora adapter_path=one/final output_dir=more
for format in hf gguf; do
    "$MBUYU" export merged adapter_path=more/final output_dir=whole-$format export_format=$format >out 2>log ||
        fail "rows and LoRA as $format: $(cat log)"
done
"$MBUYU" export merged adapter_path=more/final output_dir=x export_format=gguf_lora >out 2>log
[ $? -eq 4 ] || fail 'rows of tokens in an adapter GGUF: not refused'
grep -q 'rows of its own for single tokens' log || fail "rows of tokens in an adapter GGUF: $(cat log)"
"$MBUYU" generate merged adapter_path=more/final prompt=Habari max_new_tokens=4 >first 2>log || fail "generate: $(cat log)"
"$MBUYU" generate whole-hf prompt=Habari max_new_tokens=4 >second 2>log || fail "generate: $(cat log)"
same first second 'what an adapter and its merged model say'
common[0]=model_name_or_path=$tied
train 1 "${common[@]}" "${rows_alone[@]}" output_dir=x
grep -q 'does not say which of its tokens are new' log || fail "no new tokens: $(cat log)"

refused 2 'usage: mbuyu tokenizer extend' tokenizer extend model --output x text.txt
refused 2 "'larger' holds a model" tokenizer extend model --add 40 --output larger text.txt
refused 4 'cannot be extended' tokenizer extend "$MB_TEST_DATA/tokenizers/pieces/unigram.model" --add 4 --output x text.txt
[ ! -e x ] || fail 'a refused training left a folder'
finish
