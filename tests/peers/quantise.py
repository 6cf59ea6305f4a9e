#!/usr/bin/env python3
"""Numbers through mbuyu's quantisers and through the gguf package: the same bits, where it has one.

    quantise.py HELPER        HELPER: the built quantise_blocks

The package writes F16, BF16, Q4_0, Q4_1, Q5_0, Q5_1 and Q8_0. It has no Q4_K, Q5_K and Q6_K: their blocks,
read by the package, must be nearer to the numbers than rounding with the range of each group is. (How good they
are beside llama.cpp's own is gguf_export.py's to say.)
"""
import subprocess
import sys

import numpy as np
from gguf import GGMLQuantizationType, quants

EXACT = "F16 BF16 Q4_0 Q4_1 Q5_0 Q5_1 Q8_0".split()
SEARCHED = {"Q4_K": (32, 15), "Q5_K": (32, 31), "Q6_K": (16, 63)}


def inputs(rng):
    n = 256 * 512
    yield "normal", rng.standard_normal(n)
    yield "long tails", rng.standard_t(3, n) * 0.05
    yield "small", rng.standard_normal(n) * 1e-3
    yield "one sign", np.abs(rng.standard_normal(n)) + 0.5
    yield "constant and zero", np.repeat([0.0, 0.25, -0.25, 0.0], n // 4)
    yield "whole numbers", rng.integers(-8, 8, n).astype(np.float64)


def ranged(x, group, levels):
    """Each group rounded to `levels` steps of its own range (Q6_K: the same both ways), in float: no search, no
    rounding of scales."""
    g = x.reshape(-1, group)
    low, high = np.minimum(g.min(1, keepdims=True), 0), np.maximum(g.max(1, keepdims=True), 0)
    if levels == 63:
        high = np.abs(g).max(1, keepdims=True)
        low = -high
    step = np.where(high > low, (high - low) / levels, 1)
    return (np.rint((g - low) / step) * step + low).reshape(-1)


def main():
    helper, rng, failed = sys.argv[1], np.random.default_rng(11), 0
    for what, numbers in inputs(rng):
        x = numbers.astype("<f4")
        for name in EXACT + list(SEARCHED):
            out = subprocess.run([helper, name], input=x.tobytes(), capture_output=True, check=True).stdout
            blocks = np.frombuffer(out, np.uint8)
            kind = GGMLQuantizationType[name]
            if name in EXACT:
                wrong = int((blocks != quants.quantize(x, kind).view(np.uint8).reshape(-1)).sum())
                print(f"{name:5} {what:18} {wrong} of {len(blocks)} bytes differ")
                failed += wrong
                continue
            back = quants.dequantize(blocks, kind).reshape(-1)
            ours = float(np.sqrt(np.mean((back - x) ** 2)))
            plain = float(np.sqrt(np.mean((ranged(x, *SEARCHED[name]) - x) ** 2)))
            print(f"{name:5} {what:18} error {ours:.3g}, by range {plain:.3g}")
            # scales are whole parts of an F16: groups far below their block's largest lose some
            failed += not ours <= 1.05 * plain + 1e-3 * float(np.abs(x).max())
    bad = np.array([1.0] * 31 + [np.nan], "<f4")
    done = subprocess.run([helper, "Q8_0"], input=bad.tobytes(), capture_output=True, check=False)
    assert done.returncode == 1 and b"not finite" in done.stderr, done
    assert not failed, failed


if __name__ == "__main__":
    main()
