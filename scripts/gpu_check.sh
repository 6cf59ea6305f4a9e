#!/usr/bin/env bash
# gpu_check.sh [--parts "1 2 3 4 5"] [--out FOLDER] [--limit SECONDS] [--rounds N] [--rows "G1 ..."]
#              [--no-torch] [--tiny] [--device-library FILE [--nccl-library FILE]] [--build FOLDER]
#
# On a machine with an NVIDIA GPU, in one go:
#
#     1  what is here: GPU, driver, cudart, cuBLASLt and NCCL, of a toolkit or of Python's wheels;
#        or what is missing and how to get it, and then no more
#     2  tests on the device: kernels, verify against PyTorch's numbers, jobs of three steps,
#        checkpoints that go from CPU to GPU and back
#     3  compute-sanitizer's memcheck and racecheck on small cases, where it is installed
#     4  two NCCL ranks on one GPU, where NCCL allows it
#     5  speed against PyTorch (scripts/bench/gpu.sh)
#
# and writes FOLDER/gpu_report.md, with all output in FOLDER/gpu_logs/. A part that fails does not
# stop the others; each has a limit of SECONDS (900). The exit status says whether all passed: 0;
# 1, something failed; 3, something is missing and nothing was tested.
#
# Runs in the source folder, where it builds what is not built (--build), or in the folder of
# scripts/gpu_bundle.sh. --device-library: another back end than the one beside mbuyu, the emulator
# for example, which needs no GPU; then times are not printed. --tiny: few cases and small
# benchmarks, to try this script. MB_CHECK_DATA: other data than tests/data.
set -uo pipefail
# shellcheck source-path=SCRIPTDIR source=lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

parts='1 2 3 4 5' out=$PWD limit=900 device_library='' nccl_library='' build=$root/build
tiny=0 bench=()
while [ $# -gt 0 ]; do
    case $1 in
    --parts) parts=$2 && shift ;;
    --out) out=$2 && shift ;;
    --limit) limit=$2 && shift ;;
    --build) build=$2 && shift ;;
    --device-library) device_library=$(realpath "$2") && shift ;;
    --nccl-library) nccl_library=$(realpath "$2") && shift ;;
    --rounds | --steps | --rows) bench+=("$1" "$2") && shift ;;
    --no-torch) bench+=("$1") ;;
    --tiny) tiny=1 && bench+=("$1") ;;
    *) die "unknown option $1" ;;
    esac
    shift
done
mkdir -p "$out/gpu_logs" || die "$out cannot be written"
out=$(cd "$out" && pwd)
build=$(realpath -m "$build")
logs=$out/gpu_logs report=$out/gpu_report.md
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$root" || exit 1 # a bundle's tests find their data from here

known_files() { # what the loader finds by itself
    ldconfig -p 2>/dev/null || /sbin/ldconfig -p 2>/dev/null
}

outside() { # outside COMMAND...: without a bundle's libraries
    LD_LIBRARY_PATH=${MB_OUTER_LIBRARY_PATH-${LD_LIBRARY_PATH:-}} "$@"
}

architectures=''
if [ -f "$root/BUNDLE" ]; then
    architectures=$(sed -n 's/^architectures //p' "$root/BUNDLE")
    # the machine's own Python and tools keep their libraries
    export MB_OUTER_LIBRARY_PATH=${LD_LIBRARY_PATH:-}
    export LD_LIBRARY_PATH=$root/lib${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH} PATH=$root/mpi/bin:$PATH
    # the compiler's libraries only where there are none: CUDA's may want newer ones
    for library in libstdc++.so.6 libgcc_s.so.1; do
        known_files | grep -F "$library" >"$work/known" || LD_LIBRARY_PATH+=:$root/lib/compiler
    done
    export OPAL_PREFIX=$root/mpi PMIX_INSTALL_PREFIX=$root/mpi OMPI_MCA_plm=isolated
    export OMPI_MCA_mca_base_component_path=$root/mpi/lib/openmpi
    export PMIX_MCA_mca_base_component_path=$root/mpi/lib/pmix
elif [ ! -x "$build/mbuyu" ] || [ ! -f "$build/tests/device_tests.txt" ]; then
    need_packages "${build_packages[@]}" libcmocka-dev
    build "$build" -DCMAKE_BUILD_TYPE=Release -DMB_TESTS=ON
