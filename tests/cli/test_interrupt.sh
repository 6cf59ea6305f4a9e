#!/usr/bin/env bash
# tests/cli/test_interrupt.sh - Ctrl-C as a person types it, on a terminal of its own (script).
#
# One process and --ranks answer at once, save and end with 75; a second Ctrl-C ends them at once.
# mpirun kills its ranks whatever they do: they say so, and what saves instead. The message that a
# stop leaves names the command that goes on, and it does.
set -u
# shellcheck source-path=SCRIPTDIR source=lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
command -v script >/dev/null || {
    echo 'left out: there is no script (bsdutils)'
    exit 77
}
start

keys=(model_name_or_path="$MB_TEST_DATA/reference/llama" "datasets=[$rows]" finetuning_type=lora
    max_length=120 lr_scheduler_type=constant per_device_train_batch_size=2 logging_steps=1
    report_to=jsonl save_steps=100000 max_steps=100000)
export MBUYU_LOG=info NO_COLOR=1

# seen PATTERN: waits until the terminal shows it
seen() {
    local tries=0
    until grep -q -e "$1" typed.log 2>/dev/null; do
        kill -0 $terminal 2>/dev/null && [ $tries -lt 600 ] || return 1
        sleep 0.1
        tries=$((tries + 1))
    done
}

# typed PATTERN TIMES COMMAND...: Ctrl-C when the terminal, typed.log, shows the pattern; sets code.
# Both shells give way to the command: one that waits gets the Ctrl-C, too, and ends with 130 where
# its child ends before it notices.
typed() {
    local pattern=$1 times=$2 terminal
    shift 2
    rm -f keyboard typed.log
    mkfifo keyboard
    printf '%q ' exec "$@" >typed.sh
    timeout 120 script -qec 'exec bash typed.sh' /dev/null <keyboard >typed.log 2>&1 &
    terminal=$!
    exec 7>keyboard
    seen "$pattern" && printf '\003' >&7
    [ "$times" = 1 ] || { seen 'stopping after' && printf '\003' >&7; }
    wait $terminal
    code=$?
    exec 7>&-
}

said() { # said WHAT PATTERN...
    local what=$1
    shift
    for pattern; do
        grep -q -e "$pattern" typed.log || fail "$what: no '$pattern' in $(tail -n 8 typed.log)"
    done
}

saved() { # saved OUT: the step of its newest checkpoint
    local newest
    newest=$(find "$1" -maxdepth 1 -name 'checkpoint-??????' | sort | tail -n 1)
    echo "${newest: -6}"
}

typed 'step 5/' 1 "$MBUYU" train "${keys[@]}" output_dir=one
[ "$code" = 75 ] || fail "one process: exit code $code: $(tail -n 3 typed.log)"
said 'one process' 'stopping after this step and saving; again: ends at once' \
    'by SIGINT, and saved; to continue: the same command with resume_from_checkpoint=auto'
