"""llama.cpp's server out of the wheel xllamacpp, set to be as exact as it can: f32 caches, no flash attention.

    with Server("model.gguf") as s:
        s.ask("/completion", {"prompt": [1, 2, 3], ...})
"""
import ctypes
import glob
import json
import os
import sys
import tempfile
import urllib.error
import urllib.request

import numpy as np
import xllamacpp


def library():
    """The functions of llama.cpp and ggml in the wheel, for ctypes."""
    return ctypes.CDLL(glob.glob(xllamacpp.__path__[0] + "/*.so")[0])


class Refused(Exception):
    """llama.cpp would not load the file."""


class Server:
    def __init__(self, path, lora=None, embedding=False, context=512):
        p = xllamacpp.CommonParams()
        p.model.path = str(path)
        p.n_ctx = p.n_batch = p.n_ubatch = context
        p.n_parallel = 1
        p.warmup = False
        p.n_gpu_layers = 0
        p.cpuparams.n_threads = p.cpuparams_batch.n_threads = 2
        p.cache_type_k = p.cache_type_v = xllamacpp.ggml_type.GGML_TYPE_F32
        p.flash_attn_type = xllamacpp.llama_flash_attn_type.LLAMA_FLASH_ATTN_TYPE_DISABLED
        p.embedding = embedding
        p.verbosity = 0
        if lora is not None:
            adapter = xllamacpp.CommonAdapterLoraInfo()
            adapter.path, adapter.scale = str(lora), 1.0
            p.lora_adapters = [adapter]
        with Quiet():
            try:
                self.server = xllamacpp.Server(p)
            except Exception as e:
                raise Refused(str(e)) from e

    def __enter__(self):
        return self

    def __exit__(self, *_):
        with Quiet():
            del self.server

    def ask(self, path, body):
        request = urllib.request.Request(self.server.listening_address + path, json.dumps(body).encode(),
                                         {"Content-Type": "application/json"})
        try:
            with urllib.request.urlopen(request, timeout=300) as reply:
                return json.load(reply)
        except urllib.error.HTTPError as e:
            raise AssertionError(f"{path}: {e.code} {e.read()[:300]!r}") from e

    def tokenize(self, text, special=True):
        return self.ask("/tokenize", {"content": text, "add_special": special, "parse_special": False})["tokens"]

    def log_probs(self, ids, vocab):
        """Of the token after `ids`: log-probabilities, NaN where the server leaves one out. It leaves all out
        when what it draws is no whole character, so it is made to draw a letter; what it gives is from before."""
        letter = self.tokenize("a", special=False)[-1]
        reply = self.ask("/completion", {"prompt": ids, "n_predict": 1, "n_probs": vocab, "temperature": 0.0,
                                         "cache_prompt": False, "post_sampling_probs": False,
                                         "logit_bias": [[letter, 1000.0]]})
        out = np.full(vocab, np.nan)
        for item in reply["completion_probabilities"][0]["top_logprobs"]:
            out[item["id"]] = item["logprob"]
        return out


class Quiet:
    """What a library writes to the two standard streams goes to a file meanwhile."""

    def __enter__(self):
        sys.stdout.flush()
        sys.stderr.flush()
        self.file = tempfile.TemporaryFile()
        self.kept = os.dup(1), os.dup(2)
        os.dup2(self.file.fileno(), 1)
        os.dup2(self.file.fileno(), 2)
        return self

    def __exit__(self, *_):
        for kept, to in zip(self.kept, (1, 2)):
            os.dup2(kept, to)
            os.close(kept)
