#!/usr/bin/env python3
"""Model files read and written by mbuyu and by the safetensors and gguf packages: the same.

    formats.py HELPER [ROUNDS]        HELPER: the built tensor_files

1. Files that safetensors writes, of random types and shapes, read by us: names, shapes, bytes.
2. Files that we write from those, in one piece and in shards, read by safetensors.
3. Damaged safetensors: we accept what the package accepts, except what is listed in OURS.
4. Files that gguf.GGUFWriter writes, with every type of value and tensor: we read what
   gguf.GGUFReader reads.
5. Damaged GGUF: never a crash.
"""
import hashlib
import json
import os
import subprocess
import sys
import tempfile

import gguf
import numpy as np
import safetensors
from safetensors.numpy import load_file, save_file

DTYPES = {"F64": "<f8", "F32": "<f4", "F16": "<f2", "I64": "<i8", "I32": "<i4", "I16": "<i2",
          "I8": "i1", "U64": "<u8", "U32": "<u4", "U16": "<u2", "U8": "u1", "BOOL": "?"}
# Where we refuse on purpose what the package accepts: a part of our sentence for each reason.
OURS = ["is not supported", "dimensions, at most", "control character", "empty name",
        "at most 512", "nested deeper"]


class Helper:
    """The C program, kept running: a path in, a description out."""

    def __init__(self, path):
        self.path = path
        self.process = subprocess.Popen([path, "list"], stdin=subprocess.PIPE,
                                        stdout=subprocess.PIPE, text=True)

    def read(self, path):
        self.process.stdin.write(f"{path}\n")
        self.process.stdin.flush()
        line = self.process.stdout.readline()
        assert line, f"the helper ended with {self.process.wait()} on {path}"
        return json.loads(line)


def random_tensors(rng):
    tensors = {}
    for i in range(rng.integers(0, 12)):
        dtype = list(DTYPES)[rng.integers(len(DTYPES))]
        shape = tuple(int(n) for n in rng.integers(0, 7, rng.integers(0, 6)))
        raw = rng.integers(0, 256, 8 * int(np.prod(shape)) + 8, dtype=np.uint8)
        data = np.frombuffer(raw.tobytes(), DTYPES[dtype] if dtype != "BOOL" else "u1")
        data = data[: int(np.prod(shape))].reshape(shape)
        name = "".join(chr(rng.choice([97, 46, 95, 48, 34, 92, 0xE9, 0x20AC, 0x1F600, 47]))
                       for _ in range(rng.integers(1, 20))) + str(i)
        tensors[name] = np.asarray(data % 2 == 1) if dtype == "BOOL" else data
    return tensors


def check_tensors(ours, theirs):
    assert ours["status"] == "OK", ours
    got = {t["name"]: t for t in ours["tensors"]}
    assert got.keys() == theirs.keys(), (got.keys(), theirs.keys())
    for name, value in theirs.items():
        assert tuple(got[name]["shape"]) == value.shape, (name, got[name], value.shape)
        assert np.dtype(DTYPES[got[name]["dtype"]]) == value.dtype, (name, got[name], value.dtype)
        assert got[name]["sha256"] == hashlib.sha256(value.tobytes()).hexdigest(), name


def safetensors_both_ways(helper, folder, rng, rounds):
    shards = 0
    for i in range(rounds):
        tensors = random_tensors(rng)
        path = f"{folder}/theirs.safetensors"
        save_file(tensors, path, metadata={"format": "np"} if i % 2 else None)
        check_tensors(helper.read(path), tensors)
        for limit in (0, 300):
            out = f"{folder}/ours-{i}-{limit}"
            os.makedirs(out)
            subprocess.run([helper.path, "copy", path, out, str(limit)], check=True)
            again, index = {}, f"{out}/model.safetensors.index.json"
            if os.path.exists(index):
                parts = sorted(set(json.load(open(index))["weight_map"].values()))
                shards += len(parts)
            else:
                parts = ["model.safetensors"]
            for part in parts:
                again.update(load_file(f"{out}/{part}"))
                with safetensors.safe_open(f"{out}/{part}", "np") as f:
                    assert f.metadata() == {"format": "pt"}, f.metadata()
            check_tensors(helper.read(out), tensors)
            assert again.keys() == tensors.keys()
            for name, value in tensors.items():
                assert again[name].dtype == value.dtype and again[name].shape == value.shape
                assert again[name].tobytes() == value.tobytes(), name
    print(f"safetensors: {rounds} files both ways, {shards} shards: equal")


def damaged_safetensors(helper, folder, rng, rounds):
    path = f"{folder}/damaged.safetensors"
    letters = b'0123456789-.eE"\\{}[],: tfnu\xff\x00FIUB'
    accepted = purpose = 0
    for i in range(rounds):
        save_file(random_tensors(rng), path)
        raw = bytearray(open(path, "rb").read())
        header = 8 + int.from_bytes(raw[:8], "little")
        for _ in range(rng.integers(0, 3)):
            at = int(rng.integers(0, header))
            raw[at] = letters[rng.integers(len(letters))] if rng.random() < 0.7 else raw[at] ^ 1
        if rng.random() < 0.1:
            raw = raw[: rng.integers(0, len(raw) + 1)]
        if rng.random() < 0.1:
            raw += b"\0"
        open(path, "wb").write(raw)
        try:
            safetensors.deserialize(bytes(raw))
            theirs = True
        except Exception:
            theirs = False
        ours = helper.read(path)
        accepted += theirs
        if theirs and any(words in ours["sentence"] for words in OURS):
            purpose += 1
            continue
        assert theirs == (ours["status"] == "OK"), (i, theirs, ours, bytes(raw[:header]))
    print(f"safetensors: {rounds} damaged files, {accepted} accepted by both, {purpose} refused by "
          "us on purpose")


