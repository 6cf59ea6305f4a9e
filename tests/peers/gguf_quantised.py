#!/usr/bin/env python3
"""The types that `mbuyu export` writes beside llama.cpp's own conversion of the same f32 file.

    gguf_quantised.py MBUYU DATA MATERIALS        DATA: tests/data; MATERIALS has smollm2 and swahili

SmolLM2's matrices are moved off the grid of the Q4_1 file they come from, by noise of a tenth of their standard
deviation. llama.cpp computes the next tokens' distributions with every file, on pairs of Swahili and English held
out of training and on English prose; it prints for each type the mean Kullback-Leibler divergence from f32, the
perplexity and the size of both files. Ours must have at most 1.05 times the divergence and the perplexity, and
1.01 times the size. (A file with the very bytes of ours is not computed again.)

Models of random numbers whose rows are whole blocks of 256 show the mixture Q4_K where nothing falls back: types
and bytes of all tensors are llama.cpp's. (Halves of Q4_0 are rounded by a product and a sum, which some builds of
llama.cpp fuse, as we do, and others do not: there one in a hundred thousand bytes may differ.)
"""
# environment: llama
import json
import pathlib
import shutil
import subprocess
import sys
import tempfile

import numpy as np
from safetensors.numpy import load_file, save_file

sys.path.insert(0, str(pathlib.Path(__file__).parent / "llama"))
import llama_library  # noqa: E402

MBUYU, DATA, MATERIALS = sys.argv[1:4]
TYPES = "F16 BF16 Q8_0 Q4_1 Q4_0 Q4_K".split()
PAIRS, VOCAB = 24, 384
MOST, MOST_SIZE, MOST_TIES = 1.05, 1.01, 1e-5
PROSE = """The school stood at the end of the village, where the road turned to sand. Every morning before the bell a
boy swept the yard with a broom of palm leaves, and every morning the wind put the dust back. Nobody minded. When the
rains came late that year the teacher moved her table under the old baobab, because the iron roof made the rooms too
hot to think in, and the children learned to read in its shade.

In the third week a lorry arrived with books. There were two hundred of them, all about the same journey across the
same lake, and so the whole village came to know the story of the captain who counted his passengers twice and always
found one more than he had sold tickets for. The grandmothers had an explanation, and the teacher had another, and
they argued about it until the first heavy drops fell and everyone ran for the roof they had been avoiding."""


