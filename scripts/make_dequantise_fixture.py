#!/usr/bin/env python3
"""Writes tests/data/dequantise.bin: random GGUF blocks and what the gguf package makes of them.

    make_dequantise_fixture.py OUT

Per type: its name (8 bytes, zero padded), the number of blocks (u32), the raw blocks, the f32
values; all little-endian. Scales are finite halves, among them zero, subnormal and negative ones.
"""
import struct
import sys

import numpy as np
from gguf import GGMLQuantizationType, quants

BLOCKS = 4
# type: bytes of a block, offsets of its f16 scales
TYPES = {
    "Q4_0": (18, [0]),
    "Q4_1": (20, [0, 2]),
    "Q5_0": (22, [0]),
    "Q5_1": (24, [0, 2]),
    "Q8_0": (34, [0]),
    "Q2_K": (84, [80, 82]),
    "Q3_K": (110, [108]),
    "Q4_K": (144, [0, 2]),
    "Q5_K": (176, [0, 2]),
    "Q6_K": (210, [208]),
}
SCALES = [0x2C03, 0x8001, 0x0000, 0xF7FF]  # ordinary, smallest subnormal, zero, large negative


def main():
    rng = np.random.default_rng(2026)
    with open(sys.argv[1], "wb") as out:
        for name, (size, scales) in TYPES.items():
            raw = rng.integers(0, 256, (BLOCKS, size), dtype=np.uint8)
            for b in range(BLOCKS):
                for k, at in enumerate(scales):
                    half = np.array([SCALES[(b + k) % 4]], dtype="<u2")
                    raw[b, at : at + 2] = half.view(np.uint8)
            values = quants.dequantize(raw.reshape(-1), GGMLQuantizationType[name])
            assert values.dtype == np.float32 and np.isfinite(values).all()
            out.write(struct.pack("<8sI", name.encode(), BLOCKS))
            out.write(raw.tobytes())
            out.write(values.astype("<f4").tobytes())


if __name__ == "__main__":
    main()
