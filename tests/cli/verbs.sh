# shellcheck shell=bash disable=SC2154
# tests/cli/verbs.sh - what the tests of the program share; sourced. A failure is counted, for finish to tell;
# with `set -e` the first one is the end.
#
#     start                         a folder of our own, removed at the end
#     ok ARG...                     mbuyu ARG... ends well; it prints to out and log
#     refused CODE PATTERN ARG...   it ends with this exit code and one sentence; the pattern is in log
#     expect CODE PATTERN... -- COMMAND
#                                   exit code, and every pattern is in what it printed; by=-F: as they stand
#     number KEY                    of the JSON in out
#     at_most A B WHAT              numbers
#     finish                        the test's exit status
failures=0

start() {
    work=$(mktemp -d)
    trap 'rm -rf "$work"' EXIT
    cd "$work" || exit 1
}

fail() {
    echo "FAILED: $*" >&2
    failures=$((failures + 1))
    [[ $- != *e* ]] || exit 1
}

ok() {
    "$MBUYU" "$@" >out 2>log || fail "exit code $?: mbuyu $*: $(tail -n 20 log)"
}

refused() {
    local want=$1 pattern=$2 got=0
    shift 2
    "$MBUYU" "$@" >out 2>log || got=$?
    [ "$got" -eq "$want" ] || fail "exit code $got, not $want: mbuyu $*: $(tail -n 20 log)"
    [ "$(grep -c '^mbuyu: [^w]' log)" -eq 1 ] || fail "not one sentence: mbuyu $*: $(tail -n 20 log)"
    grep -qE -e "$pattern" log || fail "no '$pattern' from mbuyu $*: $(tail -n 20 log)"
}

expect() {
    local code=$1 patterns=() pattern got=0
    shift
    while [ "$1" != -- ]; do
        patterns+=("$1")
        shift
    done
    shift
    "$@" >"$work/said" 2>&1 || got=$?
    [ "$got" -eq "$code" ] || fail "exit code $got, not $code: $* -> $(tail -n 20 "$work/said")"
    for pattern in "${patterns[@]}"; do
        grep -q "${by:--E}" -e "$pattern" "$work/said" || fail "no '$pattern': $* -> $(tail -n 20 "$work/said")"
    done
}

number() {
    sed -nE "s/.*\"$1\": *([-0-9.e]+).*/\1/p" out
}

at_most() {
    awk -v a="$1" -v b="$2" 'BEGIN { exit !(a <= b) }' || fail "$3: $1 is not at most $2"
}

finish() {
    [ "$failures" -eq 0 ] && echo 'all as expected'
    return $((failures > 0))
}
