#!/usr/bin/env python3
"""GGUF files that `mbuyu export` wrote, run by llama.cpp's server (the wheel xllamacpp).

    gguf_export.py MBUYU FORWARD QUANTISE DATA MATERIALS

FORWARD and QUANTISE are helpers beside this script, DATA is tests/data, MATERIALS has smollm2, minilm
and swahili. f32 files must give our log-probabilities within 1e-3 and our token ids on 10 kB of Swahili; an
adapter's file likewise, on its base; a chat uses the template in the file and stops by itself; an embedder gives
our vectors within 1e-3 (cosine 0.9999), T5 our log-probabilities of every place. Blocks of the types whose scales are searched must be those of llama.cpp's own
quantisers, byte for byte.
"""
# environment: llama
import ctypes
import json
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile
import traceback

import numpy as np
import xllamacpp
from safetensors.numpy import load_file, save_file

sys.path.insert(0, str(pathlib.Path(__file__).parent / "llama"))
import llama_library  # noqa: E402
from llama_server import Server, library  # noqa: E402

MBUYU, FORWARD, QUANTISE, DATA, MATERIALS = sys.argv[1:6]
NEAR = 1e-3  # of a log-probability, in f32
HALF = 5e-3  # the same, where llama.cpp has GELU from a table, keys and values as halves
FULL = {"rope_type": "default", "rope_theta": 1e6}
FAMILIES = {  # of tests/data/reference, and what their configuration has that llama.cpp cannot say
    "llama": {}, "llama3-rope": {}, "mistral-sliding": {}, "qwen2": {}, "olmo2": {}, "gpt2": {},
    "qwen3": {"attention_bias": False},
    "smollm3": {"attention_bias": False, "mlp_bias": False, "no_rope_layers": [1, 1], "use_sliding_window": False, "sliding_window": None,
                "layer_types": ["full_attention"] * 2},
    "gemma3": {"query_pre_attn_scalar": 8, "layer_types": ["sliding_attention"] * 2,
               "rope_parameters": {"full_attention": FULL, "sliding_attention": FULL | {"rope_theta": 1e4}}},
    "phi3": {"rope_parameters": FULL | {"partial_rotary_factor": 0.75}, "max_position_embeddings": 64},
}


