#!/usr/bin/env bash
# mutate.sh BUILD [NAME...] - a test of the tests: kernels with a planted fault must fail.
#
# Each line of mutations/table names a file of core/cuda, a sed script that plants one fault in it
# and a test program. The fault is planted in a copy, what depends on the file is compiled for the
# emulator and linked with the rest of BUILD's, and the test must fail with that plug-in after it has
# passed with BUILD's own. A sed script that changes nothing, a copy that does not compile or a
# plug-in that does not load is an error: the table is out of date.
#
# Without names: the lines marked with *, all lines when MB_LONG is 1. MB_JOBS (2) at a time.
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
root=$(cd "$here/../.." && pwd)
table=$here/mutations/table
die() {
    printf 'mutate.sh: %s\n' "$1" >&2
    exit 1
}

[ $# -ge 1 ] || die 'usage: mutate.sh BUILD [NAME...]'
build=$(cd "$1" && pwd)
shift
conf=$build/tests/mutate.conf # compiler, flags, libraries, objects: written by CMake
[ -f "$conf" ] || die "there is no $conf"
# shellcheck source=/dev/null
. "$conf"
: "${compiler:?}" "${flags?}" "${libraries?}" "${objects:?}" "${plugin:?}"
if [ ! -f "$plugin" ]; then
    printf 'skipped: there is no %s\n' "$plugin"
    [ -z "${MB_NEED_DEVICE:-}" ] && exit 77
    exit 1
fi

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
export MB_NEED_DEVICE=1 OMP_NUM_THREADS=1 OMP_WAIT_POLICY=passive

# with PLUGIN LOG TEST [VARIABLE=VALUE...]: runs a test program; its status
with() {
    local plug=$1 log=$2 program=$build/tests/$3
    shift 3
    [ -x "$program" ] || die "there is no $program"
    env MB_TEST_DEVICE=cuda "$@" MBUYU_CUDA_LIBRARY="$plug" timeout 300 "$program" >"$log" 2>&1
}

# The translation units to compile again when FILE changed: itself, or who includes it.
dependents() { # dependents COPY FILE
    local file=$2 header
    case $file in
    *.cu) printf '%s\n' "$file" ;;
    *)
        grep -lF "\"core/cuda/$file\"" "$1"/core/cuda/*.cu | sed 's,.*/,,'
        while IFS= read -r header; do
            dependents "$1" "$(basename "$header")"
        done < <(grep -lF "\"core/cuda/$file\"" "$1"/core/cuda/*.h)
        ;;
    esac
}

# One mutation; prints one line, with the reason when it is not as it should be.
mutate() { # mutate NAME FILE SED TEST
    local name=$1 file=$2 script=$3 copy=$work/$1 status=0 unit object linked=() test
    read -ra test <<<"$4"
    mkdir -p "$copy/core"
    cp -r "$root/core/cuda" "$copy/core/cuda"
    [ -f "$copy/core/cuda/$file" ] || { echo "ERROR   $name: there is no core/cuda/$file" && return 1; }
    sed -E -i "$script" "$copy/core/cuda/$file" || { echo "ERROR   $name: sed" && return 1; }
    if cmp -s "$copy/core/cuda/$file" "$root/core/cuda/$file"; then
        echo "ERROR   $name: the sed script changes nothing in $file"
        return 1
    fi
    for object in $objects; do
        linked+=("$object")
    done
    while IFS= read -r unit; do
        # shellcheck disable=SC2086
        if ! "$compiler" $flags -w -I"$copy" -I"$root/tests/emu/include" -I"$root" \
            -c -o "$copy/$unit.o" "$copy/core/cuda/$unit" 2>"$copy/log"; then
            echo "ERROR   $name: $unit does not compile"
            head -n 5 "$copy/log"
            return 1
        fi
        for object in "${!linked[@]}"; do
            [[ ${linked[$object]} == */core/cuda/$unit.o ]] && linked[object]=$copy/$unit.o
        done
    done < <(dependents "$copy" "$file" | sort -u)
    # shellcheck disable=SC2086
    "$compiler" -shared -o "$copy/plugin.so" "${linked[@]}" $libraries || return 1
    if ! with "$plugin" "$copy/log" "${test[@]}"; then
        echo "ERROR   $name: ${test[*]} fails without the fault"
        tail -n 5 "$copy/log"
        return 1
    fi
    with "$copy/plugin.so" "$copy/log" "${test[@]}" || status=$?
    if [ "$status" -eq 0 ]; then
        echo "ALIVE   $name: ${test[*]} passes with the fault"
        return 1
    elif grep -q 'there is no device' "$copy/log"; then
        echo "ERROR   $name: the plug-in does not load"
        tail -n 3 "$copy/log"
        return 1
    fi
    echo "killed  $name by ${test[*]}: $(grep -aE 'error|Error|wrote|allowed|emulator|wanted|FAILED' "$copy/log" |
        head -n 1 | cut -c1-150)"
    rm -rf "$copy"
}

# Every kernel has a fault planted in it.
while IFS= read -r kernel; do
    grep -qE "^\*?${kernel}(_[a-z0-9_]+)? " "$table" || die "the table has no fault for $kernel"
done < <(sed -nE 's/^MB_KERNEL(_WS)?\(([a-z0-9_]+),.*/\2/p' "$root/core/kernels.def")

jobs=() failed=0 n=0
wait_one() {
    wait "${jobs[0]}" || failed=$((failed + 1))
    jobs=("${jobs[@]:1}")
}
while IFS= read -r line; do
    [[ $line =~ ^[[:space:]]*(#|$) ]] && continue
    [[ $line =~ ^(\*?)\ *([a-z0-9_]+)\ +\|\ +([a-z0-9_.]+)\ +\|\ +(.*[^ ])\ +\|\ +([A-Za-z0-9_=\ ]+)$ ]] ||
        die "not a line of the table: $line"
    name=${BASH_REMATCH[2]} marked=${BASH_REMATCH[1]}
    if [ $# -gt 0 ]; then
        [[ " $* " == *" $name "* ]] || continue
    elif [ "${MB_LONG:-0}" != 1 ] && [ -z "$marked" ]; then
        continue
    fi
    n=$((n + 1))
    mutate "$name" "${BASH_REMATCH[3]}" "${BASH_REMATCH[4]}" "${BASH_REMATCH[5]}" &
    jobs+=($!)
    [ "${#jobs[@]}" -lt "${MB_JOBS:-2}" ] || wait_one
done <"$table"
while [ "${#jobs[@]}" -gt 0 ]; do
    wait_one
done
[ "$n" -gt 0 ] || die 'no such mutation'
printf '%d faults planted, %d not caught\n' "$n" "$failed"
[ "$failed" -eq 0 ]
