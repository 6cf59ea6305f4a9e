#!/usr/bin/env python3
"""build_speech.py WHEEL PAIRS OUT - spoken Swahili, made by espeak-ng's voice, with what is said.

Texts are the Swahili sentences and phrases of Django's own translation (WHEEL, BSD-3-Clause) and the
Swahili words of FreeDict (PAIRS, the train.jsonl and valid.jsonl of build_swahili.py, GPL-2.0-or-later;
what is made of them is, too). Writes OUT/{train,valid}/metadata.jsonl and clips beside them, an
audiofolder each: {"file_name", "transcription"}. No text is in both. Speed and pitch vary from clip to
clip, by a hash of the text. Needs espeak-ng; a robot's voice, good for trying things out.
"""
import ast
import concurrent.futures
import hashlib
import json
import os
import re
import subprocess
import sys
import zipfile

LONGEST = 60  # characters
TRAIN, VALID = 640, 64


def messages(text):
    """The Swahili side of a .po file's entries."""
    for block in re.split(r"\n\s*\n", text):
        if "#, fuzzy" in block or "msgid_plural" in block:
            continue
        parts, key = {}, None
        for line in block.split("\n"):
            start = re.match(r'(msgid|msgstr)\s+(".*")\s*$', line)
            if start:
                key = start.group(1)
                parts[key] = ast.literal_eval(start.group(2))
            elif line.startswith('"') and key:
                parts[key] += ast.literal_eval(line)
        if parts.get("msgid") and parts.get("msgstr"):
            yield parts["msgstr"]


def sentences(wheel):
    archive = zipfile.ZipFile(wheel)
    for name in sorted(archive.namelist()):
        if re.search(r"/locale/sw/LC_MESSAGES/\w+\.po$", name):
            yield from messages(archive.read(name).decode("utf-8"))


def words(pairs):
    for name in ("train.jsonl", "valid.jsonl"):
        with open(os.path.join(pairs, name), encoding="utf-8") as rows:
            for row in rows:
                said = re.search(r"Swahili: (.*)\nEnglish:", json.loads(row)["prompt"])
                if said:
                    yield said.group(1)


def draw(text, what):
    return int.from_bytes(hashlib.sha256(f"{what}:{text}".encode()).digest()[:4], "big")


def spoken(text):
    """As it is written down: lower case, words and nothing else. None for what is not plain words."""
    text = re.sub(r"\s+", " ", text).strip(" .!?:;,").lower()
    if not re.fullmatch(r"[a-z' ,.-]+", text) or not 4 <= len(text) <= LONGEST:
        return None
    return re.sub(r"\s+", " ", re.sub(r"[,.-]", " ", text)).strip()


def say(row):
    text, path = row
    speed, pitch = 120 + draw(text, "speed") % 50, 35 + draw(text, "pitch") % 35
    subprocess.run(["espeak-ng", "-v", "sw", "-s", str(speed), "-p", str(pitch), "-w", path, text],
                   check=True)


def main(wheel, pairs, out):
    phrases = {t for t in map(spoken, sentences(wheel)) if t}
    single = {t for t in map(spoken, words(pairs)) if t} - phrases
    order = lambda texts: sorted(texts, key=lambda t: draw(t, "order"))
    # every phrase, and words to make up the number
    rows = order(phrases)[:TRAIN + VALID]
    rows = order(rows + order(single)[:TRAIN + VALID - len(rows)])
    jobs = []
    for part, texts in (("valid", rows[:VALID]), ("train", rows[VALID:])):
        folder = os.path.join(out, part)
        os.makedirs(folder, exist_ok=True)
        with open(os.path.join(folder, "metadata.jsonl"), "w", encoding="utf-8") as f:
            for i, text in enumerate(texts):
                name = f"{i:04d}.wav"
                f.write(json.dumps({"file_name": name, "transcription": text}) + "\n")
                jobs.append((text, os.path.join(folder, name)))
    with concurrent.futures.ThreadPoolExecutor(2) as pool:
        list(pool.map(say, jobs))
    print(f"{len(rows) - VALID} and {VALID} clips, {len(phrases)} phrases were to be had")


if __name__ == "__main__":
    if len(sys.argv) != 4:
        sys.exit(__doc__)
    main(*sys.argv[1:])
