#!/usr/bin/env python3
"""What mbuyu trained, loaded by those it is meant for: transformers and PEFT give our logits.

    exports.py MBUYU FORWARD DATA [GGUF]

MBUYU is the program, FORWARD the built forward.c (our logits of rows of token ids), DATA the folder
tests/data. GGUF, a SmolLM2, adds a run on a quantised base. Every model takes three steps on a few
rows first, and must have moved. Bounds: logits 1e-4 * max(1, max|ref|); bytes where bytes are meant.
"""
import json
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile
import time

import h5py
import numpy as np
import torch
from peft import PeftModel
from safetensors.torch import load_file, save_file
from transformers import (AutoModelForCausalLM, AutoModelForMaskedLM,
                          AutoModelForSequenceClassification, AutoTokenizer, GenerationConfig, PreTrainedTokenizerFast)

CLASSES = {"causal": AutoModelForCausalLM, "masked": AutoModelForMaskedLM,
           "classes": AutoModelForSequenceClassification}
LABELS = ["mnyama", "mti", "nyumba"]
WORDS = "mti nyumba simba maji kitabu jua mwezi samaki ndege barabara moto mlima".split()
TEXT = "Habari ya asubuhi, rafiki! 123 trees\nand  two houses."
worst = 0.0


class Peer:
    def __init__(self, program, forward, data, folder):
        self.program, self.forward = program, forward
        self.cases, self.folder = pathlib.Path(data) / "reference", pathlib.Path(folder)
        self.count = 0
        rows = {
            "pairs": [{"prompt": f"Swahili: {w}\nEnglish:", "completion": f" {w[::-1]}"} for w in WORDS],
            "texts": [{"text": f"{w} na {v}, {w}."} for w, v in zip(WORDS, WORDS[1:])],
            "labelled": [{"text": f"{w} {w}", "label": LABELS[i % 3]} for i, w in enumerate(WORDS)],
            "numbered": [{"text": f"{w} {w}", "label": i % 3} for i, w in enumerate(WORDS)],
        }
        for name, lines in rows.items():
            text = "".join(json.dumps(line) + "\n" for line in lines)
            (self.folder / f"{name}.jsonl").write_text(text)

    def new(self, name):
        self.count += 1
        return self.folder / f"{self.count:02d}-{name}"

    def mbuyu(self, *words, **keys):
        done = subprocess.run([self.program, *map(str, words), *(f"{k}={v}" for k, v in keys.items())],
                              capture_output=True, text=True)
        assert done.returncode == 0, (words, keys, done.stderr)
        return done.stdout

    def train(self, base, kind="causal", rows=None, **keys):
        """The output folder of three steps."""
        rows = rows or {"causal": "pairs", "masked": "texts", "classes": "numbered"}[kind]
        task = {"causal": "causal-lm", "masked": "masked-lm", "classes": "seq-classification"}[kind]
        out = self.new(f"{pathlib.Path(base).name}-{keys.get('finetuning_type', 'full')}")
        settings = dict(model_name_or_path=base, task=task, output_dir=out, max_steps=3, max_length=48,
                        datasets=f'["{self.folder / rows}.jsonl"]', learning_rate=1e-2,
                        per_device_train_batch_size=4, lr_scheduler_type="constant", report_to="none",
                        save_strategy="no", logging_steps=1, stage="pt" if kind == "masked" else "sft")
        self.mbuyu("train", **(settings | keys))
        return out

    def logits(self, model, ids, adapter=None, classes=None):
        """Ours, the rows one after the other."""
        raw = self.folder / "logits"
        rows = "".join(" ".join(map(str, row)) + "\n" for row in ids)
        extra = [adapter] if adapter else []
        extra += [str(classes)] if classes else []
        done = subprocess.run([self.forward, model, raw, *extra], input=rows, text=True,
                              capture_output=True)
        assert done.returncode == 0, done.stderr
        lines, width = map(int, done.stdout.split())
        return np.fromfile(raw, "<f4").reshape(lines, width)


