#!/usr/bin/env bash
# tests/cli/test_plan.sh - mbuyu plan: parts add up to phases, what is proposed fits, a probe leaves
# nothing.
#
# Every proposal is planned once more as a user would, with its keys and on its ranks: it takes what the
# list says, and less than what was given. A probe makes as many steps as it says and writes no file. A
# model of 6 million parameters with random weights.
set -u
# shellcheck source-path=SCRIPTDIR source=lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
start

mkdir model
sed -e 's/"n_embd": [0-9]*/"n_embd": 256/' -e 's/"n_layer": [0-9]*/"n_layer": 4/' \
    -e 's/"n_head": [0-9]*/"n_head": 4/' -e 's/"vocab_size": [0-9]*/"vocab_size": 8192/' \
    "$MB_TEST_DATA/reference/gpt2/config.json" >model/config.json
cp "$MB_TEST_DATA/reference/gpt2/tokenizer.json" model/
"$helpers/make_model" model || fail 'no model'

common=(model_name_or_path=model "datasets=[$rows]" add_eos=true max_length=120 per_device_train_batch_size=8
    global_batch_size=16 num_train_epochs=3 val_set_size=6 eval_strategy=steps eval_steps=4 save_steps=5
    save_async=false bf16=false device=cpu)

# plan ARGUMENTS...: into out.plan
plan() {
    "$MBUYU" plan "$@" >out.plan 2>log || fail "exit code $? of: plan $*: $(cat log)"
}

# adds_up WHAT: every column of out.plan; the largest total is marked
adds_up() {
    awk '
        /^ +loading/ { table = 1; next }
        table && /^  total/ {
            for (i = 1; i <= 6; i++) {
                t = $(i + 1)
                marked = sub(/\*/, "", t)
                if (t - sum[i] > 0.51 || sum[i] - t > 0.51) { print "column", i, "is", sum[i], "not", t; exit 1 }
                if (t + 0 > most) { most = t + 0; at = i }
                if (marked) star = i
            }
            done = 1
            exit !(lines >= 8 && star == at && most > 0)
        }
        table && NF >= 7 { lines++; for (i = 1; i <= 6; i++) sum[i] += $(NF - 6 + i) }
        END { if (!done) exit 1 }' out.plan || fail "$1: the table does not add up: $(cat out.plan)"
}

# most: the marked total of out.plan
most() {
    awk '/^  total/ { for (i = 2; i <= NF; i++) if ($i ~ /\*/) { sub(/\*/, "", $i); print $i } }' out.plan
}

plan "${common[@]}"
adds_up 'one rank'
grep -q 'it does not fit' out.plan && fail "does it not fit? $(cat out.plan)"
for keys in 'bf16=true save_async=true' 'finetuning_type=lora' 'reduction=exact zero_stage=3'; do
    # shellcheck disable=SC2086
    plan "${common[@]}" $keys --ranks 2
    adds_up "two ranks, $keys"
done

# --- what is proposed

# proposals MIB KEY...: those for so much memory, as lines "MiB|time|arguments" in proposed; on several
# machines they are as many ranks
proposals() {
    local memory=$1
    shift
    plan "$@" --memory "${memory}MiB"
    sed -nE -e 's/   \(.*on ([0-9]+) machines.*\)$/ --ranks \1/' -e 's/   \(.*\)$//' \
        -e '/^ +MiB +time/,$ s/^ *([0-9.]+) +x([0-9.]+)  (.*)$/\1|\2|\3/p' out.plan >proposed
    grep -v -- '--ranks [2-9]' proposed | sort -t '|' -k 2,2 -n -s -c || fail "not the least time first: $(cat out.plan)"
}

# hold MIB KEY...: each of them is planned by itself
hold() {
    local memory=$1 mib arguments n=0 more
    shift
    cp proposed wanted
    while IFS='|' read -r mib _ arguments; do
        read -ra more <<<"$arguments"
        n=$((n + 1))
        plan "$@" "${more[@]}" </dev/null
        awk -v said="$mib" -v is="$(most)" -v memory="$memory" '
            BEGIN { exit !(is <= memory && is - said < 0.11 && said - is < 0.11) }' ||
            fail "$arguments: said $mib MiB of $memory, planned $(most)"
    done <wanted
    [ "$n" -gt 0 ] || fail "nothing is proposed for $memory MiB: $(cat out.plan)"
}

