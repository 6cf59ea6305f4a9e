#!/usr/bin/env python3
"""Pictures before a model: ours against transformers' image processors, on odd files of every kind.

images.py HELPER

HELPER is the program made of image_pixels.c. Pictures are opened as transformers' load_image does it:
turned as EXIF says, then convert("RGB"); where a processor says do_convert_rgb, transparency is laid
on white instead. Bound: 1e-4 after rescaling and normalising. A 16-bit grey picture is compared with
its high byte, because PIL's convert clips such pictures at 255.
"""

import json
import pathlib
import subprocess
import sys
import tempfile

import numpy as np
from PIL import Image, ImageOps
from transformers import (
    DeiTImageProcessor,
    DeiTImageProcessorPil,
    ViTImageProcessor,
    ViTImageProcessorPil,
)

BOUND = 1e-4
VIT, DEIT = (ViTImageProcessor, ViTImageProcessorPil), (DeiTImageProcessor, DeiTImageProcessorPil)


def square(n):
    return dict(height=n, width=n)


# name: processor classes, their keywords, channels
PROCESSORS = {
    "bilinear": (VIT, dict(size=square(32)), 3),
    "bilinear, wide": (VIT, dict(size=dict(height=24, width=40)), 3),
    "bicubic, cropped": (DEIT, dict(size=square(40), crop_size=square(32)), 3),
    "lanczos": (VIT, dict(size=square(21), resample=1), 3),
    "nearest": (VIT, dict(size=square(19), resample=0), 3),
    "shortest edge, cropped": (
        VIT,
        dict(
            size=dict(shortest_edge=30),
            resample=3,
            do_center_crop=True,
            crop_size=dict(height=25, width=28),
        ),
        3,
    ),
    "only cropped, padded": (
        VIT,
        dict(do_resize=False, do_center_crop=True, crop_size=dict(height=45, width=51)),
        3,
    ),
    "on white": (VIT, dict(size=square(32), do_convert_rgb=True), 3),
    "not normalised": (VIT, dict(size=square(32), do_normalize=False), 3),
    "not rescaled": (VIT, dict(size=square(32), do_rescale=False), 3),
    "own statistics": (
        VIT,
        dict(size=square(32), image_mean=[0.485, 0.456, 0.406], image_std=[0.229, 0.224, 0.225]),
        3,
    ),
    "grey": (VIT, dict(size=square(28), image_mean=[0.286], image_std=[0.353]), 1),
}


