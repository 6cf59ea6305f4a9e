#!/usr/bin/env python3
"""Random GGUF blocks through mbuyu's kernels and through the gguf package: the same bits.

    dequantise.py HELPER [ROUNDS]        HELPER: the built dequantise_blocks

Blocks are random bytes, so scales include infinities, NaNs, subnormals and zeros. Where the package
gives a NaN, any NaN is right; everything else must agree in every bit.
"""
import subprocess
import sys
import tempfile

import numpy as np
from gguf import GGML_QUANT_SIZES, GGMLQuantizationType, quants

TYPES = "F32 F16 BF16 Q4_0 Q4_1 Q5_0 Q5_1 Q8_0 Q2_K Q3_K Q4_K Q5_K Q6_K".split()


def main():
    helper, rounds = sys.argv[1], int(sys.argv[2]) if len(sys.argv) > 2 else 2
    rng = np.random.default_rng(7)
    failed = 0
    np.seterr(all="ignore")
    with tempfile.TemporaryDirectory() as folder:
        for name in TYPES:
            kind = GGMLQuantizationType[name]
            elements, size = GGML_QUANT_SIZES[kind]
            wrong = total = nans = 0
            for _ in range(rounds):
                blocks = 4096 if elements > 1 else 65536 * 4
                raw = rng.integers(0, 256, blocks * size, dtype=np.uint8)
                raw.tofile(f"{folder}/raw")
                subprocess.run([helper, name, f"{folder}/raw", f"{folder}/out"], check=True)
                got = np.fromfile(f"{folder}/out", dtype="<f4")
                want = quants.dequantize(raw, kind).astype(np.float32, copy=False).reshape(-1)
                assert got.shape == want.shape, (name, got.shape, want.shape)
                nan = np.isnan(want)
                same = np.where(nan, np.isnan(got), got.view("<u4") == want.view("<u4"))
                wrong += int((~same).sum())
                nans += int(nan.sum())
                total += len(want)
            print(f"{name:5} {total:9} values, {nans:6} NaN, {wrong} differ")
            failed += wrong
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