def batch(vocab, lengths=(5, 17, 40), seed=1):
    rng = np.random.default_rng(seed)
    return [rng.integers(0, vocab, n).tolist() for n in lengths]


def theirs(model, ids):
    model.eval()
    with torch.no_grad():
        parts = [model(torch.tensor([row])).logits.float() for row in ids]
    return torch.cat([p.reshape(-1, p.shape[-1]) for p in parts]).numpy()


def same(name, ours, ref):
    global worst
    assert ours.shape == ref.shape, (name, ours.shape, ref.shape)
    share = float(np.abs(ours - ref).max()) / (1e-4 * max(1.0, float(np.abs(ref).max())))
    assert share <= 1.0, f"{name}: {share:.3g} of the allowed difference of logits"
    worst = max(worst, share)
    return share


def moved(name, now, before):
    assert np.abs(now - before).max() > 1e-2, f"{name}: training changed nothing"


def load(kind, path, **how):
    """A model in float32 of which no tensor was missing, left over or of another shape."""
    model, info = CLASSES[kind].from_pretrained(path, output_loading_info=True, dtype=torch.float32,
                                                **how)
    for what in ("missing_keys", "unexpected_keys", "mismatched_keys", "error_msgs"):
        assert not info.get(what), (path, what, info[what])
    return model


def tensors(folder):
    out = {}
    for path in sorted(folder.glob("*.safetensors")):
        out |= load_file(path)
    return out


def read_json(path):
    return json.loads(path.read_text())


def same_bytes(a, b, leave_out=("README.md",)):
    """Folders hold the same files; a model card names its own base."""
    names = [sorted(p.name for p in x.iterdir() if p.name not in leave_out) for x in (a, b)]
    assert names[0] == names[1], names
    for name in names[0]:
        assert (a / name).read_bytes() == (b / name).read_bytes(), f"{a / name} and {b / name} differ"
    return len(names[0])


# --- whole models -------------------------------------------------------------------------------
def full_models(peer):
    """Each family, trained whole: transformers loads it strictly and gives our logits."""
    for case, kind, tied in (("gpt2", "causal", True), ("llama", "causal", True),
                             ("llama3-rope", "causal", False), ("mistral-sliding", "causal", False),
                             ("qwen2", "causal", True), ("qwen3", "causal", False),
                             ("gemma3", "causal", True), ("phi3", "causal", False), ("olmo2", "causal", False),
                             ("smollm3", "causal", True),
                             ("bert-cls", "classes", None), ("bert-mlm", "masked", True)):
        base, out = peer.cases / case, peer.train(peer.cases / case, kind) / "final"
        model, before = load(kind, out), load(kind, base)
        ids = batch(model.config.vocab_size)
        ref = theirs(model, ids)
        share = same(case, peer.logits(out, ids), ref)
        moved(case, ref, theirs(before, ids))
        assert type(model) is type(before)
        if tied is not None:
            head = model.get_output_embeddings().weight
            assert (head.data_ptr() == model.get_input_embeddings().weight.data_ptr()) == tied
            stored = [n for n in tensors(out) if n in ("lm_head.weight", "cls.predictions.decoder.weight")]
            assert bool(stored) == (not tied), stored
        if kind == "causal":
            files = [GenerationConfig.from_pretrained(x).to_dict() for x in (base, out)]
            assert files[0] == files[1]
            text = model.generate(torch.tensor([ids[0]]), max_new_tokens=3, do_sample=False)
            assert text.shape[1] >= len(ids[0]) + 1
        # AutoTokenizer wants SentencePiece's special tokens of these two, which the cases have not
        reader = PreTrainedTokenizerFast if case in ("gemma3", "phi3") else AutoTokenizer
        words = [reader.from_pretrained(x)(TEXT).input_ids for x in (base, out)]
        assert words[0] == words[1] and words[0]
        again, third = peer.new("again"), peer.new("again")
        peer.mbuyu("export", out, output_dir=again)
        peer.mbuyu("export", again, output_dir=third)
        n = same_bytes(out, again), same_bytes(again, third)
        print(f"  {case}: {share:.2g} of the bound; save, load, save: {n[0]} files, byte for byte")


