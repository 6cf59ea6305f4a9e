#!/usr/bin/env bash
# Every ready recipe works, whoever added it: validated, planned, two steps and an evaluation on the CPU
# and, with the same losses, on the emulated GPU, with the small stand-ins it names itself.
set -euo pipefail
# shellcheck source-path=SCRIPTDIR source=lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
start
root=$MB_TEST_DATA/../..
table=$root/scripts/recipes_table.sh
[ -f "${MBUYU_CUDA_LIBRARY:-}" ] || echo 'without the device: no emulator was built'

"$table" --short >works 2>log || fail "$(cat log)"
for recipe in "$root"/recipes/configs/*.yaml; do
    grep -qx "works: $(basename "$recipe" .yaml)" works || fail "$(basename "$recipe") was not tried"
done

# A script that finds no fault in a faulty recipe would be of no use.
mkdir -p copy/recipes/configs copy/tests
ln -s "$root/scripts" copy/scripts
ln -s "$MB_TEST_DATA" copy/tests/data
cp "$root/recipes/configs/classify-bert.yaml" copy/recipes/configs/silent.yaml
sed -i '/^#@/d' copy/recipes/configs/silent.yaml
sed 's/^learning_rate: .*/learning_rate: 1.0e30/' "$root/recipes/configs/classify-bert.yaml" \
    >copy/recipes/configs/diverging.yaml
sed 's/^max_length:/max_lenght:/' "$root/recipes/configs/classify-bert.yaml" \
    >copy/recipes/configs/misspelt.yaml
if copy/scripts/recipes_table.sh --short >works 2>log; then fail 'faulty recipes pass'; fi
for name in silent diverging misspelt; do
    grep -q "^FAILED: $name: " log || fail "nothing was found in $name: $(cat log)"
done
[ ! -s works ] || fail "works: $(cat works)"
finish
