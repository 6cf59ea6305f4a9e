#!/usr/bin/env bash
# test.sh [--long] [--no-peers] [--offline] - installs what tests need, builds, tests everything.
#
#     --long       also: sanitizers over every test, the reference cases computed again, the tests'
#                  full sweeps (MB_LONG=1), and the same fine-tune in mbuyu and in PEFT
#     --no-peers   leave out what needs PyTorch and its friends
#     --offline    fetch nothing; what is not there already fails its tests
#
# Prints seconds per stage and, last, a line "N passed, N failed"; the exit status says whether all
# passed. Python packages are kept in ~/.cache/mbuyu/peers-[NAME-]HASH (of scripts/peers[-NAME].lock), models and
# data in ~/.cache/mbuyu/materials (MB_MATERIALS). What tests find in their environment:
#
#     MBUYU, MB_BUILD      the program, the build folder       MB_PEERS   the peers' python
#     MB_MATERIALS         models and data                     MB_LONG    1 with --long
#     MB_NEED_DEVICE       set: a test that finds no device, that is no emulator, fails
set -euo pipefail
# shellcheck source-path=SCRIPTDIR source=lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

long=0 peers=1 offline=0
for option; do
    case $option in
    --long) long=1 ;;
    --no-peers) peers=0 ;;
    --offline) offline=1 ;;
    *) die "unknown option $option; usage: test.sh [--long] [--no-peers] [--offline]" ;;
    esac
done
cd "$root"
export MB_LONG=$long MB_OFFLINE=$offline
MB_MATERIALS=$(materials_folder)
export MB_MATERIALS
export MB_BUILD=$root/build-test MBUYU=$root/build-test/mbuyu MB_TEST_DATA=$root/tests/data
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

passed=0 failed=0 failures=()

# check NAME COMMAND...: one test
check() {
    local name=$1
    shift
    if "$@" >"$work/log" 2>&1; then
        passed=$((passed + 1))
        printf 'ok    %s\n' "$name"
    else
        failed=$((failed + 1))
        failures+=("$name")
        printf 'FAIL  %s\n' "$name"
        tail -n 40 "$work/log" | sed 's/^/      /'
    fi
}

# count_ctest NAME FOLDER ARG...: each of ctest's tests counts
count_ctest() {
    local name=$1 folder=$2 total bad
    shift 2
    (cd "$folder" && ctest -j "$(cores)" --timeout 600 --output-on-failure --no-tests=error "$@") \
        >"$work/log" 2>&1 || true
    read -r bad total < <(sed -nE 's/^.*tests passed, ([0-9]+) tests failed out of ([0-9]+).*/\1 \2/p' "$work/log") || true
    if [ -z "${total:-}" ]; then
        failed=$((failed + 1))
        failures+=("$name: ctest did not run")
        tail -n 20 "$work/log"
        return
    fi
    passed=$((passed + total - bad))
    failed=$((failed + bad))
    printf '%s: %d of %d passed\n' "$name" $((total - bad)) "$total"
    if [ "$bad" -gt 0 ]; then
        grep -vE ' Passed |^ *Start ' "$work/log" | tail -n 120
        while read -r line; do
            failures+=("$name: $line")
        done < <(sed -nE '/\(Skipped\)$/d; s/^[[:space:]]*[0-9]+ - (.*) \((.*)\)$/\1 (\2)/p' "$work/log")
    fi
}

# --- the checks that are more than one command

style_of_c() {
    local tool
    tool=$(command -v clang-format-14 || command -v clang-format)
    git ls-files -z '*.c' '*.h' | xargs -0 "$tool" --dry-run -Werror
}