def data_types(peer):
    """Rounding to bf16 and f16 is torch's, ties, tiny, huge and special values included."""
    base = peer.new("special")
    shutil.copytree(peer.cases / "llama", base)
    values = load_file(base / "model.safetensors")
    rng = np.random.default_rng(5)
    bits = rng.integers(0, 2**32, 384 * 64, dtype=np.uint64).astype(np.uint32)
    ties = np.arange(0, 65536, 8, dtype=np.uint32) << 16 | 0x8000
    half_ties = np.arange(8192, dtype=np.uint32) * 8 << 13 | 0x1000
    special = np.array([0, 1 << 31, 0x7F800000, 0xFF800000, 1, 0x80000001, 0x007FFFFF, 0x00800000,
                        0x7F7FFFFF, 0x477FE000, 0x477FEFFF, 0x477FF000, 0x33000000, 0x33000001,
                        0x38800000, 0x387FFFFF, 0x387FE000, 0x7FC00000, 0xFFC00001], np.uint32)
    for part, at in ((ties, 0), (half_ties, 8192), (special, 16384)):
        bits[at : at + len(part)] = part
    values["model.embed_tokens.weight"] = torch.from_numpy(bits.view(np.float32).reshape(384, 64))
    save_file(values, base / "model.safetensors", metadata={"format": "pt"})
    for word, dtype in (("bf16", torch.bfloat16), ("f16", torch.float16), ("f32", torch.float32)):
        out = peer.new(word)
        peer.mbuyu("export", base, output_dir=out, export_dtype=word, export_check="false")  # infinite logits
        got, numbers = tensors(out), 0
        assert got.keys() == values.keys()
        for name, value in values.items():
            want, nan = value.to(dtype), value.isnan()
            assert got[name].dtype == dtype and torch.equal(got[name].isnan(), nan), name
            integer = torch.int32 if dtype == torch.float32 else torch.int16
            differ = (got[name].view(integer) != want.view(integer)) & ~nan
            assert not differ.any(), (name, value[differ][:4], got[name][differ][:4])
            numbers += value.numel()
        assert read_json(out / "config.json")["dtype"] == str(dtype).removeprefix("torch.")
        print(f"  {word}: {numbers} numbers, every bit torch's")
    out = peer.train(peer.cases / "gpt2", export_dtype="bf16") / "final"
    model, ids = load("causal", out), batch(384)
    same("bf16", peer.logits(out, ids), theirs(model, ids))


def shards(peer):
    """Many small files and their index."""
    out = peer.train(peer.cases / "llama3-rope", max_shard_size="60KB") / "final"
    index = read_json(out / "model.safetensors.index.json")
    files = sorted(p.name for p in out.glob("*.safetensors"))
    assert sorted(set(index["weight_map"].values())) == files and len(files) > 4
    whole = tensors(out)
    assert index["metadata"]["total_size"] == sum(t.numel() * 4 for t in whole.values())
    for name, file in index["weight_map"].items():
        assert name in load_file(out / file)
    model, ids = load("causal", out), batch(384)
    share = same("shards", peer.logits(out, ids), theirs(model, ids))
    single = peer.new("single")
    peer.mbuyu("export", out, output_dir=single)
    assert [p.name for p in single.glob("*.safetensors")] == ["model.safetensors"]
    one = tensors(single)
    assert one.keys() == whole.keys() and all(torch.equal(one[n], whole[n]) for n in one)
    print(f"  {len(files)} files and an index: {share:.2g} of the bound; one file again: equal")


