#!/usr/bin/env bash
# tests/cli/test_gpu_check.sh - scripts/gpu_check.sh itself, with the emulated GPU: the report says
# what passed, no time of it is printed as a measurement, a test that fails is told and does not stop
# the others, and without a GPU the script says what is missing and tests nothing.
set -u
# shellcheck source-path=SCRIPTDIR source=verbs.sh
. "$(dirname "${BASH_SOURCE[0]}")/verbs.sh"
root=$(cd "$(dirname "$0")/../.." && pwd)
build=$(dirname "$MBUYU")
emulator=$build/tests/libmbuyu_emu.so
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
export OMP_NUM_THREADS=1 OMP_WAIT_POLICY=passive

if ! [ -f "$emulator" ] || ! [ -x "$build/tests/bench_device" ] || ldd "$MBUYU" | grep -q libasan; then
    echo 'skipped: there is no emulated GPU, or it is built with a sanitizer'
    exit 77
fi

# check CODE ARGUMENTS...: its exit code; output in $work/log
check() {
    local code=$1 got
    shift
    rm -rf "$work/out"
    timeout 500 "$root/scripts/gpu_check.sh" --build "$build" --out "$work/out" --tiny --rounds 1 \
        --no-torch "$@" >"$work/log" 2>&1
    got=$?
    [ $got -eq "$code" ] || fail "exit code $got, not $code, of $*: $(tail -n 40 "$work/log")"
}

in_report() {
    grep -qE -e "$1" "$work/out/gpu_report.md" || fail "no '$1' in: $(cat "$work/out/gpu_report.md")"
}

check 0 --device-library "$emulator" --parts '2 5'
in_report 'libmbuyu_emu.so, not a GPU'
in_report '^\| kernels_norm \| ok \|'
in_report '^\| verify lora-gpt2-conv1d in bf16 \| ok \|'
in_report '^\| three steps, Llama, all weights \| ok \|'
in_report '^\| three steps, Llama, exact sums \| ok \|'
in_report '^\| checkpoint from CPU to GPU \| ok \|'
in_report '^\| F1 \| .* \| ran \|'
in_report 'G5: fp8 over bf16'
in_report 'compute-sanitizer|part 3: not asked for'
in_report '^[0-9]+ passed, 0 failed'
! grep -E '^\| (G|F)[0-9]' "$work/out/gpu_report.md" | grep -E '[0-9]+ \([0-9]+ to' ||
    fail 'a time of the emulator is printed as a measurement'

# a verify that does not agree
mkdir "$work/data" && cp -r "$root/tests/data/." "$work/data"
printf '\x00\x00\x00\x3f' | dd bs=1 conv=notrunc status=none seek=2000 \
    of="$work/data/reference/lora-gpt2-conv1d/model.safetensors" ||
    fail 'the weight was not changed'
MB_CHECK_DATA=$work/data check 1 --device-library "$emulator" --parts 2
in_report '^\| verify lora-gpt2-conv1d in f32 \| FAILED'
in_report '^\| checkpoint from CPU to GPU \| ok \|'

# no GPU: nothing else is done
if ! nvidia-smi >/dev/null 2>&1; then
    check 3
    in_report 'Nothing was tested'
    in_report 'a GPU'
    grep -q '^== 2' "$work/log" && fail 'tests ran without a GPU'
fi

[ $failures -eq 0 ] && echo 'all as expected'
exit $((failures > 0))
