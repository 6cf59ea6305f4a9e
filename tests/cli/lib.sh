# shellcheck shell=bash disable=SC2034
# tests/cli/lib.sh - what the tests of whole runs share; sourced. Sets work, helpers, rows, long,
# failures.
#
#     start                 a folder of our own, removed at the end
#     train RANKS KEY=...   mbuyu train on that many ranks; its output goes to $work/log
#     state CHECKPOINT      one line per tensor: sha256, elements, name; and the history
#     finish                the test's exit status
#
# Ranks outnumber the processors here, so waiting ones must give way.
helpers=$(dirname "$MBUYU")/tests
rows=$MB_TEST_DATA/rows/unequal.jsonl
failures=0
long=${MB_LONG:-0}
export OMP_NUM_THREADS=1 OMP_WAIT_POLICY=passive MBUYU_LOG=warn
# Plugins that MPI has unloaded leave blocks behind whose origin no suppression can name.
export ASAN_OPTIONS=${ASAN_OPTIONS:+$ASAN_OPTIONS:}detect_leaks=0
mpi=(mpirun --allow-run-as-root --oversubscribe --mca mpi_yield_when_idle 1 --mca btl_base_warn_component_unused 0)

start() {
    work=$(mktemp -d)
    trap 'rm -rf "$work"' EXIT
    cd "$work" || exit 1
}

fail() {
    echo "FAILED: $*" >&2
    failures=$((failures + 1))
}

train() {
    local ranks=$1
    shift
    timeout 300 "${mpi[@]}" -np "$ranks" "$MBUYU" train "$@" >"$work/log" 2>&1
}

# The same, and it must end well.
must_train() {
    train "$@" && return
    fail "exit code $? of: train $*"
    tail -n 20 "$work/log" >&2
    finish
    exit 1
}

state() {
    "$helpers/checkpoint_digest" "$1"
}

# same A B WHAT: two files, byte for byte
same() {
    cmp -s "$1" "$2" || fail "$3: $1 and $2 differ"
}

seconds() {
    date +%s.%N
}

# since BEGIN: seconds from then to now
since() {
    awk -v a="$1" -v b="$(seconds)" 'BEGIN { printf "%.1f", b - a }'
}

finish() {
    [ "$failures" -eq 0 ] && echo 'all as expected'
    return $((failures > 0))
}