fi
mbuyu=$build/mbuyu helpers=$build/tests data=${MB_CHECK_DATA:-$root/tests/data}
[ -x "$mbuyu" ] || die "there is no $mbuyu"
export MBUYU=$mbuyu MB_HELPERS=$helpers MB_TEST_DATA=$data
export OMP_WAIT_POLICY=passive MBUYU_LOG=warn
[ -n "${OMP_NUM_THREADS:-}" ] || OMP_NUM_THREADS=$(($(nproc) < 8 ? $(nproc) : 8))
export OMP_NUM_THREADS
mpi=(mpirun --allow-run-as-root --oversubscribe --mca mpi_yield_when_idle 1
    --mca btl_base_warn_component_unused 0 --mca btl 'self,vader,tcp')

# --- the report

passed=0 failed=0 skipped=0 left_out=() part_end=0

write() {
    printf '%s\n' "$@" >>"$report"
}

part() { # part TITLE: its line and the head of its table
    part_end=$((SECONDS + limit))
    printf '\n== %s\n' "$1"
    write '' "## $1" ''
}

table() {
    write '| test | outcome | seconds |' '|---|---|---|'
}

outcome() { # outcome ok|FAILED|skipped NAME SECONDS [WHY]
    case $1 in
    ok) passed=$((passed + 1)) ;;
    FAILED) failed=$((failed + 1)) ;;
    *) skipped=$((skipped + 1)) && left_out+=("$2: ${4:-}") ;;
    esac
    printf '%-8s %s%s (%s s)\n' "$1" "$2" "${4:+: $4}" "$3"
    write "| $2 | $1${4:+: ${4//|/ }} | $3 |"
}

# try NAME SECONDS COMMAND...: a test, ended after so many seconds or when its part's time is over;
# its output goes to a log named after it
try() {
    local name=$1 most=$2 log=$logs/${1//[^A-Za-z0-9_.-]/_}.log start=$SECONDS code
    shift 2
    [ $((part_end - SECONDS)) -ge "$most" ] || most=$((part_end - SECONDS))
    if [ "$most" -le 0 ]; then
        outcome skipped "$name" 0 "the part's time was over"
        return
    fi
    timeout -k 10 "$most" "$@" >"$log" 2>&1
    code=$?
    case $code in
    0) outcome ok "$name" $((SECONDS - start)) ;;
    77) outcome skipped "$name" $((SECONDS - start)) "$(tail -n 1 "$log" | cut -c1-200)" ;;
    124 | 137) outcome FAILED "$name" $((SECONDS - start)) "not done after $most s" ;;
    *)
        outcome FAILED "$name" $((SECONDS - start)) "exit code $code"
        tail -n 15 "$log" | sed 's/^/      /'
        ;;
    esac
    return $((code != 0))
}

# --- 1: what is here

pythons() {
    type -ap python3 python 2>/dev/null | awk '!seen[$0]++'
}

# Folders of CUDA's libraries, beside those the loader knows.
cuda_folders() {
    local python
    tr ':' '\n' <<<"${LD_LIBRARY_PATH:-}"
    printf '%s\n' "${CUDA_HOME:-/usr/local/cuda}"/{lib64,targets/x86_64-linux/lib} \
        /usr/local/cuda*/{lib64,lib,targets/x86_64-linux/lib} /usr/local/nvidia/lib64 /opt/cuda/lib64
    while read -r python; do
        outside "$python" -c 'import glob, sys
for path in sys.path:
    print("\n".join(sorted(glob.glob(path + "/nvidia/*/lib"))))' 2>/dev/null
    done < <(pythons)
}

# where SONAME: its file; fails when there is none. A toolkit or wheel goes before nothing at all:
# what the loader finds by itself is taken first.
where() {
    local folder file
    file=$(known_files | awk -v name="$1" '$1 == name && /x86-64/ && !n++ { print $NF }')
    [ -n "$file" ] && [ -e "$file" ] && echo "$file" && return
    while read -r folder; do
        [ -n "$folder" ] && [ -e "$folder/$1" ] && echo "$folder/$1" && return
    done <"$work/folders"
    return 1
}

