"""llama_serve.py MODEL.gguf THREADS SLOTS CONTEXT - llama.cpp's server out of the wheel xllamacpp; prints its
address and serves until it is killed."""
import importlib.metadata
import signal
import sys

import xllamacpp

path, threads, slots, context = sys.argv[1], *map(int, sys.argv[2:5])
p = xllamacpp.CommonParams()
p.model.path = path
p.n_parallel = slots
p.n_ctx = slots * context
p.n_gpu_layers = 0
p.cpuparams.n_threads = p.cpuparams_batch.n_threads = threads
p.warmup = False
p.port = 0
server = xllamacpp.Server(p)
print(f"{server.listening_address}={importlib.metadata.version('xllamacpp')}", flush=True)
signal.pause()
