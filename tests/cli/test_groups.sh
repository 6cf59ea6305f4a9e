#!/usr/bin/env bash
# Metrics by group: every metric for each value of a column, the same on one and two ranks, what `mbuyu score`
# says of those rows alone; and what cannot be a group. MBUYU is the program, MB_TEST_DATA the data.
set -euo pipefail
# shellcheck source-path=SCRIPTDIR source=verbs.sh
. "$(dirname "${BASH_SOURCE[0]}")/verbs.sh"
export OMP_NUM_THREADS=1 MBUYU_LOG=info
start
models=$MB_TEST_DATA/reference

value() { sed -nE "s/^ *\"$1\": *([-0-9.e]+|null),?\$/\1/p" "$2"; }
two=(mpirun --allow-run-as-root --oversubscribe --mca mpi_yield_when_idle 1 --mca btl_base_warn_component_unused 0 -np 2)

languages=(sw en "Dar es Salaam" '')
for i in $(seq 1 61); do
    set -- good bad fair
    shift $((i * i % 3))
    language=${languages[$((i % 7 % 4))]}
    printf '{"text": "the maize of field %d is %s", "label": "%s", "district": %d%s}\n' "$((i % 7))" "$1" \
        "$([ $((i % 5)) -eq 0 ] && echo good || echo "$1")" "$i" "${language:+, \"language\": \"$language\"}"
done >classes.jsonl
ok train "model_name_or_path=$models/bert-cls" task=seq-classification 'datasets=[classes.jsonl]' \
    val_set_size=20 eval_strategy=epoch num_train_epochs=2 learning_rate=1e-3 max_length=64 metrics_by=language \
    output_dir=cls
grep -q '"eval_sw_accuracy":' cls/logs/train.jsonl || fail 'the log has no metrics of a group'
grep -qE 'language sw +rows [0-9]+  accuracy ' log || fail 'there is no table of groups'
if grep -q 'eval_loss.*eval_sw_accuracy' log; then fail 'the progress line has the groups, too'; fi

# every row is in one group; a group's numbers are those of its rows alone
run=(model_name_or_path=cls/final task=seq-classification 'datasets=[classes.jsonl]' max_length=64
    'metrics=[accuracy, f1, matthews_correlation]' metrics_by=language predictions_file=said.jsonl)