def run(*command, text=None):
    done = subprocess.run(list(map(str, command)), input=text, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, f"{' '.join(map(str, command))}: {done.stderr}"
    return done.stdout


def export(model, folder, kind):
    run(MBUYU, "export", model, f"output_dir={folder}", "format=gguf", f"export_dtype={kind.lower()}", "check=false")
    return next(pathlib.Path(folder).glob("*.gguf"))


def off_the_grid(work):
    """f32 of SmolLM2, moved."""
    folder = work / "moved"
    run(MBUYU, "export", f"{MATERIALS}/smollm2/SmolLM2-135M-Instruct.Q4_1.gguf", f"output_dir={folder}", "check=false")
    rng = np.random.default_rng(7)
    moved = {}
    for name, x in load_file(folder / "model.safetensors").items():
        noise = rng.standard_normal(x.shape, "<f4") * (0.1 * x.std() if x.ndim > 1 else 0.0)
        moved[name] = x + noise.astype("<f4")
    save_file(moved, folder / "model.safetensors")
    path = export(folder, work / "f32", "F32")
    shutil.rmtree(folder)
    return path


def token_rows(model, work):
    pairs = map(json.loads, list(open(f"{MATERIALS}/swahili/valid.jsonl", encoding="utf-8"))[:PAIRS])
    texts = [p["prompt"] + p["completion"] for p in pairs] + PROSE.split("\n\n")
    rows = []
    for text in texts:
        (work / "text").write_text(text, encoding="utf-8")
        rows.append(list(map(int, run(MBUYU, "tokenize", model, work / "text", "--ids", "--special").split())))
    return rows


def log_softmax(x):
    x = x - x.max(-1, keepdims=True)
    return x - np.log(np.exp(x).sum(-1, keepdims=True))


def measure(path, rows, exact):
    """Divergence from `exact` (log-probabilities), and perplexity."""
    divergence, loss, places, predicted = 0.0, 0.0, 0, 0
    for row, logits, p in zip(rows, llama_library.logits(path, rows), exact):
        q, p = log_softmax(logits.astype(np.float64)), p.astype(np.float64)
        divergence += (np.exp(p) * (p - q)).sum()
        loss -= q[np.arange(len(row) - 1), row[1:]].sum()
        places, predicted = places + len(row), predicted + len(row) - 1
    return divergence / places, np.exp(loss / predicted)


def compare_tensors(ours, theirs):
    """How many tensors have another type, how many bytes of the others differ, and how many there are."""
    a, b = llama_library.tensors(ours), llama_library.tensors(theirs)
    assert a.keys() == b.keys(), a.keys() ^ b.keys()
    other = [f"{name} {a[name][0]} {b[name][0]}" for name in a if a[name][0] != b[name][0]]
    if other:
        print(f"      of another type, ours and theirs: {', '.join(other[:6])}{' ...' if other[6:] else ''}")
    same = [name for name in a if a[name][0] == b[name][0]]
    return len(other), sum(int((a[name][1] != b[name][1]).sum()) for name in same), sum(a[name][1].size for name in same)


def smollm2(work):
    f32 = off_the_grid(work)
    rows = token_rows(f32, work)
    exact = [log_softmax(y.astype(np.float64)).astype("<f4") for y in llama_library.logits(f32, rows)]
    print(f"{len(rows)} texts of {sum(map(len, rows))} tokens, perplexity in f32 {measure(f32, rows, exact)[1]:.4f}")
    print("type   KL ours  llama.cpp  ratio   ppl ours  llama.cpp  ratio   MB ours  llama.cpp   what differs")
    failed = []
    for kind in TYPES:
        ours, theirs = export(f32, work / kind, kind), work / f"{kind}.gguf"
        llama_library.quantise(f32, theirs, kind)
        others, differ, n = compare_tensors(ours, theirs)
        kl, ppl = measure(ours, rows, exact)
        their_kl, their_ppl = measure(theirs, rows, exact) if others or differ else (kl, ppl)
        size, their_size = ours.stat().st_size, theirs.stat().st_size
        print(f"{kind:5} {kl:9.3e}  {their_kl:.3e}  {kl / their_kl:.3f}  {ppl:9.4f}  {their_ppl:9.4f}  {ppl / their_ppl:.3f}"
              f"  {size / 1e6:8.2f}  {their_size / 1e6:9.2f}   {others} tensors, {differ} of {n} bytes", flush=True)
        if kl > MOST * their_kl or ppl > MOST * their_ppl or size > MOST_SIZE * their_size:
            failed.append(kind)
        shutil.rmtree(work / kind)
        theirs.unlink()
    assert not failed, failed


def llama_shapes(d, layers, tied):
    shapes = {"model.embed_tokens.weight": (VOCAB, d), "model.norm.weight": (d,)}
    for at in (f"model.layers.{i}" for i in range(layers)):
        sides = {"q": d, "k": d // 2, "v": d // 2, "o": d}
        shapes |= {f"{at}.self_attn.{m}_proj.weight": (rows, d) for m, rows in sides.items()}
        shapes |= {f"{at}.mlp.{m}_proj.weight": (2 * d, d) for m in ("gate", "up")}
        shapes |= {f"{at}.mlp.down_proj.weight": (d, 2 * d)}
        shapes |= {f"{at}.{norm}_layernorm.weight": (d,) for norm in ("input", "post_attention")}
    return shapes if tied else shapes | {"lm_head.weight": (VOCAB, d)}


def gpt2_shapes(d, layers):
    shapes = {"transformer.wte.weight": (VOCAB, d), "transformer.wpe.weight": (128, d)}
    sides = {"attn.c_attn": (d, 3 * d), "attn.c_proj": (d, d), "mlp.c_fc": (d, 4 * d), "mlp.c_proj": (4 * d, d)}
    for i in range(layers):
        for name, (into, out) in sides.items():
            shapes |= {f"transformer.h.{i}.{name}.weight": (into, out), f"transformer.h.{i}.{name}.bias": (out,)}
    norms = ["ln_f", *(f"h.{i}.ln_{k}" for i in range(layers) for k in (1, 2))]
    return shapes | {f"transformer.{norm}.{what}": (d,) for norm in norms for what in ("weight", "bias")}


def mixture(work, what, family, shapes, changes):
    """A model of random numbers whose rows are whole blocks: the same types, the same bytes."""
    folder, rng = work / what, np.random.default_rng(5)
    shutil.copytree(pathlib.Path(DATA) / "reference" / family, folder)
    config = json.loads((folder / "config.json").read_text()) | changes
    (folder / "config.json").write_text(json.dumps(config))
    save_file({name: (rng.standard_normal(shape) * 0.05).astype("<f4") for name, shape in shapes.items()},
              folder / "model.safetensors")
    f32 = export(folder, work / f"{what}-f32", "F32")
    for kind in TYPES:
        ours, theirs = export(f32, work / f"{what}-{kind}", kind), work / f"{what}-{kind}.gguf"
        llama_library.quantise(f32, theirs, kind)
        others, differ, n = compare_tensors(ours, theirs)
        print(f"{what} of whole blocks, {kind}: {others} tensors of another type, {differ} of {n} bytes differ",
              flush=True)
        assert others == 0 and differ <= (MOST_TIES * n if kind == "Q4_0" else 0), (what, kind)


def main():
    with tempfile.TemporaryDirectory() as folder:
        work = pathlib.Path(folder)
        for tied in (True, False):
            mixture(work, "llama, tied" if tied else "llama", "llama", llama_shapes(256, 17, tied),
                    {"hidden_size": 256, "intermediate_size": 512, "head_dim": 64, "num_hidden_layers": 17,
                     "tie_word_embeddings": tied})
        mixture(work, "gpt2", "gpt2", gpt2_shapes(256, 9), {"n_embd": 256, "n_layer": 9})
        smollm2(work)


if __name__ == "__main__":
    main()