part() { # part SHARE: of all, in whole MiB
    awk "BEGIN { printf \"%.0f\", $all * $1 }"
}

plan "${common[@]}"
all=$(most)
proposals "$(part 0.92)" "${common[@]}"
hold "$(part 0.92)" "${common[@]}"
grep -q 'zero_stage=3.* --ranks 2' wanted || fail "no second machine for $(part 0.92) of $all MiB: $(cat wanted)"
common+=(save_strategy=no)
plan "${common[@]}"
all=$(most)
proposals "$(part 0.9)" "${common[@]}"
hold "$(part 0.9)" "${common[@]}"
for wanted in optim=adamw_bf16 gradient_checkpointing=true finetuning_type=lora per_device_train_batch_size=; do
    cut -d '|' -f 3 proposed | grep -q "$wanted" || fail "no $wanted for $(part 0.9) of $all MiB: $(cat proposed)"
done
plan "${common[@]}" optim=adamw_8bit per_device_train_batch_size=1 gradient_checkpointing=true
least=$(awk "BEGIN { printf \"%.0f\", $(most) + 2 }")
proposals "$least" "${common[@]}"
hold "$least" "${common[@]}"
grep -q 'optim=adamw_8bit .*=' wanted || fail "no combination for $least of $all MiB: $(cat wanted)"
proposals 2 "${common[@]}"
grep -q '^no change that is known here' out.plan || fail "what makes $all MiB fit into 2? $(cat out.plan)"
# on two ranks of a machine, which share what it has
proposals "$all" "${common[@]}" per_device_train_batch_size=2 --ranks 2
grep -q -- '--ranks 1' proposed || fail "not one rank instead of two: $(cat out.plan)"

# --- a probe

files() {
    find . -type f ! -name out.plan ! -name log ! -name files.\* -exec sha256sum {} + | sort
}

mkdir -p run/logs
echo mine >run/logs/train.jsonl
files >files.before
plan "${common[@]}" save_strategy=steps output_dir=run --probe
files >files.after
same files.before files.after 'a probe writes'
grep -qE '^probe: 12 steps, the last 10 timed: [0-9.]+ tokens/s, ' out.plan || fail "figures of a probe: $(cat out.plan)"
grep -qE '^  evaluation +[0-9.]+ [a-z]+ +3 times' out.plan || fail "evaluations of a probe: $(cat out.plan)"
grep -qE '^  the run +[0-9.]+ [a-z]+ +and 3 checkpoints of [0-9]+ MiB, not tried' out.plan || fail "a probe's hours: $(cat out.plan)"
plan "${common[@]}" num_train_epochs=60 eval_strategy=no --probe --ranks 2
grep -qE '^probe: 20 steps, the last 18 timed' out.plan || fail "steps of a probe: $(cat out.plan)"
grep -q '^  evaluation  *[0-9.]* [a-z]' out.plan && fail "there is no evaluation: $(cat out.plan)"
plan "${common[@]}" max_steps=1 --probe --memory "$(part 0.9)MiB"
grep -qE '^probe: 1 step, the last 1 timed' out.plan || fail "one step: $(cat out.plan)"
grep -qE '^ +[0-9.]+ +[0-9.]+ h  ' out.plan || fail "proposals after a probe have no hours: $(cat out.plan)"

# --- wrong words
for wrong in '--memory' '--memory 0' '--memory much' '--memory=8GX' '--memory -1GiB'; do
    # shellcheck disable=SC2086
    "$MBUYU" plan "${common[@]}" $wrong >out.plan 2>log
    code=$?
    [ "$code $(grep -c '^mbuyu: --memory wants the memory of a machine' log) $(wc -l <log)" = '2 1 1' ] ||
        fail "$wrong: exit code $code: $(cat log)"
done
finish
