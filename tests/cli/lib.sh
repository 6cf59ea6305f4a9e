# shellcheck shell=bash disable=SC2034
# tests/cli/lib.sh - what the tests of whole runs share, beside verbs.sh; sourced. Sets work, helpers, rows,
# long.
#
#     train RANKS KEY=...   mbuyu train on that many ranks; its output goes to $work/log
#     state CHECKPOINT      one line per tensor: sha256, elements, name; and the history
#     curve OUT             loss and norm of every step and the evaluations, as printed
#     same_run A B WHAT     weights, optimizer state (A/state, B/state) and curve of two runs
#     bytes_as_said R S W   of a run with MBUYU_LOG=debug: bytes each rank sent, and the formula's
#     with_dropouts NAME .. a reference model with other probabilities in its configuration
#     clients FILE ARG...   a Python script that can import serve_client.py
#
# Ranks outnumber the processors here, so waiting ones must give way.
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
# shellcheck source-path=SCRIPTDIR source=verbs.sh
. "$here/verbs.sh"
helpers=$(dirname "$MBUYU")/tests
rows=$MB_TEST_DATA/rows/unequal.jsonl
long=${MB_LONG:-0}
export OMP_NUM_THREADS=1 OMP_WAIT_POLICY=passive MBUYU_LOG=warn
# Plugins that MPI has unloaded leave blocks behind whose origin no suppression can name.
export ASAN_OPTIONS=${ASAN_OPTIONS:+$ASAN_OPTIONS:}detect_leaks=0
mpi=(mpirun --allow-run-as-root --oversubscribe --mca mpi_yield_when_idle 1 --mca btl_base_warn_component_unused 0)

train() {
    local ranks=$1
    shift
    timeout 300 "${mpi[@]}" -np "$ranks" "$MBUYU" train "$@" >"$work/log" 2>&1
}

# The same, and it must end well.
must_train() {
    train "$@" && return
    fail "exit code $? of: train $*: $(tail -n 20 "$work/log")"
    exit 1
}

state() {
    "$helpers/checkpoint_digest" "$1"
}

# same A B WHAT: two files, byte for byte
same() {
    cmp -s "$1" "$2" || fail "$3: $1 and $2 differ"
}

curve() {
    grep -oE '"(loss|eval_loss|eval_accuracy)":[^,]*(,"grad_norm":[^,]*)?' "$1/logs/train.jsonl"
}

same_run() {
    local file
    for file in model.safetensors adapter_model.safetensors; do
        [ -f "$1/final/$file" ] && same "$1/final/$file" "$2/final/$file" "$3: weights"
    done
    same "$1/state" "$2/state" "$3: optimizer state"
    curve "$1" >"$work/a"
    curve "$2" >"$work/b"
    same "$work/a" "$work/b" "$3: losses"
}

# bytes_as_said RANKS STEPS WHAT: in $work/log, of each rank's steps but the first
bytes_as_said() {
    awk -v n="$1" -v steps="$2" '
        / bytes sent, [0-9]+ by the formula$/ {
            for (i = 1; i <= NF; i++) {
                if ($i == "step") step = $(i + 1) + 0
                if ($i == "sent,") { got = $(i - 2); said = $(i + 1) }
            }
            if (step == 1) next
            seen++
            if (got != said || got <= 0) { print; wrong++ }
        }
        END { exit wrong > 0 || seen != n * (steps - 1) }' "$work/log" >"$work/said" ||
        fail "$3: bytes sent: $(cat "$work/said" "$work/log" | tail -n 5)"
}

with_dropouts() { # with_dropouts NAME KEY=P...: as $work/NAME
    local name=$1 pair
    shift
    cp -r "$MB_TEST_DATA/reference/$name" "$work/$name"
    for pair; do
        sed -i -E "s/\"${pair%=*}\": *[0-9.a-z]+/\"${pair%=*}\": ${pair#*=}/" "$work/$name/config.json"
        grep -q "\"${pair%=*}\": ${pair#*=}" "$work/$name/config.json" || fail "$name has no $pair"
    done
}

# rows_of_classes FILE: the rows as texts of one of three classes
rows_of_classes() {
    sed -E 's/^\{"prompt": "(.)(.*)", "completion": ".*"\}$/{"text": "\1\2", "label": \1}/' "$rows" |
        sed -E -e 's/"label": [a-l]\}/"label": 0}/' -e 's/"label": [A-Zm-z]\}/"label": 1}/' >"$1"
}

clients() {
    PYTHONPATH=$here timeout 500 python3 -P "$@"
}

seconds() {
    date +%s.%N
}

# since BEGIN: seconds from then to now
since() {
    awk -v a="$1" -v b="$(seconds)" 'BEGIN { printf "%.1f", b - a }'
}