missing=()
need() { # need SONAME HOW-TO-GET-IT: finds it, says where, and lets the loader find it
    local file
    if ! file=$(where "$1"); then
        missing+=("$1: $2")
        write "- $1: missing. $2"
        printf '%s: missing. %s\n' "$1" "$2"
        return 1
    fi
    printf '%s: %s\n' "$1" "$file"
    write "- $1: \`$file\` ($(basename "$(realpath "$file")"))"
    known_files | grep -qF " $file" ||
        LD_LIBRARY_PATH=${LD_LIBRARY_PATH:+$LD_LIBRARY_PATH:}$(dirname "$file")
    export LD_LIBRARY_PATH
}

what_is_here() {
    local name major gpu library=$build/libmbuyu_cuda.so
    part '1. This machine'
    write "- $(sed -nE 's/^PRETTY_NAME="(.*)"$/\1/p' /etc/os-release 2>/dev/null), $(uname -srm), $(nproc) cores, $(sed -nE 's/^model name[[:space:]]*: //p' /proc/cpuinfo | head -n 1)"
    write "- $("$mbuyu" version 2>&1)${architectures:+, a bundle for sm_${architectures//;/, sm_}}"
    if [ -n "$device_library" ]; then
        export MBUYU_CUDA_LIBRARY=$device_library
        [ -z "$nccl_library" ] || export MBUYU_NCCL_LIBRARY=$nccl_library
        write "- **The device is $(basename "$device_library"), not a GPU.** Nothing here says how fast one is."
    else
        cuda_folders | awk '!seen[$0]++' >"$work/folders"
        gpu=$(outside nvidia-smi --query-gpu=name,driver_version,compute_cap,memory.total --format=csv,noheader 2>/dev/null) ||
            gpu=$(cat /proc/driver/nvidia/gpus/*/information 2>/dev/null | sed -nE 's/^Model:[[:space:]]*//p')
        if [ -z "$gpu" ]; then
            missing+=('a GPU: neither nvidia-smi nor /proc/driver/nvidia knows one. A container needs to be started with it')
            write '- GPU: none found'
        fi
        while IFS= read -r name; do
            [ -z "$name" ] || write "- GPU: $name"
            [ -z "$name" ] || printf 'GPU: %s\n' "$name"
        done <<<"$gpu"
        [ -f "$library" ] || missing+=("$library: build with nvcc (-DMB_CUDA=ON)")
        need libcuda.so.1 "it comes with NVIDIA's driver, 580 or later for CUDA 13"
        while read -r name; do
            major=${name##*.}
            case $name in
            libcudart*) need "$name" "CUDA toolkit $major, or: pip install nvidia-cuda-runtime$([ "$major" -ge 13 ] || echo "-cu$major")" ;;
            libcublasLt*) need "$name" "CUDA toolkit $major, or: pip install nvidia-cublas$([ "$major" -ge 13 ] || echo "-cu$major")" ;;
            esac
        done < <(needed "$library")
        if need libnccl.so.2 'NCCL 2.18 or later, or: pip install nvidia-nccl-cu13'; then
            nccl_library=$(where libnccl.so.2)
            export MBUYU_NCCL_LIBRARY=$nccl_library
        else
            unset 'missing[-1]' # part 4 alone wants it
        fi
    fi
    "$mbuyu" env >"$logs/env.log" 2>&1
    write '' '```' "$(cat "$logs/env.log")" '```'
    cat "$logs/env.log"
    if [ "${#missing[@]}" -eq 0 ] &&
        ! timeout -k 10 120 "$helpers/bench_device" copy --tiny --rounds 1 >"$logs/open.log" 2>&1; then
        missing+=("a GPU that mbuyu can use: $(tail -n 1 "$logs/open.log")")
    fi
}

# needed FILE: CUDA's libraries that it is linked with; a bundle notes them, ldd knows otherwise
needed() {
    if [ -f "$root/BUNDLE" ]; then
        sed -n 's/^needs //p' "$root/BUNDLE"
    else
        ldd "$1" 2>/dev/null | awk '/libcudart|libcublasLt/ { print $1 }'
    fi
}

# --- 2: tests on the device

losses() { # losses FOLDER: "step loss norm" of its log
    sed -nE 's/^\{"step":([0-9]+),.*"loss":([0-9.eE+-]+),"grad_norm":([0-9.eE+-]+),.*/\1 \2 \3/p' \
        "$1/logs/train.jsonl"
}

