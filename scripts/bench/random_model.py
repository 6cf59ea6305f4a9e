#!/usr/bin/env python3
"""random_model.py llama1b|bert TOKENIZER_DIR OUT - a model folder with random weights, for speed.

llama1b has the shape of Llama-3.2-1B and is stored in bf16, bert is BERT-base for two classes in f32.
Tokenizer files are copied from TOKENIZER_DIR, whose vocabulary is no larger than the model's.
"""
import pathlib
import shutil
import sys

import torch
import transformers

shape, tokenizer, out = sys.argv[1], pathlib.Path(sys.argv[2]), pathlib.Path(sys.argv[3])
torch.manual_seed(0)
if shape == "llama1b":
    config = transformers.LlamaConfig(
        hidden_size=2048, intermediate_size=8192, num_hidden_layers=16, num_attention_heads=32,
        num_key_value_heads=8, head_dim=64, vocab_size=128256, tie_word_embeddings=True,
        max_position_embeddings=8192, rms_norm_eps=1e-5, bos_token_id=1, eos_token_id=2,
    )
    torch.set_default_dtype(torch.bfloat16)
    model = transformers.LlamaForCausalLM(config)
else:
    config = transformers.BertConfig(num_labels=2)
    model = transformers.BertForSequenceClassification(config)
model.save_pretrained(out)
for path in tokenizer.iterdir():
    if path.name in ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "vocab.txt"):
        shutil.copy(path, out)
