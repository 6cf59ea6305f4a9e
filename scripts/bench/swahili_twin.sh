#!/usr/bin/env bash
# swahili_twin.sh OUT - one fine-tune, done by mbuyu and by PEFT with the same settings: the losses
# on the held-out pairs must end within 3 % of each other. Takes tens of minutes on two cores.
#
# MB_PEERS is a Python with torch, transformers and peft; MBUYU the program.
set -euo pipefail
# shellcheck source-path=SCRIPTDIR source=../lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/../lib.sh"

[ $# -eq 1 ] || die 'usage: swahili_twin.sh OUT'
mkdir -p "$1"
out=$(cd "$1" && pwd)
mbuyu=${MBUYU:-$root/build/mbuyu}
python=${MB_PEERS:?a Python with torch, transformers and peft}
materials=$(materials_folder)
pairs=$materials/swahili
model=$materials/smollm2/SmolLM2-135M-Instruct.Q4_1.gguf
"$root/scripts/fetch_materials.sh" "$materials" smollm2 swahili

mpirun --oversubscribe -np 2 "$mbuyu" train "$root/recipes/configs/swahili-lora.yaml" \
    "model_name_or_path=$model" "datasets=[\"$pairs/train.jsonl\"]" \
    "eval_datasets=[\"$pairs/valid.jsonl\"]" "output_dir=$out/mbuyu" \
    finetuning_type=lora lora_r=16 lora_alpha=32 lora_target_modules=all-linear lora_dropout=0.0 \
    learning_rate=2e-4 global_batch_size=16 num_train_epochs=2 lr_scheduler_type=cosine \
    warmup_ratio=0.03 weight_decay=0 max_grad_norm=1.0 eval_strategy=epoch >"$out/mbuyu.log" 2>&1 ||
    { tail -n 30 "$out/mbuyu.log" && die 'mbuyu train failed'; }

"$mbuyu" export "model_name_or_path=$model" export_dtype=f32 "output_dir=$out/model" \
    >"$out/export.log" 2>&1 || { tail -n 30 "$out/export.log" && die 'mbuyu export failed'; }
"$python" "$root/scripts/bench/peft_swahili.py" "$out/model" "$pairs" 2>"$out/peft.errors" |
    tee "$out/peft.log" || { tail -n 30 "$out/peft.errors" && die 'PEFT failed'; }

"$python" - "$out" <<'PYTHON'
import json, sys

records = [json.loads(line) for line in open(sys.argv[1] + "/mbuyu/logs/train.jsonl")]
ours = [r["eval_loss"] for r in records if "eval_loss" in r][-1]
theirs = float(open(sys.argv[1] + "/peft.log").read().split()[-1])
print(f"mbuyu {ours:.4f}, PEFT {theirs:.4f}, ratio {ours / theirs:.4f}")
sys.exit(not 0.97 <= ours / theirs <= 1.03)
PYTHON
