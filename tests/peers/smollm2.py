#!/usr/bin/env python3
"""SmolLM2-135M-Instruct from its GGUF file: logits, prompts and greedy answers as transformers had.

    smollm2.py HELPER MATERIALS      HELPER: the built `logits`; MATERIALS: the folder that
                                     scripts/fetch_materials.sh filled; MBUYU: the program

tests/data/fixtures/smollm2.json holds what transformers computed in f32 from the same weights.
Ids and texts must be equal; logits may differ by 1e-4 of the largest.
"""
import json
import os
import subprocess
import sys
import tempfile

BOUND = 1e-4
FIXTURE = os.path.join(os.path.dirname(os.path.abspath(__file__)),
                       "../data/fixtures/smollm2.json")


def run(command, text=None):
    done = subprocess.run(command, input=text, stdout=subprocess.PIPE, text=True)
    if done.returncode != 0:
        sys.exit(f"{' '.join(command)}: exit code {done.returncode}")
    return done.stdout


def rows(text):
    return [json.loads(line) for line in text.splitlines()]


def logits(helper, model, cases):
    """Worst |difference| / max|reference| of each kind."""
    worst = {"first_logits8": 0.0, "last_logits8": 0.0, "last_top8": 0.0}
    ids = "".join(json.dumps(case["ids"]) + "\n" for case in cases)
    for case, got in zip(cases, rows(run([helper, model], ids)), strict=True):
        scale = max(abs(x) for _, x in case["last_top8"])
        for name, ours in (("first_logits8", got["first"]), ("last_logits8", got["last"])):
            for a, b in zip(ours, case[name], strict=True):
                worst[name] = max(worst[name], abs(a - b) / scale)
        for (i, a), (j, b) in zip(got["top"], case["last_top8"], strict=True):
            if i != j:
                print(f"WRONG order of the largest logits: {got['top']}, not {case['last_top8']}")
                worst["last_top8"] = float("inf")
            worst["last_top8"] = max(worst["last_top8"], abs(a - b) / scale)
    return worst


def prompt_ids(mbuyu, model, case, folder):
    if isinstance(case["prompt"], str):
        command = [mbuyu, "tokenize", model, "--ids", "--text", case["prompt"]]
    else:
        path = os.path.join(folder, "messages.json")
        with open(path, "w", encoding="utf-8") as f:
            json.dump(case["prompt"], f)
        command = [mbuyu, "tokenize", model, "--ids", "--messages", path]
    return [int(i) for i in run(command).split()]


def answers(mbuyu, model, cases, folder, *more):
    """What `mbuyu generate` answers to all prompts at once."""
    path = os.path.join(folder, "prompts.jsonl")
    with open(path, "w", encoding="utf-8") as f:
        for case in cases:
            f.write(json.dumps({"prompt": case["prompt"]}) + "\n")
    return rows(run([mbuyu, "generate", model, f"prompts_file={path}", "max_new_tokens=24",
                     "--verbose", *more]))


def main():
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    helper, mbuyu = sys.argv[1], os.environ.get("MBUYU", "mbuyu")
    model = os.path.join(sys.argv[2], "smollm2/SmolLM2-135M-Instruct.Q4_1.gguf")
    if not os.path.exists(model):
        model = os.path.join(sys.argv[2], os.path.basename(model))
    if not os.path.exists(model):
        sys.exit(f"there is no {model}: scripts/fetch_materials.sh fetches it")
    with open(FIXTURE, encoding="utf-8") as f:
        cases = json.load(f)["greedy"]
    bad = 0
    for name, error in logits(helper, model, cases).items():
        bad += not error <= BOUND
        print(f"{name:14} worst {error:.2e} of the largest, allowed {BOUND:.0e}")
    with tempfile.TemporaryDirectory() as folder:
        for case in cases:
            ids = prompt_ids(mbuyu, model, case, folder)
            bad += ids != case["ids"]
            print(f"prompt ids     {'equal' if ids == case['ids'] else f'WRONG: {ids}'}")
        together = answers(mbuyu, model, cases, folder)
        alone = [answers(mbuyu, model, [case], folder, "--json")[0] for case in cases]
    for case, *both in zip(cases, together, alone, strict=True):
        for got in both:
            text, want = got["completion"], case["out_text"]
            if got["finish_reason"] == "stop":  # the fixture's text shows the end token
                want = want.removesuffix("<|im_end|>")
            right = got["tokens"] == case["out_ids"] and text == want
            bad += not right
            print(f"greedy answer  {'equal' if right else 'WRONG'}: {len(got['tokens'])} tokens, "
                  f"{got['finish_reason']}: {text!r}")
            if not right:
                print(f"    wanted {case['out_ids']} {want!r}\n    got    {got['tokens']}")
    sys.exit(1 if bad else 0)


if __name__ == "__main__":
    main()
