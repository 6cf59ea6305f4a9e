#!/usr/bin/env python3
"""PyTorch's side of scripts/bench/gpu.sh.

    gpu_peer.py versions
    gpu_peer.py train --config FOLDER --dtype bf16|f32 [--lora R] --batch B --seq T --steps N
                      [--padded FILE]
    gpu_peer.py attention [--rounds N]

train builds a model of random weights from FOLDER/config.json, compiles it if that works, prints
"ready (HOW)" when it is warm, and for each line of its input does N steps (forward, backward, norm
clipped to 1, fused AdamW) and prints "rate TOKENS_PER_SECOND". bf16 is autocast over f32 weights;
with --lora the frozen weights are bf16 themselves. --padded: rows of FILE (JSONL, "text", words of a
number each), padded to the longest of their batch; only real tokens count.

attention prints lines "attention DIRECTION T MILLISECONDS LEAST MOST" for cuDNN's kernels.
"""
import argparse
import json
import pathlib
import statistics
import sys
import time

import torch


def versions():
    import transformers

    words = [f"PyTorch {torch.__version__}", f"transformers {transformers.__version__}"]
    try:
        import peft

        words.append(f"peft {peft.__version__}")
    except ImportError:
        words.append("no peft")
    words.append(f"CUDA {torch.version.cuda}, cuDNN {torch.backends.cudnn.version()}")
    print(", ".join(words))


def build(args):
    import transformers

    transformers.logging.set_verbosity_error()
    config = transformers.AutoConfig.from_pretrained(args.config)
    config.use_cache = False
    dtype = torch.bfloat16 if args.lora and args.dtype == "bf16" else torch.float32
    with torch.device("cuda"):
        model = transformers.AutoModelForCausalLM.from_config(
            config, dtype=dtype, attn_implementation="sdpa"
        )
    if args.lora:
        import peft

        model = peft.get_peft_model(
            model,
            peft.LoraConfig(
                r=args.lora, lora_alpha=2 * args.lora, target_modules="all-linear", lora_dropout=0.0
            ),
        )
    return model.cuda().train(), config.vocab_size


def padded_batches(args):
    rows = [
        [int(w[1:]) for w in json.loads(line)["text"].split()][: args.seq]
        for line in pathlib.Path(args.padded).read_text().splitlines()
    ]
    at = 0
    while True:
        if at + args.batch > len(rows):
            at = 0
        part = rows[at : at + args.batch]
        at += args.batch
        longest = max(map(len, part))
        ids = torch.zeros(args.batch, longest, dtype=torch.long)
        mask = torch.zeros(args.batch, longest, dtype=torch.long)
        for i, row in enumerate(part):
            ids[i, : len(row)] = torch.tensor(row)
            mask[i, : len(row)] = 1
        labels = ids.masked_fill(mask == 0, -100)
        yield dict(input_ids=ids, attention_mask=mask, labels=labels), int(mask.sum())


def even_batches(args, vocabulary):
    while True:
        ids = torch.randint(0, vocabulary, (args.batch, args.seq))
        yield dict(input_ids=ids, labels=ids), ids.numel()


def train(args):
    torch.manual_seed(0)
    torch.set_float32_matmul_precision("highest")
    model, vocabulary = build(args)
    trained = [p for p in model.parameters() if p.requires_grad]
    adamw = torch.optim.AdamW(trained, lr=1e-4, weight_decay=0.0, fused=True)
    batches = padded_batches(args) if args.padded else even_batches(args, vocabulary)

    def steps(run, n):
        tokens = 0
        torch.cuda.synchronize()
        start = time.perf_counter()
        for _ in range(n):
            batch, real = next(batches)
            batch = {k: v.pin_memory().cuda(non_blocking=True) for k, v in batch.items()}
            with torch.autocast("cuda", dtype=torch.bfloat16, enabled=args.dtype == "bf16"):
                loss = run(**batch).loss
            loss.backward()
            torch.nn.utils.clip_grad_norm_(trained, 1.0)
            adamw.step()
            adamw.zero_grad(set_to_none=True)
            tokens += real
        torch.cuda.synchronize()
        return tokens / (time.perf_counter() - start)

    run, how = torch.compile(model, dynamic=True if args.padded else None), "compiled"
    try:
        steps(run, 3)
    except Exception as failure:  # whatever the compiler met
        print(failure, file=sys.stderr)
        run, how = model, "eager: compiling failed"
        adamw.zero_grad(set_to_none=True)
        torch.cuda.empty_cache()
        steps(run, 3)
    steps(run, args.steps)
    torch.cuda.empty_cache()
    print(f"ready ({how})", flush=True)
    for _ in sys.stdin:
        steps(run, 2)  # the pool is filled again
        print(f"rate {steps(run, args.steps):.1f}", flush=True)
        torch.cuda.empty_cache()  # the other side is next


def attention(args):
    from torch.nn.attention import SDPBackend, sdpa_kernel

    heads, kv, size, tokens = 32, 8, 128, 8192
    for length in (2048, 4096, 8192):
        shape = (tokens // length, heads, length, size)
        q = torch.randn(shape, device="cuda", dtype=torch.bfloat16, requires_grad=True)
        k, v = (
            torch.randn(
                (shape[0], kv, length, size), device="cuda", dtype=torch.bfloat16, requires_grad=True
            )
            for _ in range(2)
        )
        go = torch.randn(shape, device="cuda", dtype=torch.bfloat16)

        def forward():
            return torch.nn.functional.scaled_dot_product_attention(
                q, k, v, is_causal=True, enable_gqa=True
            )

        with sdpa_kernel(SDPBackend.CUDNN_ATTENTION):
            out = forward()

            def backward():
                torch.autograd.grad(out, (q, k, v), go, retain_graph=True)

            for name, call in (("forward", forward), ("backward", backward)):
                for _ in range(5):
                    call()
                milliseconds = []
                for _ in range(args.rounds):
                    torch.cuda.synchronize()
                    start = time.perf_counter()
                    for _ in range(20):
                        call()
                    torch.cuda.synchronize()
                    milliseconds.append((time.perf_counter() - start) / 20 * 1e3)
                print(
                    f"attention {name} {length} {statistics.median(milliseconds):.4f} "
                    f"{min(milliseconds):.4f} {max(milliseconds):.4f}",
                    flush=True,
                )


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    verbs = parser.add_subparsers(dest="verb", required=True)
    verbs.add_parser("versions")
    one = verbs.add_parser("train")
    one.add_argument("--config", required=True)
    one.add_argument("--dtype", choices=("f32", "bf16"), required=True)
    one.add_argument("--lora", type=int, default=0)
    one.add_argument("--batch", type=int, required=True)
    one.add_argument("--seq", type=int, required=True)
    one.add_argument("--steps", type=int, default=10)
    one.add_argument("--padded")
    two = verbs.add_parser("attention")
    two.add_argument("--rounds", type=int, default=7)
    args = parser.parse_args()
    if args.verb == "versions":
        versions()
    else:
        {"train": train, "attention": attention}[args.verb](args)


if __name__ == "__main__":
    main()
