#!/usr/bin/env bash
# tests/cli/test_generate.sh - `mbuyu generate` and `mbuyu chat` as users run them, on small models.
# shellcheck disable=SC2001,SC2016 # backquotes are what is printed
set -u
# shellcheck source-path=SCRIPTDIR source=verbs.sh
. "$(dirname "${BASH_SOURCE[0]}")/verbs.sh"
start
by=-F
exec </dev/null
m=$MBUYU
model=$MB_TEST_DATA/reference/gpt2
export OMP_NUM_THREADS=1 LC_ALL=C.UTF-8

# same WHAT A B
same() {
    [ "$2" = "$3" ] || fail "$1: not the same
    $2
    $3"
}

gen() {
    "$m" generate "$model" max_new_tokens=12 "$@" </dev/null
}

# the part of a JSON line from "completion" on
completion() {
    sed 's/^.*"completion":/"completion":/'
}

# --- texts
one=$(gen prompt='Once upon a time' --json) || fail 'one prompt'
grep -qE '^\{"prompt":"Once upon a time","completion":".*","tokens":\[[0-9,]+\],"finish_reason":"(length|stop)"\}$' \
    <<<"$one" || fail "not the JSON line promised: $one"
same 'threads change nothing' "$one" "$(gen prompt='Once upon a time' --json threads=2)"
same 'standard input is a prompt' "$one" \
    "$(printf 'Once upon a time\n' | "$m" generate "$model" max_new_tokens=12 --json)"
plain=$(gen prompt='Once upon a time' --verbose 2>"$work/err") || fail 'plain text'
grep -q 'tokens/s' "$work/err" || fail '--verbose says nothing of speed'
same 'plain text is the completion' "$plain" \
    "$(printf '%b' "$(sed 's/.*"completion":"\(.*\)","tokens.*/\1/' <<<"$one")")"

# --- files: each prompt is answered as it would be alone
printf 'Once upon a time\n\nA\nThe quick brown fox jumps over\r\nKaribu sana' >"$work/p.txt"
gen prompts_file="$work/p.txt" >"$work/all" || fail 'prompts of a text file'
[ "$(wc -l <"$work/all")" = 4 ] || fail 'a line for each prompt'
i=0
for prompt in 'Once upon a time' 'A' 'The quick brown fox jumps over' 'Karibu sana'; do
    i=$((i + 1))
    same "prompt $i alone and among others" "$(sed -n "${i}p" "$work/all")" \
        "$(gen prompt="$prompt" --json)"
done
cat >"$work/p.jsonl" <<'JSON'
{"prompt": "Once upon a time", "completion": "this is not looked at"}
{"messages": [{"role": "user", "content": "Habari?"}]}
{"messages": [{"role": "user", "content": "Habari?"}, {"role": "assistant", "content": "Nzuri."}]}
{"prompt": [{"role": "user", "content": "Habari?"}]}
JSON
gen prompts_file="$work/p.jsonl" chat_template=chatml >"$work/given" || fail 'prompts of a JSONL file'
grep -q '"reference":"this is not looked at"' "$work/given" || fail 'the answer of a row is not beside its own'
sed -E 's/"reference":"[^"]*",//' "$work/given" >"$work/all"
same 'a row of training' "$one" "$(sed -n 1p "$work/all")"
chat=$(gen prompt='Habari?' --chat --json chat_template=chatml | completion)
for i in 2 3 4; do
    same "conversation $i" "$chat" "$(sed -n "${i}p" "$work/all" | completion)"
done
grep -q '^{"messages":\[{"role":"user","content":"Habari?"}\],"completion"' "$work/all" ||
    fail 'messages are not shown'
[ "$chat" != "$(gen prompt='Habari?' --json | completion)" ] || fail '--chat changes nothing'
echo '{"q": "Once upon a time"}' >"$work/q.jsonl"
same 'field_map' "$one" "$(gen prompts_file="$work/q.jsonl" field_map.prompt=q --json)"

# --- samples
sampled() {
    gen prompt='Once upon a time' do_sample=true num_samples=3 temperature=0.9 top_k=40 top_p=0.95 "$@"
}
a=$(sampled seed=1) || fail 'samples'
[ "$(wc -l <<<"$a")" = 3 ] || fail "three samples: $a"
grep -q '"sample":2,' <<<"$a" || fail "samples have no numbers: $a"
[ "$(completion <<<"$a" | sort -u | wc -l)" = 3 ] || fail 'samples do not differ'
same 'a seed' "$a" "$(sampled seed=1)"
[ "$a" != "$(sampled seed=2)" ] || fail 'another seed changes nothing'
[ "$one" != "$(gen prompt='Once upon a time' repetition_penalty=3 --json)" ] ||
    fail 'a repetition penalty changes nothing'

