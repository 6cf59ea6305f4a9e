#!/usr/bin/env bash
# swahili_t5.sh TRAIN.jsonl VALID.jsonl DIR - a small T5 that knows nothing, and pairs to teach it.
#
# From the dictionary rows of scripts/fetch_materials.sh (swahili: FreeDict, GPL-2.0+) it makes
# DIR/{train,valid}.jsonl, rows {"translation": {"sw": ..., "en": ...}}, and DIR/model: a unigram
# tokenizer of both languages, learnt by mbuyu, and a config.json. Weights are drawn by `init: random`.
# MBUYU names the program (build/mbuyu).
set -euo pipefail
# shellcheck source-path=SCRIPTDIR source=../lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/../lib.sh"

[ $# -eq 3 ] || die 'usage: swahili_t5.sh TRAIN.jsonl VALID.jsonl DIR'
mbuyu=${MBUYU:-$root/build/mbuyu}
mkdir -p "$3/model"

python3 - "$@" <<'PYTHON'
import json, pathlib, re, sys

out = pathlib.Path(sys.argv[3])
words = []
for name, path in (("train", sys.argv[1]), ("valid", sys.argv[2])):
    with open(path) as rows, open(out / f"{name}.jsonl", "w") as to:
        for row in map(json.loads, rows):
            found = re.fullmatch(r"Translate Swahili to English\.\nSwahili: (.*)\nEnglish:", row["prompt"])
            if not found:
                continue
            pair = {"sw": found[1], "en": row["completion"].strip()}
            to.write(json.dumps({"translation": pair}) + "\n")
            words += pair.values() if name == "train" else []
(out / "words.txt").write_text("\n".join(words) + "\n")
PYTHON

"$mbuyu" tokenizer train --kind unigram --vocab-size 1200 --special '<pad>' --special '</s>' \
    --special '<unk>' --output "$3/model" "$3/words.txt"
cat >"$3/model/config.json.part" <<'JSON'
{
 "architectures": ["T5ForConditionalGeneration"], "model_type": "t5", "is_encoder_decoder": true,
 "vocab_size": 1200, "d_model": 128, "d_kv": 32, "d_ff": 256, "num_layers": 3,
 "num_decoder_layers": 3, "num_heads": 4, "dropout_rate": 0.1, "feed_forward_proj": "gated-gelu",
 "tie_word_embeddings": true, "scale_decoder_outputs": true, "layer_norm_epsilon": 1e-06,
 "relative_attention_num_buckets": 32, "relative_attention_max_distance": 128,
 "decoder_start_token_id": 0, "pad_token_id": 0, "eos_token_id": 1
}
JSON
mv "$3/model/config.json.part" "$3/model/config.json"
