#!/usr/bin/env python3
"""mbuyu_log.py LOG [--tokens N|any] [--against LOG] - what scripts/bench/cpu.sh wants out of a train.jsonl.

One line of JSON. With --tokens: tokens per second of each step but the first two, and the planned
over the measured memory; a step that had not N tokens is an error. With --against: the means of the
losses over 20 steps in both logs, and the largest difference of two, as a share of the first.
"""
import argparse
import json
import statistics
import sys

parser = argparse.ArgumentParser()
parser.add_argument("log")
parser.add_argument("--tokens", default="any")
parser.add_argument("--against")
args = parser.parse_args()


def records(path):
    with open(path) as lines:
        return [json.loads(line) for line in lines]


def means(path):
    losses = [r["loss"] for r in records(path) if "loss" in r]
    return [statistics.mean(losses[i : i + 20]) for i in range(0, len(losses), 20)]


if args.against:
    f32, bf16 = means(args.log), means(args.against)
    apart = max(abs(b / a - 1) for a, b in zip(f32, bf16, strict=True))
    print(json.dumps(dict(f32=f32, bf16=bf16, apart=apart)))
    sys.exit()

steps = [r for r in records(args.log) if "loss" in r]
seen = 0
for step in steps:
    had = step["num_tokens"] - seen
    seen = step["num_tokens"]
    if args.tokens != "any" and had != int(args.tokens):
        sys.exit(f"step {step['step']} had {had} tokens, {args.tokens} are wanted")
memory = [r for r in records(args.log) if "num_planned_bytes" in r][-1]
print(
    json.dumps(
        dict(
            speeds=[s["tokens_per_second"] for s in steps if s["step"] > 2],
            planned=memory["num_planned_bytes"] / memory["num_peak_bytes"],
        )
    )
)