def respelled(peer, case, rename, extra=()):
    out = peer.new(f"{case}-respelled")
    shutil.copytree(peer.cases / case, out)
    old = load_file(out / "model.safetensors")
    new = {rename(name): value.clone() for name, value in old.items()} | dict(extra)
    assert new.keys() != old.keys()
    save_file(new, out / "model.safetensors", metadata={"format": "pt"})
    return out


def old_spellings(peer):
    """Checkpoints as they were written years ago are read, and written as they are now."""
    def old_norms(name):
        return name.replace("LayerNorm.weight", "LayerNorm.gamma").replace("LayerNorm.bias", "LayerNorm.beta")

    buffers = {}
    for layer in range(2):
        mask = torch.tril(torch.ones(128, 128)).reshape(1, 1, 128, 128)
        buffers |= {f"h.{layer}.attn.bias": mask, f"h.{layer}.attn.masked_bias": torch.tensor(-1e4)}
    for what, case, kind, rename, extra in (
        ("gamma and beta", "bert-mlm", "masked", old_norms, {}),
        ("no 'bert.'", "bert-cls", "classes", lambda n: n.removeprefix("bert."), {}),
        ("both", "bert-mlm", "masked", lambda n: old_norms(n.removeprefix("bert.")), {}),
        ("no 'transformer.', with masks", "gpt2", "causal", lambda n: n.removeprefix("transformer."), buffers),
        ("with masks", "gpt2", "causal", lambda n: n + "",
         {f"transformer.{n}": t for n, t in buffers.items()}),
    ):
        folder = respelled(peer, case, rename, extra.items())
        original = load(kind, peer.cases / case)
        ids = batch(original.config.vocab_size)
        share = same(what, peer.logits(folder, ids), theirs(original, ids))
        if kind != "masked" or what == "both":
            out = peer.train(folder, kind) / "final"
            model = load(kind, out)
            assert tensors(out).keys() == load_file(peer.cases / case / "model.safetensors").keys()
            share = max(share, same(what, peer.logits(out, ids), theirs(model, ids)))
        print(f"  {case}, {what}: {share:.2g} of the bound")


def classifiers(peer):
    """A classifier on a model that was none: its head is new, its classes have names."""
    base = peer.cases / "bert-mlm"
    out = peer.train(base, "classes", "labelled") / "final"
    model, ids = load("classes", out), batch(400)
    share = same("classifier", peer.logits(out, ids), theirs(model, ids))
    assert model.config.id2label == dict(enumerate(LABELS)), model.config.id2label
    assert model.config.label2id == {name: i for i, name in enumerate(LABELS)}
    assert model.config.problem_type == "single_label_classification"
    assert type(model).__name__ == "BertForSequenceClassification"
    order = ["nyumba", "mti", "mnyama"]
    named = peer.train(base, "classes", "labelled", label_names=f"[{','.join(order)}]") / "final"
    assert load("classes", named).config.id2label == dict(enumerate(order))
    again = peer.new("again")
    peer.mbuyu("export", named, output_dir=again)
    same_bytes(named, again)
    evaluated_by_name(peer, peer.train(base, "classes", "labelled", max_steps=12, learning_rate=3e-3,
                                       label_names=f"[{','.join(order)}]") / "final")
    print(f"  new head, named classes: {share:.2g} of the bound; names kept by an export")


def evaluated_by_name(peer, final):
    """Names in data mean the model's classes, though a file holds only some of them."""
    model, tokenizer = load("classes", final).eval(), AutoTokenizer.from_pretrained(final)
    lines = [json.loads(line) for line in (peer.folder / "labelled.jsonl").read_text().splitlines()]
    for left_out in (*LABELS, None):
        some = [line for line in lines if line["label"] != left_out]
        path = peer.folder / "some.jsonl"
        path.write_text("".join(json.dumps(line) + "\n" for line in some))
        right = 0
        for line in some:
            with torch.no_grad():
                best = int(model(**tokenizer(line["text"], return_tensors="pt")).logits.argmax())
            right += model.config.id2label[best] == line["label"]
        got = json.loads(peer.mbuyu("eval", final, task="seq-classification", datasets=f'["{path}"]',
                                    max_length=48))
        assert abs(got["eval_accuracy"] - right / len(some)) < 1e-9, (left_out, got, right, len(some))


