#!/usr/bin/env bash
# Tags of words, answers in texts, several classes at once, numbers and sentence vectors, as a user goes
# through each: train, evaluate the exported model, look at what it says. MBUYU is the program,
# MB_TEST_DATA the data.
set -euo pipefail
# shellcheck source-path=SCRIPTDIR source=verbs.sh
. "$(dirname "${BASH_SOURCE[0]}")/verbs.sh"
export OMP_NUM_THREADS=1 OMP_WAIT_POLICY=passive MBUYU_LOG=info
start
model=$MB_TEST_DATA/reference/bert-mlm

at_least() { # at_least KEY BOUND
    awk -v a="$(number "$1")" -v b="$2" 'BEGIN { exit !(a != "" && a >= b) }' ||
        fail "$1 is $(number "$1"), not at least $2"
}
learn() { # learn NAME EPOCHS KEY=...: trains $model on NAME.jsonl, evaluates what comes out
    local name=$1 epochs=$2
    shift 2
    ok train "model_name_or_path=$model" "datasets=[$name.jsonl]" "output_dir=$name" "$@" \
        "num_train_epochs=$epochs" learning_rate=3e-3 max_length=48 save_strategy=no
    ok eval "model_name_or_path=$name/final" "datasets=[$name.jsonl]" max_length=48 \
        "predictions_file=$name.said" "$@"
}

places='maji soko mbuyu mahindi'
for i in $(seq 1 48); do
    # shellcheck disable=SC2086
    set -- $places
    shift $((i % 4))
    printf '{"tokens": ["the", "tree", "%s", "Hurry", "has"], "ner_tags": ["O", "O", "B-P", "I-P", "O"]}\n' "$1" >>tags.jsonl
    printf '{"question": "how many days?", "context": "has no blessing %s, come back %d days tree", "answers": {"text": ["%d"], "answer_start": [%d]}}\n' \
        "$1" "$((10 + i))" "$((10 + i))" "$((28 + ${#1}))" >>span.jsonl
    if [ $((i % 3)) -eq 0 ]; then
        printf '{"text": "%s tree", "labels": []}\n' "$1" >>sets.jsonl
    else
        printf '{"text": "%s %s", "labels": ["%s", "%s"]}\n' "$1" "$1" "$1" "$([ $((i % 2)) -eq 0 ] && echo even || echo odd)" |
            sed "s/\"$1 $1\"/\"$1 $([ $((i % 2)) -eq 0 ] && echo blessing || echo hurry)\"/" >>sets.jsonl
    fi
    words=$(printf 'maji %.0s' $(seq 1 $((1 + i % 5))))
    printf '{"text": "%s", "label": %d}\n' "$words" "$((1 + i % 5))" >>rated.jsonl
    printf '{"anchor": "%s %d", "positive": "tree %s %d", "negative": "hurry"}\n' "$1" "$((i % 12))" "$1" "$((i % 12))" >>near.jsonl
done

learn tags 4 task=token-classification
at_least eval_f1 0.9
{ grep -q '"id2label"' tags/final/config.json && grep -q '"I-P"' tags/final/config.json; } || fail 'tags have no names'
grep -q '"prediction":\["O","O","B-P","I-P","O"\]' tags.said || fail 'tags are not said'

learn span 12 task=question-answering doc_stride=8
at_least eval_exact_match 60
[ "$(wc -l <span.said)" = 48 ] || fail 'not one answer per question'
ok eval model_name_or_path=span/final task=question-answering 'datasets=[span.jsonl]' max_length=24 \
    doc_stride=8 predictions_file=windows.said
[ "$(wc -l <windows.said)" = 48 ] || fail 'windows of a context are not joined'

learn sets 20 task=seq-classification problem_type=multi_label_classification
at_least eval_f1_micro 0.8
grep -q '"problem_type": "multi_label_classification"' sets/final/config.json || fail 'problem_type'
grep -q '"label":\[\]' sets.said || fail 'a row without classes'

learn rated 10 task=seq-classification problem_type=regression
at_least eval_spearman 0.8
grep -q '"problem_type": "regression"' rated/final/config.json || fail 'problem_type'

learn near 6 task=embedding
at_least eval_accuracy@1 0.5
for file in modules.json 1_Pooling/config.json sentence_bert_config.json; do
    [ -f "near/final/$file" ] || fail "no $file"
done
learn near 3 task=embedding embedding_loss=symmetric overwrite_output_dir=true
sed -i 's/"pooling_mode_mean_tokens": true/"pooling_mode_mean_tokens": false/' near/final/1_Pooling/config.json
refused 4 'means over tokens' eval model_name_or_path=near/final task=embedding 'datasets=[near.jsonl]'

# rows without labels: the same is said of them, and nothing about what would be right
unlabelled() { # unlabelled NAME 'SED SCRIPT that takes the labels away' KEY=...
    local name=$1 script=$2
    shift 2
    sed -E "$script" "$name.jsonl" >"$name.bare.jsonl"
    ! cmp -s "$name.jsonl" "$name.bare.jsonl" || fail "$name still has its labels"
    ok predict "model_name_or_path=$name/final" "datasets=[$name.bare.jsonl]" max_length=48 "$@"
    ! grep -qE '"(label|reference)"' out || fail "$name: something is said to be right"
    cmp -s out <(sed -E 's/,"(label|reference)":("[^"]*"|\[[^]]*\]|[-0-9.e]+)//' "$name.said") ||
        fail "$name: without labels something else is said"
}
unlabelled tags 's/, "ner_tags": \[.*\]//' task=token-classification
unlabelled sets 's/, "labels": \[.*\]//' task=seq-classification problem_type=multi_label_classification
unlabelled rated 's/, "label": [0-9]+//' task=seq-classification problem_type=regression
unlabelled span 's/, "answers": .*$/}/' task=question-answering doc_stride=8
refused 2 'mbuyu generate' predict "model_name_or_path=$MB_TEST_DATA/reference/llama" 'datasets=[tags.jsonl]'

# an adapter, of every kind of head that is new
for task in token-classification:tags question-answering:span; do
    name=${task#*:}
    ok train "model_name_or_path=$model" "task=${task%:*}" "datasets=[$name.jsonl]" doc_stride=8 \
        finetuning_type=lora max_steps=3 max_length=48 "output_dir=$name-lora"
    ok eval "model_name_or_path=$model" "adapter_path=$name-lora/final" "task=${task%:*}" \
        "datasets=[$name.jsonl]" max_length=48 doc_stride=8
done
ok inspect "model_name_or_path=$model" task=token-classification 'datasets=[tags.jsonl]'
grep -q '\[B-P\]' out || fail 'inspect shows no tags'
refused 2 'packing is for language models' train "model_name_or_path=$model" task=token-classification \
    'datasets=[tags.jsonl]' packing=true output_dir=bad
echo 'labels of five kinds from start to end'
