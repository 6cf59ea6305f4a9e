#!/usr/bin/env python3
"""Rows of single tokens, trained by mbuyu and by PEFT: the same losses, and each loads what the other made.

    token_rows.py MBUYU FORWARD DATA

MBUYU is the program, FORWARD the built forward.c (our logits of rows of token ids), DATA the folder
tests/data. Models get new tokens (`mbuyu tokenizer extend`) or name old ones; their rows are trained alone
and with LoRA, where the head is the embedding and where it is not, for ten steps of AdamW with decay and
clipping. Bounds: losses 1e-5 of themselves; logits 1e-4 * max(1, max|ref|); tensors 1e-3 of their largest.
"""
import json
import os
import pathlib
import shutil
import sys
import tempfile

import numpy as np
import torch
from peft import LoraConfig, PeftModel, TrainableTokensConfig, get_peft_model
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoModelForMaskedLM, AutoModelForSeq2SeqLM

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))
from exports import WORDS, Peer, batch, load, read_json, same, theirs  # noqa: E402

STEPS, LR, DECAY = 10, 1e-2, 0.1
OLD = [3, 40, 41, 42, 7, 19]
SETTINGS = dict(max_steps=STEPS, max_length=48, learning_rate=LR, weight_decay=DECAY, max_grad_norm=1.0,
                adam_beta1=0.9, adam_beta2=0.999, adam_epsilon=1e-8, lr_scheduler_type="constant", bf16="false",
                device="cpu", save_strategy="no", logging_steps=1)
worst = dict(loss=0.0, logits=0.0, tensors=0.0)


def note(what, value, bound, name):
    assert value <= bound, f"{name}: {what} off by {value:.3g}, allowed {bound:.3g}"
    worst[what] = max(worst[what], value)


def still(base, folder):
    """A copy of a model without dropout."""
    shutil.copytree(base, folder)
    settings = read_json(folder / "config.json")
    for key in settings:
        if "pdrop" in key or "dropout" in key:
            settings[key] = 0.0
    (folder / "config.json").write_text(json.dumps(settings))
    return folder


def larger(peer, case):
    """Without dropout, with new tokens of our words; their ids."""
    base, out, text = still(peer.cases / case, peer.new(f"{case}-still")), peer.new(f"{case}-larger"), peer.folder / "words.txt"
    text.write_text("\n".join(f"{w} na {v}, {w}." for w in WORDS for v in WORDS) + "\n")
    peer.mbuyu("tokenizer", "extend", base, "--add", "24", "--output", out, text)
    new = read_json(out / "config.json")["mbuyu_new_tokens"]
    return out, list(range(new["first"], new["last"] + 1))


def ids_of(peer, model, text):
    said = peer.mbuyu("tokenize", model, "--text", text, "--ids")
    return [int(x) for x in said.replace(",", " ").split()]


# --- the same steps -----------------------------------------------------------------------------
def causal_rows(peer, model):
    """What stage pt makes of our texts: their tokens and EOS, all of them trained."""
    eos = read_json(model / "config.json")["eos_token_id"]
    lines = (peer.folder / "texts.jsonl").read_text().splitlines()[:6]
    (peer.folder / "few.jsonl").write_text("\n".join(lines) + "\n")
    rows = [ids_of(peer, model, json.loads(line)["text"]) + [eos] for line in lines]
    longest = max(map(len, rows))
    ids = torch.tensor([r + [0] * (longest - len(r)) for r in rows])
    mask = torch.tensor([[1] * len(r) + [0] * (longest - len(r)) for r in rows])
    return dict(input_ids=ids, attention_mask=mask, labels=ids.masked_fill(mask == 0, -100))


def seq2seq_rows(peer, model):
    eos = read_json(model / "config.json")["eos_token_id"]
    pairs = list(zip(WORDS[:6], WORDS[3:9]))
    (peer.folder / "few.jsonl").write_text("".join(json.dumps({"source": a, "target": b}) + "\n" for a, b in pairs))
    sides = [[ids_of(peer, model, pair[k]) + [eos] for pair in pairs] for k in (0, 1)]
    wide = [max(map(len, side)) for side in sides]
    x = torch.tensor([r + [0] * (wide[0] - len(r)) for r in sides[0]])
    mask = torch.tensor([[1] * len(r) + [0] * (wide[0] - len(r)) for r in sides[0]])
    y = torch.tensor([r + [-100] * (wide[1] - len(r)) for r in sides[1]])
    return dict(input_ids=x, attention_mask=mask, labels=y)


