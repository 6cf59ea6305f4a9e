#!/usr/bin/env bash
# recipes_table.sh [--write] [NAME...] - runs the ready recipes and makes a table of what came out; of
#                                        those not named the table keeps what their last run gave.
# recipes_table.sh --short [NAME...]   - sees that each of them works, on small made-up data.
#
# A recipe of recipes/configs says in comments what stands in for its paths:
#
#     #@ PATH  MATERIAL  STAND-IN     MATERIAL: a file of scripts/fetch_materials.sh, or "-": yours to
#                                     provide. STAND-IN: model:CASE of tests/data/reference, or a kind
#                                     of scripts/data/stand_in.py
#     #@ranks N                       of the real run (1)
#     #@short KEY=VALUE ...           for --short, beside fewer rows and two steps
#
# Without --short: every recipe all of whose paths have material runs as it is, in out/recipes; the
# table goes to standard output and, with --write, into README.md.
# With --short: `mbuyu validate`, `mbuyu plan`, two steps and an evaluation on the CPU and, where
# MBUYU_CUDA_LIBRARY names the emulator or a GPU's back end, the same on the device, where losses must
# be those of the CPU. Exit status 1 when anything fails.
#
# MBUYU names the program (build/mbuyu), MB_MATERIALS the materials.
set -euo pipefail
# shellcheck source-path=SCRIPTDIR source=lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

short=0 write=0 names=()
for option; do
    case $option in
    --short) short=1 ;;
    --write) write=1 ;;
    -*) die "unknown option $option; usage: recipes_table.sh [--short] [--write] [NAME...]" ;;
    *) names+=("$option") ;;
    esac
done
mbuyu=${MBUYU:-$root/build/mbuyu}
[ -x "$mbuyu" ] || die "there is no program at $mbuyu; build it, or set MBUYU"
failures=0

fail() {
    printf 'FAILED: %s\n' "$1" >&2
    [ ! -f "${2:-}" ] || tail -n 15 "$2" | sed 's/^/    /' >&2
    failures=$((failures + 1))
}

