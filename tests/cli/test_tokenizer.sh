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

# refused CODE PATTERN ARGUMENTS...: this exit code and one sentence
refused() {
    local code=$1 pattern=$2
    shift 2
    "$MBUYU" tokenizer "$@" >out 2>log
    [ $? -eq "$code" ] || fail "not exit code $code: tokenizer $*"
    grep -qE "$pattern" log || fail "no '$pattern' from tokenizer $*: $(cat log)"
}

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

refused 2 'there are bpe, llama and unigram' train --kind word --vocab-size 700 --output x text.txt
refused 2 'alone are' train --kind llama --vocab-size 100 --output x text.txt
refused 2 'vocab-size is "many"' train --kind bpe --vocab-size many --output x text.txt
refused 2 'no option --size' train --kind bpe --size 3 --output x text.txt
refused 2 'usage: mbuyu tokenizer train' train --kind bpe --vocab-size 700 --output x
refused 2 'usage: mbuyu tokenizer' learn
refused 3 "'absent.txt' cannot be opened" train --kind bpe --vocab-size 700 --output x absent.txt
{
    cat text.txt
    printf '%070000d\n' 0
} >long.txt
"$MBUYU" tokenizer train --kind llama --vocab-size 700 --output llama-long text.txt >out 2>log || fail "$(cat log)"
if grep 'left out' out; then fail 'a word of ordinary length is left out'; fi
"$MBUYU" tokenizer train --kind llama --vocab-size 700 --output llama-long long.txt >out 2>log || fail "$(cat log)"
grep -q 'left out *1 words of more than 64 KiB' out || fail "a word of 70000 bytes: $(cat out)"
printf 'fine\nnot \xff fine\n' >bad.txt
refused 3 'bad.txt: line 2 is not UTF-8 at byte 4' train --kind unigram --vocab-size 700 --output x bad.txt
: >empty.txt
refused 3 'no words' train --kind bpe --vocab-size 700 --output x empty.txt

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
refused 2 'usage: mbuyu tokenizer extend' extend model --output x text.txt
refused 2 "'larger' holds a model" extend model --add 40 --output larger text.txt
refused 4 'cannot be extended' extend "$MB_TEST_DATA/tokenizers/pieces/unigram.model" --add 4 --output x text.txt
[ ! -e x ] || fail 'a refused training left a folder'
finish
