#!/usr/bin/env bash
# tests/cli/test_kill.sh - a run killed anywhere goes on to the same bits.
#
# Ranks are killed from outside with kill -9, by their process numbers, at chosen steps and inside
# saves; each time the run is started again on another number of ranks. In the end weights,
# optimizer state and the log equal those of a run nobody disturbed, byte for byte. A kill counts as
# inside a save when the unpublished folder is still there after all ranks are gone.
#
# Then the polite ways: SIGUSR1 to mpirun, a stop file, a time limit. All ranks stop at one step,
# which is saved; exit code 75; the same command goes on to the same bits.
#
# 8 kills, 20 with MB_LONG=1; at least three of them inside a save.
set -u
# shellcheck source-path=SCRIPTDIR source=lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
start

kills=8
[ "$long" = 1 ] && kills=20
save_steps=4
ranks_of=(2 1 3 2 4 1 3)
common=(model_name_or_path="$MB_TEST_DATA/reference/llama" "datasets=[$rows]" add_eos=true overlap_comm=true
    max_length=120 reduction=exact finetuning_type=lora lora_r=4 lora_dropout=0.5 learning_rate=1e-3
    logging_steps=1 report_to=jsonl resume_from_checkpoint=auto)

# Lines in the log, one per step; no process is started, for this is asked all the time.
lines=()
logged() {
    lines=()
    [ -f "$1/logs/train.jsonl" ] && mapfile -t lines <"$1/logs/train.jsonl"
    steps=${#lines[@]}
}

published() { # sets newest: the newest checkpoint's step, 0: none
    local folder
    newest=0
    for folder in "$1"/checkpoint-??????; do
        [ -d "$folder" ] && newest=$((10#${folder##*-}))
    done
}

curve() {
    sed -nE 's/^\{"step":([0-9]+),.*("loss":.*"num_trained_tokens":[0-9]+).*/\1 \2/p' "$1/logs/train.jsonl"
}

launch() { # launch RANKS KEY...: in the background; sets launcher and pids
    local n=$1 tries=0
    shift
    "${mpi[@]}" -np "$n" "$MBUYU" train "$@" >"$work/log" 2>&1 &
    launcher=$!
    pids=()
    while [ "${#pids[@]}" -lt "$n" ] && [ $tries -lt 2000 ] && [ -d "/proc/$launcher" ]; do
        read -ra pids <"/proc/$launcher/task/$launcher/children"
        tries=$((tries + 1))
        sleep 0.005
    done 2>/dev/null
}

over() { # waits for the launcher; sets code; every rank must be gone
    local pid tries=0
    wait "$launcher" 2>/dev/null
    code=$?
    for pid in "${pids[@]}"; do
        while kill -0 "$pid" 2>/dev/null && [ $tries -lt 1000 ]; do
            sleep 0.01
            tries=$((tries + 1))
        done
        kill -0 "$pid" 2>/dev/null && fail "rank $pid outlived mpirun"
    done
}

until_step() { # until_step OUT STEP: false when the run ended before
    logged "$1"
    while [ "$steps" -lt "$2" ]; do
        kill -0 "$launcher" 2>/dev/null || return 1
        logged "$1"
    done
}

until_published() { # until_published OUT STEP: a checkpoint newer than STEP is there
    published "$1"
    while [ "$newest" -le "$2" ]; do
        kill -0 "$launcher" 2>/dev/null || return 1
        published "$1"
    done
}

until_save() { # until_save OUT STEP: a save of a step behind STEP has begun
    local folder
    while kill -0 "$launcher" 2>/dev/null; do
        for folder in "$1"/checkpoint-*.partial; do
            folder=${folder%.partial}
            [[ $folder == *-[0-9]* ]] && [ "$((10#${folder##*-}))" -gt "$2" ] && return 0
        done
    done
    return 1
}

# victims WHICH: the first rank, the last, or all of them
victims() {
    case $1 in
    0) echo "${pids[0]}" ;;
    1) echo "${pids[-1]}" ;;
    *) echo "${pids[*]}" ;;
    esac
}

in_saves=0 counted=0

# kill_once NUMBER RANKS PLACE WHO KEY...: place: save, start, or so many steps behind a checkpoint
kill_once() {
    local number=$1 n=$2 place=$3 who=$4 from to in_save=no partial set
    shift 4
    published killed
    from=$newest
    launch "$n" "${set_kill[@]}" output_dir=killed "$@"
    case $place in
    save) until_save killed "$from" ;;
    start) until_step killed 2 ;;
    *) until_published killed "$from" && until_step killed $((newest + place)) ;;
    esac
    read -ra set <<<"$(victims "$who")"
    kill -9 "${set[@]}" 2>/dev/null
    over
    [ "$code" -ne 0 ] || fail "kill $number: the run ended well (code 0): $(tail -n 3 "$work/log")"
    for partial in killed/checkpoint-*.partial; do
        [ -d "$partial" ] && in_save=yes
    done
    logged killed
    published killed
    to=$newest
    if [ "$steps" -gt "$to" ]; then # else it fell between a checkpoint and the next step
        counted=$((counted + 1))
        [ $in_save = yes ] && in_saves=$((in_saves + 1))
    fi
    printf 'kill %2d: %d of %d ranks, from step %2d, at step %2d, %d lost, in a save: %-3s  %s\n' \
        "$number" "${#set[@]}" "$n" "$from" "$steps" $((steps - to)) "$in_save" "$*"
}