def best_model(peer):
    """load_best_model_at_end exports that checkpoint, bit for bit, and not the last."""
    out = peer.train(peer.cases / "llama", max_steps=8, learning_rate=0.3, val_set_size=3,
                     eval_strategy="steps", eval_steps=1, save_strategy="steps", save_steps=1,
                     load_best_model_at_end="true", report_to="jsonl")
    lines = [json.loads(line) for line in (out / "logs" / "train.jsonl").read_text().splitlines()]
    losses = {line["step"]: line["eval_loss"] for line in lines if "eval_loss" in line}
    best = min(losses, key=losses.get)
    assert best < 8, losses
    final = tensors(out / "final")
    with h5py.File(out / f"checkpoint-{best:06d}" / "model.h5") as f, \
         h5py.File(out / "checkpoint-000008" / "model.h5") as last:
        for name, value in final.items():
            np.testing.assert_array_equal(value.numpy(), f[f"param/{name}"][...], err_msg=name)
        assert any((value.numpy() != last[f"param/{name}"][...]).any() for name, value in final.items())
    state = read_json(out / "trainer_state.json")
    assert f"checkpoint-{best:06d}" in state["best_model_checkpoint"], state["best_model_checkpoint"]
    later = peer.new("later")
    peer.mbuyu("export", out / "checkpoint-000008", output_dir=later, load_best_model_at_end="false")
    with h5py.File(out / "checkpoint-000008" / "model.h5") as last:
        for name, value in tensors(later / "final").items():
            np.testing.assert_array_equal(value.numpy(), last[f"param/{name}"][...], err_msg=name)
    print(f"  step {best} of 8 (losses {min(losses.values()):.3f} to {max(losses.values()):.3f}): bit for bit")


def chat_template(peer):
    """A template in tokenizer_config.json or in a file of its own is still there after training."""
    template = "{% for m in messages %}<{{ m['role'] }}>{{ m['content'] }}{% endfor %}"
    talk = [{"role": "user", "content": "Habari"}, {"role": "assistant", "content": "Nzuri"}]
    for in_file in (False, True):
        base = peer.new("template")
        shutil.copytree(peer.cases / "llama", base)
        settings = {"tokenizer_class": "PreTrainedTokenizerFast", "eos_token": "<|im_end|>",
                    "clean_up_tokenization_spaces": False}
        if in_file:
            (base / "chat_template.jinja").write_text(template)
        (base / "tokenizer_config.json").write_text(
            json.dumps(settings | ({} if in_file else {"chat_template": template})))
        out = peer.train(base) / "final"
        adapter = peer.train(base, finetuning_type="lora") / "final"
        texts = [AutoTokenizer.from_pretrained(x).apply_chat_template(talk, tokenize=False)
                 for x in (base, out, adapter)]
        assert texts == ["<user>Habari<assistant>Nzuri"] * 3, texts
    print("  in both places: rendered alike after training")


# --- adapters -----------------------------------------------------------------------------------
def adapted(kind, base, adapter, **how):
    """PEFT's model; no tensor of the adapter is missing or left over."""
    model = PeftModel.from_pretrained(CLASSES[kind].from_pretrained(base, dtype=torch.float32, **how), adapter)
    result = model.load_adapter(adapter, "again")
    ours = set(load_file(adapter / "adapter_model.safetensors"))
    missing = [n for n in result.missing_keys if ".lora_" in n or "modules_to_save" in n]
    assert not missing and not result.unexpected_keys, result
    model.delete_adapter("again")
    return model, ours


