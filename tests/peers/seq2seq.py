#!/usr/bin/env python3
"""Encoder-decoder models that mbuyu trained, loaded by transformers and PEFT: losses and answers are ours.

    seq2seq.py MBUYU DATA

MBUYU is the program, DATA the folder tests/data. A T5 learns a few pairs whole and with an adapter;
transformers and PEFT load what came out and give the losses that `mbuyu eval` gives (1e-4) and, for a
batch of prompts, the token ids of `mbuyu generate`, greedily and by beam search.
"""
import json
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile

import torch
from peft import PeftModel
from safetensors.torch import load_file, save_file
from transformers import AutoModelForSeq2SeqLM, AutoTokenizer

PAIRS = [("maji", "water"), ("moto", "fire"), ("mti", "tree"), ("jua", "sun"), ("mwezi", "moon"),
         ("nyumba", "house"), ("samaki", "fish"), ("ndege", "a bird, or a plane")]
SEARCHES = (dict(), dict(num_beams=4), dict(num_beams=3, length_penalty=2.0),
            dict(num_beams=3, no_repeat_ngram_size=2), dict(num_beams=2, early_stopping="true"))


class Peer:
    def __init__(self, program, folder):
        self.program, self.folder = program, pathlib.Path(folder)
        rows = "".join(json.dumps({"source": a, "target": b}) + "\n" for a, b in PAIRS)
        (self.folder / "pairs.jsonl").write_text(rows)
        prompts = "".join(json.dumps({"prompt": a}) + "\n" for a, _ in PAIRS)
        (self.folder / "prompts.jsonl").write_text(prompts)

    def mbuyu(self, verb, **keys):
        done = subprocess.run([self.program, verb, *(f"{k}={v}" for k, v in keys.items())],
                              capture_output=True, text=True)
        assert done.returncode == 0, (verb, keys, done.stderr)
        return done.stdout

    def train(self, name, base, **keys):
        out = self.folder / name
        self.mbuyu("train", model_name_or_path=base, task="seq2seq", output_dir=out, max_length=24,
                   max_target_length=24, datasets=f'["{self.folder}/pairs.jsonl"]', learning_rate=1e-2,
                   per_device_train_batch_size=8, save_strategy="no", report_to="none", **keys)
        return out / "final"

    def loss(self, **model):
        said = self.mbuyu("eval", task="seq2seq", eval_datasets=f'["{self.folder}/pairs.jsonl"]',
                          max_length=24, max_target_length=24, **model)
        return float(re.search(r'"eval_loss": ([-+.0-9e]+)', said)[1])

    def answers(self, **keys):
        said = self.mbuyu("generate", prompts_file=self.folder / "prompts.jsonl", max_new_tokens=20, **keys)
        return [json.loads(line)["tokens"] for line in said.splitlines()]

    @torch.no_grad()
    def check(self, name, model, tok, **ours):
        model.eval()
        total, count = 0.0, 0
        for source, target in PAIRS:
            x = tok(source, return_tensors="pt").input_ids
            y = tok(target, return_tensors="pt").input_ids
            total += model(input_ids=x, labels=y).loss.item() * y.numel()
            count += y.numel()
        gap = abs(total / count - self.loss(**ours))
        assert gap < 1e-4, f"{name}: the losses differ by {gap}"
        batch = tok([a for a, _ in PAIRS], return_tensors="pt", padding=True)
        for search in SEARCHES:
            wanted = dict(search)
            if "early_stopping" in wanted:
                wanted["early_stopping"] = True
            theirs = model.generate(input_ids=batch.input_ids, attention_mask=batch.attention_mask,
                                    max_new_tokens=20, **wanted).tolist()
            for i, (mine, row) in enumerate(zip(self.answers(**ours, **search), theirs, strict=True)):
                row = row[1:]
                end = tok.eos_token_id
                row = row[: row.index(end) + 1] if end in row else row[:20]
                assert mine == row, f"{name} {search}: prompt {i} becomes {mine}, expected {row}"
        print(f"{name:8s} loss {total / count:.4f}, off by {gap:.1e}; {len(SEARCHES)} searches agree")


def give_own_head(whole, folder):
    """A head of its own under a configuration that says tied, as transformers 5 saves Flan-T5."""
    shutil.copytree(whole, folder / "planted")
    tensors = load_file(whole / "model.safetensors")
    turned = torch.roll(tensors["shared.weight"], 1, dims=0)
    save_file(dict(tensors) | {"lm_head.weight": turned}, folder / "planted/model.safetensors", metadata={"format": "pt"})
    model = AutoModelForSeq2SeqLM.from_pretrained(folder / "planted")
    assert not torch.equal(model.lm_head.weight, model.shared.weight), "transformers ties it"
    model.save_pretrained(folder / "own")
    shutil.copy(whole / "tokenizer.json", folder / "own")
    assert json.loads((folder / "own/config.json").read_text())["tie_word_embeddings"] is True
    return model, folder / "own"


def main():
    program, data = sys.argv[1:3]
    base = pathlib.Path(data) / "reference" / "t5"
    with tempfile.TemporaryDirectory() as folder:
        peer = Peer(program, folder)
        whole = peer.train("whole", base, max_steps=60)
        tok = AutoTokenizer.from_pretrained(whole, eos_token="</s>", pad_token="<pad>")
        peer.check("whole", AutoModelForSeq2SeqLM.from_pretrained(whole), tok, model_name_or_path=whole)

        lora = dict(finetuning_type="lora", lora_r=4, lora_target_modules="[q,v]")
        adapter = peer.train("adapter", whole, max_steps=10, **lora)
        config = json.loads((adapter / "adapter_config.json").read_text())
        assert config["task_type"] == "SEQ_2_SEQ_LM" and sorted(config["target_modules"]) == ["q", "v"]
        model = PeftModel.from_pretrained(AutoModelForSeq2SeqLM.from_pretrained(whole), adapter)
        peer.check("adapter", model, tok, model_name_or_path=whole, adapter_path=adapter)

        merged = peer.folder / "merged"
        peer.mbuyu("export", model_name_or_path=whole, adapter_path=adapter, output_dir=merged)
        peer.check("merged", AutoModelForSeq2SeqLM.from_pretrained(merged), tok, model_name_or_path=merged)

        model, own = give_own_head(whole, peer.folder)
        peer.check("own head", model, tok, model_name_or_path=own)
        again = peer.folder / "again"
        peer.mbuyu("export", model_name_or_path=own, output_dir=again)
        peer.check("exported", AutoModelForSeq2SeqLM.from_pretrained(again), tok, model_name_or_path=again)


main()