ok eval "${run[@]}"
cp out one
[ "$(grep -c '_rows"' one)" -eq 4 ] || fail 'there are not four groups'
for group in sw en 'Dar es Salaam'; do
    [ "$(value "eval_${group}_rows" one)" = "$(grep -cF "\"language\": \"$group\"" classes.jsonl)" ] || fail "rows of $group"
done
for group in sw en 'Dar es Salaam' '(none)'; do
    grep -F "\"group\":\"$group\"" said.jsonl >some.jsonl || grep -F "\"group\": \"$group\"" said.jsonl >some.jsonl
    "$MBUYU" score some.jsonl metric=accuracy,f1,matthews_correlation >scored 2>log || fail 'score'
    pattern=${group//(/\\(}
    pattern=${pattern//)/\\)}
    [ "$(value "eval_${pattern}_rows" one)" = "$(wc -l <some.jsonl)" ] || fail "rows of $group"
    for metric in accuracy f1 matthews_correlation; do
        [ "$(value "eval_${pattern}_$metric" one)" = "$(value "$metric" scored | head -n 1)" ] ||
            fail "$metric of $group: $(value "eval_${pattern}_$metric" one), not $(value "$metric" scored | head -n 1)"
    done
done

# on two ranks the same, but for the clock
if command -v mpirun >/dev/null; then
    "${two[@]}" "$MBUYU" eval "${run[@]}" >out 2>log || fail "exit code $? on two ranks: $(tail -n 20 log)"
    diff <(grep -v runtime one) <(grep -v runtime out) || fail 'two ranks say other numbers'
fi

# tables, too
sed -E 's/.*"text": "([^"]*)", "label": "([^"]*)", "district": ([0-9]+).*/\1\t\2\t\3/' classes.jsonl |
    awk -F'\t' 'BEGIN { print "text\tlabel\thalf" } { print $1 "\t" $2 "\t" ($3 > 30 ? "late" : "early") }' >classes.tsv
ok eval model_name_or_path=cls/final task=seq-classification 'datasets=[classes.tsv]' max_length=64 \
    metrics_by=half
[ "$(value eval_early_rows out) $(value eval_late_rows out)" = '30 31' ] || fail 'groups of a table'

# rows of one line are told apart, in the order they are read in; what was skipped is in no group
printf '[{"text": "one", "label": "good", "language": "sw"}, 5, {"text": "two", "label": "bad"}, ' >list.json
printf '{"label": "good", "language": 7.5}, {"text": "three", "label": "bad", "language": "en"}, ' >>list.json
printf '{"text": "four", "label": "bad", "language": "sw"}]' >>list.json
groups_of() { # groups_of SPLIT: "group rows" of list.json
    ok eval model_name_or_path=cls/final task=seq-classification max_length=64 bad_rows=skip \
        metrics_by=language "datasets=[{path: list.json, split: '$1'}]"
    sed -nE 's/^ *"eval_(.*)_rows": ([0-9]+),$/\1 \2/p' out | paste -sd ' '
}
[ "$(groups_of train)" = '(none) 1 en 1 sw 2' ] || fail 'rows of one line'
[ "$(groups_of 'train[4:]+train[:2]')" = 'en 1 sw 2' ] || fail 'rows of one line, in two parts'

# every kind of task: each group has its rows and its numbers
check() { # check METRIC TASK ROWS KEY...
    local metric=$1 task=$2
    printf '%s\n' "$3" >rows.jsonl
    shift 3
    ok eval "task=$task" 'datasets=[rows.jsonl]' max_length=64 metrics_by=language "$@"
    [ "$(value eval_sw_rows out) $(value eval_en_rows out)" = '1 2' ] || fail "rows of groups, $task"
    for group in sw en; do
        [[ "$(value "eval_${group}_$metric" out)" =~ ^[-0-9] ]] || fail "$metric of $group, $task, is no number"
    done
}
three() { printf '{%s, "language": "%s"}\n' "$1" sw "$2" en "$3" en; }
bert=model_name_or_path=$models/bert-mlm
check mse seq-classification "$(three '"text": "a", "label": 0.5' '"text": "b", "label": 0.1' '"text": "c", "label": 1.5')" \
    "$bert" problem_type=regression
check f1 token-classification "$(three '"tokens": ["a"], "ner_tags": ["B-X"]' '"tokens": ["b", "c"], "ner_tags": ["O", "B-X"]' \
    '"tokens": ["c"], "ner_tags": ["O"]')" "$bert" 'label_names=[O, B-X]'
check exact_match question-answering "$(three '"question": "q", "context": "a b", "answers": {"text": ["a"], "answer_start": [0]}' \
    '"question": "q", "context": "c d", "answers": {"text": ["d"], "answer_start": [2]}' \
    '"question": "r", "context": "c d", "answers": {"text": ["c"], "answer_start": [0]}')" "$bert" doc_stride=8
check mrr embedding "$(three '"sentence1": "a", "sentence2": "b"' '"sentence1": "c", "sentence2": "d"' '"sentence1": "e", "sentence2": "f"')" "$bert"
check chrf seq2seq "$(three '"source": "a", "target": "b"' '"source": "c", "target": "d"' '"source": "e", "target": "f"')" \
    "model_name_or_path=$models/t5" predict_with_generate=true max_new_tokens=4

# what cannot be
base=(model_name_or_path=cls/final task=seq-classification max_length=64)
head -n 64 <(yes "$(cat classes.jsonl)" | awk '{ sub(/"district": [0-9]+/, "\"district\": " NR); print }') >many.jsonl
ok eval "${base[@]}" 'datasets=[many.jsonl]' metrics_by=district
[ "$(grep -c '_rows"' out)" -eq 64 ] || fail 'there are not 64 groups'
sed 's/"district": 64/"district": 65/; s/$/\n/' many.jsonl >more.jsonl
echo '{"text": "one more", "label": "good", "district": 64}' >>more.jsonl
refused 3 'metrics_by: the column "district" has more than 64 values' eval "${base[@]}" 'datasets=[more.jsonl]' metrics_by=district
refused 3 'no row of the evaluation has a column "langue"' eval "${base[@]}" 'datasets=[classes.jsonl]' metrics_by=langue
sed 's/"district": 7,/"district": 7.5,/; s/"district": 7}/"district": 7.5}/' classes.jsonl >real.jsonl
refused 3 'real.jsonl:7: district must be an integer' eval "${base[@]}" 'datasets=[real.jsonl]' metrics_by=district
refused 3 'real.jsonl:7: district must be an integer' eval "${base[@]}" 'datasets=[real.jsonl]' metrics_by=district bad_rows=skip
printf '{"text": "too long", "label": "good", "district": "%064d"}\n' 7 >long.jsonl
for bad_rows in error skip; do
    refused 3 'long.jsonl:1: district has 64 bytes, at most 63 are read' eval "${base[@]}" 'datasets=[long.jsonl]' \
        metrics_by=district bad_rows=$bad_rows
done
printf '{"text": "a b c"}\n%.0s' 1 2 3 4 >texts.jsonl
refused 2 'metrics_by: evaluations of this task measure the loss only' eval "model_name_or_path=$models/llama" \
    'datasets=[texts.jsonl]' max_length=64 metrics_by=language
