#!/usr/bin/env python3
"""Data files that others wrote, as mbuyu reads them: Parquet of pyarrow, HDF5 of h5py, gzip, Zstandard.

    datafiles.py HELPER        HELPER: the built datafiles

Parquet in every way mbuyu says it reads: both page versions, each codec, dictionaries or not, small
pages, several row groups, nulls, lists of structs of lists; every row must be what pyarrow reads.
HDF5 in every type a column may have, stored in every way h5py has, must be what h5py reads. Files that
were cut off or changed must give a sentence, and never a crash.
"""
import gzip
import json
import pathlib
import random
import struct
import subprocess
import sys
import tempfile

import h5py
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import zstandard


def rows_of(helper, path):
    done = subprocess.run([helper, str(path)], capture_output=True)
    assert done.returncode == 0, (path, done.returncode, done.stderr[-2000:])
    return done.stdout.decode(errors="replace").split("\n")[:-1]


def table(n, seed):
    r = random.Random(seed)
    words = ["maji", "mti", "", "habari za asubuhi \u4f60\u597d \U0001f333", 'quo"te\\ \n\t', "x" * 50]
    some = lambda make: None if r.random() < .15 else make()
    text = lambda: r.choice(words) + str(r.randint(0, 30))
    rows = [{
        "text": some(text), "label": some(lambda: r.randint(0, 3)), "big": r.randint(-2**62, 2**62),
        "small": some(lambda: r.randint(-2**31, 2**31 - 1)), "real": some(lambda: r.uniform(-1, 1) * 10**r.randint(-9, 9)),
        "flag": some(lambda: r.random() < .5), "ids": some(lambda: [r.randint(0, 99) for _ in range(r.randint(0, 5))]),
        "words": some(lambda: [some(text) for _ in range(r.randint(0, 4))]),
        "messages": some(lambda: [{"role": r.choice(["user", "assistant"]), "content": some(text)}
                                  for _ in range(r.randint(0, 4))]),
        "nested": some(lambda: {"a": some(lambda: [[r.randint(0, 9) for _ in range(r.randint(0, 3))]
                                                  for _ in range(r.randint(0, 3))]),
                                "b": {"c": some(text)}}),
        "single": some(lambda: [{"only": some(text)} for _ in range(r.randint(0, 3))]),
    } for _ in range(n)]
    struct = pa.struct([("role", pa.string()), ("content", pa.string())])
    schema = pa.schema([
        ("text", pa.string()), ("label", pa.int64()), pa.field("big", pa.int64(), nullable=False), ("small", pa.int32()),
        ("real", pa.float64()), ("flag", pa.bool_()), ("ids", pa.list_(pa.int64())), ("words", pa.list_(pa.string())),
        ("messages", pa.list_(struct)),
        ("nested", pa.struct([("a", pa.list_(pa.list_(pa.int64()))), ("b", pa.struct([("c", pa.string())]))])),
        ("single", pa.list_(pa.struct([("only", pa.string())])))])
    return pa.Table.from_pylist(rows, schema=schema)


def check_parquet(helper, tmp):
    n = 0
    for rows, group in ((0, 10), (1, 10), (700, 300), (5000, 5000)):
        t = table(rows, rows)
        for codec in ("none", "snappy", "gzip", "zstd"):
            for version in ("1.0", "2.0"):
                for dictionary in (True, False):
                    path = tmp / f"{rows}-{codec}-{version}-{dictionary}.parquet"
                    pq.write_table(t, path, compression=codec, data_page_version=version, use_dictionary=dictionary,
                                   row_group_size=group, data_page_size=3000)
                    got = [json.loads(line) for line in rows_of(helper, path)]
                    assert got == pq.read_table(path).to_pylist(), path
                    n += 1
    return n


ENCODINGS = { # of a type all that its values may have besides PLAIN and a dictionary
    pa.int32(): ["DELTA_BINARY_PACKED", "BYTE_STREAM_SPLIT"], pa.int64(): ["DELTA_BINARY_PACKED", "BYTE_STREAM_SPLIT"],
    pa.float32(): ["BYTE_STREAM_SPLIT"], pa.float64(): ["BYTE_STREAM_SPLIT"], pa.bool_(): ["RLE"],
    pa.string(): ["DELTA_LENGTH_BYTE_ARRAY", "DELTA_BYTE_ARRAY"], pa.binary(4): ["BYTE_STREAM_SPLIT", "DELTA_BYTE_ARRAY"],
}


