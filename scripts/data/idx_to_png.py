#!/usr/bin/env python3
"""Turns MNIST-like files (idx3-ubyte, also .gz) into folders of PNGs that mbuyu and others read.

idx_to_png.py FROM TO [--names NAME,NAME,...] [--limit N]

FROM holds train-images-idx3-ubyte[.gz], train-labels-idx1-ubyte[.gz], t10k-images-... and t10k-labels-...;
TO gets train/CLASS/00000.png and test/CLASS/00000.png. Needs nothing but Python.
"""

import argparse
import gzip
import pathlib
import struct
import sys
import zlib

FASHION = (
    "t-shirt,trouser,pullover,dress,coat,sandal,shirt,sneaker,bag,ankle-boot"  # of Fashion-MNIST
)


def read_idx(folder, name, dims):
    for path in (folder / name, folder / (name + ".gz")):
        if path.exists():
            data = gzip.open(path).read() if path.suffix == ".gz" else path.read_bytes()
            break
    else:
        sys.exit(f"{folder}: there is no {name} or {name}.gz")
    if len(data) < 4 + 4 * dims or data[:4] != bytes([0, 0, 8, dims]):
        sys.exit(f"{path}: not an idx file of bytes in {dims} dimensions")
    shape = struct.unpack(f">{dims}I", data[4 : 4 + 4 * dims])
    body = data[4 + 4 * dims :]
    n = 1
    for side in shape:
        n *= side
    if len(body) != n:
        sys.exit(f"{path}: {len(body)} bytes of data, the header says {n}")
    return shape, body


def chunk(kind, data):
    body = kind + data
    return struct.pack(">I", len(data)) + body + struct.pack(">I", zlib.crc32(body))


def png(pixels, height, width):
    rows = b"".join(b"\0" + pixels[y * width : (y + 1) * width] for y in range(height))
    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + chunk(b"IDAT", zlib.compress(rows, 6))
        + chunk(b"IEND", b"")
    )


def write_split(source, prefix, target, names, limit):
    (count, height, width), pixels = read_idx(source, f"{prefix}-images-idx3-ubyte", 3)
    (labels_count,), labels = read_idx(source, f"{prefix}-labels-idx1-ubyte", 1)
    if count != labels_count:
        sys.exit(f"{source}: {count} images and {labels_count} labels of {prefix}")
    for name in names:
        (target / name).mkdir(parents=True, exist_ok=True)
    count = min(count, limit or count)
    size = height * width
    for i in range(count):
        if labels[i] >= len(names):
            sys.exit(f"{source}: label {labels[i]} and {len(names)} names")
        file = target / names[labels[i]] / f"{i:05d}.png"
        file.write_bytes(png(pixels[i * size : (i + 1) * size], height, width))
    print(f"{target}: {count} pictures of {height} by {width} pixels")


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("source", type=pathlib.Path)
    parser.add_argument("target", type=pathlib.Path)
    parser.add_argument("--names", default=FASHION, help="of the classes, in order")
    parser.add_argument("--limit", type=int, default=0, help="pictures of each split; 0: all")
    args = parser.parse_args()
    names = args.names.split(",")
    write_split(args.source, "train", args.target / "train", names, args.limit)
    write_split(args.source, "t10k", args.target / "test", names, args.limit)


if __name__ == "__main__":
    main()