def scene(height, width, channels, seed=0):
    """Edges, ramps and noise."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[0:height, 0:width]
    planes = []
    for c in range(channels):
        plane = 128 + 100 * np.sin((c + 1) * x / 5.0) * np.cos(y / (3.0 + c))
        plane[(x // 7 + y // 5 + c) % 3 == 0] = 20 * c
        planes.append(plane + rng.normal(0, 12, plane.shape))
    return np.clip(np.stack(planes, -1), 0, 255).astype(np.uint8)


def write_pictures(folder):
    """Name and path of every picture."""
    made = []

    def save(name, image, **how):
        path = folder / name
        image.save(path, **how)
        made.append(path)

    rgb = Image.fromarray(scene(61, 83, 3))
    exif = Image.Exif()
    save("rgb.png", rgb)
    save("one.png", Image.fromarray(scene(1, 1, 3)))
    save("one.jpg", Image.fromarray(scene(1, 1, 3)))
    save("line.png", Image.fromarray(scene(1, 97, 3)))
    save("column.jpg", Image.fromarray(scene(113, 2, 3)), quality=90)
    save("same.png", Image.fromarray(scene(32, 32, 3)))
    save("narrow.png", Image.fromarray(scene(32, 90, 3)))
    save("small.png", Image.fromarray(scene(5, 7, 3)))
    save("large.jpg", Image.fromarray(scene(701, 503, 3)), quality=85)
    save("grey.png", Image.fromarray(scene(50, 41, 1)[..., 0]))
    save("grey.jpg", Image.fromarray(scene(50, 41, 1)[..., 0]), quality=70)
    save("grey_alpha.png", Image.fromarray(scene(33, 47, 2)))
    save("rgba.png", Image.fromarray(scene(49, 49, 4)))
    save("palette.png", rgb.quantize(37))
    few = rgb.quantize(5)
    save("palette_4_bits.png", few, bits=4)
    save("palette_clear.png", few, transparency=2)
    save("two_levels.png", rgb.convert("1"))
    save("grey_16.png", Image.fromarray((scene(40, 60, 1)[..., 0].astype(np.uint16) << 8) + 77))
    save("high_quality.jpg", rgb, quality=98, subsampling=0)
    save("subsampled.jpg", rgb, quality=60, subsampling=2)
    save("progressive.jpg", rgb, quality=80, progressive=True)
    save("inks.jpg", rgb.convert("CMYK"), quality=90)
    save("with space.PNG", rgb)
    for turn in range(2, 9):
        exif[274] = turn
        save(f"turned_{turn}.jpg", rgb, quality=90, exif=exif)
    save("turned.png", rgb, exif=exif)
    return made


def write_rgb16(folder):
    """PIL writes no 16-bit colour; the file is made by hand."""
    import struct
    import zlib

    high = scene(37, 29, 3)
    low = scene(37, 29, 3, seed=9)
    rows = np.stack([high, low], -1).reshape(37, -1)
    raw = b"".join(b"\0" + row.tobytes() for row in rows)

    def chunk(kind, data):
        body = kind + data
        return struct.pack(">I", len(data)) + body + struct.pack(">I", zlib.crc32(body))

    path = folder / "colour_16.png"
    path.write_bytes(
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", struct.pack(">IIBBBBB", 29, 37, 16, 2, 0, 0, 0))
        + chunk(b"IDAT", zlib.compress(raw))
        + chunk(b"IEND", b"")
    )
    return path


def opened(path, convert):
    image = ImageOps.exif_transpose(Image.open(path))
    if image.mode == "I;16":
        image = Image.fromarray((np.array(image) >> 8).astype(np.uint8))
    return image if convert is None else image.convert(convert)


def output_size(keywords):
    size = keywords.get("crop_size", keywords.get("size"))
    return size["height"], size["width"]


def compare(helper, folder, name, way, pictures):
    classes, keywords, channels = PROCESSORS[name]
    processor = classes[way == "pil"](**keywords)
    (folder / "preprocessor_config.json").write_text(json.dumps(processor.to_dict()))
    height, width = output_size(keywords)
    convert = {1: "L", 3: None if keywords.get("do_convert_rgb") else "RGB"}[channels]
    out = subprocess.run(
        [helper, folder, way, str(height), str(width), str(channels), *pictures],
        check=True,
        stdout=subprocess.PIPE,
    ).stdout
    ours = np.frombuffer(out, np.float32).reshape(len(pictures), channels, height, width)
    worst, where = 0.0, ""
    for path, mine in zip(pictures, ours):
        theirs = processor(opened(path, convert), return_tensors="np")["pixel_values"][0]
        gap = np.abs(mine.astype(np.float64) - theirs).max()
        if gap > worst:
            worst, where = gap, path.name
    good = worst <= BOUND
    print(
        f"{name:24s} {way:12s} {len(pictures)} pictures, worst {worst:.2g} {where}"
        + ("" if good else "  FAIL")
    )
    return good


def main():
    helper = sys.argv[1]
    with tempfile.TemporaryDirectory() as scratch:
        folder = pathlib.Path(scratch)
        pictures = [*write_pictures(folder), write_rgb16(folder)]
        good = [
            compare(helper, folder, name, way, pictures)
            for name in PROCESSORS
            for way in ("torchvision", "pil")
        ]
    print("agrees" if all(good) else "differs")
    return 0 if all(good) else 1


if __name__ == "__main__":
    sys.exit(main())
