#!/usr/bin/env python3
"""PyTorch's side of scripts/bench/cpu.sh: fine-tunes a Hugging Face model on random tokens, or on
pairs, and prints one line of JSON.

    torch_finetune.py MODEL_DIR [--lora R] [--classify LABELS] [--batch 4] [--seq 512] [--threads 2]
                      [--steps 5] [--dtype f32|bf16|weights] [--compile] [--first-forward]
                      [--rows FILE.jsonl --pad longest|N]

A step is forward, backward, clipping to norm 1 and fused AdamW; the first two are not counted.
bf16 means autocast over f32 weights, `weights` autocast over weights in bf16 too. With --rows a step
has --batch prompts with their completions, the loss on the latter, padded to the longest of them or
to N tokens; padding is not counted. Where lengths change, the first five steps are not counted: compiled
code has to get used to that. With --first-forward nothing is trained: the process loads the model, runs it
once on eight tokens and ends, to be timed from outside.
"""
import argparse
import json
import pathlib
import time

import torch
import transformers


def parse():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("model")
    parser.add_argument("--lora", type=int, default=0, metavar="R")
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--seq", type=int, default=512)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--steps", type=int, default=5)
    parser.add_argument("--dtype", choices=("f32", "bf16", "weights"), default="f32")
    parser.add_argument("--classify", type=int, default=0, metavar="LABELS")
    parser.add_argument("--compile", action="store_true")
    parser.add_argument("--first-forward", action="store_true")
    parser.add_argument("--rows", type=pathlib.Path)
    parser.add_argument("--pad", default="longest")
    return parser.parse_args()


def load(args):
    kind = transformers.AutoModelForCausalLM
    if args.classify:
        kind = transformers.AutoModelForSequenceClassification
    dtype = torch.bfloat16 if args.dtype == "weights" else torch.float32
    model = kind.from_pretrained(args.model, dtype=dtype)
    if args.lora:
        import peft

        config = peft.LoraConfig(
            r=args.lora, lora_alpha=2 * args.lora, target_modules="all-linear", lora_dropout=0.0
        )
        model = peft.get_peft_model(model, config)
    return model


def random_batches(args, model):
    while True:
        ids = torch.randint(0, model.config.vocab_size, (args.batch, args.seq))
        labels = torch.randint(0, args.classify, (args.batch,)) if args.classify else ids
        yield dict(input_ids=ids, labels=labels), ids.numel()


def pairs(args, model):
    """Batches of rows in a shuffled order, as a collator pads them, and their tokens without padding."""
    from peft_swahili import batch, read_rows

    rows = read_rows(args.rows, transformers.AutoTokenizer.from_pretrained(args.model))
    length = None if args.pad == "longest" else int(args.pad)
    while True:
        for chosen in torch.randperm(len(rows)).split(args.batch):
            inputs = batch([rows[i] for i in chosen], model.config.pad_token_id or 0, length)
            yield inputs, int(inputs["attention_mask"].sum())


def train(args, model):
    trained = [p for p in model.parameters() if p.requires_grad]
    adamw = torch.optim.AdamW(trained, lr=1e-4, weight_decay=0.0, fused=True)
    batches = (pairs if args.rows else random_batches)(args, model)
    step = torch.compile(model) if args.compile else model
    before = 5 if args.rows and args.pad == "longest" else 2
    speeds = []
    model.train()
    for _ in range(before + args.steps):
        inputs, tokens = next(batches)
        start = time.perf_counter()
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=args.dtype != "f32"):
            loss = step(**inputs).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(trained, 1.0)
        adamw.step()
        adamw.zero_grad(set_to_none=True)
        speeds.append(tokens / (time.perf_counter() - start))
    return speeds[before:]


def main():
    args = parse()
    torch.manual_seed(0)
    torch.set_num_threads(args.threads)
    transformers.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    model = load(args)
    if args.first_forward:
        with torch.no_grad():
            model.eval()(input_ids=torch.arange(1, 9)[None])
        return
    print(json.dumps(dict(speeds=[round(s, 1) for s in train(args, model)])))


if __name__ == "__main__":
    main()
