#!/usr/bin/env bash
# tests/cli/test_scratch.sh - a model that starts from config.json, a tokenizer and a seed.
set -u
# shellcheck source-path=SCRIPTDIR source=verbs.sh
. "$(dirname "${BASH_SOURCE[0]}")/verbs.sh"
start
m=$MBUYU
export OMP_NUM_THREADS=1 LC_ALL=C.UTF-8 OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1

mkdir bare
cp "$MB_TEST_DATA/reference/llama/config.json" "$MB_TEST_DATA"/reference/llama/tokenizer*.json bare/
for i in 1 2 3 4; do
    printf '{"text": "habari ya asubuhi %d, karibu sana"}\n' $i
done >rows.jsonl
run=(train model_name_or_path=bare "datasets=[rows.jsonl]" max_length=64 max_steps=3 logging_steps=1
    save_strategy=no report_to=jsonl)

loss() {
    sed -n 's/.*"loss": *\([0-9.]*\).*/\1/p' "$1/logs/train.jsonl" | head -1
}

# weights that are not there are an error unless none are wanted
expect 4 '' -- "$m" "${run[@]}" output_dir=none
expect 0 '' -- "$m" "${run[@]}" init=random output_dir=a
expect 0 '' -- "$m" "${run[@]}" init=random output_dir=b
expect 0 '' -- "$m" "${run[@]}" init=random seed=7 output_dir=c
cmp a/final/model.safetensors b/final/model.safetensors || fail "the same seed gives other weights"
cmp -s a/final/model.safetensors c/final/model.safetensors && fail "another seed gives the same weights"
# what knows nothing finds all 384 tokens about as likely: log 384 is 5.95
awk -v l="$(loss a)" 'BEGIN { exit !(l > 5.7 && l < 6.2) }' || fail "the first loss is $(loss a)"
# what came out is a model like others, also for a recipe that says init: random
expect 0 'eval_loss' -- "$m" eval model_name_or_path=a/final init=random "eval_datasets=[rows.jsonl]"
expect 2 'init random' -- "$m" "${run[@]}" init=random finetuning_type=lora output_dir=d
finish