def run(*command, text=None):
    done = subprocess.run(list(map(str, command)), input=text, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, f"{' '.join(map(str, command))}: {done.stderr}"
    return done


def export(model, folder, *more):
    done = run(MBUYU, "export", model, f"output_dir={folder}", "overwrite_output_dir=true", *more)
    print("   ", [line for line in done.stderr.splitlines() + done.stdout.splitlines() if "compared" in line])
    return next(pathlib.Path(folder).glob("*.gguf"))


def ours(model, rows, adapter=None):
    """Logits of every token of every row."""
    with tempfile.NamedTemporaryFile() as out:
        text = "".join(" ".join(map(str, row)) + "\n" for row in rows)
        said = run(FORWARD, model, out.name, *([adapter] if adapter else []), text=text).stdout
        lines, width = map(int, said.split())
        y = np.fromfile(out.name, "<f4").reshape(lines, width).astype(np.float64)
    return np.split(y, np.cumsum([len(r) for r in rows])[:-1])


def log_softmax(x):
    x = x - x.max(-1, keepdims=True)
    return x - np.log(np.exp(x).sum(-1, keepdims=True))


def hold(what, server, rows, logits):
    """The last token of each row: largest difference of a log-probability, and how many the server names."""
    worst, named = 0.0, 1.0
    for row, y in zip(rows, logits):
        mine = log_softmax(y[-1])
        theirs = server.log_probs(row, len(mine))
        there = ~np.isnan(theirs) & (theirs > -100)
        named = min(named, there.mean())
        worst = max(worst, float(np.abs(mine[there] - theirs[there]).max()))
    print(f"{what}: {len(rows)} places, log-probabilities differ by at most {worst:.2g} ({named:.2%} named)")
    assert worst <= NEAR and named > 0.9, what


def prefixes(ids, n):
    return [ids[: 1 + (k * 37) % 60 + 4] for k in range(n)]


def swahili(n):
    text = ""
    for line in open(f"{MATERIALS}/swahili/train.jsonl", encoding="utf-8"):
        text += " ".join(str(v) for v in json.loads(line).values()) + "\n"
        if len(text.encode()) >= n:
            break
    return text


def same_ids(what, server, model, text):
    with tempfile.NamedTemporaryFile("w", suffix=".txt", encoding="utf-8") as f:
        f.write(text)
        f.flush()
        mine = list(map(int, run(MBUYU, "tokenize", model, f.name, "--ids", "--special").stdout.split()))
    theirs = server.tokenize(text)
    assert mine == theirs, (what, [p for p in zip(mine, theirs) if p[0] != p[1]][:5])
    print(f"{what}: {len(text.encode())} bytes of Swahili, {len(mine)} ids, the same")


def smollm2(work):
    base = f"{MATERIALS}/smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
    path = export(base, work / "f32", "format=gguf")
    text = swahili(10000)
    with Server(path) as s:
        ids = s.tokenize(text)[:200]
        rows = prefixes(ids, 3)
        hold("SmolLM2 f32", s, rows, ours(path, rows))
        same_ids("SmolLM2", s, path, text)
        chat(s)
    adapter = make_adapter(work / "adapter", base)
    lora = export(base, work / "lora", f"adapter_path={adapter}", "format=gguf_lora")
    with Server(path, lora=lora) as s:
        y = ours(base, rows, adapter)
        plain = ours(base, rows)
        moved = max(float(np.abs(a - b).max()) for a, b in zip(y, plain))
        assert moved > 0.1, moved
        hold(f"SmolLM2 f32 with its LoRA as GGUF (moves logits by {moved:.2g})", s, rows, y)


def chat(server):
    reply = server.ask("/v1/chat/completions", {
        "messages": [{"role": "user", "content": "What is the capital of France? Answer in one word."}],
        "max_tokens": 60, "temperature": 0.0})
    said = reply["choices"][0]
    print("chat:", repr(said["message"]["content"][:100]), said["finish_reason"])
    assert said["finish_reason"] == "stop" and "<|im" not in said["message"]["content"], said


def make_adapter(folder, base):
    """An rsLoRA adapter of rank 4 on all seven kinds of matrices, of random numbers."""
    folder.mkdir()
    rng = np.random.default_rng(5)
    d, h, k, f, r = 576, 576, 192, 1536, 4
    shapes = {"self_attn.q_proj": (h, d), "self_attn.k_proj": (k, d), "self_attn.v_proj": (k, d),
              "self_attn.o_proj": (d, h), "mlp.gate_proj": (f, d), "mlp.up_proj": (f, d), "mlp.down_proj": (d, f)}
    tensors = {}
    for layer in range(30):
        for name, (rows, cols) in shapes.items():
            at = f"base_model.model.model.layers.{layer}.{name}"
            tensors[f"{at}.lora_A.weight"] = (rng.standard_normal((r, cols)) / cols ** 0.5).astype("<f4")
            tensors[f"{at}.lora_B.weight"] = (rng.standard_normal((rows, r)) * 0.01).astype("<f4")
    save_file(tensors, folder / "adapter_model.safetensors")
    config = {"peft_type": "LORA", "task_type": "CAUSAL_LM", "r": r, "lora_alpha": 8, "lora_dropout": 0.0, "bias": "none",
              "use_rslora": True, "target_modules": sorted(n.split(".")[1] for n in shapes),
              "base_model_name_or_path": base}
    (folder / "adapter_config.json").write_text(json.dumps(config))
    return folder


def edited(name, changes, folder):
    """The reference model with another configuration, and without biases where that has none."""
    model = pathlib.Path(DATA) / "reference" / name
    if not changes:
        return model
    shutil.copytree(model, folder)
    config = json.loads((model / "config.json").read_text()) | changes
    (folder / "config.json").write_text(json.dumps(config))
    if changes.get("attention_bias") is False:
        kept = {k: v for k, v in load_file(model / "model.safetensors").items() if not k.endswith("_proj.bias")}
        save_file(kept, folder / "model.safetensors")
    return folder


def family(work, name, changes):
    model = edited(name, changes, work / f"edited-{name}")
    # a file whose name says phi3 must have that model's special tokens, which this one has not
    path = export(model, work / name.replace("phi3", "phi"), "format=gguf")
    with Server(path, context=64) as s:
        rng = np.random.default_rng(3)
        vocab = json.loads((model / "config.json").read_text())["vocab_size"]
        rows = [rng.integers(3, vocab, n).tolist() for n in (3, 8, 15)]
        if name in ("qwen2", "phi3"):  # their windows, which llama.cpp leaves out
            rows = [row[:6] for row in rows]
        hold(name, s, rows, ours(model, rows))


def apart(what, *arguments):
    """In a process of its own, so that nothing of one server is left for the next."""
    sys.stdout.flush()
    pid = os.fork()
    if pid == 0:
        try:
            what(*arguments)
            sys.stdout.flush()
            os._exit(0)
        except BaseException:
            traceback.print_exc()
            sys.stderr.flush()
            os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0, (what.__name__, arguments)


def minilm(work):
    path = export(f"{MATERIALS}/minilm", work / "minilm", "format=gguf", "task=embedding")
    texts = ["Mvua ilinyesha usiku kucha.", "The bridge was closed for repairs.", "kilo 2,500"]
    with Server(path, embedding=True) as s:
        worst, nearest = 0.0, 1.0
        for text in texts:
            ids = s.tokenize(text)
            mine = ours(path, [ids])[0][0]
            theirs = np.array(s.ask("/v1/embeddings", {"input": text})["data"][0]["embedding"])
            mine = mine / np.linalg.norm(mine)
            theirs = theirs / np.linalg.norm(theirs)
            worst = max(worst, float(np.abs(mine - theirs).max()))
            nearest = min(nearest, float(mine @ theirs))
    print(f"MiniLM: {len(texts)} embeddings differ by at most {worst:.2g}, cosines from {nearest:.7f}")
    assert worst <= NEAR and nearest >= 0.9999


def behind(work, name):
    """An embedder whose first positions stand for nothing, which GGUF leaves out; by token ids, so that any
    tokenizer will do (it is not compared: the folder has none)."""
    model = pathlib.Path(DATA) / "reference"
    folder = work / f"with-tokenizer-{name}"
    shutil.copytree(model / name, folder)
    shutil.copy(model / "t5" / "tokenizer.json", folder)
    path = export(folder, work / name, "format=gguf", "task=embedding", "check=false")
    with Server(path, embedding=True, context=64) as s:
        for ids in ([0, 7, 9, 11, 2], [0, *range(20, 30), 2]):
            mine = ours(path, [ids])[0][0]
            theirs = np.array(s.ask("/v1/embeddings", {"input": ids})["data"][0]["embedding"])
            cosine = float(mine @ theirs / np.linalg.norm(mine) / np.linalg.norm(theirs))
            print(f"{name}: the cosine of an embedding of {len(ids)} tokens is {cosine:.9f}")
            assert cosine >= 0.9999, name


def two_sides(work):
    """T5: every place of a decoder behind an encoder, by llama.cpp's library."""
    path = export(pathlib.Path(DATA) / "reference" / "t5", work / "t5", "format=gguf")
    rng = np.random.default_rng(3)
    rows = [rng.integers(3, 60, n).tolist() for n in (3, 8, 15)]
    far = max(float(np.abs(log_softmax(a) - log_softmax(b)).max())
              for a, b in zip(ours(path, rows), llama_library.logits(path, rows)))
    print(f"T5: log-probabilities of {sum(map(len, rows))} places differ by at most {far:.2g}")
    assert far <= HALF


def searched():
    """Blocks beside those of llama.cpp's reference quantisers."""
    lib, rng = library(), np.random.default_rng(3)
    kinds = {"Q4_K": 144, "Q5_K": 176, "Q6_K": 210}
    for name, size in kinds.items():
        quantise = getattr(lib, f"quantize_row_{name.lower().replace('k', 'K')}_ref")
        quantise.argtypes, quantise.restype = [ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int64], None
        for what, x in (("normal", rng.standard_normal(1 << 18) * 0.05), ("tails", rng.standard_t(3, 1 << 18) * 0.02)):
            x = x.astype("<f4")
            theirs = np.zeros(len(x) // 256 * size, np.uint8)
            quantise(x.ctypes.data, theirs.ctypes.data, len(x))
            done = subprocess.run([QUANTISE, name], input=x.tobytes(), capture_output=True, check=True)
            mine = np.frombuffer(done.stdout, np.uint8).copy()
            differ = int((np.frombuffer(done.stdout, np.uint8) != theirs).sum())
            print(f"{name} of {what} numbers: {differ} of {len(theirs)} bytes differ from llama.cpp's")
            assert differ == 0


def main():
    print("xllamacpp", xllamacpp.__version__ if hasattr(xllamacpp, "__version__") else "")
    searched()
    with tempfile.TemporaryDirectory() as folder:
        work = pathlib.Path(folder)
        for name, changes in FAMILIES.items():
            apart(family, work, name, changes)
        apart(minilm, work)
        for name in ("roberta-mlm", "xlm-roberta-token-cls"):
            apart(behind, work, name)
        apart(two_sides, work)
        apart(smollm2, work)


if __name__ == "__main__":
    main()