step=$((10#$(saved one)))
[ "$step" -ge 5 ] || fail "one process: nothing is saved: $(ls one)"

# what it says is true: the same command refuses, with the key it goes on
"$MBUYU" train "${keys[@]}" output_dir=one >log 2>&1 && fail 'a second run mixes with the first'
grep -q "holds checkpoints up to step $step of an earlier run" log || fail "refused otherwise: $(cat log)"
"$MBUYU" train "${keys[@]}" output_dir=one resume_from_checkpoint=auto max_steps=$((step + 2)) >log 2>&1 ||
    fail "does not go on: $(cat log)"
grep -q "resuming from .*(step $step," log || fail "resumed without a word: $(cat log)"
grep -q "^$((step + 2)) steps, of which 2 now, " log || fail "no count of this start's steps: $(cat log)"

typed 'step 5/' 1 "$MBUYU" train --ranks 2 "${keys[@]}" output_dir=two resume_from_checkpoint=auto
[ "$code" = 75 ] || fail "--ranks 2: exit code $code: $(tail -n 3 typed.log)"
said '--ranks 2' 'stopping after this step and saving' 'and saved; the same command continues'
[ "$((10#$(saved two)))" -ge 5 ] || fail "--ranks 2: nothing is saved: $(ls two)"

# the second, while the first waits for a step of many rows
typed ' planned' 2 "$MBUYU" train --ranks 2 "${keys[@]}" output_dir=hard \
    "datasets=[{path: $rows, weight: 256}]" global_batch_size=16384
[ "$code" = 130 ] || fail "--ranks 2, twice: exit code $code: $(tail -n 5 typed.log)"
[ -z "$(saved hard)" ] || fail '--ranks 2, twice: it saved'

# signals that fall into matrix products leave these as they are
rm -f log # the last one has the line that is waited for
"$MBUYU" train "${keys[@]}" output_dir=storm "datasets=[{path: $rows, weight: 32}]" \
    global_batch_size=2048 max_steps=3 >log 2>&1 &
pid=$!
sent=0
until grep -q " planned" log 2>/dev/null; do sleep 0.1; done
while [ $sent -lt 3000 ] && kill -USR1 $pid 2>/dev/null; do
    sent=$((sent + 1))
done
wait $pid
code=$?
[ "$code" = 75 ] || fail "many signals: exit code $code after $sent: $(tail -n 3 log)"

# few lines: mpirun reads none while it waits for its ranks to end, and a full pipe keeps the sentence
typed 'step 100/' 1 "${mpi[@]}" -np 2 "$MBUYU" train "${keys[@]}" logging_steps=100 output_dir=three
[ "$code" != 0 ] || fail 'mpirun: exit code 0'
said 'mpirun' 'mpirun ends its ranks within a second' '--ranks N'

# a run that was killed before its first checkpoint
mkdir -p four/logs
: >four/logs/train.jsonl
"$MBUYU" train "${keys[@]}" output_dir=four max_steps=1 >log 2>&1 || fail "start anew: $(cat log)"
grep -q 'an earlier run in four saved no checkpoint: training starts at step 0' log ||
    fail "no word of the earlier run: $(cat log)"

# --ranks itself
for bad in 0 x -1 ''; do
    "$MBUYU" env --ranks "$bad" >log 2>&1
    [ "$? $(grep -c 'wants how many ranks' log)" = '2 1' ] || fail "--ranks '$bad': $(cat log)"
done
"${mpi[@]}" -np 2 "$MBUYU" env --ranks 2 >log 2>&1 && fail '--ranks under mpirun'
[ "$(grep -c 'one of the two' log)" = 1 ] || fail "--ranks under mpirun: $(cat log)"
"$MBUYU" env --ranks 3 2>&1 | grep -q '^ranks *3 ranks' || fail '--ranks 3 has not three ranks'
"$MBUYU" train nothing.yaml --ranks 2 >log 2>&1
[ "$? $(grep -c '^mbuyu: ' log)" = '2 1' ] || fail "a failure's exit code: $(cat log)"

# --- a template that writes the day: a run that goes on the day after keeps the day it began
for i in 1 2 3 4 5 6 7 8; do
    printf '{"messages":[{"role":"user","content":"a %d"},{"role":"assistant","content":"b"}]}\n' $i
done >talk.jsonl
dated=(model_name_or_path="$MB_TEST_DATA/reference/llama" 'datasets=[talk.jsonl]' max_length=120
    per_device_train_batch_size=2 gradient_accumulation_steps=1 save_steps=1 output_dir=dated
    resume_from_checkpoint=auto
    chat_template="{% for m in messages %}{{ strftime_now('%d') }} {{ m.content }} {% endfor %}")
for day in 1 2; do
    SOURCE_DATE_EPOCH=$((day * 86400)) "$MBUYU" train "${dated[@]}" max_steps=$day >log 2>&1 ||
        fail "day $day: $(tail -n 3 log)"
done
grep -q 'resuming from .*(step 1,' log || fail "nothing was resumed: $(cat log)"

finish