def their_steps(model, rows):
    model.train()
    trained = [p for p in model.parameters() if p.requires_grad]
    adamw = torch.optim.AdamW(trained, lr=LR, weight_decay=DECAY)
    losses = []
    for _ in range(STEPS):
        adamw.zero_grad()
        loss = model(**rows).loss
        losses.append(loss.item())
        loss.backward()
        torch.nn.utils.clip_grad_norm_(trained, 1.0)
        adamw.step()
    return losses


def our_steps(peer, name, base, **keys):
    out = peer.new(name)
    kind = dict(stage="pt", add_eos="true", add_bos="false") if keys.get("task") != "seq2seq" else dict(max_target_length=48)
    peer.mbuyu("train", model_name_or_path=base, output_dir=out, datasets=f'["{peer.folder}/few.jsonl"]',
               per_device_train_batch_size=6, **(SETTINGS | kind | keys))
    log = [json.loads(line) for line in (out / "logs/train.jsonl").read_text().splitlines()]
    return out / "final", [line["loss"] for line in log if "loss" in line]


def same_tensors(name, a, b):
    a, b = load_file(a / "adapter_model.safetensors"), load_file(b / "adapter_model.safetensors")
    assert a.keys() == b.keys(), (name, sorted(a.keys() ^ b.keys()))
    for key in a:
        note("tensors", float((a[key] - b[key]).abs().max() / b[key].abs().max()), 1e-3, f"{name}, {key}")
    return len(a)


def alike(peer, name, base, kind, config, tables, keys):
    """PEFT and we, from the same start, and both adapters in both programs."""
    fresh = lambda: CLASSES[kind].from_pretrained(base, dtype=torch.float32)  # noqa: E731
    rows = (seq2seq_rows if kind == "seq2seq" else causal_rows)(peer, base)
    model = get_peft_model(fresh(), config)
    start, end = peer.new(f"{name}-start"), peer.new(f"{name}-end")
    model.save_pretrained(start)
    want = their_steps(model, rows)
    model.save_pretrained(end)
    if isinstance(config, LoraConfig):
        ours, got = our_steps(peer, name, base, adapter_path=start, finetuning_type="lora", **keys)
    else:
        ours, got = our_steps(peer, name, base, finetuning_type="trainable_tokens", **keys, **tables)
    assert len(got) == STEPS and want[-1] < want[0] - 0.05, (name, want, got)
    for a, b in zip(got, want):
        note("loss", abs(a - b) / abs(b), 1e-5, f"{name}: {got} against {want}")
    n = same_tensors(name, ours, end)
    before, after = read_json(start / "adapter_config.json"), read_json(ours / "adapter_config.json")
    assert after["peft_type"] == before["peft_type"]
    if kind == "causal":
        ids = batch(fresh().config.vocab_size) + rows["input_ids"].tolist()
        for what, adapter in (("ours", ours), ("PEFT's", end)):
            model = PeftModel.from_pretrained(fresh(), adapter)
            ref = theirs(model, ids)
            note("logits", same(f"{name}, {what}", peer.logits(base, ids, adapter), ref), 1.0, name)
            assert np.abs(ref - theirs(fresh(), ids)).max() > 1e-2, f"{name}: nothing was trained"
            merged = peer.new(f"{name}-merged")
            peer.mbuyu("merge", base, adapter_path=adapter, output_dir=merged)
            note("logits", same(f"{name}, {what}, merged", theirs(load("causal", merged), ids), ref), 1.0, name)
    print(f"  {name}: losses {want[0]:.4f} to {want[-1]:.4f}, {n} tensors")
    return ours


CLASSES = {"causal": AutoModelForCausalLM, "masked": AutoModelForMaskedLM, "seq2seq": AutoModelForSeq2SeqLM}


def lora(base, targets, tokens):
    kind = "SEQ_2_SEQ_LM" if "t5" in str(base) else "CAUSAL_LM"
    return LoraConfig(r=4, lora_alpha=8, target_modules=targets, task_type=kind, trainable_token_indices=tokens)