# --- ends
whole=$(gen prompt='Once upon a time' max_new_tokens=40)
short=$(gen prompt='Once upon a time' max_new_tokens=40 'stop=["zzz", "33"]') || fail 'stop texts'
[ "$short" != "$whole" ] || fail 'a stop text changes nothing'
same 'a stop text' "${whole%%33*}" "$short"
expect 0 '"finish_reason":"context"' -- "$m" generate "$model" prompt=x max_new_tokens=1000 \
    --json max_length=20

mkdir -p "$work/run/final"
: >"$work/run/recipe.resolved.yaml"

# --- adapters
lora=$MB_TEST_DATA/reference/lora-llama
base=$("$m" generate "$lora" prompt='Once upon a time' max_new_tokens=12 --json)
tuned=$("$m" generate "$lora" prompt='Once upon a time' max_new_tokens=12 --json \
    adapter_path="$lora/adapter-after-10-steps") || fail 'an adapter'
[ "$base" != "$tuned" ] || fail 'an adapter changes nothing'
cp -r "$lora/adapter-after-10-steps" "$work/adapter"
sed -i "s|\"base_model_name_or_path\": *[^,]*|\"base_model_name_or_path\": \"$lora\"|" \
    "$work/adapter/adapter_config.json"
same 'an adapter folder as model' "$tuned" \
    "$("$m" generate "$work/adapter" prompt='Once upon a time' max_new_tokens=12 --json)"
# merge and export take it too, into a folder of its own
for verb in merge export; do
    "$m" $verb "$work/adapter" output_dir="$work/$verb" 2>"$work/err" || fail "$verb an adapter: $(cat "$work/err")"
    same "$verb an adapter" "$(completion <<<"$tuned")" \
        "$("$m" generate "$work/$verb" prompt='Once upon a time' max_new_tokens=12 --json | completion)"
    expect 2 'holds a model' "output_dir=$work/$verb-merged" -- "$m" $verb "$work/adapter" output_dir="$work/$verb"
done
expect 0 '' -- "$m" merge "$work/adapter" output_dir="$work/merge" overwrite_output_dir=true
expect 2 'holds a training run' -- "$m" merge "$work/adapter" output_dir="$work/run"
mkdir -p "$work/moved" && cp -r "$work/adapter" "$work/moved/final" && cp -r "$lora" "$work/moved/base"
sed -i "s|\"$lora\"|\"no/such/base\"|" "$work/adapter/adapter_config.json" "$work/moved/final/adapter_config.json"
same 'an adapter moved together with its base' "$tuned" \
    "$("$m" generate "$work/moved/final" prompt='Once upon a time' max_new_tokens=12 --json)"
expect 4 'no/such/base' 'adapter_path=' -- "$m" generate "$work/adapter" prompt=x

# --- chat
talk() {
    "$m" chat "$model" chat_template=chatml max_new_tokens=12 "$@"
}
printf 'Habari?\n\nNzuri sana\n/save %s/s.jsonl\n' "$work" | talk --verbose >"$work/out" 2>"$work/err" ||
    fail 'chat'
grep -q 'saved 4 messages' "$work/err" || fail '/save'
grep -qE '\([1-9][0-9]* more were kept\)' "$work/err" || fail 'the second turn computes everything anew'
[ "$(wc -l <"$work/s.jsonl")" = 1 ] || fail 'a saved conversation is one line'
last=$(gen prompts_file="$work/s.jsonl" chat_template=chatml) || fail 'a saved conversation as prompt'
tail -c "$((${#last} + 1))" "$work/out" | cmp -s - <(printf '%s\n' "$last") ||
    fail "the second answer: $(cat "$work/out") | $last"
printf 'Habari?\n/reset\nHabari?' | talk >"$work/out" || fail 'chat without a last newline'
gen prompt='Habari?' --chat chat_template=chatml >"$work/once"
cat "$work/once" "$work/once" | cmp -s - "$work/out" || fail '/reset'
printf '/system Be short.\nHabari?\n/exit\nnever read\n' | talk >"$work/out" || fail '/exit'
gen prompt='Habari?' --chat chat_template=chatml system_prompt='Be short.' | cmp -s - "$work/out" ||
    fail '/system'