def check_adapter(peer, name, kind, base, out, num_labels=None):
    adapter = out / "final"
    how = {"num_labels": num_labels} if num_labels else {}
    model, stored = adapted(kind, base, adapter, **how)
    ids = batch(model.config.vocab_size)
    ref = theirs(model, ids)
    share = same(name, peer.logits(base, ids, adapter, num_labels), ref)
    with model.disable_adapter():
        moved(name, ref, theirs(model, ids))
    settings = read_json(adapter / "adapter_config.json")
    assert os.path.samefile(settings["base_model_name_or_path"], base)
    merged = peer.new("merged")
    peer.mbuyu("merge", base, adapter_path=adapter, output_dir=merged,
               **(how | {"task": "seq-classification"} if how else {}))
    whole = load(kind, merged)
    share = max(share, same(f"{name}, merged", peer.logits(merged, ids), theirs(whole, ids)))
    theirs_merged = model.merge_and_unload()
    off = 0.0
    for key, value in theirs_merged.state_dict().items():
        mine = whole.state_dict()[key]
        off = max(off, float((mine - value).abs().max()) / max(1.0, float(value.abs().max())))
    assert off < 1e-6, f"{name}: merged weights differ by {off:.3g}"
    print(f"  {name}: {share:.2g} of the bound, merged weights {off:.1g} apart, {len(stored)} tensors")
    return settings, stored


def adapters(peer):
    """LoRA of every kind: PEFT on the base gives our logits, merged as we merge."""
    cases = {p.name: p for p in peer.cases.iterdir()}
    lora = dict(finetuning_type="lora", lora_r=4, lora_alpha=8)

    out = peer.train(cases["llama"], **lora)
    settings, stored = check_adapter(peer, "llama, all-linear", "causal", cases["llama"], out)
    assert (settings["r"], settings["lora_alpha"], len(stored)) == (4, 8, 28)
    assert settings["task_type"] == "CAUSAL_LM" and not settings["fan_in_fan_out"]

    out = peer.train(cases["llama3-rope"], lora_target_modules="[q_proj,v_proj]", lora_dropout=0.2, **lora)
    settings, stored = check_adapter(peer, "llama untied, a list", "causal", cases["llama3-rope"], out)
    assert settings["target_modules"] == ["q_proj", "v_proj"] and len(stored) == 8

    pattern = r"model\.layers\.1\.self_attn\.(k|v)_proj"
    out = peer.train(cases["llama"], lora_target_modules=pattern, **lora)
    settings, stored = check_adapter(peer, "llama, a regex", "causal", cases["llama"], out)
    assert settings["target_modules"] == pattern and len(stored) == 4

    out = peer.train(cases["llama"], lora_target_modules=f"['{pattern}']", **lora)
    settings, stored = check_adapter(peer, "llama, a regex in a list", "causal", cases["llama"], out)
    assert settings["target_modules"] == pattern and len(stored) == 4

    out = peer.train(cases["llama"], lora_target_modules="up_proj", **(lora | dict(lora_r=6)))
    settings, stored = check_adapter(peer, "llama, one name", "causal", cases["llama"], out)
    assert settings["target_modules"] == ["up_proj"] and len(stored) == 4

    out = peer.train(cases["llama"], lora_target_modules="[self_attn.o_proj,layers.0.mlp.up_proj]", **lora)
    _, stored = check_adapter(peer, "llama, longer endings", "causal", cases["llama"], out)
    assert len(stored) == 6

    out = peer.train(cases["mistral-sliding"], use_rslora="true", **lora)
    settings, _ = check_adapter(peer, "mistral, rslora", "causal", cases["mistral-sliding"], out)
    assert settings["use_rslora"]

    out = peer.train(cases["llama3-rope"], lora_modules_to_save="[lm_head,embed_tokens]", **lora)
    settings, stored = check_adapter(peer, "llama, head and embedding whole", "causal", cases["llama3-rope"], out)
    assert settings["modules_to_save"] == ["embed_tokens", "lm_head"]

    for case in ("qwen3", "gemma3", "phi3", "olmo2"):
        out = peer.train(cases[case], **lora)
        check_adapter(peer, f"{case}, all-linear", "causal", cases[case], out)

    for case, targets in (("qwen2", "all-linear"), ("gpt2", "[c_attn,mlp.c_proj]")):
        out = peer.train(cases[case], use_dora="true", lora_dropout=0.1, lora_target_modules=targets, **lora)
        settings, stored = check_adapter(peer, f"{case}, DoRA", "causal", cases[case], out)
        assert settings["use_dora"] and any(n.endswith("lora_magnitude_vector") for n in stored)

    for name, targets in (("all-linear", "all-linear"), ("c_attn", "[c_attn]"), ("c_proj", "[mlp.c_proj]")):
        out = peer.train(cases["gpt2"], lora_target_modules=targets, **lora)
        settings, _ = check_adapter(peer, f"gpt2 (Conv1D), {name}", "causal", cases["gpt2"], out)
        assert settings["fan_in_fan_out"]

    out = peer.train(cases["bert-cls"], "classes", lora_modules_to_save="[classifier]", **lora)
    settings, stored = check_adapter(peer, "bert, classifier whole", "classes", cases["bert-cls"], out)
    assert settings["modules_to_save"] == ["classifier"] and settings["task_type"] == "SEQ_CLS"
    assert "base_model.model.classifier.weight" in stored

    out = peer.train(cases["bert-mlm"], "classes", "labelled", lora_modules_to_save="[classifier,pooler]", **lora)
    check_adapter(peer, "bert, new head", "classes", cases["bert-mlm"], out, num_labels=3)

    for targets in ("[query,value]", "all-linear"):
        out = peer.train(cases["bert-mlm"], "masked", lora_target_modules=targets, **lora)
        check_adapter(peer, f"bert, masked, {targets}", "masked", cases["bert-mlm"], out)


