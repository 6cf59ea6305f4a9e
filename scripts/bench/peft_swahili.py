#!/usr/bin/env python3
"""The quickstart's fine-tune in PEFT, to hold mbuyu's result against.

    peft_swahili.py MODEL_DIR PAIRS_DIR [--epochs 2] [--lr 2e-4] [--full] [--f32] [--threads 2]

A row is the tokens of the prompt and of the completion with a newline; the loss is on the latter.
LoRA r 16, alpha 32, on all linear layers (or --full), AdamW without decay, 16 rows a step, cosine
over the run with 3 % warm-up, gradients clipped to norm 1; bf16 autocast unless --f32. Prints the
loss per trained token on valid.jsonl before and after every epoch, last as "final LOSS".
"""
import argparse
import json
import pathlib
import time

import peft
import torch
import transformers

IGNORED = -100
ROWS_A_STEP = 16


def parse():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("model")
    parser.add_argument("pairs", type=pathlib.Path)
    parser.add_argument("--epochs", type=int, default=2)
    parser.add_argument("--lr", type=float, default=2e-4)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--full", action="store_true")
    parser.add_argument("--f32", action="store_true")
    return parser.parse_args()


def read_rows(path, tokenizer):
    def ids(text):
        return tokenizer(text, add_special_tokens=False).input_ids

    rows = []
    for line in path.open(encoding="utf-8"):
        row = json.loads(line)
        prompt, answer = ids(row["prompt"]), ids(row["completion"] + "\n")
        rows.append((prompt + answer, [IGNORED] * len(prompt) + answer))
    return rows


def batch(rows, pad, length=None):
    """Padded to `length` tokens, or to the longest row."""
    length = length or max(len(tokens) for tokens, _ in rows)

    def filled(items, value):
        return torch.tensor([item + [value] * (length - len(item)) for item in items])

    return dict(
        input_ids=filled([tokens for tokens, _ in rows], pad),
        labels=filled([labels for _, labels in rows], IGNORED),
        attention_mask=filled([[1] * len(tokens) for tokens, _ in rows], 0),
    )


@torch.no_grad()
def loss_per_token(model, rows, pad):
    model.eval()
    total = count = 0
    for start in range(0, len(rows), 32):
        inputs = batch(rows[start : start + 32], pad)
        trained = (inputs["labels"][:, 1:] != IGNORED).sum().item()
        total += model(**inputs).loss.item() * trained
        count += trained
    model.train()
    return total / count


def main():
    args = parse()
    torch.manual_seed(0)
    torch.set_num_threads(args.threads)
    transformers.logging.set_verbosity_error()
    tokenizer = transformers.AutoTokenizer.from_pretrained(args.model)
    model = transformers.AutoModelForCausalLM.from_pretrained(args.model, dtype=torch.float32)
    pad = model.config.pad_token_id or 0
    train = read_rows(args.pairs / "train.jsonl", tokenizer)
    valid = read_rows(args.pairs / "valid.jsonl", tokenizer)
    print(f"before {loss_per_token(model, valid, pad):.4f}", flush=True)
    if not args.full:
        config = peft.LoraConfig(
            r=16, lora_alpha=32, target_modules="all-linear", lora_dropout=0.0
        )
        model = peft.get_peft_model(model, config)

    trained = [p for p in model.parameters() if p.requires_grad]
    adamw = torch.optim.AdamW(trained, lr=args.lr, weight_decay=0.0)
    steps = args.epochs * -(-len(train) // ROWS_A_STEP)
    warmup = -(-3 * steps // 100)
    schedule = transformers.get_scheduler("cosine", adamw, warmup, steps)
    shuffle = torch.Generator().manual_seed(1)
    start = time.perf_counter()
    for epoch in range(args.epochs):
        for chosen in torch.randperm(len(train), generator=shuffle).split(ROWS_A_STEP):
            with torch.autocast("cpu", dtype=torch.bfloat16, enabled=not args.f32):
                loss = model(**batch([train[i] for i in chosen], pad)).loss
            loss.backward()
            torch.nn.utils.clip_grad_norm_(trained, 1.0)
            adamw.step()
            schedule.step()
            adamw.zero_grad(set_to_none=True)
        loss = loss_per_token(model, valid, pad)
        print(f"epoch {epoch + 1} loss {loss:.4f} after {time.perf_counter() - start:.0f} s", flush=True)
    print(f"final {loss:.4f}")


if __name__ == "__main__":
    main()