def write_gguf(path, rng, i):
    w = gguf.GGUFWriter(path, "test")
    w.add_uint8("a.u8", 200), w.add_int8("a.i8", -100), w.add_uint16("a.u16", 60000)
    w.add_int16("a.i16", -300), w.add_uint32("a.u32", 4000000000), w.add_int32("a.i32", -7)
    w.add_float32("a.f32", 0.1), w.add_bool("a.bool", True), w.add_uint64("a.u64", 2**62 + i)
    w.add_int64("a.i64", -(2**62)), w.add_float64("a.f64", 0.1), w.add_string("a.s", "h\u00e9\n")
    w.add_array("a.words", ["", "\u20ac", "x" * int(rng.integers(1, 300))])
    w.add_array("a.ints", [int(x) for x in rng.integers(-9, 9, 5)])
    w.add_array("a.reals", [float(x) for x in rng.normal(size=4)])
    w.add_array("a.bools", [True, False])
    w.add_array("a.bytes", bytes(range(1, 9)))
    if i % 3 == 1:
        w.add_custom_alignment(int(rng.choice([8, 64, 256])))
    for k in range(rng.integers(0, 8)):
        kind = ["F32", "F16", "I8", "I16", "I32", "I64", "F64", "Q4_0", "Q4_1", "Q5_0", "Q5_1",
                "Q8_0", "Q2_K", "Q3_K", "Q4_K", "Q5_K", "Q6_K", "BF16"][rng.integers(18)]
        q = gguf.GGMLQuantizationType[kind]
        block, size = gguf.GGML_QUANT_SIZES[q]
        shape = [int(n) for n in rng.integers(1, 5, rng.integers(1, 5))]
        shape[-1] *= block
        raw = rng.integers(0, 256, shape[:-1] + [shape[-1] // block * size], dtype=np.uint8)
        w.add_tensor(f"t{k}.{kind}", raw, raw_dtype=q)
    w.write_header_to_file(), w.write_kv_data_to_file(), w.write_tensors_to_file(), w.close()


def value_of(field):
    """A reader's field as the helper shows it: strings in hex digits."""
    parts = [field.parts[i] for i in field.data]
    kinds = [t.name for t in field.types]
    if kinds[-1] == "STRING":
        values = [bytes(p).hex() for p in parts]
    elif kinds[-1] == "BOOL":
        values = [bool(p[0]) if kinds[0] != "ARRAY" else int(p[0]) for p in parts]
    else:
        values = [p[0].item() for p in parts]
    return values if kinds[0] == "ARRAY" else values[0]


def check_gguf(ours, path):
    reader = gguf.GGUFReader(path)
    assert ours["status"] == "OK", ours
    for key, field in reader.fields.items():
        if key.startswith("GGUF."):
            continue
        want = value_of(field)
        assert ours["pairs"][key] == want, (key, ours["pairs"][key], want)
    assert len(ours["pairs"]) == sum(not k.startswith("GGUF.") for k in reader.fields)
    got = {t["name"]: t for t in ours["tensors"]}
    assert len(got) == len(reader.tensors)
    for t in reader.tensors:
        mine = got[t.name]
        assert mine["dtype"] == t.tensor_type.name, (mine, t.tensor_type)
        assert mine["shape"] == [int(n) for n in reversed(t.shape)], (mine, t.shape)
        assert mine["sha256"] == hashlib.sha256(t.data.tobytes()).hexdigest(), t.name
    return len(got)


def gguf_files(helper, folder, rng, rounds):
    path, tensors = f"{folder}/t.gguf", 0
    for i in range(rounds):
        write_gguf(path, rng, i)
        tensors += check_gguf(helper.read(path), path)
    print(f"gguf: {rounds} files, {tensors} tensors: equal")


def damaged_gguf(helper, folder, rng, rounds):
    path, accepted = f"{folder}/damaged.gguf", 0
    write_gguf(path, rng, 0)
    whole = open(path, "rb").read()
    for _ in range(rounds):
        raw = bytearray(whole)
        for _ in range(rng.integers(1, 4)):
            raw[rng.integers(0, min(len(raw), 1200))] = rng.choice([0, 1, 8, 9, 255, 127, 3])
        open(path, "wb").write(raw)
        accepted += helper.read(path)["status"] == "OK"
    print(f"gguf: {rounds} damaged files, {accepted} accepted, no crash")


def main():
    helper = Helper(sys.argv[1])
    rounds = int(sys.argv[2]) if len(sys.argv) > 2 else 40
    rng = np.random.default_rng(11)
    with tempfile.TemporaryDirectory() as folder:
        safetensors_both_ways(helper, folder, rng, rounds)
        damaged_safetensors(helper, folder, rng, rounds * 50)
        gguf_files(helper, folder, rng, rounds)
        damaged_gguf(helper, folder, rng, rounds * 50)
    for path in sys.argv[3:]:
        print(f"{path}: {check_gguf(helper.read(path), path)} tensors: equal")


if __name__ == "__main__":
    main()
