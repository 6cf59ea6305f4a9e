#!/usr/bin/env bash
# tests/cli/test_verify.sh - `mbuyu verify` on every reference case under both GEMM libraries, and
# whether it would notice: each kind of number changed in a copy must fail, and only that kind.
set -u
# shellcheck source-path=SCRIPTDIR source=verbs.sh
. "$(dirname "${BASH_SOURCE[0]}")/verbs.sh"
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
export OMP_WAIT_POLICY=passive
cases=$MB_TEST_DATA/reference
runs=0

# header FILE: the JSON of a safetensors file
header() {
    head -c $((8 + $(od -An -tu8 -N8 "$1"))) "$1" | tail -c +9
}

# poke FILE TENSOR BYTES [ENTRY]: overwrites a float of a tensor; BYTES in printf's escapes
poke() {
    local from
    from=$(header "$1" | grep -o "\"$2\":{[^}]*}" | sed 's/.*\[\([0-9]*\),[0-9]*\]}/\1/')
    [ -n "$from" ] || fail "$1 has no tensor $2"
    # shellcheck disable=SC2059
    printf "$3" | dd of="$1" bs=1 conv=notrunc status=none \
        seek=$((8 + $(od -An -tu8 -N8 "$1") + from + 4 * ${4:-0}))
}

