"""tests/peers/serve_scores.py - what mbuyu serve scores and embeds, against transformers in f32.

    python serve_scores.py MBUYU TEST_DATA MATERIALS

Prompts of token ids with echo and logprobs, as lm-evaluation-harness sends them: every log-probability within
1e-3 of transformers', the greedy token the same; vectors within 1e-5. The models are small made-up ones;
with materials a MiniLM, with MB_LONG=1 a SmolLM2, exported from its GGUF file first.
"""

import json
import os
import random
import subprocess
import sys
import tempfile
import urllib.request

import torch
import transformers

MBUYU, DATA, MATERIALS = sys.argv[1:4]
FAMILIES = ["gpt2", "llama", "qwen3", "smollm3", "gemma3", "olmo2"]


def ask(url, path, body):
    r = urllib.request.Request(url + path, data=json.dumps(body).encode())
    with urllib.request.urlopen(r, timeout=300) as answer:
        return json.load(answer)


def logprobs(model, ids):
    with torch.no_grad():
        return torch.log_softmax(model(torch.tensor([ids])).logits[0].double(), -1)


def score(url, name, folder, n, length):
    """The largest difference over n texts of this many tokens."""
    model = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    model.eval()
    rng = random.Random(name)
    worst, tokens = 0.0, 0
    vocab = min(model.config.get_text_config().vocab_size, 50000)
    for i in range(n):
        ids = [rng.randrange(3, vocab) for _ in range(length)]
        choice = ask(url, "/v1/completions", {"model": name, "prompt": [ids], "max_tokens": i % 2, "echo": True,
                                              "logprobs": 2, "temperature": 0})["choices"][0]["logprobs"]
        right = logprobs(model, ids)
        said = choice["token_logprobs"]
        assert said[0] is None and choice["top_logprobs"][0] is None
        assert len(said) == length + i % 2, (len(said), length)
        for t in range(1, length):
            worst = max(worst, abs(said[t] - right[t - 1][ids[t]].item()))
            worst = max(worst, abs(max(choice["top_logprobs"][t].values()) - right[t - 1].max().item()))
            tokens += 1
    print(f"{name}: {tokens} tokens, largest difference {worst:.2e}", flush=True)
    return worst


def embed(url, folder):
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    model = transformers.AutoModel.from_pretrained(folder, dtype=torch.float32).eval()
    texts = ["hello world", "jua linawaka leo", "a longer sentence about the weather in the mountains, with a comma",
             "x"] * 20
    said = [d["embedding"] for d in ask(url, "/v1/embeddings", {"model": "vectors", "input": texts})["data"]]
    worst = 0.0
    for text, v in zip(texts[:4], said):
        with torch.no_grad():
            hidden = model(**tokenizer(text, return_tensors="pt")).last_hidden_state[0]
        right = torch.nn.functional.normalize(hidden.mean(0), dim=0)
        worst = max(worst, (right - torch.tensor(v)).abs().max().item())
    print(f"vectors: largest difference {worst:.2e}", flush=True)
    return worst


def serve(words):
    p = subprocess.Popen([MBUYU, "serve", *words, "--port", "0"], stdout=subprocess.PIPE, text=True)
    return p, p.stdout.readline().strip()


def main():
    print("transformers", transformers.__version__, "torch", torch.__version__)
    wrong = False
    with tempfile.TemporaryDirectory() as work:
        models = {f: (os.path.join(DATA, "reference", f), 6, 24) for f in FAMILIES}
        gguf = os.path.join(MATERIALS, "smollm2", "SmolLM2-135M-Instruct.Q4_1.gguf")
        if os.environ.get("MB_LONG", "0") == "1" and os.path.exists(gguf):
            smollm2 = os.path.join(work, "smollm2")
            subprocess.run([MBUYU, "export", gguf, f"output_dir={smollm2}", "export_dtype=float32"], check=True,
                           stdout=subprocess.DEVNULL)
            models["smollm2"] = (smollm2, 4, 60)
        words = [f"{name}={path}" for name, (path, _, _) in models.items()]
        minilm = os.path.join(MATERIALS, "minilm")
        if os.path.exists(minilm):
            words.append(f"vectors={minilm}")
        server, url = serve(words)
        try:
            for name, (path, n, length) in models.items():
                wrong |= not score(url, name, path, n, length) <= 1e-3
            if os.path.exists(minilm):
                wrong |= not embed(url, minilm) <= 1e-5
        finally:
            server.terminate()
            wrong |= server.wait(60) != 0
    sys.exit(1 if wrong else 0)


main()
