#!/usr/bin/env python3
"""Data files that others wrote, as mbuyu reads them: Parquet of pyarrow, gzip, Zstandard.

    datafiles.py HELPER        HELPER: the built datafiles

Parquet in every way mbuyu says it reads: both page versions, each codec, dictionaries or not, small
pages, several row groups, nulls, lists of structs of lists; every row must be what pyarrow reads.
Files that were cut off or changed must give a sentence, and never a crash.
"""
import gzip
import json
import pathlib
import random
import subprocess
import sys
import tempfile

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


def check_bytes_columns(helper, tmp):
    path = tmp / "bytes.parquet"
    pq.write_table(pa.table({"image": pa.array([b"\xff\xd8", b"ab"], pa.binary()), "text": ["a", "b"]}), path)
    assert [json.loads(r) for r in rows_of(helper, path)] == [{"image": None, "text": "a"}, {"image": None, "text": "b"}]
    path = tmp / "unsigned.parquet"
    big = [0, 2**63 - 1, 2**63, 2**64 - 1]
    pq.write_table(pa.table({"n": pa.array(big, pa.uint64())}), path)
    got = [json.loads(r)["n"] for r in rows_of(helper, path)]
    assert got == [0, 2**63 - 1, float(2**63), float(2**64 - 1)] and isinstance(got[1], int), got
    path = tmp / "delta.parquet"
    pq.write_table(pa.table({"n": list(range(100))}), path, use_dictionary=False,
                   column_encoding={"n": "DELTA_BINARY_PACKED"})
    assert rows_of(helper, path)[-1] == (f"error: {path}: the column n is encoded as DELTA_BINARY_PACKED; PLAIN, "
                                         "dictionaries and RLE are read")
    path = tmp / "brotli.parquet"
    pq.write_table(pa.table({"n": [1]}), path, compression="brotli")
    assert "is packed with brotli" in rows_of(helper, path)[-1]


def check_damage(helper, tmp):
    whole = tmp / "whole.parquet"
    pq.write_table(table(60, 3), whole, compression="snappy", data_page_size=500)
    data = whole.read_bytes()
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
        check_bytes_columns(helper, tmp)
        print(f"150 changed Parquet files: {check_damage(helper, tmp)} gave a sentence, none a crash")
        print(f"{check_packed(helper, tmp)} packed files: all rows, and a sentence for what is cut off or changed")
    return 0


if __name__ == "__main__":
    sys.exit(main())
