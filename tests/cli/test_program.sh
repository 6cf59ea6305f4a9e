#!/usr/bin/env bash
# tests/cli/test_program.sh - the program's shell as a user meets it: help, versions, wrong verbs and
# keys, exit codes, overrides, documents that are up to date.
# shellcheck disable=SC2016 # backquotes are what is printed
set -u
# shellcheck source-path=SCRIPTDIR source=verbs.sh
. "$(dirname "${BASH_SOURCE[0]}")/verbs.sh"
start
by=-F
root=$(cd "$MB_TEST_DATA/../.." && pwd)

m=$MBUYU
cat >"$work/r.yaml" <<'END'
base_model: models/x
adapter: lora
lr: 1e-4
datasets: data.jsonl
output_dir: out
END

# help and versions
expect 2 'Usage: mbuyu VERB' -- "$m"
for help in --help -h help; do
    expect 0 'Usage: mbuyu VERB' 'mpirun -np' 'Exit codes' 'Environment' 'train' -- "$m" "$help"
done
expect 0 'Usage: mbuyu config' 'learning_rate' '5.0e-5' 'Optimizer' -- "$m" help config
expect 0 'Usage: mbuyu config' -- "$m" config --help
expect 0 'learning_rate' 'lora_r' 'weight' -- "$m" help keys
expect 0 '| `learning_rate` | `5.0e-5` |' '| `base_model` |' -- "$m" help keys --markdown
expect 0 '| 75 | stopped and saved' '| 143 |' -- "$m" help exit-codes --markdown
expect 0 '| `mbuyu config` |' -- "$m" help verbs --markdown
expect 0 'mbuyu 0.' -- "$m" version
expect 0 'mbuyu 0.' -- "$m" --version
expect 0 'compiler' 'processor' 'gemm' 'memory' 'hdf5' 'cuda' -- "$m" env
"$m" help keys | awk 'length > 100 || / $/ {bad = 1} END {exit bad}' || fail 'help wider than 100 columns'
for verb in $("$m" help verbs --markdown | sed -n 's/^| `mbuyu \([a-z]*\)`.*/\1/p'); do
    expect 0 "Usage:" -- "$m" help "$verb"
    [ -f "$root/recipes/cmd/$verb.c" ] || fail "verb $verb has no file of its name"
done
[ "$("$m" help | head -1 | wc -l)" = 1 ] || fail 'help | head'

# wrong usage
expect 2 "unknown verb 'confg'; did you mean 'config'?" -- "$m" confg
expect 2 "unknown verb 'xyzzy'" -- "$m" xyzzy
expect 2 "unknown verb 'nope'" -- "$m" help nope
expect 2 "explains one thing" -- "$m" help config env
expect 2 "takes no arguments" -- "$m" version now
expect 2 "takes no arguments" -- "$m" env now
expect 2 "unknown key 'learning_rat'; did you mean 'learning_rate'?" -- "$m" config learning_rat=1
expect 2 "there is no recipe file none.yaml" -- "$m" config none.yaml
expect 2 "max_steps is the text 'y'" -- "$m" config "$work/r.yaml" max_steps=y

# the sentence is one line on stderr, stdout stays empty, the path is for MBUYU_DEBUG
"$m" config lr=x >"$work/out" 2>"$work/err"
[ ! -s "$work/out" ] || fail 'a failure printed on stdout'
[ "$(wc -l <"$work/err")" = 1 ] || fail 'a failure is not one line'
grep -q '^mbuyu: command line: lr (learning_rate) is' "$work/err" || fail "sentence: $(cat "$work/err")"
MBUYU_DEBUG=1 "$m" config lr=x 2>&1 | grep -q 'raised at .*value.c' || fail 'no path with MBUYU_DEBUG=1'

# recipes
expect 0 'model_name_or_path: models/x' 'finetuning_type: lora' 'learning_rate: 0.0001' -- \
    "$m" config "$work/r.yaml"
expect 0 'seed: 42' '# LoRA' -- "$m" config "$work/r.yaml" --all
expect 0 "r.yaml:3:1" 'command line' -- "$m" config "$work/r.yaml" seed=1 --where
[ "$("$m" config "$work/r.yaml" lr=2 | sed -n 's/^learning_rate: //p')" = 2.0 ] || fail 'override'
"$m" config "$work/r.yaml" --all >"$work/all.yaml"
"$m" config "$work/all.yaml" --all | cmp - "$work/all.yaml" || fail 'config is not a fixed point'
[ "$("$m" config "$work/r.yaml" --digest)" = "$("$m" config "$work/all.yaml" --digest)" ] ||
    fail 'digests differ'

# validate: recipe 2, data 3, model 4
expect 4 'there is no model folder or .gguf file models/x' 'r.yaml:1:1' 'mbuyu pull ORG/x --to models/x' -- "$m" validate "$work/r.yaml"
expect 3 'there is no file data.jsonl' 'r.yaml:4:1' -- "$m" validate "$work/r.yaml" base_model="$work"
expect 2 'needs output_dir' -- "$m" validate "$work/r.yaml" '~output_dir'
for verb in validate plan inspect train eval; do # one sentence for all
    expect 4 "mbuyu: command line: there is no folder org/name, and the cache does not have that model" \
        '`mbuyu pull org/name` fetches it' -- "$m" $verb "$work/r.yaml" base_model=org/name
