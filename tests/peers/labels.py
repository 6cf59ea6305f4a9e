#!/usr/bin/env python3
"""Exported taggers, question answerers, classifiers of several kinds and embedders in transformers and
PEFT: what each says of the same rows, computed there from the same files.

labels.py MBUYU REFERENCE_DATA
"""

import json
import pathlib
import subprocess
import sys
import tempfile

import peft
import torch
import transformers

BOUND = 2e-5
ROWS = 12
WORDS = ["maji", "soko", "mbuyu", "mahindi"]


def rows(kind):
    for i in range(ROWS):
        word = WORDS[i % 4]
        if kind == "tags":
            yield {"tokens": ["the", "tree", word, "has"], "ner_tags": ["O", "O", "B-P", "O"]}
        elif kind == "sets":
            yield {"text": f"{word} tree {i}", "labels": [["even", "odd"][i % 2]] * (i % 3 > 0)}
        elif kind == "rated":
            yield {"text": f"{word} " * (1 + i % 5), "label": i % 5}
        elif kind == "near":
            yield {"sentence1": f"{word} {i}", "sentence2": "tree", "score": (i % 5) / 5}
        else:
            context = f"has no blessing {word}, come back {10 + i} days"
            start = context.index(str(10 + i))
            yield {"question": "how many days?", "context": context,
                   "answers": {"text": [str(10 + i)], "answer_start": [start]}}


def mbuyu(*arguments):
    done = subprocess.run(arguments, capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"exit code {done.returncode}: {' '.join(map(str, arguments))}\n{done.stderr}")
    return done.stdout


def tokenizer_of(folder):
    return transformers.PreTrainedTokenizerFast(
        tokenizer_file=str(folder / "tokenizer.json"), pad_token="[PAD]")


def hidden_means(model, tok, texts):
    means = []
    for text in texts:
        hidden = model(**tok(text, return_tensors="pt")).last_hidden_state[0]
        means.append(hidden.mean(0))
    return torch.stack(means)


def their_loss(kind, model, tok, data):
    losses, weights = [], []
    names = getattr(model.config, "label2id", {})
    for row in data:
        if kind == "tags":
            one = tok(row["tokens"], is_split_into_words=True, return_tensors="pt")
            first, seen = [], None
            for word in one.word_ids():
                first.append(-100 if word is None or word == seen else names[row["ner_tags"][word]])
                seen = word
            labels = torch.tensor([first])
            losses.append(model(**one, labels=labels).loss * (labels >= 0).sum())
            weights.append((labels >= 0).sum().item())
        elif kind == "span":
            one = tok(row["question"], row["context"], return_tensors="pt", return_offsets_mapping=True,
                      return_token_type_ids=True)
            offsets, parts = one.pop("offset_mapping")[0].tolist(), one.sequence_ids()
            start = row["answers"]["answer_start"][0]
            end = start + len(row["answers"]["text"][0])
            inside = [k for k, part in enumerate(parts)
                      if part == 1 and offsets[k][0] >= start and offsets[k][1] <= end]
            losses.append(model(**one, start_positions=torch.tensor([inside[0]]),
                                end_positions=torch.tensor([inside[-1]])).loss)
        elif kind == "near":
            a, b = hidden_means(model, tok, [row["sentence1"], row["sentence2"]])
            losses.append((torch.cosine_similarity(a, b, dim=0) - row["score"]) ** 2)
        else:
            one = tok(row["text"], return_tensors="pt")
            labels = torch.tensor([float(row["label"])]) if kind == "rated" else torch.tensor(
                [[float(name in row["labels"]) for name in sorted(names, key=names.get)]])
            losses.append(model(**one, labels=labels).loss)
    return (sum(losses) / (sum(weights) or len(losses))).item()


KINDS = {
    "tags": (["task=token-classification"], transformers.AutoModelForTokenClassification),
    "span": (["task=question-answering", "doc_stride=8"], transformers.AutoModelForQuestionAnswering),
    "sets": (["task=seq-classification", "problem_type=multi_label_classification"],
             transformers.AutoModelForSequenceClassification),
    "rated": (["task=seq-classification", "problem_type=regression"],
              transformers.AutoModelForSequenceClassification),
    "near": (["task=embedding", "embedding_loss=cosine"], transformers.AutoModel),
}


def load(kind, base, folder, adapter):
    model_class = KINDS[kind][1]
    if not adapter:
        return model_class.from_pretrained(folder)
    labels = {"tags": 2, "sets": 2, "rated": 1}
    extra = {"num_labels": labels[kind]} if kind in labels else {}
    if kind == "tags":
        extra |= {"id2label": {0: "B-P", 1: "O"}, "label2id": {"B-P": 0, "O": 1}}
    if kind == "sets":
        extra |= {"problem_type": "multi_label_classification", "id2label": {0: "even", 1: "odd"},
                  "label2id": {"even": 0, "odd": 1}}
    # base_model: PEFT's own forward for questions leaves token_type_ids out
    return peft.PeftModel.from_pretrained(model_class.from_pretrained(base, **extra), folder).base_model


def main():
    program, data = sys.argv[1], pathlib.Path(sys.argv[2])
    base, good = data / "reference" / "bert-mlm", True
    transformers.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    with tempfile.TemporaryDirectory() as work:
        for kind, (keys, _) in KINDS.items():
            file = pathlib.Path(work) / f"{kind}.jsonl"
            listed = list(rows(kind))
            file.write_text("".join(json.dumps(row) + "\n" for row in listed))
            for way in ("full", "lora"):
                out = pathlib.Path(work) / f"{kind}-{way}"
                run = [*keys, f"datasets=[{file}]", "max_length=64", f"finetuning_type={way}"]
                if kind in ("sets", "rated") and way == "lora":
                    run.append("lora_modules_to_save=pooler.dense")
                mbuyu(program, "train", f"model_name_or_path={base}", *run, "max_steps=4",
                      "learning_rate=1e-3", f"output_dir={out}")
                model = [f"model_name_or_path={out / 'final'}"] if way == "full" else [
                    f"model_name_or_path={base}", f"adapter_path={out / 'final'}"]
                ours = json.loads(mbuyu(program, "eval", *model, *keys, f"datasets=[{file}]",
                                        "max_length=64"))["eval_loss"]
                net = load(kind, base, out / "final", way == "lora").eval()
                with torch.no_grad():
                    theirs = their_loss(kind, net, tokenizer_of(out / "final"), listed)
                right = abs(ours - theirs) <= BOUND * max(1.0, abs(theirs))
                good = good and right
                print(f"{kind:6s} {way:5s} loss {ours:.6f}, transformers {theirs:.6f}"
                      + ("" if right else "  FAIL"))
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