# rewrite FILE FROM TO: replaces a text of the header by one of the same length, once
rewrite() {
    [ ${#2} -eq ${#3} ] || fail "'$2' and '$3' have different lengths"
    header "$1" | grep -qF "$2" || fail "$1 has no '$2'"
    # shellcheck disable=SC2001
    LC_ALL=C sed -i "s|$(sed 's/[].*[]/\\&/g' <<<"$2")|$3|" "$1"
}

copy() {
    rm -rf "${work:?}/$1"
    cp -r "$cases/$1" "$work/$1"
    at=$work/$1
    golden=$at/golden.safetensors
}

# refused CODE PATTERN...: verify of the copy at $at
refused() {
    local code=$1 got pattern
    shift
    "$MBUYU" verify "$at" "$golden" >"$work/out" 2>"$work/err"
    got=$?
    [ $got -eq "$code" ] || fail "exit code $got, not $code, where expected '$*': $(cat "$work/err")"
    [ "$(grep -c '^mbuyu: ' "$work/err")" = 1 ] || fail "not one sentence: $(cat "$work/err")"
    for pattern; do
        cat "$work/out" "$work/err" | grep -qE -e "$pattern" ||
            fail "no '$pattern' in: $(cat "$work/out" "$work/err")"
    done
}

# fails_only KIND: one line says FAIL, and it is this kind's
fails_only() {
    [ "$(grep -c 'FAIL' "$work/out")" = 1 ] || fail "another kind than $1 fails: $(cat "$work/out")"
    grep -q "^ *$1 .*FAIL" "$work/out" || fail "$1 does not fail: $(cat "$work/out")"
}

# every case, whoever multiplies
for gemm in own openblas onednn; do
    for case in "$cases"/*/; do
        case=${case%/}
        runs=$((runs + 1))
        MBUYU_GEMM=$gemm "$MBUYU" verify "$case" "$case/golden.safetensors" >"$work/out" 2>&1 ||
            fail "$(basename "$case") with $gemm: $(cat "$work/out")"
        grep -q "gemm $gemm" "$work/out" || fail "another provider than $gemm: $(head -1 "$work/out")"
        for kind in logits loss gradients losses parameters; do
            grep -q "^ *$kind *ok " "$work/out" || fail "$(basename "$case"): no $kind"
        done
        [ ! -d "$case/adapter-before" ] ||
            [ "$(grep -cE '^ *(adapter|merged) *ok ' "$work/out")" = 2 ] ||
            fail "$(basename "$case"): adapter or merged is missing"
        cat "$work/out"
    done
done
[ $runs -ge 36 ] || fail "$runs runs, not 36 or more"

# one weight
half='\x00\x00\x00\x3f' nan='\x00\x00\xc0\x7f'
copy llama
poke "$at/model.safetensors" model.layers.0.mlp.down_proj.weight "$half" 77
refused 8 'logits +FAIL' 'gradients +FAIL' 'does not agree with .*golden'
copy gpt2
poke "$at/model.safetensors" transformer.h.1.ln_2.bias "$nan" 3
refused 8 'logits +FAIL' 'losses +FAIL' 'does not agree'

# one golden number of each kind
copy llama
poke "$golden" out.logits "$half" 5
refused 8 'does not agree' 'row 0, token 0'
fails_only logits
copy llama
poke "$golden" out.logits "$nan" 5
refused 8 'does not agree'
fails_only logits
copy mistral-sliding
poke "$golden" out.loss "$half"
refused 8 'does not agree'
fails_only loss
copy bert-mlm
poke "$golden" grad.bert.encoder.layer.0.output.dense.weight "$half" 9
refused 8 'does not agree' 'bert.encoder.layer.0.output.dense.weight'
[ "$(grep -c 'gradients *FAIL' "$work/out")" = 1 ] || fail "gradients: $(cat "$work/out")"
copy bert-cls
poke "$golden" train.losses "$half" 7
refused 8 'does not agree' 'step 7'
fails_only losses
copy llama3-rope
poke "$golden" param.model.layers.1.input_layernorm.weight "$half" 2
refused 8 'does not agree' 'model.layers.1.input_layernorm.weight'
fails_only parameters
copy lora-llama
poke "$at/merged.safetensors" merged.logits "$half" 1
refused 8 'does not agree'
fails_only merged
copy lora-gpt2-conv1d
poke "$at/adapter-before/adapter_model.safetensors" \
    base_model.model.transformer.h.0.attn.c_attn.lora_B.weight "$half" 4
refused 8 'logits +FAIL' 'does not agree'
copy dora-qwen2
poke "$at/adapter-before/adapter_model.safetensors" \
    base_model.model.model.layers.1.mlp.down_proj.lora_magnitude_vector "$half" 4
refused 8 'logits +FAIL' 'does not agree'
copy dora-qwen2
sed -i 's/"use_dora": true/"use_dora": false/' "$at"/adapter-*/adapter_config.json
refused 4 'lora_magnitude_vector'
copy gemma3
sed -i 's/"sliding_window": 8/"sliding_window": 9/' "$at/config.json"
refused 8 'logits +FAIL' 'does not agree'
copy phi3
sed -i 's/1.25/1.26/' "$at/config.json"
refused 8 'logits +FAIL' 'does not agree'
copy rslora-bert
sed -i 's/"use_rslora": true/"use_rslora": false/' "$at"/adapter-*/adapter_config.json
refused 8 'logits +FAIL' 'does not agree'
copy mistral-sliding
sed -i 's/"sliding_window": 16/"sliding_window": 17/' "$at/config.json"
refused 8 'logits +FAIL' 'does not agree'

# something missing, something else there
copy llama
rewrite "$golden" '"grad.model.norm.weight"' '"grad.model.norn.weight"'
refused 4 "golden.safetensors: tensor 'grad.model.norm.weight' is missing"
copy llama
rewrite "$golden" '"param.model.norm.weight"' '"grades.model.norm.weigh"'
refused 4 "golden.safetensors: tensor 'param.model.norm.weight' is missing"
copy llama
rewrite "$golden" '"param.model.norm.weight"' '"grad.mmodel.norm.weight"'
refused 8 'holds 21 gradients, the model has 20 trained tensors'
copy llama
rewrite "$golden" '"out.logits"' '"out.loggit"'
refused 4 "tensor 'out.logits' is missing"
copy llama
rewrite "$at/model.safetensors" '"model.norm.weight"' '"model.norm.weighs"'
refused 4 "tensor 'model.norm.weight' is missing"

# shapes: a turned matrix is a wrong model; logits of another shape are wrong numbers
copy gpt2
rewrite "$at/model.safetensors" '"shape":[64,192]' '"shape":[192,64]'
refused 4 'has shape \[192, 64\].*needs \[64, 192\]'
copy llama
shape=$(header "$golden" | grep -oE '"out.logits":\{"dtype":"F32","shape":\[[0-9,]*\]' | grep -oE '\[.*')
IFS=, read -r rows columns width <<<"${shape//[][]/}"
rewrite "$golden" "$shape" "[$columns,$rows,$width]"
refused 4 'out.logits'
copy llama
rewrite "$golden" "$shape" "[$width,$rows,$columns]"
refused 4 'out.logits|logits have'
copy llama
rewrite "$golden" '"out.loss":{"dtype":"F32"' '"out.loss":{"dtype":"I32"'
refused 4 "tensor 'out.loss' is I32, expected F32"

# ids that no embedding has, rows longer than the model, rows without tokens
copy llama
poke "$golden" in.input_ids '\xff\xff\xff\xff'
refused 4 'golden.safetensors: .*-1'
copy llama
poke "$golden" in.input_ids '\x80\x01\x00\x00'
refused 4 'golden.safetensors: .*384'
copy llama
poke "$golden" in.labels '\x80\x01\x00\x00'
refused 4 'golden.safetensors: .*384'
copy bert-cls
poke "$golden" in.labels '\x9c\xff\xff\xff'
refused 4 'golden.safetensors: .*-100'
copy llama
sed -i 's/"max_position_embeddings": 128/"max_position_embeddings": 4/' "$at/config.json"
refused 4 'golden.safetensors: .* 4 positions'

# files that are not there, or not what they should be
at=$cases/llama golden=$work/none.safetensors
refused 4 'none.safetensors'
at=$work/none golden=$cases/llama/golden.safetensors
refused 4 'none'
at=$cases/llama golden=$cases/gpt2/golden.safetensors
refused 4 'gpt2/golden.safetensors'
at=$cases/llama golden=$cases/llama/config.json
refused 4 'config.json'

[ $failures -eq 0 ] && echo "$runs runs agree; every change was noticed"
exit $((failures > 0))