# --- kill -9

begin=$(seconds)
total=$((kills * 3 * save_steps))
set_kill=("${common[@]}" per_device_train_batch_size=2 global_batch_size=16 max_steps="$total"
    save_steps="$save_steps")
must_train 1 "${set_kill[@]}" output_dir=whole
state "whole/$(printf 'checkpoint-%06d' "$total")" >whole.state

number=0
while [ $number -lt $((kills + 6)) ] && { [ $counted -lt "$kills" ] || [ $in_saves -lt 3 ]; }; do
    place=$((number % save_steps + 1))
    [ $((number % 2)) = 1 ] && place=save
    [ $number -ge "$kills" ] && place=save
    [ $number = 0 ] && place=start # before there is any checkpoint
    keys=()
    [ $((number % 4)) = 3 ] && keys+=(save_async=false)
    [ $((number % 5)) = 4 ] && keys+=(zero_stage=3)
    [ $((number % 3)) = 2 ] && keys+=(gradient_checkpointing=true)
    kill_once $((number + 1)) "${ranks_of[number % ${#ranks_of[@]}]}" $place $((number % 3)) "${keys[@]}"
    number=$((number + 1))
    [ $failures -gt 3 ] && break
done
[ $counted -ge "$kills" ] || fail "only $counted kills lost a step"
[ $in_saves -ge 3 ] || fail "only $in_saves kills fell inside a save"
must_train 2 "${set_kill[@]}" output_dir=killed
state "killed/$(printf 'checkpoint-%06d' "$total")" >killed.state

same whole/final/adapter_model.safetensors killed/final/adapter_model.safetensors 'after kills: weights'
same whole.state killed.state 'after kills: optimizer state'
curve whole >whole.curve
curve killed >killed.curve
same whole.curve killed.curve 'after kills: the log'
[ "$(wc -l <killed.curve)" = "$total" ] || fail "the log has $(wc -l <killed.curve) steps, not $total"
ls -d killed/*.partial killed/.trash-* 2>/dev/null && fail 'a killed save left something behind'
printf '%d kills that lost steps, %d of them inside a save: the same bits, %s s\n' $counted $in_saves "$(since "$begin")"

# --- stopping politely; of a run that would go on for hours, so that no machine is done before

begin=$(seconds)
endless=100000
set_stop=("${common[@]}" per_device_train_batch_size=1 global_batch_size=4 save_steps="$endless"
    lr_scheduler_type=constant)

# stopped HOW RANKS: the run just launched must have stopped, saved what it logged
stopped() {
    over
    [ "$code" = 75 ] || fail "$1 on $2 ranks: exit code $code, not 75: $(tail -n 3 "$work/log")"
    published stopped
    [ "$newest" = "$(sed -n '$s/^{"step":\([0-9]*\).*/\1/p' stopped/logs/train.jsonl)" ] ||
        fail "$1 on $2 ranks: $newest saved, log: $(tail -n 1 stopped/logs/train.jsonl)"
    printf '%s on %d ranks: exit code %d, step %d saved\n' "$1" "$2" "$code" "$newest"
}

launch 3 "${set_stop[@]}" output_dir=stopped max_steps=$endless
until_step stopped 20
kill -USR1 "$launcher"
stopped 'SIGUSR1 to mpirun' 3

launch 2 "${set_stop[@]}" output_dir=stopped max_steps=$endless
until_step stopped $((newest + 20))
touch stopped/stop
stopped 'a stop file' 2
[ ! -e stopped/stop ] || fail 'the stop file is still there'

launch 4 "${set_stop[@]}" output_dir=stopped max_steps=$endless time_limit=1
stopped 'a time limit' 4

total=$((newest + 20))
must_train 1 "${set_stop[@]}" output_dir=stopped max_steps=$total
must_train 2 "${set_stop[@]}" output_dir=through max_steps=$total
for run in stopped through; do
    state "$run/$(printf 'checkpoint-%06d' "$total")" >$run.state
    curve $run >$run.curve
done
same through/final/adapter_model.safetensors stopped/final/adapter_model.safetensors 'after stops: weights'
same through.state stopped.state 'after stops: optimizer state'
same through.curve stopped.curve 'after stops: the log'
[ "$(wc -l <stopped.curve)" = "$total" ] || fail "the log has $(wc -l <stopped.curve) steps, not $total"
printf 'stopped three times, %d steps: the same bits, %s s\n' "$total" "$(since "$begin")"
finish