def continued(peer):
    """Training goes on with an adapter: one of ours, and one that PEFT made."""
    base = peer.cases / "llama"
    first = peer.train(base, finetuning_type="lora", lora_r=4, lora_alpha=8, lora_target_modules="[q_proj,o_proj]")
    second = peer.train(base, finetuning_type="lora", adapter_path=first / "final")
    settings, stored = check_adapter(peer, "ours, continued", "causal", base, second)
    assert (settings["r"], settings["lora_alpha"]) == (4, 8) and len(stored) == 8
    assert settings["target_modules"] == ["o_proj", "q_proj"]
    a, b = (load_file(x / "final" / "adapter_model.safetensors") for x in (first, second))
    assert a.keys() == b.keys() and all((a[n] != b[n]).any() for n in a)
    base = peer.cases / "llama3-rope"
    first = peer.train(base, finetuning_type="lora", lora_modules_to_save="[lm_head]", lora_target_modules=r".*\.1\..*q_proj")
    second = peer.train(base, finetuning_type="lora", adapter_path=first / "final")
    settings, stored = check_adapter(peer, "a regex and a whole head, continued", "causal", base, second)
    assert settings["modules_to_save"] == ["lm_head"] and len(stored) == 3
    for case, kind in (("lora-llama", "causal"), ("lora-gpt2-conv1d", "causal"), ("rslora-bert", "classes"),
                       ("dora-qwen2", "causal")):
        base = peer.cases / case
        out = peer.train(base, kind, finetuning_type="lora", adapter_path=base / "adapter-before")
        settings, _ = check_adapter(peer, f"PEFT's, continued ({case})", kind, base, out)
        before = read_json(base / "adapter-before" / "adapter_config.json")
        for key in ("r", "lora_alpha", "use_rslora", "use_dora", "fan_in_fan_out"):
            assert settings[key] == before[key], key


