#!/usr/bin/env python3
"""Small made-up data in place of a recipe's: stand_in.py KIND PATH

Enough rows for a few steps and an evaluation, of the kind a task wants:

    texts        {"text"}                              pairs        {"prompt", "completion"}
    chat         {"messages"}                          classes      {"text", "label"}
    reviews      a table of review and sentiment       alpaca       {"instruction", "input", "output"}
    tags         {"tokens", "ner_tags"}                questions    SQuAD's {"question", "context", "answers"}
    sentences    {"sentence1", "sentence2"}            translation  {"translation": {"en", "sw"}}
    images       folders of PNG files by class         sounds       WAV files with metadata.jsonl
    whisper      a model folder: tests/data/reference/whisper, which hears half a second, with a
                 tokenizer of letters
"""
import json
import math
import pathlib
import shutil
import struct
import sys
import wave
import zlib

ROWS = 24
NOUNS = ["maize", "river", "child", "teacher", "goat", "market", "road", "baobab"]
VERBS = ["grows", "sleeps", "waits", "sings"]
SWAHILI = ["mahindi", "mto", "mtoto", "mwalimu", "mbuzi", "soko", "njia", "mbuyu"]


def sentence(i):
    return f"The {NOUNS[i % 8]} of village {i % 5} {VERBS[i % 4]} today."


def question(i):
    context = f"{sentence(i)} {sentence(i + 1)}"
    answer = f"village {i % 5}"
    return {"id": str(i), "question": f"Where is the {NOUNS[i % 8]}?", "context": context,
            "answers": {"text": [answer], "answer_start": [context.index(answer)]}}


def tags(i):
    tokens = ["Mr", "Juma", "of", "Mombasa", VERBS[i % 4], "in", "Kenya"][: 4 + i % 4]
    return {"tokens": tokens, "ner_tags": ["O", "B-PER", "O", "B-LOC", "O", "O", "B-LOC"][: len(tokens)]}


ROW = {
    "texts": lambda i: {"text": " ".join(sentence(i + k) for k in range(3 + i % 4))},
    "pairs": lambda i: {"prompt": f"Swahili: {SWAHILI[i % 8]} {i % 5}\nEnglish:", "completion": f" {NOUNS[i % 8]} {i % 5}"},
    "chat": lambda i: {"messages": [{"role": "user", "content": f"What is {SWAHILI[i % 8]}?"}, {"role": "assistant", "content": f"A {NOUNS[i % 8]}."}]},
    "classes": lambda i: {"text": sentence(i), "label": ["good", "bad", "fair"][i % 3]},
    "alpaca": lambda i: {"instruction": "Translate.", "input": SWAHILI[i % 8], "output": NOUNS[i % 8]},
    "tags": tags,
    "questions": question,
    "sentences": lambda i: {"sentence1": sentence(i), "sentence2": sentence(i + 4)},
    "translation": lambda i: {"translation": {"sw": f"{SWAHILI[i % 8]} {i % 5}", "en": f"{NOUNS[i % 8]} {i % 5}"}},
}


def write_png(path, width, height, pixel):
    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    lines = b"".join(b"\0" + bytes(pixel(x, y) for x in range(width)) for y in range(height))
    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(lines)) + chunk(b"IEND", b""))


def write_images(folder):
    for i in range(ROWS):
        name = ["stripes", "rings"][i % 2]
        (folder / name).mkdir(parents=True, exist_ok=True)
        pixel = [lambda x, y: (x * (3 + i)) % 256, lambda x, y: int(8 * math.hypot(x - 14, y - 14) + i) % 256][i % 2]
        write_png(folder / name / f"{i:02}.png", 28, 28, pixel)


def write_sounds(folder):
    folder.mkdir(parents=True, exist_ok=True)
    rows = []
    for i in range(8):
        with wave.open(str(folder / f"{i}.wav"), "wb") as out:
            out.setnchannels(1)
            out.setsampwidth(2)
            out.setframerate(16000)
            tone = (int(8000 * math.sin(0.05 * (1 + i) * t)) for t in range(4000))
            out.writeframes(b"".join(struct.pack("<h", v) for v in tone))
        rows.append(json.dumps({"file_name": f"{i}.wav", "text": SWAHILI[i]}) + "\n")
    (folder / "metadata.jsonl").write_text("".join(rows), encoding="utf-8")


REFERENCE = pathlib.Path(__file__).resolve().parents[2] / "tests/data/reference"
LETTERS = ["\u0120", *"abcdefghijklmnopqrstuvwxyz"]


def write_json(folder, files):
    for name, content in files.items():
        (folder / name).write_text(json.dumps(content), encoding="utf-8")


def letters_tokenizer(special, vocabulary):
    """Byte-level BPE without merges. special: ids and contents; vocabulary: ids of letters."""
    flags = dict.fromkeys(("normalized", "single_word", "lstrip", "rstrip"), False)
    bytes_ = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}
    return {
        "version": "1.0",
        "added_tokens": [{"id": i, "content": content, "special": True, **flags} for i, content in special.items()],
        "normalizer": None,
        "pre_tokenizer": bytes_,
        "post_processor": None,
        "decoder": bytes_,
        "model": {"type": "BPE", "dropout": None, "unk_token": None, "continuing_subword_prefix": "",
                  "end_of_word_suffix": "", "fuse_unk": False, "byte_fallback": False, "merges": [], "vocab": vocabulary},
    }


def write_whisper(folder):
    shutil.copytree(REFERENCE / "whisper", folder)
    names = ["startofprev", "unused", "endoftext", "startoftranscript", "sw", "transcribe", "translate", "notimestamps"]
    special = {i: f"<|{name}|>" for i, name in enumerate(names)}
    write_json(folder, {
        "tokenizer.json": letters_tokenizer(special, {letter: 8 + i for i, letter in enumerate(LETTERS)}),
        "tokenizer_config.json": {"eos_token": "<|endoftext|>", "bos_token": "<|endoftext|>", "model_max_length": 20},
        "generation_config.json": {"is_multilingual": True, "eos_token_id": 2, "decoder_start_token_id": 3, "begin_suppress_tokens": [8, 2]},
        "preprocessor_config.json": {"feature_extractor_type": "WhisperFeatureExtractor", "feature_size": 10},
    })


# What is more than a file of rows.
WRITE = {"images": write_images, "sounds": write_sounds, "whisper": write_whisper}


def main():
    if len(sys.argv) != 3 or sys.argv[1] not in {*ROW, *WRITE, "reviews"}:
        sys.exit(__doc__)
    kind, path = sys.argv[1], pathlib.Path(sys.argv[2])
    path.parent.mkdir(parents=True, exist_ok=True)
    if kind in WRITE:
        WRITE[kind](path)
    elif kind == "reviews":
        path.write_text("review,sentiment\n" + "".join(f'"{sentence(i)}",{["good", "bad"][i % 2]}\n' for i in range(ROWS)), encoding="utf-8")
    else:
        path.write_text("".join(json.dumps(ROW[kind](i), ensure_ascii=False) + "\n" for i in range(ROWS)), encoding="utf-8")


if __name__ == "__main__":
    main()