# close_enough A B [FROM]: losses and norms of gradients of two runs, from a step on
close_enough() {
    paste -d' ' <(losses "$1" | awk -v from="${3:-1}" '$1 >= from') \
        <(losses "$2" | awk -v from="${3:-1}" '$1 >= from') >"$work/pairs"
    cat "$work/pairs"
    awk 'function abs(x) { return x < 0 ? -x : x }
        NF != 6 || $1 != $4 || !(abs($2 - $5) <= 2e-4) || !(abs($3 - $6) <= 1e-3 * $3) { bad = 1 }
        END { exit bad || NR == 0 }' "$work/pairs"
}

# job MODEL OUT KEYS...: steps in f32, a line of the log each
job() {
    local model=$1 folder=$2
    shift 2
    "$mbuyu" train "model_name_or_path=$data/reference/$model" "datasets=[\"$data/rows/unequal.jsonl\"]" \
        "output_dir=$folder" bf16=false max_length=64 per_device_train_batch_size=2 \
        global_batch_size=8 max_steps=3 logging_steps=1 learning_rate=1e-3 \
        lr_scheduler_type=constant save_strategy=no 'report_to=[jsonl]' "$@"
}

# On the CPU and on the device: the same losses.
three_steps() { # three_steps MODEL KEYS...
    local model=$1
    shift
    rm -rf "$work/cpu" "$work/gpu"
    job "$model" "$work/cpu" device=cpu "$@" && job "$model" "$work/gpu" device=cuda "$@" &&
        close_enough "$work/cpu" "$work/gpu"
}

# Four steps, of which the last two on the other device, against four on one.
crossing() { # crossing FROM TO
    rm -rf "$work/one" "$work/two"
    job llama "$work/one" "device=$1" max_steps=4 &&
        job llama "$work/two" "device=$1" max_steps=2 save_strategy=steps save_steps=2 &&
        job llama "$work/two" "device=$2" max_steps=4 save_strategy=steps save_steps=2 resume_from_checkpoint=auto &&
        close_enough "$work/one" "$work/two" 3
}

in_environment() { # in_environment "A=1 B=2" COMMAND...
    # shellcheck disable=SC2086 # several variables
    env $1 "${@:2}"
}

device_tests() {
    local name program variables case type
    part '2. Tests on the device'
    table
    # the GPU is there: not finding it is a failure, not a reason to skip; and it is fast enough for
    # what is long on the emulator
    export MB_NEED_DEVICE=1
    [ -n "$device_library" ] || export MB_LONG=1
    while read -r name program variables; do
        [ -n "$name" ] || continue
        [ "$tiny" -eq 0 ] || [[ ' kernels_norm kernels_rope_bf16 dequantise ' == *" $name "* ]] || continue
        if [ ! -x "$helpers/$program" ]; then
            outcome FAILED "$name" 0 "there is no $program"
            continue
        fi
        try "$name" 300 in_environment "$variables" "$helpers/$program"
    done <"$helpers/device_tests.txt"
    for case in "$data"/reference/*/; do
        case=${case%/}
        [ -d "$case" ] || continue
        [ "$tiny" -eq 0 ] || [ "$(basename "$case")" = lora-gpt2-conv1d ] || continue
        for type in f32 bf16 f16; do
            [ "$tiny" -eq 0 ] || [ "$type" != f16 ] || continue
            try "verify $(basename "$case") in $type" 120 \
                "$mbuyu" verify "$case" "$case/golden.safetensors" --device cuda --dtype "$type"
        done
    done
    try 'three steps, Llama, all weights' 120 three_steps llama
    try 'three steps, Llama, exact sums' 120 three_steps llama reduction=exact
    if [ "$tiny" -eq 0 ]; then
        try 'three steps, GPT-2, all weights' 120 three_steps gpt2
        try 'three steps, Llama, LoRA' 120 three_steps llama finetuning_type=lora lora_r=4
        try 'checkpoint from GPU to CPU' 120 crossing cuda cpu
    fi
    try 'checkpoint from CPU to GPU' 120 crossing cpu cuda
    if [ "$tiny" -eq 0 ]; then
        if [ -f "$root/tests/cli/test_device.sh" ]; then
            try 'tests/cli/test_device.sh' 300 bash "$root/tests/cli/test_device.sh"
        else
            outcome skipped tests/cli/test_device.sh 0 'it is not there yet'
        fi
    fi
    unset MB_NEED_DEVICE MB_LONG
}

# --- 3: compute-sanitizer

sanitizer() {
    local tool sanitizer name program variables
    part '3. compute-sanitizer'
    if [ -n "$device_library" ]; then
        left_out+=('compute-sanitizer: the device is not a GPU')
        write 'Not run: the device is not a GPU.'
        return
    fi
    sanitizer=$(command -v compute-sanitizer || find /usr/local/cuda*/ -name compute-sanitizer -type f \
        2>/dev/null | head -n 1)
    if [ -z "$sanitizer" ]; then
        left_out+=('compute-sanitizer: not installed; it comes with the CUDA toolkit')
        write 'Not run: compute-sanitizer is not installed (it comes with the CUDA toolkit).'
        echo 'compute-sanitizer is not installed; it comes with the CUDA toolkit'
        return
    fi
    table
    for tool in memcheck racecheck; do
        try "$tool: verify llama" 300 "$sanitizer" --tool $tool --error-exitcode 99 \
            "$mbuyu" verify "$data/reference/llama" "$data/reference/llama/golden.safetensors" --device cuda
        while read -r name program variables; do
            case $name in
            *_f16 | attention* | gemm | mirror | cuda_device | '') continue ;; # long, or not a kernel
            esac
            try "$tool: $name" 200 in_environment "$variables" "$sanitizer" --tool $tool --error-exitcode 99 "$helpers/$program"
        done <"$helpers/device_tests.txt"
    done
}

