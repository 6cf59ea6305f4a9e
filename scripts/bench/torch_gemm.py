#!/usr/bin/env python3
"""torch_gemm.py THREADS f32|bf16 - GFLOP/s of PyTorch's product of two matrices of 2048 x 2048, the best
of 20."""
import sys
import time

import torch

N = 2048
torch.set_num_threads(int(sys.argv[1]))
torch.manual_seed(0)
dtype = dict(f32=torch.float32, bf16=torch.bfloat16)[sys.argv[2]]
a, b = (torch.randn(N, N).to(dtype) for _ in range(2))
seconds = []
for _ in range(20):
    start = time.perf_counter()
    torch.matmul(a, b)
    seconds.append(time.perf_counter() - start)
print(round(2 * N**3 / min(seconds) * 1e-9, 1))