# Three steps under the sanitizers, saved and exported. Leaks are looked for on one rank, without
# MPI: its plugins are gone before the search, and what they left cannot be told from ours.
three_steps() { # three_steps RANKS
    local out=$work/three-steps-$1 rows=$work/rows.jsonl launcher=() leaks=1 i
    for i in 1 2 3 4 5 6 7 8 9; do
        printf '{"prompt": "Swahili: mti %d\\nEnglish:", "completion": " tree %d"}\n' "$i" "$i"
    done >"$rows"
    if [ "$1" -gt 1 ]; then
        launcher=(mpirun --oversubscribe -np "$1")
        leaks=0
    fi
    ASAN_OPTIONS=detect_leaks=$leaks OMP_NUM_THREADS=1 timeout 300 \
        "${launcher[@]}" build-asan/mbuyu train \
        model_name_or_path=tests/data/reference/llama "datasets=[\"$rows\"]" "output_dir=$out" \
        finetuning_type=lora max_steps=3 per_device_train_batch_size=1 \
        gradient_accumulation_steps=1 save_steps=2 logging_steps=1 max_length=64
    ls "$out/final/adapter_model.safetensors" "$out/logs/train.jsonl"
}

# What a script of tests/peers is given: its helper program and materials; by default the program
# built from the .c file of its name.
peer_arguments() {
    local helper=$MB_BUILD/tests
    case $1 in
    dequantise) printf '%s\n' "$helper/dequantise_blocks" ;;
    config_defaults) printf '%s\n' "$helper/config_defaults" "$MB_TEST_DATA" ;;
    export) printf '%s\n' "$helper/export_files" ;;
    formats) printf '%s\n' "$helper/tensor_files" ;;
    metrics | hub_0_36 | hub_1 | hub_cache | hub_olah | hub_page) printf '%s\n' "$MBUYU" ;;
    hub | labels | seq2seq | pull | push | bundle) printf '%s\n' "$MBUYU" "$MB_TEST_DATA" ;;
    serve | serve_scores | gguf_quantised) printf '%s\n' "$MBUYU" "$MB_TEST_DATA" "$MB_MATERIALS" ;;
    image_models) printf '%s\n' "$MBUYU" "$helper/make_pictures" "$MB_TEST_DATA" ;;
    images) printf '%s\n' "$helper/image_pixels" ;;
    model_h5) printf '%s\n' "$helper/model_h5_save" "$MBUYU" "$MB_TEST_DATA" ;;
    smollm2) printf '%s\n' "$helper/logits" "$MB_MATERIALS" ;;
    token_rows) printf '%s\n' "$MBUYU" "$helper/forward" "$MB_TEST_DATA" ;;
    exports)
        printf '%s\n' "$MBUYU" "$helper/forward" "$MB_TEST_DATA" \
            "$MB_MATERIALS/smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
        ;;
    gguf_export)
        printf '%s\n' "$MBUYU" "$helper/forward" "$helper/quantise_blocks" "$MB_TEST_DATA" "$MB_MATERIALS"
        ;;
    quantise) printf '%s\n' "$helper/quantise_blocks" ;;
    gguf_families) printf '%s\n' "$helper/forward" ;;
    token_ids)
        printf '%s\n' "$helper/peer_tokenize" \
            --smollm2 "$MB_MATERIALS/smollm2/SmolLM2-135M-Instruct.Q4_1.gguf" \
            --minilm "$MB_MATERIALS/minilm" --gpt2 "$MB_MATERIALS/gpt2-tokenizer/gpt2.tiktoken"
        ;;
    token_pieces) printf '%s\n' "$helper/peer_tokenize" "$MBUYU" ;;
    page | lm_eval) printf '%s\n' "$MBUYU" "$MB_TEST_DATA" "$MB_MATERIALS" "$(peers_python)" ;;
    *) if [ -x "$helper/$1" ]; then printf '%s\n' "$helper/$1"; fi ;;
    esac
}

# A line "# environment: NAME" in a script names the lock file of its packages.
environment_of() {
    sed -nE 's/^# environment: ([a-z0-9-]+)$/\1/p' "$1"
}

# A line "# long..." in a lock file: the short form neither installs nor runs it.
wanted() { # wanted [NAME]
    [ "$long" -eq 1 ] || ! grep -q '^# long' "$(peers_lock "${1:-}")"
}

peer() {
    local arguments=() python
    python=$(peers_python "$(environment_of "$1")")
    mapfile -t arguments < <(peer_arguments "$(basename "$1" .py)")
    HF_HUB_OFFLINE=1 TOKENIZERS_PARALLELISM=false MBUYU_LOG=error \
        timeout 900 "$python" -P "$1" "${arguments[@]}"
}