def encoded(n, nulls, seed):
    """A column for every type and encoding, and how each is to be encoded."""
    r, arrays, how = random.Random(seed), {}, {}
    integers = lambda bits: [
        lambda i: r.randint(-2**(bits - 1), 2**(bits - 1) - 1), # differences that overflow
        lambda i: i * 3, lambda i: 7, lambda i: r.randint(0, 2**r.randint(0, bits - 2))]
    texts = lambda i: r.choice(["", "maji", "maji safi \u4f60", "maji safi sana " * r.randint(0, 9)]) + str(i // 3)
    makers = {pa.int32(): integers(32), pa.int64(): integers(64), pa.float32(): [lambda i: r.randint(-99, 99) / 8],
              pa.float64(): [lambda i: r.uniform(-1, 1)], pa.bool_(): [lambda i: r.random() < .3, lambda i: i < n // 2],
              pa.string(): [texts], pa.binary(4): [lambda i: b"%04d" % (i % 999)]}
    for kind, encodings in ENCODINGS.items():
        for encoding in encodings:
            for k, make in enumerate(makers[kind]):
                name = f"{kind}-{encoding}-{k}"
                arrays[name] = pa.array([None if r.random() < nulls else make(i) for i in range(n)], kind)
                how[name] = encoding
    arrays["list"] = pa.array([[r.randint(0, 9) for _ in range(r.randint(0, 4))] for _ in range(n)], pa.list_(pa.int64()))
    how["list.list.element"] = "DELTA_BINARY_PACKED"
    return pa.table(arrays), how


def write_encoded(path, n, nulls, codec="none", version="1.0", page=3000):
    t, how = encoded(n, nulls, n)
    pq.write_table(t, path, compression=codec, data_page_version=version, use_dictionary=False, column_encoding=how,
                   row_group_size=2000, data_page_size=page)
    meta = pq.ParquetFile(path).metadata.row_group(0) if n else None
    for i in range(meta.num_columns if n else 0):
        column = meta.column(i)
        assert how[column.path_in_schema] in column.encodings, (column.path_in_schema, column.encodings)
    return t


def check_encodings(helper, tmp):
    n, path = 0, tmp / "encoded.parquet"
    for rows in (0, 1, 33, 3000):
        for nulls in (0, .2, 1):
            for version in ("1.0", "2.0"):
                for codec in ("none", "snappy", "zstd") if rows == 3000 else ("gzip",):
                    t = write_encoded(path, rows, nulls, codec, version)
                    got = [json.loads(line) for line in rows_of(helper, path)]
                    want = [{k: None if isinstance(v, bytes) else v for k, v in row.items()} for row in t.to_pylist()]
                    assert got == want, (rows, nulls, version, codec)
                    n += 1
    return n


def check_bytes_columns(helper, tmp):
    path = tmp / "bytes.parquet"
    pq.write_table(pa.table({"image": pa.array([b"\xff\xd8", b"ab"], pa.binary()), "text": ["a", "b"]}), path)
    assert [json.loads(r) for r in rows_of(helper, path)] == [{"image": None, "text": "a"}, {"image": None, "text": "b"}]
    path = tmp / "unsigned.parquet"
    big = [0, 2**63 - 1, 2**63, 2**64 - 1]
    pq.write_table(pa.table({"n": pa.array(big, pa.uint64())}), path)
    got = [json.loads(r)["n"] for r in rows_of(helper, path)]
    assert got == [0, 2**63 - 1, float(2**63), float(2**64 - 1)] and isinstance(got[1], int), got
    path = tmp / "brotli.parquet"
    pq.write_table(pa.table({"n": [1]}), path, compression="brotli")
    assert "is packed with brotli" in rows_of(helper, path)[-1]


def check_damage(helper, tmp):
    whole = tmp / "whole.parquet"
    pq.write_table(table(60, 3), whole, compression="snappy", data_page_size=500)
    said = damaged(helper, tmp, whole.read_bytes())
    write_encoded(whole, 60, .1, page=500)
    return said + damaged(helper, tmp, whole.read_bytes())


def damaged(helper, tmp, data):
    r, said = random.Random(7), 0
    for i in range(150):
        changed = bytearray(data)
        if i < 30:
            del changed[r.randint(0, len(changed) - 1):]
        else:
            # mostly the footer, where sizes and counts are
            for _ in range(r.randint(1, 4)):
                at = r.randint(len(data) * 2 // 3, len(data) - 9) if i % 3 else r.randint(0, len(data) - 1)
                changed[at] = r.randint(0, 255)
        path = tmp / "changed.parquet"
        path.write_bytes(changed)
        lines = rows_of(helper, path)
        said += bool(lines) and lines[-1].startswith("error: ")
    return said


def columns(n, seed):
    """Columns by name: the dataset's type, its values, and what a row of it is in JSON."""
    r = np.random.default_rng(seed)
    words = ["maji", "", "habari za asubuhi \u4f60\u597d \U0001f333", 'quo"te\\ \n\t\x7f', "x" * 3000]
    texts = [words[i] for i in r.integers(0, len(words), n)]
    short = [t[:9] for t in texts]
    fixed = np.array([t.encode() for t in short], h5py.string_dtype("utf-8", 40))
    lists = [r.integers(-2**40, 2**40, k) for k in r.integers(0, 40, n)]
    reals = [r.normal(size=k).astype("f4") for k in r.integers(0, 5, n)]
    flags = r.random(n) < .5
    kinds = h5py.enum_dtype({"NEGATIVE": -1, "NEUTRAL": 0, "POSITIVE": 1}, basetype="i2")
    signs = r.integers(-1, 2, n)
    ragged = np.empty(n, object)
    ragged[:] = lists
    floats = np.empty(n, object)
    floats[:] = reals
    found = {
        "text": (h5py.string_dtype(), texts, texts), "ascii": (h5py.string_dtype("ascii"), ["a"] * n, ["a"] * n),
        "fixed": (h5py.string_dtype("utf-8", 40), fixed, short), "flag": (bool, flags, flags.tolist()),
        "sign": (kinds, signs, [["NEGATIVE", "NEUTRAL", "POSITIVE"][i + 1] for i in signs]),
        "ids": (h5py.vlen_dtype("i8"), ragged, [v.tolist() for v in lists]),
        "scores": (h5py.vlen_dtype("f4"), floats, [[float(x) for x in v] for v in reals]),
        "square": ("<i4", r.integers(-9, 9, (n, 7)), None), "words": (h5py.string_dtype(), [texts[i:i + 1] * 2 for i in range(n)], None),
        "u8": ("u8", r.integers(0, 2**63, n, dtype="u8"), None),
    }
    for kind in ("<i1", ">i2", "<i4", ">i8", "<u1", ">u2", "<u4", "<f2", ">f4", "<f8"):
        values = r.normal(size=n) if kind[1] == "f" else r.integers(0, 100, n)
        found[kind.strip("<>")+"x"] = (kind, values.astype(kind), None)
    return {name: (kind, v, json_rows if json_rows is not None else np.asarray(v).tolist())
            for name, (kind, v, json_rows) in found.items()}


def write_columns(group, found, **how):
    for name, (kind, values, _) in found.items():
        one = {k: v + v if isinstance(v, tuple) and np.ndim(values) == 2 else v for k, v in how.items()}
        if np.dtype(kind).hasobject: # what is of variable length lies elsewhere: a checksum would not be of it
            one.pop("fletcher32", None)
        if len(values):
            group.create_dataset(name, data=values, dtype=kind, **one)
        else:
            group.create_dataset(name, (0, 7) if name == "square" else (0, 2) if name == "words" else (0,), dtype=kind)


def check_hdf5(helper, tmp):
    ways = [{}, {"chunks": True}, {"chunks": True, "compression": "gzip", "shuffle": True}, {"chunks": True, "fletcher32": True},
            {"chunks": (7,), "maxshape": (None,)}]
    n = 0
    for rows in (0, 1, 3000):
        for libver in ("earliest", ("v110", "v110")):
            for way in ways:
                path = tmp / f"{rows}-{n}.h5"
                found = columns(rows, rows + n)
                with h5py.File(path, "w", libver=libver) as f:
                    write_columns(f, found, **way)
                    write_columns(f.create_group("other/inner"), found, **way)
                want = [{name: c[2][i] for name, c in found.items()} for i in range(rows)]
                for group in ("", "/other/inner"):
                    got = [json.loads(line) for line in rows_of(helper, str(path) + group)]
                    assert got == want, (path, group, got[:1], want[:1])
                n += 1
    with h5py.File(tmp / "large.h5", "w") as f: # one chunk, a row of 12 MB, much of variable length
        f.create_dataset("text", data=["y" * 3000000 * (i % 5) for i in range(40)], dtype=h5py.string_dtype())
        f.create_dataset("label", data=np.arange(40), chunks=(40,))
        f.create_dataset("real", data=np.array([np.nan, np.inf, 1] * 13 + [0.1]))
    got = [json.loads(line) for line in rows_of(helper, tmp / "large.h5")]
    assert [(len(g["text"]), g["label"]) for g in got] == [(3000000 * (i % 5), i) for i in range(40)]
    assert [g["real"] for g in got[:3]] == [None, None, 1] and got[39]["real"] == 0.1
    return n


def check_hdf5_refused(helper, tmp):
    path = tmp / "refused.h5"
    kinds = {
        "compound": (np.zeros(2, [("a", "i4"), ("b", "f4")]), "'/x' holds compounds; a column has integers, reals, "
                     "booleans, texts or lists of one of these"),
        "opaque": (np.zeros(2, "V5"), "'/x' holds opaque bytes; a column has"),
        "three": (np.zeros((2, 3, 4)), "'/x' has 3 dimensions; a column has 1, or 2 for lists of one length"),
        "scalar": (np.float32(1), "'/x' has 0 dimensions; a column has 1"),
        "unequal": (np.zeros(3), "the columns do not have the same rows: text has 2, x 3"),
    }
    for name, (value, sentence) in kinds.items():
        with h5py.File(path, "w") as f:
            f["text"] = ["a", "b"]
            f["x"] = value
        got = rows_of(helper, path)
        assert got[-1].startswith(f"error: {path}: {sentence}"), (name, got)
    outside = tmp / "outside.bin"
    outside.write_bytes(np.arange(2).tobytes())
    with h5py.File(tmp / "target.h5", "w") as f:
        f["x"] = [1, 2]
    for make, sentence in (
            (lambda f: f.create_dataset("x", (2,), "i8", external=[(str(outside), 0, 16)]),
             "'/x' has its data in other files, which are not opened"),
            (lambda f: f.create_virtual_dataset("x", vds_of(tmp / "target.h5")), "'/x' has its data in other files, which are not opened"),
            (lambda f: f.__setitem__("x", h5py.ExternalLink(tmp / "target.h5", "/x")),
             "'x' in the group / is a link to somewhere else; links are not followed"),
            (lambda f: f.__setitem__("x", h5py.SoftLink("/text")), "'x' in the group / is a link to somewhere else"),
            (lambda f: f.__delitem__("text"), "the group / has no datasets, which would be the columns")):
        with h5py.File(path, "w") as f:
            f["text"] = ["a", "b"]
            make(f)
        got = rows_of(helper, path)
        assert got[-1].startswith(f"error: {path}: {sentence}"), got
    with h5py.File(tmp / "target.h5", "a") as f:
        f["deep/text"] = ["a", "b"]
    with h5py.File(path, "w") as f:
        f["here/text"] = ["a", "b"]
        f["soft"] = h5py.SoftLink("/here")
        f["away"] = h5py.ExternalLink(tmp / "target.h5", "/")
        f["inner/away"] = h5py.ExternalLink(tmp / "target.h5", "/deep")
    assert len(rows_of(helper, f"{path}/here")) == 2
    for group in ("/soft", "/away", "/away/deep", "/inner/away"):
        got = rows_of(helper, str(path) + group)
        assert got == [f"error: {path}: there is no group {group}; links are not followed"], got
    with h5py.File(path, "w", libver="earliest") as f: # the bytes of a chunk, 2^64, are 0 in 64 bits
        f.create_dataset("x", (4, 2), "S16", maxshape=(None, None), chunks=(1001, 1003))
    shape, huge = (struct.pack("<III", *sizes, 16) for sizes in ((1001, 1003), (1 << 30, 1 << 30)))
    assert path.read_bytes().count(shape) > 0
    path.write_bytes(path.read_bytes().replace(shape, huge))
    assert rows_of(helper, path) == [f"error: {path}: '/x' has chunks of more than 1024 MiB"], rows_of(helper, path)
    with h5py.File(path, "w") as f:
        f.create_dataset("x", data=[1, 2], compression="lzf") # a filter that h5py brings along
    assert rows_of(helper, path)[0].startswith(f"error: {path}: cannot read '/x' from row 1 on: HDF5 says: "), rows_of(helper, path)
    with h5py.File(path, "w") as f:
        f.create_dataset("text", data=["z" * (65 << 20)], dtype=h5py.string_dtype())
    assert rows_of(helper, path) == [f"error: {path}: row 1 of '/text' takes more than 64 MiB"]
    return len(kinds) + 12


def vds_of(path):
    layout = h5py.VirtualLayout((2,), "i8")
    layout[:] = h5py.VirtualSource(path, "x", (2,))
    return layout


def check_hdf5_damage(helper, tmp):
    """Cut off: always a sentence. Changed: none crashes where nothing is of variable length; HDF5 1.10 itself
    reads beyond its heap of texts when an index in it is wrong, and that heap has no checksum."""
    def attempt(changed):
        path = tmp / "changed.h5"
        path.write_bytes(changed)
        lines = rows_of(helper, path)
        return bool(lines) and lines[-1].startswith("error: ")

    found, r = columns(400, 5), random.Random(7)
    whole = tmp / "whole.h5"
    with h5py.File(whole, "w", libver=("v110", "v110")) as f:
        write_columns(f, found, chunks=True, fletcher32=True)
    data = whole.read_bytes()
    for _ in range(40):
        length = r.randint(0, len(data) - 1)
        assert attempt(data[:length]), length
    with h5py.File(whole, "w", libver=("v110", "v110")) as f:
        write_columns(f, {k: v for k, v in found.items() if not np.dtype(v[0]).hasobject}, chunks=True, fletcher32=True)
    data, said = whole.read_bytes(), 0
    for _ in range(100):
        changed = bytearray(data)
        for _ in range(r.randint(1, 4)):
            changed[r.randint(0, len(data) - 1)] = r.randint(0, 255)
        said += attempt(changed)
    return said


def check_packed(helper, tmp):
    lines = [json.dumps({"text": f"row {i} \u00e9 " + "z" * (i % 90)}, ensure_ascii=False) for i in range(20000)]
    text = ("\n".join(lines) + "\n").encode()
    half = text.index(b"\n", len(text) // 2) + 1
    packs = {
        "a.jsonl.gz": gzip.compress(text), "b.jsonl.gz": gzip.compress(text[:half]) + gzip.compress(text[half:]),
        "c.jsonl.zst": zstandard.ZstdCompressor(3).compress(text),
        "d.jsonl.zst": zstandard.ZstdCompressor(19).compress(text[:half]) + zstandard.ZstdCompressor(1).compress(text[half:]),
        "e.jsonl": text,
    }
    for name, data in packs.items():
        path = tmp / name
        path.write_bytes(data)
        assert rows_of(helper, path) == lines, name
        if name.endswith("l"):
            continue
        path.write_bytes(data[:len(data) - 9])
        assert rows_of(helper, path)[-1].startswith(f"error: {path}: "), name
        path.write_bytes(data[:len(data) // 3] + b"?" * 99 + data[len(data) // 3 + 99:])
        assert rows_of(helper, path)[-1].startswith(f"error: {path}"), name
        path.write_bytes(b"plain text\n")
        assert "is not a" in rows_of(helper, path)[-1], name
    return len(packs)


def main():
    helper = sys.argv[1]
    with tempfile.TemporaryDirectory() as folder:
        tmp = pathlib.Path(folder)
        print(f"{check_parquet(helper, tmp)} Parquet files: all rows as pyarrow reads them")
        print(f"{check_encodings(helper, tmp)} with every newer encoding")
        check_bytes_columns(helper, tmp)
        print(f"300 changed Parquet files: {check_damage(helper, tmp)} gave a sentence, none a crash")
        print(f"{check_hdf5(helper, tmp)} HDF5 files: all rows as h5py wrote them")
        print(f"{check_hdf5_refused(helper, tmp)} HDF5 files refused, each with its sentence")
        print(f"40 HDF5 files cut off: all gave a sentence; 100 changed: {check_hdf5_damage(helper, tmp)} did, none crashed")
        print(f"{check_packed(helper, tmp)} packed files: all rows, and a sentence for what is cut off or changed")
    return 0


if __name__ == "__main__":
    sys.exit(main())
