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
printf 'fine\nnot \xff fine\n' >bad.txt
refused 3 'bad.txt: line 2 is not UTF-8 at byte 4' train --kind unigram --vocab-size 700 --output x bad.txt
: >empty.txt
refused 3 'no words' train --kind bpe --vocab-size 700 --output x empty.txt
[ ! -e x ] || fail 'a refused training left a folder'
finish