# --- 4: two ranks on one GPU

# ranks N COMMAND...: on ranks that look to NCCL like machines with a GPU each
ranks() {
    local n=$1
    shift
    # shellcheck disable=SC2016
    "${mpi[@]}" -np "$n" bash -c 'NCCL_HOSTID=r$OMPI_COMM_WORLD_RANK exec "$@"' - "$@"
}

# The model that n ranks make in three steps with exact sums must not depend on n.
ranks_agree() { # ranks_agree STAGE
    rm -rf "$work/r1" "$work/r2"
    job llama "$work/r1" device=cuda reduction=exact &&
        job_on_two "$work/r2" reduction=exact "zero_stage=$1" &&
        cmp "$work/r1/final/model.safetensors" "$work/r2/final/model.safetensors" &&
        losses "$work/r2"
}

job_on_two() { # job_on_two OUT KEYS...
    local folder=$1
    shift
    ranks 2 "$mbuyu" train "model_name_or_path=$data/reference/llama" "datasets=[\"$data/rows/unequal.jsonl\"]" \
        "output_dir=$folder" bf16=false max_length=64 per_device_train_batch_size=2 global_batch_size=8 \
        max_steps=3 logging_steps=1 learning_rate=1e-3 lr_scheduler_type=constant save_strategy=no \
        'report_to=[jsonl]' device=cuda comm_timeout=60 "$@"
}

default_reduction() {
    rm -rf "$work/r1" "$work/r2"
    job llama "$work/r1" device=cuda && job_on_two "$work/r2" zero_stage=3 && close_enough "$work/r1" "$work/r2"
}

