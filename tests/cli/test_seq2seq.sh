#!/usr/bin/env bash
# tests/cli/test_seq2seq.sh - an encoder-decoder model is trained on pairs in all their shapes, asked and
# measured, alone and by ranks that share it.
set -euo pipefail
# shellcheck source-path=SCRIPTDIR source=lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
start
t5=$MB_TEST_DATA/reference/t5

# The same pairs in each way that they may be written.
python3 - <<'PYTHON'
import json

pairs = [("maji", "water"), ("moto", "fire"), ("mti", "tree"), ("jua", "sun"), ("mwezi", "moon"),
         ("nyumba", "house"), ("samaki", "fish"), ("ndege", "bird and plane")]
ways = {"translation": lambda a, b: {"translation": {"sw": a, "en": b, "fr": "x"}},
        "prompts": lambda a, b: {"prompt": a, "completion": b},
        "summaries": lambda a, b: {"document": a, "summary": b},
        "texts": lambda a, b: {"text": a, "summary": b},
        "sides": lambda a, b: {"source": a, "target": b}}
for name, way in ways.items():
    with open(f"{name}.jsonl", "w") as f:
        f.writelines(json.dumps(way(*pair)) + "\n" for pair in pairs)
with open("table.tsv", "w") as f:
    f.write("sw\ten\n" + "".join(f"{a}\t{b}\n" for a, b in pairs))
PYTHON
keys=(model_name_or_path="$t5" task=seq2seq max_length=24 max_target_length=20 learning_rate=0.01
    source_lang=sw target_lang=en per_device_train_batch_size=4 save_strategy=no report_to=jsonl)

digest() {
    sha256sum "$1/final/model.safetensors" | cut -d' ' -f1
}

must_train 1 "${keys[@]}" "datasets=[translation.jsonl]" max_steps=3 output_dir=translation
for way in prompts.jsonl summaries.jsonl texts.jsonl sides.jsonl table.tsv; do
    must_train 1 "${keys[@]}" "datasets=[$way]" max_steps=3 output_dir="${way%.*}"
    [ "$(digest translation)" = "$(digest "${way%.*}")" ] || fail "$way trains another model"
done

# Two ranks that share everything, recomputing: exact sums make the same model.
exact=("${keys[@]}" "datasets=[translation.jsonl]" max_steps=3 global_batch_size=8 reduction=exact)
must_train 1 "${exact[@]}" output_dir=one
for stage in 1 3; do
    must_train 2 "${exact[@]}" zero_stage=$stage gradient_checkpointing=true output_dir=two$stage
    [ "$(digest one)" = "$(digest two$stage)" ] || fail "two ranks at stage $stage give another model"
done

# What was learnt is written down again, by one beam and by several, and measured.
must_train 1 "${keys[@]}" "datasets=[translation.jsonl]" max_steps=200 weight_decay=0 output_dir=learnt
"$MBUYU" generate learnt/final prompt=samaki max_new_tokens=12 >greedy 2>log || fail "$(cat log)"
[ "$(cat greedy)" = fish ] || fail "samaki becomes '$(cat greedy)'"
"$MBUYU" generate learnt/final prompt=ndege max_new_tokens=20 num_beams=3 num_samples=2 --json >beams 2>log ||
    fail "$(cat log)"
[ "$(sed -nE '1s/.*"completion":"([^"]*)".*/\1/p' beams)" = 'bird and plane' ] || fail "$(cat beams)"
[ "$(wc -l <beams)" = 2 ] || fail "two answers were asked for: $(cat beams)"
"$MBUYU" eval "${keys[@]}" model_name_or_path=learnt/final "eval_datasets=[table.tsv]" num_beams=2 \
    predict_with_generate=true predictions_file=said.jsonl >measured 2>log || fail "$(cat log)"
grep -q '"eval_chrf": 100' measured || fail "chrF of what was learnt: $(cat measured)"
grep -q '"source":"maji","prediction":"water","reference":"water"' said.jsonl || fail "$(cat said.jsonl)"

# An adapter beside the frozen model, as PEFT reads it.
must_train 1 "${keys[@]}" "datasets=[translation.jsonl]" max_steps=2 output_dir=adapter \
    finetuning_type=lora 'lora_target_modules=[q,v]' lora_r=2
grep -q '"task_type": *"SEQ_2_SEQ_LM"' adapter/final/adapter_config.json || fail 'no SEQ_2_SEQ_LM'
"$MBUYU" generate adapter/final prompt=maji max_new_tokens=4 >out 2>log || fail "$(cat log)"

# One sentence for what cannot be.
refused() { # refused PATTERN KEY=...
    local pattern=$1
    shift
    if train 1 "${keys[@]}" output_dir=none max_steps=1 "$@"; then fail "$* is trained"; fi
    grep -qE "$pattern" "$work/log" || fail "no '$pattern' in: $(cat "$work/log")"
}
refused 'no text in .de. \(target_lang\)' "datasets=[translation.jsonl]" target_lang=de
echo '{"text": "maji"}' >alone.jsonl
refused 'a pair of texts has translation' "datasets=[alone.jsonl]"
refused 'packing is for language models, task is seq2seq' "datasets=[translation.jsonl]" packing=true
refused 'has no head for sequence-to-sequence' "datasets=[translation.jsonl]" \
    model_name_or_path="$MB_TEST_DATA/reference/llama"
finish
