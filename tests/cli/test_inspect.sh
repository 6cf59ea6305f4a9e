#!/usr/bin/env bash
# tests/cli/test_inspect.sh - inspect shows what is trained and refuses what is not; tokenize.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
model=$work/model
mkdir "$model"
cp "$MB_TEST_DATA/templates/tokenizer.json" "$model/"
echo '{"bos_token": "<s>", "eos_token": "</s>"}' >"$model/tokenizer_config.json"

fail() {
    echo "FAILED: $*" >&2
    exit 1
}
has() { grep -qF -- "$1" "$work/out" || { cat "$work/out" >&2; fail "no line says: $1"; }; }
code() { # code WANT command...
    local want=$1 got=0
    shift
    "$@" >"$work/out" 2>&1 || got=$?
    [ "$got" = "$want" ] || { cat "$work/out" >&2; fail "exit code $got, not $want: $*"; }
}

printf '%s\n' '{"prompt":"water is","completion":" maji"}' '{"prompt":"a","completion":""}' \
    '{"prompt":"water is","completion":" maji"}' >"$work/pairs.jsonl"
code 0 "$MBUYU" inspect model_name_or_path="$model" datasets="$work/pairs.jsonl" \
    completion_suffix='!' --rows 1
has "row 0, $work/pairs.jsonl:1:"
has '    water is[ maji!]'
has 'duplicates among the kept                     1'
[ "$(grep -c '^row ' "$work/out")" = 1 ] || fail "--rows 1 shows one row"

code 0 "$MBUYU" inspect model_name_or_path="$model" datasets="$work/pairs.jsonl" --row 1 --tokens \
    add_eos=false
has 'left out, nothing trained                     1'
has 'trained'

# HDF5: a group for each split, or one that is named
column() { # column GROUP TEXT...
    local group=$1
    shift
    printf '%s\n' "$@" >"$work/texts"
    printf 'PATH %s/text\nINPUT-CLASS STR\nRANK 1\n' "$group" >"$work/shape"
    h5import "$work/texts" -c "$work/shape" -o "$work/rows.h5"
}
column train 'maji safi' 'mti mkubwa' 'habari ya asubuhi'
column validation 'nzuri sana'
code 0 "$MBUYU" inspect model_name_or_path="$model" datasets="$work/rows.h5"
has "row 2, $work/rows.h5:3:"
has '    h[abari ya asubuhi'
code 0 "$MBUYU" inspect model_name_or_path="$model" "datasets=[{path: $work/rows.h5, split: 'validation[:100%]'}]" --row 0
code 0 "$MBUYU" inspect model_name_or_path="$model" datasets="$work/rows.h5/validation"
has '    n[zuri sana'
head -c 900 "$work/rows.h5" >"$work/cut.h5"
code 3 "$MBUYU" inspect model_name_or_path="$model" datasets="$work/cut.h5"
has 'cut.h5: cannot open the file: HDF5 says: truncated file'
if grep -q 'HDF5-DIAG' "$work/out"; then fail "HDF5 speaks for itself"; fi

printf '%s\n' '{"messages":[{"role":"user","content":"hi"},{"role":"assistant","content":"a"}]}' \
    >"$work/chat.jsonl"
code 0 "$MBUYU" inspect model_name_or_path="$model" datasets="$work/chat.jsonl" chat_template=chatml
has '    [a<|im_end|>]'
code 4 "$MBUYU" inspect model_name_or_path="$model" datasets="$work/chat.jsonl"
has 'alpaca, chatml, command-r'

head -n 1 "$work/pairs.jsonl" >"$work/one.jsonl"
code 3 "$MBUYU" inspect model_name_or_path="$model" datasets="$work/one.jsonl" max_length=3
has 'no row has a trained token'
has "$work/one.jsonl:1: its first max_length tokens hold nothing that is trained"
code 2 "$MBUYU" inspect model_name_or_path="$model" datasets="$work/pairs.jsonl" --row 9
has 'the rows are 0 to 2'
code 2 "$MBUYU" inspect model_name_or_path="$model" datasets="$work/pairs.jsonl" --rows many
has 'wants a number of rows'

ids() { "$MBUYU" tokenize "$model" --ids "$@" 2>/dev/null; }
[ -n "$(ids --text maji)" ] || fail "no ids"
[ "$(printf maji | ids)" = "$(ids --text maji)" ] || fail "standard input"
[ "$(ids --text '<|im_end|>' --parse-special)" = 2 ] || fail "--parse-special"
[ "$(ids --text '<|im_end|>')" != 2 ] || fail "text became a special token"
code 0 "$MBUYU" tokenize "$model" --messages "$work/chat.jsonl" --chat-template chatml
has '"<|im_end|>"'
code 2 "$MBUYU" tokenize
code 2 "$MBUYU" tokenize "$model" --frobnicate
echo ok
