"""tests/peers/lm_eval.py - lm-evaluation-harness through mbuyu serve and through transformers: the same numbers.

    python lm_eval.py MBUYU TEST_DATA MATERIALS PEERS_PYTHON

SmolLM2, exported as f32, is scored by the harness's `hf` and by its `local-completions` (prompts of token ids
with echo and logprobs at /v1/completions): tasks with one continuation, with several choices, and with whole
texts longer than the window. Every log-likelihood is within 1e-3, and greedy where the other is. PyTorch and
transformers are those of PEERS_PYTHON. Only with MB_LONG=1.
"""

# environment: lm-eval

import glob
import json
import os
import site
import subprocess
import sys
import tempfile

MBUYU, DATA, MATERIALS, PEERS = sys.argv[1:5]
os.environ.update(HF_HUB_OFFLINE="1", HF_DATASETS_OFFLINE="1", OPENAI_API_KEY="none")
for folder in glob.glob(os.path.join(os.path.dirname(os.path.dirname(PEERS)), "lib", "python*", "site-packages")):
    site.addsitedir(folder)

WINDOW = 256  # tokens of context
MOST = 1e-3

TASKS = {
    "mb_continuation": {"output_type": "loglikelihood", "doc_to_text": "{{context}}", "doc_to_target": "{{target}}",
                        "target_delimiter": "", "metric_list": [{"metric": "acc"}]},
    "mb_choices": {"output_type": "multiple_choice", "doc_to_text": "{{context}}", "doc_to_choice": "{{choices}}",
                   "doc_to_target": "{{answer}}", "metric_list": [{"metric": "acc"}]},
    "mb_texts": {"output_type": "loglikelihood_rolling", "doc_to_text": "", "doc_to_target": "{{text}}",
                 "metric_list": [{"metric": "word_perplexity"}]},
}


def rows():
    """Rows of the tasks: English and C, and words of other scripts."""
    with open(os.path.join(DATA, "tokenizers", "english_and_c.txt"), encoding="utf-8") as f:
        lines = [line.strip() for line in f if len(line.split()) > 9]
    lines += ["Habari ya asubuhi, rafiki yangu mpendwa, je umelala salama usiku wa leo?",
              "Привет мир и всем, кто читает эти строки сегодня вечером 🙂 ещё раз!"]
    halves = [(" ".join(t.split()[:6]), " " + " ".join(t.split()[6:])) for t in lines[-20:]]
    choices = [{"context": a, "choices": [halves[(i + k) % len(halves)][1].strip() for k in range(4)], "answer": i % 4}
               for i, (a, _) in enumerate(halves[:8])]
    texts = [{"text": "\n".join(lines[:20])}] + [{"text": t} for t in lines[-3:]]
    return {"mb_continuation": [{"context": a, "target": b} for a, b in halves], "mb_choices": choices, "mb_texts": texts}


def write_tasks(folder):
    for name, lines in rows().items():
        path = os.path.join(folder, name + ".jsonl")
        with open(path, "w", encoding="utf-8") as f:
            f.writelines(json.dumps(line, ensure_ascii=False) + "\n" for line in lines)
        # JSON is YAML
        with open(os.path.join(folder, name + ".yaml"), "w", encoding="utf-8") as f:
            json.dump({"task": name, "dataset_path": "json", "dataset_kwargs": {"data_files": {"test": path}},
                       "test_split": "test", **TASKS[name]}, f)


def samples(folder, backend, **arguments):
    """(task, document) -> the harness's answers: log-likelihoods, with whether they are greedy."""
    import lm_eval
    from lm_eval.tasks import TaskManager

    result = lm_eval.simple_evaluate(model=backend, model_args=arguments, tasks=list(TASKS), batch_size=1, device="cpu",
                                     task_manager=TaskManager(include_path=folder, include_defaults=False),
                                     log_samples=True, bootstrap_iters=0)
    return {(task, s["doc_id"]): s["filtered_resps"] for task, found in result["samples"].items() for s in found}


def numbers(answers):
    """Log-likelihoods, and what else was said of them."""
    pairs = [a if isinstance(a, (list, tuple)) else (a, None) for a in answers]
    return [float(a[0]) for a in pairs], [a[1] for a in pairs]


def compare(ours, theirs):
    worst, count, wrong = dict.fromkeys(TASKS, 0.0), dict.fromkeys(TASKS, 0), len(set(ours) ^ set(theirs))
    for key, answers in ours.items():
        said, greedy = numbers(answers)
        right, greedily = numbers(theirs[key])
        wrong += len(said) != len(right) or greedy != greedily
        for a, b in zip(said, right):
            count[key[0]] += 1
            worst[key[0]] = max(worst[key[0]], abs(a - b))
            wrong += not abs(a - b) <= MOST
    for task in TASKS:
        print(f"{task}: {count[task]} log-likelihoods, largest difference {worst[task]:.2e}", flush=True)
        wrong += count[task] == 0
    return wrong


def main():
    if os.environ.get("MB_LONG", "0") != "1":
        print("only with MB_LONG=1")
        return
    gguf = os.path.join(MATERIALS, "smollm2", "SmolLM2-135M-Instruct.Q4_1.gguf")
    with tempfile.TemporaryDirectory() as work:
        os.environ["HF_DATASETS_CACHE"] = os.path.join(work, "cache")
        model, tasks = os.path.join(work, "model"), os.path.join(work, "tasks")
        subprocess.run([MBUYU, "export", gguf, f"output_dir={model}", "export_dtype=float32"], check=True, stdout=subprocess.DEVNULL)
        os.mkdir(tasks)
        write_tasks(tasks)
        # A sum of 49,152 numbers in f32 is off by 1e-5 a token; the model itself computes in f32.
        theirs = samples(tasks, "hf", pretrained=model, dtype="float32", softmax_dtype="float64", max_length=WINDOW)
        server = subprocess.Popen([MBUYU, "serve", f"smollm2={model}", "--port", "0"], stdout=subprocess.PIPE, text=True)
        try:
            url = server.stdout.readline().strip()
            # It takes one off for the token that is asked for, and one for the first of a window.
            ours = samples(tasks, "local-completions", model="smollm2", base_url=url + "/v1/completions", tokenizer=model,
                           max_length=WINDOW + 2, num_concurrent=4, tokenized_requests=True, max_retries=1, timeout=600)
        finally:
            server.terminate()
            wrong = server.wait(60) != 0
    sys.exit(1 if compare(ours, theirs) + wrong else 0)


main()