def new_tokens(peer):
    """The rows of new tokens, the head tied to the embedding and not."""
    base, new = larger(peer, "llama")
    alone = TrainableTokensConfig(token_indices=new, task_type="CAUSAL_LM")
    ours = alike(peer, "llama, alone", base, "causal", alone, dict(trainable_token_indices="new"), {})
    settings = read_json(ours / "adapter_config.json")
    assert settings["token_indices"] == new and settings["target_modules"] is None
    ours = alike(peer, "llama, with LoRA", base, "causal", lora(base, ["q_proj", "down_proj"], new), {}, {})
    assert read_json(ours / "adapter_config.json")["trainable_token_indices"] == new
    whole = {"embed_tokens": new, "lm_head": new}
    alike(peer, "llama, both names of one table", base, "causal", lora(base, ["v_proj"], whole), {}, {})

    base, new = larger(peer, "llama3-rope")
    both = TrainableTokensConfig(token_indices=new, target_modules=["embed_tokens", "lm_head"], task_type="CAUSAL_LM")
    tables = dict(trainable_token_indices="new", trainable_token_modules="[embed_tokens,lm_head]")
    alike(peer, "llama untied, alone", base, "causal", both, tables, {})
    alike(peer, "llama untied, the embedding alone", base, "causal", TrainableTokensConfig(token_indices=new, task_type="CAUSAL_LM"),
          dict(trainable_token_indices="new"), {})
    alike(peer, "llama untied, with LoRA", base, "causal", lora(base, ["q_proj"], {"embed_tokens": new, "lm_head": OLD}), {}, {})


def old_tokens(peer):
    """Rows of tokens that the model always had, in any order, in other families."""
    for case in ("gpt2", "gemma3", "qwen2"):
        base = still(peer.cases / case, peer.new(f"{case}-still"))
        seen = sorted(set(causal_rows(peer, base)["input_ids"].flatten().tolist()))[:8]
        tables = dict(trainable_token_indices=json.dumps([str(i) for i in reversed(seen)]))
        if case == "gpt2":
            config = TrainableTokensConfig(token_indices=seen, task_type="CAUSAL_LM")
        else: # the file's order of rows
            config = lora(base, ["q_proj", "v_proj"], seen[::-1])
        alike(peer, case, base, "causal", config, tables, {})
    base = still(peer.cases / "t5", peer.new("t5-still"))
    alike(peer, "t5", base, "seq2seq", lora(base, ["q", "v"], OLD), {}, dict(task="seq2seq"))


def started_here(peer):
    """Adapters that begin with us, not with PEFT: rows are the base's, and PEFT reads what is written."""
    base, new = larger(peer, "llama3-rope")
    ids = batch(384)
    tables = dict(trainable_token_indices="new", trainable_token_modules="[embed_tokens,lm_head]")
    out = peer.train(base, finetuning_type="lora", lora_r=4, lora_target_modules="[q_proj]", max_length=48, **tables)
    model = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32), out / "final")
    note("logits", same("started here", peer.logits(base, ids, out / "final"), theirs(model, ids)), 1.0, "started here")
    settings = read_json(out / "final/adapter_config.json")
    assert settings["trainable_token_indices"] == {"model.embed_tokens": new, "lm_head": new}, settings
    stored = load_file(out / "final/adapter_model.safetensors")
    table = load_file(base / "model.safetensors")["model.embed_tokens.weight"]
    rows = stored["base_model.model.model.embed_tokens.token_adapter.trainable_tokens_delta"]
    moved = (rows - table[new]).abs().max(dim=1).values
    assert rows.shape == (len(new), table.shape[1]) and 0 < float(moved.max()) < 0.2, moved

    base = still(peer.cases / "bert-mlm", peer.new("bert-still"))  # PEFT would leave out the bias of its tied head
    listed = "[3,7,19,40..42]"
    out = peer.train(base, "masked", finetuning_type="trainable_tokens", trainable_token_indices=listed)
    merged = peer.new("bert-merged")
    peer.mbuyu("merge", base, adapter_path=out / "final", output_dir=merged, task="masked-lm")
    before, after = (load_file(x / "model.safetensors") for x in (base, merged))
    key = "bert.embeddings.word_embeddings.weight"
    changed = (before[key] != after[key]).any(dim=1).nonzero().flatten().tolist()
    assert set(changed) <= {3, 7, 19, 40, 41, 42} and changed, changed
    assert all(torch.equal(before[n], after[n]) for n in before if n in after and n != key and "decoder" not in n)
    print(f"  PEFT reads what began here; of BERT's table the rows {changed} changed")


def main():
    program, forward, data = map(os.path.abspath, sys.argv[1:4])
    torch.set_num_threads(1)
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    with tempfile.TemporaryDirectory() as folder:
        peer = Peer(program, forward, data, folder)
        for part in (new_tokens, old_tokens, started_here):
            print(f"{part.__name__}: {part.__doc__}", flush=True)
            part(peer)
    print(f"at worst: losses {worst['loss']:.2g} of themselves, logits {worst['logits']:.2g} of what is allowed, "
          f"tensors {worst['tensors']:.2g} of their largest")


main()