all_architectures() {
    build_targets=mbuyu_cuda build build-cuda-all -DCMAKE_BUILD_TYPE=RelWithDebInfo -DMB_TESTS=ON \
        -DMB_CUDA=ON -DMB_CUDA_ARCHITECTURES=all
}

twin() {
    scripts/bench/swahili_twin.sh "$work/twin"
}

# --- the stages

stage packages
packages=("${build_packages[@]}" g++ libcmocka-dev clang-format shellcheck git hdf5-tools
    python3 python3-pip python3-venv zstd chromium chromium-driver fonts-dejavu-core)
need_packages "${packages[@]}"

stage style
check 'style: clang-format' style_of_c
check 'style: layers' scripts/check_layers.sh
check 'style: shellcheck' bash -c "shellcheck -x scripts/*.sh scripts/bench/*.sh .ci/run"

stage materials
if [ "$offline" -eq 0 ]; then
    materials=(smollm2 minilm swahili gpt2-tokenizer)
    [ "$long" -eq 0 ] || materials+=(whisper-tiny librivox)
    for what in "${materials[@]}"; do
        check "materials: $what" scripts/fetch_materials.sh "$MB_MATERIALS" "$what"
    done
fi

stage build
build build-test -DCMAKE_BUILD_TYPE=RelWithDebInfo -DMB_TESTS=ON

stage tests
check 'documents: tables of keys and verbs' scripts/make_reference_docs.sh --check
MB_NEED_DEVICE=1 count_ctest tests build-test

if [ "$long" -eq 1 ] && grep -q '^CMAKE_CUDA_COMPILER:' build-test/CMakeCache.txt; then
    stage 'GPU kernels for all architectures'
    check 'cuda: all architectures build' all_architectures
    check 'cuda: no spills in hot kernels of any' scripts/cuda_table.sh build-cuda-all
fi

stage 'build with sanitizers'
build build-asan -DCMAKE_BUILD_TYPE=RelWithDebInfo -DMB_TESTS=ON -DMB_SANITIZE=ON -DMB_CUDA=OFF

stage 'tests with sanitizers'
export LSAN_OPTIONS=suppressions=$root/tests/lsan.supp:print_suppressions=0
export UBSAN_OPTIONS=print_stacktrace=1
if [ "$long" -eq 1 ]; then
    count_ctest sanitizers build-asan -LE dist
    # MPI's plugins are gone before leaks are looked for, and what they left cannot be told from ours
    ASAN_OPTIONS=detect_leaks=0 count_ctest 'sanitizers under MPI' build-asan -L dist
else
    count_ctest sanitizers build-asan -L unit
    count_ctest 'sanitizers, numbers and wrong input' build-asan -R 'cli/(verify|bad_input)'
fi
check 'sanitizers: three steps' three_steps 1
check 'sanitizers: three steps on two ranks' three_steps 2
unset LSAN_OPTIONS UBSAN_OPTIONS

if [ "$peers" -eq 1 ]; then
    stage "peers' packages"
    check 'peers: packages' install_peers
    for lock in scripts/peers-*.lock; do
        [ -f "$lock" ] || continue
        name=${lock#scripts/peers-} name=${name%.lock}
        wanted "$name" || continue
        check "peers: packages of $name" install_peers "$name"
    done
    MB_PEERS=$(peers_python)
    export MB_PEERS
    stage peers
    for script in tests/peers/*.py; do
        wanted "$(environment_of "$script")" || continue
        check "peers: $(basename "$script" .py)" peer "$script"
    done
    if [ "$long" -eq 1 ]; then
        stage 'reference cases'
        check 'reference cases, computed again' "$MB_PEERS" scripts/make_reference.py --check
        stage 'the same fine-tune in PEFT'
        check 'twin: SmolLM2 on Swahili pairs' twin
        cat "$work/log"
    fi
fi

stage ''
printf '\nseconds per stage\n%s\n' "$stages"
for name in "${failures[@]}"; do
    printf 'failed: %s\n' "$name"
done
printf '%d passed, %d failed\n' "$passed" "$failed"
[ "$failed" -eq 0 ]