def frozen_layers(peer):
    """Only the last layer and the head: the rest is the base's, bit for bit."""
    base = peer.cases / "llama3-rope"
    out = peer.train(base, finetuning_type="freeze", freeze_trainable_layers=1) / "final"
    model, ids = load("causal", out), batch(384)
    share = same("freeze", peer.logits(out, ids), theirs(model, ids))
    a, b = load_file(base / "model.safetensors"), tensors(out)
    changed = {n for n in a if not torch.equal(a[n], b[n])}
    assert changed == {n for n in a if ".layers.1." in n or n in ("model.norm.weight", "lm_head.weight")}, changed
    print(f"  {len(changed)} of {len(a)} tensors changed, {share:.2g} of the bound")


# --- GGUF ---------------------------------------------------------------------------------------
def quantised_base(peer, gguf):
    """An adapter on a GGUF: beside it the base as a folder, for PEFT; the tokenizer is the model's."""
    out = peer.train(gguf, finetuning_type="lora", lora_r=4, max_steps=2, per_device_train_batch_size=1,
                     max_length=32, gradient_checkpointing="true")
    base, adapter = out / "base", out / "final"
    settings = read_json(adapter / "adapter_config.json")
    assert os.path.samefile(settings["base_model_name_or_path"], base)
    tokenizer = AutoTokenizer.from_pretrained(base)
    texts = [TEXT, "Habari ya asubuhi? Ninakupenda sana.", "def f(x):\n    return x + 1", "\u00e9\u4f60\u597d \U0001F600  \n\n"]
    ids = [tokenizer(text).input_ids for text in texts]
    for text, want in zip(texts, ids):
        got = peer.mbuyu("tokenize", gguf, "--text", text, "--ids")
        assert [int(x) for x in got.replace(",", " ").split()] == want, (text, got, want)
        assert AutoTokenizer.from_pretrained(adapter)(text).input_ids == want
    talk = [{"role": "system", "content": "Be short."}, {"role": "user", "content": "Habari"}]
    rendered = [AutoTokenizer.from_pretrained(x).apply_chat_template(talk, tokenize=False, add_generation_prompt=True)
                for x in (base, adapter)]
    assert rendered[0] == rendered[1] and "<|im_start|>system\nBe short.<|im_end|>" in rendered[0]
    assert GenerationConfig.from_pretrained(base).eos_token_id == 2
    plain = load("causal", base)
    share = same("base of the GGUF", peer.logits(gguf, ids), theirs(plain, ids))
    assert plain.get_output_embeddings().weight.data_ptr() == plain.get_input_embeddings().weight.data_ptr()
    ref = theirs(plain, ids)
    model, stored = adapted("causal", base, adapter)
    ours = peer.logits(gguf, ids, adapter)
    share = max(share, same("adapter on the GGUF", ours, theirs(model, ids)))
    moved("adapter on the GGUF", ours, ref)
    print(f"  {len(stored)} adapter tensors, base folder loads: {share:.2g} of the bound; same ids and chat")


def main():
    program, forward, data = map(os.path.abspath, sys.argv[1:4])
    gguf = sys.argv[4] if len(sys.argv) > 4 else None
    torch.set_num_threads(1)
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    with tempfile.TemporaryDirectory() as folder:
        peer = Peer(program, forward, data, folder)
        parts = [full_models, data_types, shards, old_spellings, classifiers, best_model, chat_template,
                 adapters, continued, frozen_layers]
        if gguf:
            parts.append(lambda peer: quantised_base(peer, os.path.abspath(gguf)))
            parts[-1].__name__, parts[-1].__doc__ = "quantised_base", quantised_base.__doc__
        only = os.environ.get("MB_ONLY", "").split()
        for part in parts:
            if only and part.__name__ not in only:
                continue
            start = time.monotonic()
            print(f"{part.__name__}: {part.__doc__}", flush=True)
            part(peer)
            print(f"  {time.monotonic() - start:.1f} s", flush=True)
        print(f"logits: at worst {worst:.2g} of the allowed difference; {peer.count} folders")


if __name__ == "__main__":
    main()