recipes() { # the files asked for, or all
    local name
    if [ ${#names[@]} -eq 0 ]; then
        ls "$root"/recipes/configs/*.yaml
        return
    fi
    for name in "${names[@]}"; do
        [ -f "$root/recipes/configs/${name%.yaml}.yaml" ] || die "there is no recipe $name"
        printf '%s\n' "$root/recipes/configs/${name%.yaml}.yaml"
    done
}

places() { # places RECIPE: lines "PATH MATERIAL STAND-IN"
    sed -nE 's/^#@ +([^ ]+) +([^ ]+) +([^ ]+) *$/\1 \2 \3/p' "$1"
}

words_of() { # words_of RECIPE WORD: what follows "#@WORD "
    sed -nE "s/^#@$2 +//p" "$1"
}

model_of() {
    "$mbuyu" config "$1" | sed -nE 's/^model_name_or_path: *"?([^"]*)"? *$/\1/p'
}

# --- small

# stand_in RECIPE: makes its data in this folder; sets `overrides`
stand_in() {
    local path material kind model
    model=$(model_of "$1")
    overrides=()
    while read -r path material kind; do
        if [ "$path" = "$model" ] && [ "${kind#model:}" != "$kind" ]; then
            overrides+=("model_name_or_path=$root/tests/data/reference/${kind#model:}")
        elif [ "${kind#model:}" != "$kind" ]; then
            mkdir -p "$(dirname "$path")"
            ln -s "$root/tests/data/reference/${kind#model:}" "$path"
        else
            python3 "$root/scripts/data/stand_in.py" "$kind" "$path"
        fi
    done < <(places "$1")
}

losses() { # losses OUT: every loss and evaluation
    sed -nE 's/.*"((eval_)?loss)":([-+.0-9e]+).*/\1 \3/p' "$1/logs/train.jsonl"
}

# alike A B: two files of losses, to a part in ten thousand
alike() {
    paste -d' ' "$1" "$2" | awk '
        { d = $2 - $4; d = d < 0 ? -d : d; if ($1 != $3 || d > 1e-4 * ($2 < 0 ? -$2 : $2) + 1e-6) bad = 1 }
        END { exit bad || NR == 0 }'
}

# two_steps RECIPE NAME DEVICE: leaves NAME.DEVICE/losses
two_steps() {
    local out=$2.$3
    timeout 300 "$mbuyu" train "$1" "${overrides[@]}" device="$3" output_dir="$out" >"$out.log" 2>&1 ||
        refuse "$2: two steps on $3" "$out.log"
    losses "$out" >"$out/losses"
    [ "$(grep -c '^loss ' "$out/losses")" -eq 2 ] || refuse "$2: no two losses on $3" "$out.log"
    grep -q '^eval_loss ' "$out/losses" || refuse "$2: no evaluation on $3" "$out.log"
    [ -d "$out/final" ] || refuse "$2: no model on $3" "$out.log"
}

refuse() { # ends a check
    fail "$@"
    exit 1
}

check() ( # check RECIPE: in a folder of its own
    name=$(basename "$1" .yaml)
    [ -n "$(places "$1")" ] || refuse "$name: no line '#@ PATH MATERIAL STAND-IN' says what to try it with"
    mkdir "$work/$name"
    cd "$work/$name" || exit 1
    stand_in "$1" || refuse "$name: no stand-ins"
    read -ra more <<<"$(words_of "$1" short | tr '\n' ' ')"
    overrides+=(max_steps=2 per_device_train_batch_size=1 per_device_eval_batch_size=2 global_batch_size=2
        eval_strategy=steps eval_steps=2 save_strategy=steps save_steps=2 logging_steps=1 report_to=jsonl
        bf16=false fp16=false "${more[@]}")
    "$mbuyu" validate "$1" "${overrides[@]}" >log 2>&1 || refuse "$name: validate" log
    "$mbuyu" plan "$1" "${overrides[@]}" >log 2>&1 || refuse "$name: plan" log
    two_steps "$1" "$name" cpu
    if [ -f "${MBUYU_CUDA_LIBRARY:-}" ]; then
        two_steps "$1" "$name" cuda
        alike "$name.cpu/losses" "$name.cuda/losses" ||
            refuse "$name: other losses on the device: $(paste -d' ' "$name.cpu/losses" "$name.cuda/losses" | tr '\n' ';')"
    fi
    printf 'works: %s\n' "$name"
)

# --- at full size

has_material() { # has_material RECIPE: for every path
    [ -n "$(places "$1")" ] && ! places "$1" | cut -d' ' -f2 | grep -qx -- -
}

asked() { # asked NAME
    local name
    [ ${#names[@]} -gt 0 ] || return 0
    for name in "${names[@]}"; do
        [ "${name%.yaml}" != "$1" ] || return 0
    done
    return 1
}

# run RECIPE: a line of the table
run() {
    local name=$1 out path material ranks start
    name=$(basename "$1" .yaml)
    out=$root/out/recipes/$name
    rm -rf "$out"
    mkdir -p "$out"
    cd "$out"
    while read -r path material _; do
        "$root/scripts/fetch_materials.sh" "$materials" "${material%%/*}" >&2
        mkdir -p "$(dirname "$path")"
        ln -sfn "$materials/$material" "$path"
    done < <(places "$1")
    ranks=$(words_of "$1" ranks)
    start=()
    if "$mbuyu" config "$1" | grep -qE '^eval_strategy: *(steps|epoch)'; then start=(eval_on_start=true); fi
    printf '== %s\n' "$name" >&2
    if ! "$mbuyu" train "$1" output_dir=run --ranks "${ranks:-1}" "${start[@]}" >log 2>&1; then
        fail "$name" log
        return
    fi
    python3 - "$name" "$root/recipes/configs/$name.yaml" run/logs/train.jsonl "${ranks:-1}" >row <<'PYTHON'
import json, sys

name, recipe, log, ranks = sys.argv[1:]
lines = [json.loads(line) for line in open(log, encoding="utf-8")]
evaluations = [line for line in lines if "eval_loss" in line]
seconds = next(line["train_runtime"] for line in reversed(lines) if "train_runtime" in line)
steps = max(line["step"] for line in lines)


def number(x):
    return "undefined" if x is None else f"{x:.4g}"


changes = [f"{key[5:]} {number(evaluations[0].get(key))} → {number(value)}"
           for key, value in (evaluations[-1].items() if evaluations else ())
           if key.startswith("eval_") and key != "eval_runtime"]
time = f"{seconds / 60:.0f} min" if seconds >= 90 else f"{seconds:.0f} s"
print(f"| [{name}](recipes/configs/{name}.yaml) | {steps} | {ranks} | {time} | {', '.join(changes)} |")
PYTHON
    tee /dev/stderr <row
}

machine() {
    printf '%s, %s cores' "$(sed -nE 's/^model name\s*: //p' /proc/cpuinfo | head -n 1)" "$(cores)"
}

table() {
    printf '| recipe | steps | ranks | time | evaluation before → after |\n|---|---|---|---|---|\n'
    local recipe name
    while read -r recipe; do
        name=$(basename "$recipe" .yaml)
        if asked "$name" && has_material "$recipe"; then
            run "$recipe"
        elif [ -f "$root/out/recipes/$name/row" ]; then
            cat "$root/out/recipes/$name/row"
        fi
    done < <(ls "$root"/recipes/configs/*.yaml)
    printf '\nMeasured by scripts/recipes_table.sh on %s.\n' "$(machine)"
}

# put TABLE: between the markers of README.md
put() {
    grep -q '^<!-- recipes: begin -->$' "$root/README.md" || die 'README.md has no <!-- recipes: begin -->'
    awk -v table="$1" '
        /^<!-- recipes: end -->$/ { inside = 0 }
        !inside { print }
        /^<!-- recipes: begin -->$/ { inside = 1; while ((getline line <table) > 0) print line }
    ' "$root/README.md" >"$1.readme"
    cat "$1.readme" >"$root/README.md"
}

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
if [ "$short" -eq 1 ]; then
    while read -r recipe; do
        check "$recipe" || failures=$((failures + 1))
    done < <(recipes)
else
    materials=$(materials_folder)
    table >"$work/table"
    cat "$work/table"
    if [ "$write" -eq 1 ] && [ "$failures" -eq 0 ]; then put "$work/table"; fi
fi
[ "$failures" -eq 0 ]
