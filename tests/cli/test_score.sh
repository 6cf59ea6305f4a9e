#!/usr/bin/env bash
# What a model says of evaluation rows: the same file and numbers on any number of ranks, the same
# numbers from that file, metrics by name in recipes, and files that cannot be scored.
set -euo pipefail
# shellcheck source-path=SCRIPTDIR source=lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
start
models=$MB_TEST_DATA/reference

number() { sed -nE "s/^  \"$2\": *([-0-9.e]+).*/\1/p" "$1"; }
for i in $(seq 1 48); do
    set -- good bad fair
    shift $((i % 3))
    printf '{"text": "the maize of field %d is %s today", "label": "%s"}\n' $((i % 7)) "$1" "$1"
done >sw.jsonl
head -n 19 sw.jsonl >en.jsonl

# --- trained and kept by a metric of what is said
must_train 2 "model_name_or_path=$models/bert-cls" task=seq-classification 'datasets=[sw.jsonl]' \
    val_set_size=9 eval_strategy=epoch save_strategy=best num_train_epochs=2 learning_rate=1e-3 \
    max_length=64 metric_for_best_model=f1_weighted 'metrics=[f1_weighted, roc_auc]' output_dir=cls
grep -q '"eval_f1_weighted":' cls/logs/train.jsonl || fail 'f1_weighted is not in the log'
if grep -q '"eval_accuracy":' cls/logs/train.jsonl; then fail 'accuracy was not asked for'; fi

# --- ranks change nothing, and the file gives the numbers again
for ranks in 1 3; do
    "${mpi[@]}" -np $ranks "$MBUYU" eval model_name_or_path=cls/final task=seq-classification \
        'eval_datasets=[sw.jsonl, en.jsonl]' max_length=64 per_device_eval_batch_size=4 \
        'metrics=[accuracy, f1, roc_auc, matthews_correlation]' "predictions_file=said-$ranks.jsonl" \
        >"eval-$ranks" 2>log || fail "eval on $ranks ranks: $(tail -n 5 log)"
done
same said-1.jsonl said-3.jsonl 'what is said on one rank and on three'
[ "$(wc -l <said-1.jsonl)" -eq 67 ] || fail "$(wc -l <said-1.jsonl) rows were said, not 67"
"$MBUYU" score said-3.jsonl >scores || fail 'said-3.jsonl has no score'
for name in accuracy f1 roc_auc matthews_correlation; do
    for other in "$(number eval-3 "eval_$name")" "$(number scores "$name")"; do
        [ "$(number eval-1 "eval_$name")" = "${other:-nothing}" ] ||
            fail "$name is $(number eval-1 "eval_$name") and $other"
    done
done
grep -q '"en.jsonl": {' scores || fail 'no scores by file'
"$MBUYU" score said-1.jsonl format=text confusion_matrix=matrix.png >table
[ "$(head -c 4 matrix.png | tail -c 3)" = PNG ] || fail 'the picture is no PNG'
grep -qE '^weighted avg' table || fail 'no table of classes'

# --- what a causal model answers to the prompts of rows, against their completions
head -n 3 "$rows" >three.jsonl
"$MBUYU" generate "$models/llama" prompts_file=three.jsonl max_new_tokens=5 --json >answers.jsonl
"$MBUYU" score answers.jsonl metric=chrf,cer >scores
[ "$(grep -c '"reference":" ' answers.jsonl)" -eq 3 ] || fail 'completions are not beside the answers'
[ -n "$(number scores cer)" ] || fail "no CER: $(cat scores)"

# --- text files
printf 'habari ya asubuhi\n\nsawa\n' >said.txt
printf 'habari za asubuhi\n\nsawa sawa\n' >right.txt
"$MBUYU" score said.txt reference=right.txt metric=wer,cer >scores
[ "$(number scores wer)" = 0.4 ] || fail "WER $(number scores wer), not 0.4"
printf 'habari za asubuhi\n' >short.txt

refused 3 'short.txt has 1 lines, fewer than the predictions' score said.txt reference=short.txt
refused 3 'right.txt has more lines than the 1 predictions' score short.txt reference=right.txt
printf '{"prediction": 1, "label": 1}\n' >class.jsonl
refused 3 'row 0 does not hold a text and its references' score class.jsonl metric=bleu,wer
refused 2 'there is no metric "blue"; there are accuracy' score said-1.jsonl metric=blue
refused 2 'no tokenizer "14a"; there are 13a' score said-1.jsonl tokenize=14a
got=0
"$MBUYU" score said-1.jsonl >/dev/full 2>log || got=$?
[ $got -eq 7 ] || fail "a full disk: exit code $got"
refused 2 'unknown key "metrics"' score said-1.jsonl metrics=bleu
refused 3 'no-such' score no-such.jsonl
refused 2 "metrics has 'bleu'; of this task there are accuracy" eval model_name_or_path=cls/final \
    task=seq-classification 'datasets=[sw.jsonl]' metrics=bleu
refused 2 'measure the loss only' eval "model_name_or_path=$models/llama" "datasets=[$rows]" metrics=bleu
refused 2 "metric_for_best_model is 'wer'.* has eval_loss, eval_accuracy and eval_f1" train \
    "model_name_or_path=$models/bert-cls" task=seq-classification 'datasets=[sw.jsonl]' val_set_size=9 \
    eval_strategy=epoch metric_for_best_model=wer output_dir=bad
finish
