#!/usr/bin/env python3
"""Greedy answers of small random models, with and without a repetition penalty, and answers by beam
search, as transformers' own generate() gives them; and which tokens top_k and top_p leave to be drawn.

    generate.py                      MBUYU: the program
"""
import json
import os
import subprocess
import sys
import tempfile

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path = [p for p in sys.path if os.path.abspath(p or ".") != HERE]  # tokenizers.py lies there too

import torch  # noqa: E402
from tokenizers import Tokenizer  # noqa: E402
from transformers import AutoModelForCausalLM  # noqa: E402
from transformers.generation import TopKLogitsWarper, TopPLogitsWarper  # noqa: E402

MODELS = ["gpt2", "llama", "llama3-rope", "mistral-sliding", "qwen2", "qwen3", "gemma3", "olmo2", "smollm3"]
SAMPLED = MODELS[:4]  # what is drawn does not depend on the family
SEARCHED = ["gpt2", "mistral-sliding", "gemma3"]
PROMPTS = ["Once upon a time", "x", "The quick brown fox jumps over the lazy dog, and then again.",
           "Karibu sana, rafiki yangu! 1 2 3", "aaaa aaaa aaaa aaaa aaaa aaaa"]
PENALTIES = [1.0, 1.3, 2.5, 0.7]
BEAMS = [dict(num_beams=3), dict(num_beams=4, length_penalty=2.0), dict(num_beams=2, early_stopping=True),
         dict(num_beams=3, no_repeat_ngram_size=2)]
SAMPLES = 400


def ours(path, prompts_file, *more):
    command = [os.environ.get("MBUYU", "mbuyu"), "generate", path, f"prompts_file={prompts_file}",
               "--json", *more]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True)
    if done.returncode != 0:
        sys.exit(f"{' '.join(command)}: exit code {done.returncode}")
    return [json.loads(line) for line in done.stdout.splitlines()]


def check_greedy(path, tokenizer, model, prompts_file):
    wrong = 0
    for penalty in PENALTIES:
        answers = ours(path, prompts_file, "max_new_tokens=48", f"repetition_penalty={penalty}")
        for prompt, answer in zip(PROMPTS, answers, strict=True):
            ids = torch.tensor([tokenizer.encode(prompt, add_special_tokens=False).ids])
            with torch.no_grad():
                want = model.generate(ids, attention_mask=torch.ones_like(ids), do_sample=False,
                                      max_new_tokens=48, repetition_penalty=penalty,
                                      pad_token_id=0)[0, ids.shape[1]:].tolist()
            if want != answer["tokens"]:
                wrong += 1
                print(f"WRONG {path} penalty {penalty} {prompt!r}:\n  {want}\n  {answer['tokens']}")
    print(f"{os.path.basename(path):16} {len(PENALTIES) * len(PROMPTS)} greedy answers, "
          f"{wrong} differ")
    return wrong


def check_beams(path, tokenizer, model, prompts_file):
    """The two best of the beams."""
    wrong = 0
    for search in BEAMS:
        said = [f"{key}={str(value).lower()}" for key, value in search.items()]
        answers = iter(ours(path, prompts_file, "max_new_tokens=24", "num_samples=2", *said))
        for prompt in PROMPTS:
            ids = torch.tensor([tokenizer.encode(prompt, add_special_tokens=False).ids])
            with torch.no_grad():
                want = model.generate(ids, attention_mask=torch.ones_like(ids), do_sample=False,
                                      max_new_tokens=24, num_return_sequences=2, pad_token_id=0, **search)
            for row in want[:, ids.shape[1]:].tolist():
                tokens = next(answers)["tokens"]  # padding follows what ended early
                if row[: len(tokens)] != tokens or any(row[len(tokens):]):
                    wrong += 1
                    print(f"WRONG {path} {search} {prompt!r}:\n  {row}\n  {tokens}")
    print(f"{os.path.basename(path):16} {2 * len(BEAMS) * len(PROMPTS)} answers by beams, {wrong} differ")
    return wrong


def check_samples(path, tokenizer, model, folder):
    """First tokens of many samples: only what transformers' warpers leave, and most of it."""
    wrong = 0
    prompts_file = os.path.join(folder, "one.txt")
    with open(prompts_file, "w", encoding="utf-8") as f:
        f.write(PROMPTS[0] + "\n")
    ids = torch.tensor([tokenizer.encode(PROMPTS[0], add_special_tokens=False).ids])
    with torch.no_grad():
        logits = model(ids).logits[:, -1]
    for top_k, top_p, temperature in [(5, 1.0, 1.0), (0, 0.2, 1.0), (40, 0.5, 0.7), (0, 0.6, 0.2)]:
        scores = logits / temperature
        if top_k > 0:
            scores = TopKLogitsWarper(top_k)(ids, scores)
        if top_p < 1.0:
            scores = TopPLogitsWarper(top_p)(ids, scores)
        p = torch.softmax(scores, -1)[0]
        drawn = [answer["tokens"][0] for answer in
                 ours(path, prompts_file, "max_new_tokens=1", "do_sample=true", f"top_k={top_k}",
                      f"top_p={top_p}", f"temperature={temperature}", f"num_samples={SAMPLES}")]
        left = set(torch.nonzero(p).flatten().tolist())
        missed = sum(p[i].item() for i in left - set(drawn))
        bad = bool(set(drawn) - left) or missed > 0.3
        worst = max(abs(drawn.count(i) / SAMPLES - p[i].item()) for i in left)
        bad = bad or worst > 0.12
        wrong += bad
        print(f"{os.path.basename(path):16} top_k {top_k} top_p {top_p} temperature {temperature}: "
              f"{len(left)} stay, {len(set(drawn))} drawn, shares within {worst:.3f}"
              f"{' WRONG' if bad else ''}")
    return wrong


def main():
    torch.set_num_threads(1)
    wrong = 0
    with tempfile.TemporaryDirectory() as folder:
        prompts_file = os.path.join(folder, "prompts.txt")
        with open(prompts_file, "w", encoding="utf-8") as f:
            f.writelines(prompt + "\n" for prompt in PROMPTS)
        for name in MODELS:
            path = os.path.join(HERE, "../data/reference", name)
            tokenizer = Tokenizer.from_file(os.path.join(path, "tokenizer.json"))
            model = AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32)
            model.eval()
            wrong += check_greedy(path, tokenizer, model, prompts_file)
            if name in SEARCHED:
                wrong += check_beams(path, tokenizer, model, prompts_file)
            if name in SAMPLED:
                wrong += check_samples(path, tokenizer, model, folder)
    sys.exit(1 if wrong else 0)


if __name__ == "__main__":
    main()