done
expect 3 'mbuyu: command line: there is no file x.jsonl' -- "$m" validate "$work/r.yaml" base_model="$work" 'datasets=[x.jsonl]'
expect 2 'mbuyu train needs model_name_or_path (model directory' -- "$m" train
expect 2 'mbuyu plan needs model_name_or_path' -- "$m" plan
expect 2 'mbuyu train needs datasets (files to train on, as paths or as blocks);' -- "$m" validate "$work/r.yaml" '~datasets'
expect 2 'per_device_train_batch_size' 'per_device_eval_batch_size' -- "$m" config per_device_batch_size=2
expect 2 'data.jsonl looks like data' 'datasets=[data.jsonl]' -- "$m" train data.jsonl
expect 0 'learning_rate ' 'lr is learning_rate here' -- "$m" help lr
expect 0 'completion_suffix is empty' -- "$m" help add_eos
expect 0 'part of the file' -- "$m" help split
expect 2 "unknown verb 'learning_rat'" -- "$m" help learning_rat
for verb in generate chat; do
    "$m" help $verb | grep -A 4 'Most used' | grep -q prompt || fail "help $verb does not begin with what matters"
    expect 0 '--verbose' -- "$m" $verb --help
done
expect 0 'is a line break' '--chat' '--json' -- "$m" help generate
expect 0 '--device' '--dtype' 'scripts/make_reference.py' -- "$m" help verify
echo '{"text": "a"}' >"$work/data.jsonl"
expect 0 'in order' -- "$m" validate "$work/r.yaml" base_model="$work" \
    datasets="$work/data.jsonl"
for recipe in "$root"/recipes/configs/*.yaml; do
    expect 4 'there is no model folder' -- "$m" validate "$recipe" model_name_or_path="$work/none"
    head -1 "$recipe" | grep -q '^# ' || fail "$recipe does not say what it is"
done

# output that cannot be written; a reader that leaves
if [ -w /dev/full ]; then
    "$m" help >/dev/full 2>"$work/err"
    [ $? -eq 7 ] || fail 'a full device is exit code 7'
    grep -q 'standard output cannot be written' "$work/err" || fail 'full device sentence'
fi

# memory that runs out anywhere while loading is exit code 5 or no matter at all
n=1
while [ $n -le 40 ]; do
    MBUYU_ALLOC_FAIL_AT=$n "$m" config "$work/r.yaml" --all >"$work/out" 2>"$work/err"
    code=$?
    case $code in
    0) cmp -s "$work/out" "$work/all.yaml" || fail "other output with request $n failing" ;;
    5) grep -q '^mbuyu: .*memory' "$work/err" || fail "sentence of request $n: $(cat "$work/err")" ;;
    *) fail "exit code $code with request $n failing: $(cat "$work/err")" ;;
    esac
    n=$((n + 1))
done

# under mpirun one rank speaks, and its exit code comes out
if command -v mpirun >/dev/null; then
    # (leaks are not looked for: what MPI's plugins left cannot be told from ours)
    run="env ASAN_OPTIONS=detect_leaks=0 mpirun --allow-run-as-root --oversubscribe -np 2"
    [ "$($run "$m" config lr=1 2>/dev/null | grep -c learning_rate)" = 1 ] || fail 'config on two ranks'
    [ "$($run "$m" config lr=x 2>&1 | grep -c '^mbuyu: ')" = 1 ] || fail 'a failure on two ranks'
    [ "$($run "$m" env 2>/dev/null | grep -c '^compiler')" = 1 ] || fail 'env on two ranks'
    $run "$m" env 2>/dev/null | grep -q '^mpi .*collectives run behind the computing' || fail 'MPI of several threads'
    [ "$($run "$m" env now 2>&1 | grep -c '^mbuyu: ')" = 1 ] || fail 'a failure of a ranks verb'
    $run "$m" env now >/dev/null 2>&1
    [ $? -eq 2 ] || fail 'exit code under mpirun'
    # in a batch script of Slurm --ranks starts ranks, in a step of several tasks it does not
    batch="env ASAN_OPTIONS=detect_leaks=0 SLURM_NTASKS=2 SLURM_PROCID=0"
    [ "$($batch "$m" env --ranks 2 2>/dev/null | grep -c '^compiler')" = 1 ] || fail '--ranks in a batch script'
    $batch SLURM_STEP_NUM_TASKS=2 "$m" env --ranks 2 2>&1 | grep -q 'give one of the two' || fail '--ranks in a step'
fi

# every variable the source asks for is in the help, but those for tests of its own
# shellcheck disable=SC2013 # words
for variable in $(grep -rhoE 'getenv\("MBUYU_[A-Z_]+"\)' "$root"/{core,autograd,optim,dist,recipes} |
    grep -oE 'MBUYU_[A-Z_]+' | grep -v ^MBUYU_TEST_ | sort -u); do
    "$m" help | grep -q "$variable" || fail "$variable is not in the help"
done

# documents
"$root/scripts/make_reference_docs.sh" --check || fail 'run scripts/make_reference_docs.sh'

finish
