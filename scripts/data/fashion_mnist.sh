#!/usr/bin/env bash
# fashion_mnist.sh FOLDER - Fashion-MNIST (Debian's dataset-fashion-mnist) as folders of PNGs, and the
# configuration of a small vision transformer for it: what recipes/configs/fashion-mnist-vit.yaml
# wants. Nothing is done again that is there.
set -euo pipefail
# shellcheck source=scripts/lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/../lib.sh"

[ $# -eq 1 ] || die 'usage: fashion_mnist.sh FOLDER'
source=${MB_FASHION_MNIST:-/usr/share/datasets/fashion-mnist}
[ -d "$source" ] || need_packages dataset-fashion-mnist
[ -d "$1/test" ] || python3 "$root/scripts/data/idx_to_png.py" "$source" "$1"
mkdir -p "$1/model"
cat >"$1/model/config.json" <<'JSON'
{
  "architectures": ["ViTForImageClassification"],
  "model_type": "vit",
  "attention_probs_dropout_prob": 0.0,
  "hidden_act": "gelu",
  "hidden_dropout_prob": 0.0,
  "hidden_size": 96,
  "image_size": 28,
  "initializer_range": 0.02,
  "intermediate_size": 192,
  "layer_norm_eps": 1e-12,
  "num_attention_heads": 4,
  "num_channels": 1,
  "num_hidden_layers": 4,
  "patch_size": 7,
  "qkv_bias": true
}
JSON
cat >"$1/model/preprocessor_config.json" <<'JSON'
{
  "do_normalize": true,
  "do_rescale": true,
  "do_resize": true,
  "image_mean": [0.286],
  "image_processor_type": "ViTImageProcessor",
  "image_std": [0.353],
  "resample": 2,
  "rescale_factor": 0.00392156862745098,
  "size": {"height": 28, "width": 28}
}
JSON