nccl() {
    local stage version
    part '4. Two NCCL ranks on one GPU'
    if [ -z "${MBUYU_NCCL_LIBRARY:-}" ]; then
        left_out+=('two ranks: there is no NCCL')
        write 'Not run: there is no NCCL.'
        return
    fi
    if ! command -v mpirun >/dev/null; then
        left_out+=('two ranks: there is no mpirun')
        write 'Not run: there is no mpirun.'
        return
    fi
    export MBUYU_GPU=0 NCCL_SOCKET_IFNAME=lo NCCL_NET=Socket NCCL_ALGO=Ring NCCL_PROTO=Simple
    export NCCL_MULTI_RANK_GPU_ENABLE=1 NCCL_NVLS_ENABLE=0 NCCL_IB_DISABLE=1 # asked for from 2.30 on
    version=$(sed -nE 's/^nccl +//p' "$logs/env.log")
    write "${version}; both ranks use GPU 0 under two host names. This says whether it is right, not how fast." ''
    if ! timeout -k 10 150 job_on_two "$work/first" >"$logs/nccl_first.log" 2>&1; then
        if grep -qiE 'duplicate gpu|invalid usage' "$logs/nccl_first.log"; then
            left_out+=("two ranks on one GPU: this NCCL ($version) does not allow it")
            write 'Not run: this NCCL does not allow two ranks on one GPU.' '' '```' \
                "$(tail -n 3 "$logs/nccl_first.log")" '```'
            echo 'this NCCL does not allow two ranks on one GPU'
            return
        fi
        table
        outcome FAILED 'three steps on two ranks' 0 'see gpu_logs/nccl_first.log'
        tail -n 15 "$logs/nccl_first.log" | sed 's/^/      /'
        return
    fi
    table
    outcome ok 'three steps on two ranks' 0
    for stage in 0 1 2 3; do
        [ "$tiny" -eq 0 ] || [ "$stage" -eq 2 ] || continue
        try "exact sums, 1 and 2 ranks, zero_stage $stage: the same bytes" 150 ranks_agree "$stage"
    done
    [ "$tiny" -eq 1 ] || try 'plain sums, 1 and 2 ranks, zero_stage 3: the same losses' 150 default_reduction
    [ "$tiny" -eq 1 ] || [ ! -x "$helpers/test_dist_comm_nccl_np3" ] ||
        try 'collectives, three ranks' 200 ranks 3 "$helpers/test_dist_comm_nccl_np3"
    unset MBUYU_GPU NCCL_SOCKET_IFNAME NCCL_NET NCCL_ALGO NCCL_PROTO NCCL_MULTI_RANK_GPU_ENABLE NCCL_NVLS_ENABLE NCCL_IB_DISABLE
}

# --- 5: speed

speed() {
    local start=$SECONDS
    part '5. Speed'
    [ -z "$device_library" ] || bench+=(--emulated)
    if timeout -k 10 $((limit + 60)) "$root/scripts/bench/gpu.sh" --limit "$limit" "${bench[@]}" \
        >"$logs/speed.md" 2> >(tee "$logs/speed.log" >&2); then
        passed=$((passed + 1))
    else
        failed=$((failed + 1))
        write '**Not all rows could be measured:** see gpu_logs/speed.log.' ''
    fi
    write "$(cat "$logs/speed.md")" '' "$((SECONDS - start)) seconds"
    cat "$logs/speed.md"
    while IFS= read -r line; do
        left_out+=("$line")
    done < <(awk -F '|' '/not there yet|not measured|failed/ { gsub(/^ +| +$/, "", $2); gsub(/^ +| +$/, "", $3)
        print $2 ": " $3 }' "$logs/speed.md")
}

# functions that `try` runs are called through bash, which must know them
export root mbuyu helpers data work
export -f losses close_enough job three_steps crossing in_environment ranks job_on_two ranks_agree default_reduction
shells() { # the commands above that are functions
    case $1 in
    three_steps | crossing | in_environment | ranks | job_on_two | ranks_agree | default_reduction) return 0 ;;
    esac
    return 1
}
timeout() { # timeout -k N SECONDS COMMAND...
    local head=("${@:1:3}")
    shift 3
    if shells "$1"; then
        command timeout "${head[@]}" bash -c "$(declare -p mpi); \"\$@\"" - "$@"
    else
        command timeout "${head[@]}" "$@"
    fi
}

printf '# mbuyu on a GPU\n\n%s\n' "$(date -u '+%Y-%m-%d %H:%M UTC')" >"$report"
what_is_here
if [ "${#missing[@]}" -gt 0 ]; then
    write '' '**Nothing was tested.** Missing:' ''
    printf '\nnothing can be tested; missing:\n'
    for line in "${missing[@]}"; do
        printf '  %s\n' "$line"
        write "- $line"
    done
    exit 3
fi
for number in 2 3 4 5; do
    if [[ " $parts " != *" $number "* ]]; then
        left_out+=("part $number: not asked for")
        continue
    fi
    case $number in
    2) device_tests ;;
    3) sanitizer ;;
    4) nccl ;;
    5) speed ;;
    esac
done
write '' '## What was not measured or tested' ''
for line in "${left_out[@]:-nothing}"; do
    write "- $line"
done
write '' "$passed passed, $failed failed, $skipped skipped"
printf '\n%s\n%d passed, %d failed, %d skipped; the report is %s\n' '==' "$passed" "$failed" "$skipped" "$report"
[ "$failed" -eq 0 ]
