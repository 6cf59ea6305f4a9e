#!/usr/bin/env python3
"""GGUF files of every family, written with the gguf package's own names, against transformers.

    gguf_families.py FORWARD        FORWARD: the built forward.c (our logits of rows of token ids)

A tiny model of each family is written as llama.cpp's converter would: names from gguf's table, q and
k interleaved where llama.cpp rotates neighbours, Gemma's norms with 1 added. The logits we compute
from the file must be those transformers computes from the model: 1e-4 * max(1, max|ref|).
"""
import pathlib
import subprocess
import sys
import tempfile

import gguf
import numpy as np
import torch
import transformers

SIZE = dict(vocab_size=96, hidden_size=32, intermediate_size=48, num_attention_heads=4, num_key_value_heads=2,
            num_hidden_layers=2, max_position_embeddings=128, rms_norm_eps=1e-5, bos_token_id=0,
            eos_token_id=2, pad_token_id=2)
ROPE = dict(rope_type="default", rope_theta=50000.0)
FAMILIES = {  # architecture of gguf: class, configuration
    "llama": ("Llama", dict(rope_parameters=ROPE)),
    "qwen2": ("Qwen2", dict(rope_parameters=ROPE, tie_word_embeddings=True)),
    "qwen3": ("Qwen3", dict(rope_parameters=ROPE, head_dim=16)),
    "gemma3": ("Gemma3", dict(num_hidden_layers=7, head_dim=16, query_pre_attn_scalar=16, sliding_window=8,
                              rope_parameters=dict(
                                  full_attention=dict(rope_type="linear", rope_theta=1e6, factor=8.0),
                                  sliding_attention=dict(rope_type="default", rope_theta=1e4)))),
    "phi3": ("Phi3", dict(sliding_window=12, hidden_size=64,
                          rope_parameters=ROPE | dict(partial_rotary_factor=0.75))),
    "olmo2": ("Olmo2", dict(rope_parameters=ROPE)),
    "smollm3": ("SmolLM3", dict(num_hidden_layers=5, rope_parameters=ROPE, tie_word_embeddings=True)),
}
INTERLEAVED = {"llama", "smollm3"}


def build(name, seed):
    kind, config = FAMILIES[name]
    torch.manual_seed(seed)
    config_class = "Gemma3TextConfig" if kind == "Gemma3" else f"{kind}Config"
    config = getattr(transformers, config_class)(**(SIZE | config))
    model = getattr(transformers, f"{kind}ForCausalLM")(config).float().eval()
    with torch.no_grad():
        for p in model.parameters():
            if p.dim() > 1:
                p.normal_(0, 0.6 / p.shape[-1] ** 0.5)
            else:
                p.add_(torch.randn_like(p) * 0.1)
    return model, config


def interleaved(x, heads):
    return x.reshape(heads, 2, x.shape[0] // heads // 2, *x.shape[1:]).swapaxes(1, 2).reshape(x.shape)


def write(name, model, config, path):
    arch = next(a for a, n in gguf.MODEL_ARCH_NAMES.items() if n == name)
    names = gguf.get_tensor_name_map(arch, config.num_hidden_layers)
    head_dim = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    w = gguf.GGUFWriter(path, name)
    w.add_context_length(config.max_position_embeddings)
    w.add_embedding_length(config.hidden_size)
    w.add_block_count(config.num_hidden_layers)
    w.add_feed_forward_length(config.intermediate_size)
    w.add_head_count(config.num_attention_heads)
    w.add_head_count_kv(config.num_key_value_heads)
    w.add_layer_norm_rms_eps(config.rms_norm_eps)
    w.add_key_length(head_dim)
    w.add_value_length(head_dim)
    rope = config.rope_parameters.get("full_attention", config.rope_parameters)
    w.add_rope_freq_base(rope["rope_theta"])
    w.add_rope_dimension_count(int(head_dim * rope.get("partial_rotary_factor", 1.0)))
    if rope["rope_type"] == "linear":
        w.add_rope_scaling_type(gguf.RopeScalingType.LINEAR)
        w.add_rope_scaling_factor(rope["factor"])
    if getattr(config, "sliding_window", None):
        w.add_sliding_window(config.sliding_window)
    for key, value in model.state_dict().items():
        if key == "lm_head.weight" and config.tie_word_embeddings:
            continue
        x = value.numpy()
        if name in INTERLEAVED and ".q_proj." in key:
            x = interleaved(x, config.num_attention_heads)
        if name in INTERLEAVED and ".k_proj." in key:
            x = interleaved(x, config.num_key_value_heads)
        if name == "gemma3" and key.endswith("norm.weight"):
            x = x + np.float32(1)
        out = names.get_name(key, try_suffixes=(".weight", ".bias"))
        assert out, f"gguf has no name for {key}"
        w.add_tensor(out, np.ascontiguousarray(x))
    w.write_header_to_file()
    w.write_kv_data_to_file()
    w.write_tensors_to_file()
    w.close()


def main():
    torch.set_num_threads(1)
    worst = 0.0
    with tempfile.TemporaryDirectory() as folder:
        for seed, name in enumerate(FAMILIES):
            model, config = build(name, seed)
            path, raw = pathlib.Path(folder) / f"{name}.gguf", pathlib.Path(folder) / "logits"
            write(name, model, config, path)
            rows = [torch.randint(3, SIZE["vocab_size"], (n,)).tolist() for n in (5, 40, 17)]
            text = "".join(" ".join(map(str, row)) + "\n" for row in rows)
            done = subprocess.run([sys.argv[1], path, raw], input=text, text=True, capture_output=True)
            assert done.returncode == 0, f"{name}: {done.stderr}"
            ours = np.fromfile(raw, "<f4").reshape(-1, SIZE["vocab_size"])
            with torch.no_grad():
                ref = torch.cat([model(torch.tensor([row])).logits[0] for row in rows]).numpy()
            share = float(np.abs(ours - ref).max()) / (1e-4 * max(1.0, float(np.abs(ref).max())))
            print(f"{name:8s} {share:.2g} of the allowed difference of logits")
            assert share <= 1.0, name
            worst = max(worst, share)
    print(f"{len(FAMILIES)} families, {worst:.2g} at worst")


if __name__ == "__main__":
    main()
