# environment: bundle
"""Bundles as other people's programs see them.

    bundle.py MBUYU TEST_DATA

bagit.py validates what tar and zstd unpack and what mbuyu unpacks; Python's tarfile finds nothing but
plain files without owner and time; frames taken by the seek table alone unpack with zstd to the bytes of
the tar, and their checksums are those of the table. That bagit.py would notice is tried, too.
"""

import io
import logging
import shutil
import struct
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

import bagit

logging.getLogger("bagit").setLevel(logging.CRITICAL)  # it says what is wrong by exceptions, too
MBUYU, DATA = sys.argv[1:3]


def zstd(packed):
    return subprocess.run(["zstd", "-dc"], input=packed, stdout=subprocess.PIPE, check=True).stdout


def make(work):
    rows = work / "in" / "rows"
    (rows / "maneno").mkdir(parents=True)
    for i, name in enumerate(["mbúyu.txt", "a b.txt", "n" * 140, "日本.jsonl"]):
        (rows / "maneno" / name).write_text(f"{i}\n" * (i * 50000 + 1))
    (rows / "empty").write_bytes(b"")
    (rows / "large.bin").write_bytes(bytes(range(256)) * 80000)  # 20 MB: three frames
    run = [MBUYU, "bundle", "--model", f"{DATA}/reference/llama", "--model", f"acme/t5={DATA}/reference/t5"]
    run += ["--data", str(rows), "--name", "peers", "--to", str(work / "out"), "--split", "400kB"]
    subprocess.run(run, check=True, stdout=subprocess.DEVNULL)
    return sorted((work / "out").glob("peers.mbuyu.tar.zst*"))


def check_tar(tar):
    names = []
    with tarfile.open(fileobj=io.BytesIO(tar)) as t:
        for m in t:
            assert m.isreg() and (m.uid, m.gid, m.mtime, m.mode) == (0, 0, 0, 0o644), m.name
            assert not m.uname and not m.gname, m.name
            names.append(m.name)
    assert names[:5] == ["bagit.txt", "bag-info.txt", "manifest-sha256.txt", "payload-sizes.txt", "tagmanifest-sha256.txt"]
    assert names[5:] == sorted(names[5:], key=lambda s: s.encode()), names
    return len(names)


def check_table(archive, tar):
    n, flags, magic = struct.unpack("<IBI", archive[-9:])
    assert (flags, magic) == (0x80, 0x8F92EAB1)
    start = len(archive) - 9 - 12 * n - 8
    assert struct.unpack("<II", archive[start : start + 8]) == (0x184D2A5E, 12 * n + 9)
    at = plain = 0
    for i in range(n):
        packed, size, checksum = struct.unpack_from("<III", archive, start + 8 + 12 * i)
        frame = archive[at : at + packed]
        assert size <= 8 << 20 and zstd(frame) == tar[plain : plain + size], i
        assert struct.unpack("<I", frame[-4:])[0] == checksum, i
        at, plain = at + packed, plain + size
    assert (at, plain) == (start, len(tar))
    return n


def check_bag(folder):
    bag = bagit.Bag(str(folder))
    bag.validate()
    assert bag.info["Payload-Oxum"] == "%d.%d" % (
        sum(p.stat().st_size for p in (folder / "data").rglob("*") if p.is_file()),
        sum(1 for p in (folder / "data").rglob("*") if p.is_file()),
    )
    return bag


def check_that_it_would_notice(folder):
    spoiled = folder.with_name("spoiled")
    shutil.copytree(folder, spoiled)
    large = spoiled / "data/datasets/local/rows/large.bin"
    data = bytearray(large.read_bytes())
    data[12345678] ^= 1
    large.write_bytes(data)
    try:
        bagit.Bag(str(spoiled)).validate()
    except bagit.BagValidationError:
        return
    raise AssertionError("bagit.py does not notice a flipped bit")


def main():
    with tempfile.TemporaryDirectory() as name:
        work = Path(name)
        parts = make(work)
        archive = b"".join(p.read_bytes() for p in parts)
        tar = zstd(archive)
        files = check_tar(tar)
        frames = check_table(archive, tar)
        with tarfile.open(fileobj=io.BytesIO(tar)) as t:
            t.extractall(work / "by-tar", filter="data")
        check_bag(work / "by-tar")
        subprocess.run([MBUYU, "unbundle", str(work / "out/peers.sha256"), "--to", str(work / "by-mbuyu")], check=True,
                       stdout=subprocess.DEVNULL)
        bag = check_bag(work / "by-mbuyu")
        same = subprocess.run(["diff", "-r", work / "by-tar", work / "by-mbuyu"])
        assert same.returncode == 0
        check_that_it_would_notice(work / "by-mbuyu")
        contents = bag.info["Mbuyu-Content"]
        assert [c.split()[0] for c in contents] == ["datasets/local/rows", "models/acme/t5", "models/local/llama"], contents
        print(f"bagit {bagit.VERSION}: valid; {len(parts)} parts, {frames} frames, {files} files")


main()
