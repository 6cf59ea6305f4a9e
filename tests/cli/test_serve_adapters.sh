#!/usr/bin/env bash
# tests/cli/test_serve_adapters.sh - `mbuyu serve` with a base and its adapters: what they take of memory, and
# that they answer, asked all at once, to the byte as each alone.
#
# The base is a GGUF file of blocks; the runs on it leave it beside their adapters as a folder of numbers each, and
# all stand on one set of weights when they are served. 19 million parameters with random values; with MB_LONG=1
# SmolLM2 out of MB_MATERIALS.
set -u
# shellcheck source-path=SCRIPTDIR source=lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
start
trap 'kill "${server:-}" 2>/dev/null; rm -rf "$work"' EXIT

smollm2=${MB_MATERIALS:-}/smollm2/SmolLM2-135M-Instruct.Q4_1.gguf
if [ "$long" = 1 ] && [ -f "$smollm2" ]; then
    base=$smollm2
else
    mkdir model
    sed -E -e 's/"hidden_size": [0-9]+/"hidden_size": 512/' -e 's/"num_hidden_layers": [0-9]+/"num_hidden_layers": 6/' \
        -e 's/"intermediate_size": [0-9]+/"intermediate_size": 1536/' -e 's/"num_attention_heads": [0-9]+/"num_attention_heads": 8/' \
        -e 's/"num_key_value_heads": [0-9]+/"num_key_value_heads": 4/' -e 's/"head_dim": [0-9]+/"head_dim": 64/' \
        "$MB_TEST_DATA/reference/llama/config.json" >model/config.json
    cp "$MB_TEST_DATA/reference/llama/tokenizer.json" model/
    "$helpers/make_model" model || fail 'no model'
    "$MBUYU" export model output_dir=blocks format=gguf outtype=q8_0 >log 2>&1 || fail "no GGUF: $(cat log)"
    base=$(echo "$PWD"/blocks/*.gguf)
fi
for run in 1 2; do
    must_train 1 model_name_or_path="$base" dataset="$rows" output_dir="$PWD/run$run" finetuning_type=lora lora_r=4 \
        max_steps=2 per_device_train_batch_size=2 max_length=32 learning_rate=0.01 seed="$run" report_to=none
done
[[ -d run1/base && -d run2/base ]] || fail 'a run on blocks left no folder of numbers'

# begin WORDS...: starts a server; its address in $url
begin() {
    : >out
    "$MBUYU" serve "$@" --port 0 --ctx 128 >out 2>log </dev/null &
    server=$!
    for _ in $(seq 600); do
        read -r url <out && return
        sleep 0.1
    done
    fail "serve $* does not start: $(cat log)"
    exit 1
}

end() {
    kill "$server"
    wait "$server" || fail "serve ended with $?: $(tail -n 3 log)"
}

anonymous() { # kB
    sed -nE 's/^RssAnon:\s+([0-9]+) kB/\1/p' "/proc/$server/status"
}

cat >ask.py <<'PYTHON'
import concurrent.futures
import json
import sys
from serve_client import ask

# ask.py URL MODEL=NAME...: all questions to all models at once; prints NAME and what it said
url, models = sys.argv[1], [m.split("=") for m in sys.argv[2:]]


def answer(question):
    (model, name), i = question
    body = {"model": model, "prompt": [3 + i, 5, 7 + 2 * i] * (1 + 4 * i), "max_tokens": 12, "logprobs": 3,
            "temperature": 0 if i % 2 == 0 else 1.1, "seed": i, "n": 1 + i % 2}
    return f"{name} {i} " + json.dumps(json.loads(ask(url + "/v1/completions", body)[1])["choices"])


questions = [(m, i) for i in range(5) for m in models]
with concurrent.futures.ThreadPoolExecutor(len(questions)) as pool:
    print(*sorted(pool.map(answer, questions)), sep="\n")
PYTHON

# alone: each on its own folder, the base on its blocks
for model in "base=$base" "run1=run1/final" "run2=run2/final"; do
    begin "$model"
    name=${model%%=*}
    clients ask.py "$url" "$name=$name" >>alone || fail "$name alone"
    alone=$(anonymous)
    [ "$name" = base ] && least=$alone
    end
done
sort -o alone alone
cut -d' ' -f2- <<<"$(grep ^run1 alone)" >a
cut -d' ' -f2- <<<"$(grep ^run2 alone)" >b
cmp -s a b && fail 'two adapters say the same'

# together: the base, then 1, 2 and 4 adapters of it
most=0
for n in 1 2 4; do
    words=("base=$base") models=(base=base)
    for i in $(seq "$n"); do
        words+=("a$i=run$((2 - i % 2))/final")
        models+=("a$i=run$((2 - i % 2))")
    done
    begin "${words[@]}"
    clients ask.py "$url" "${models[@]}" >said || fail "$n adapters together"
    sort -u said >together
    grep -vE "^($([ "$n" = 1 ] && echo run2 || echo none)) " alone >want
    same want together "$n adapters together and each alone"
    memory=$(anonymous)
    echo "$n adapters: $((memory / 1024)) MiB, the base alone $((least / 1024)) MiB, an adapter alone $((alone / 1024)) MiB"
    most=$(((memory - least) / n))
    end
    # an adapter alone has all the weights as numbers; beside its base it takes its own and what a model needs
    if ! ldd "$MBUYU" | grep -q libasan; then
        [ "$most" -lt $((alone / 5)) ] || fail "$n adapters: $most kB each beside the base; alone $alone kB"
    fi
done
finish