printf '//reset\n/save %s/t.jsonl' "$work" | talk >/dev/null 2>&1
grep -q '"content":"/reset"' "$work/t.jsonl" || fail '//'
printf '/help\n' | talk 2>&1 | grep -q -- '/system' || fail '/help'
printf '/nothing\n/quit\nnever read\n' | talk >"$work/out" 2>"$work/err" || fail 'an unknown command ends a chat'
[ ! -s "$work/out" ] || fail "/quit: $(cat "$work/out")"
grep -q 'no command /nothing' "$work/err" || fail 'an unknown command is not named'
printf 'x\n' | talk max_length=8 >/dev/null 2>"$work/err"
[ "$? $(grep -c '/reset' "$work/err")" = '3 1' ] || fail 'a conversation that does not fit'

# --- what is refused
printf 'a\xff\n' >"$work/bad.txt"
printf '{"prompt": "a"}\n{"promt": "b"}\n' >"$work/bad.jsonl"
printf '{"messages": [{"role": "pirate", "content": "b"}]}\n' >"$work/role.jsonl"
: >"$work/empty.txt"
expect 2 'model_name_or_path' -- "$m" generate prompt=x
expect 2 'both given' -- "$m" generate "$model" prompt=x prompts_file="$work/p.txt"
expect 2 'top_p' -- "$m" generate "$model" prompt=x top_p=2
expect 2 'max_new_token' -- "$m" generate "$model" prompt=x max_new_token=2
expect 2 'nothing' 'chat_template' -- "$m" chat "$model" chat_template=nothing
expect 2 'empty text' -- "$m" generate "$model" prompt=x 'stop=[""]'
expect 3 'standard input is empty: give prompt=TEXT' -- "$m" generate "$model"
expect 3 'prompt 1 is empty' -- "$m" generate "$model" prompt=
expect 0 'which is no line break' -- "$m" generate "$model" prompt='a\nb'
[ -z "$(gen prompt='"a\nb"' 2>&1 >/dev/null)" ] || fail 'a line break in quotes is warned about'
expect 3 'prompt 1 has' 'tokens' -- "$m" generate "$model" prompt="$(printf 'a b c %.0s' {1..200})"
expect 3 'bad.txt:1' 'UTF-8' -- "$m" generate "$model" prompts_file="$work/bad.txt"
expect 3 'bad.jsonl:2' '"messages"' -- "$m" generate "$model" prompts_file="$work/bad.jsonl"
expect 3 'role.jsonl:1' 'pirate' -- "$m" generate "$model" prompts_file="$work/role.jsonl"
expect 3 'empty.txt' -- "$m" generate "$model" prompts_file="$work/empty.txt"
expect 3 'none.txt' -- "$m" generate "$model" prompts_file="$work/none.txt"
expect 3 '.txt, .jsonl and .json' -- "$m" generate "$model" prompts_file="$work/p.csv"
expect 4 'chat_template' -- "$m" generate "$model" prompt=x --chat
expect 4 'chat_template' -- "$m" chat "$model"
expect 4 '' -- "$m" generate "$MB_TEST_DATA/reference/bert-mlm" prompt=x
expect 2 'there is no recipe, model folder or .gguf file hello' 'prompt="hello"' -- "$m" generate "$model" hello
expect 2 'there is no recipe, model folder or .gguf file nosuch' -- "$m" chat nosuch
expect 4 "run is the folder of a run; its model is $work/run/final" -- "$m" chat "$work/run"
expect 4 'there is no folder org/name' '`mbuyu pull org/name` fetches it' -- \
    "$m" chat model_name_or_path=org/name
expect 4 'there is no folder no/such' '`mbuyu pull no/such` fetches it' -- "$m" generate no/such prompt=x
expect 4 'no/such' -- "$m" generate model_name_or_path=no/such prompt=x
if [ -w /dev/full ]; then
    "$m" generate "$model" prompt=x </dev/null >/dev/full 2>"$work/err"
    [ "$? $(grep -c 'standard output' "$work/err")" = '7 1' ] || fail 'a full disk is not said'
fi
{ gen prompts_file="$work/p.txt" 2>"$work/err" || :; } | head -c 1 >/dev/null
[ ! -s "$work/err" ] || fail "a closed pipe is complained about: $(cat "$work/err")"

finish
