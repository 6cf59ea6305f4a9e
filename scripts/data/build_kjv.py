#!/usr/bin/env python3
"""The King James Bible as rows to train on: one chapter a row.

    build_kjv.py VERSES OUT

VERSES is what `bible -f Gen1:1-Rev22:21` of Debian's bible-kjv prints, a verse a line after its place
("Ge1:1 In the beginning ..."). OUT gets train.jsonl and valid.jsonl, rows {"text": verses by line};
every fortieth chapter is for validation.
"""
import json
import pathlib
import re
import sys

EVERY = 40

chapters = {}
for line in pathlib.Path(sys.argv[1]).read_text(encoding="ascii").splitlines():
    place, _, verse = line.partition(" ")
    chapter = re.fullmatch(r"([0-9]?[A-Za-z]+[0-9]+):[0-9]+", place)
    if chapter is None or not verse:
        sys.exit(f"not a verse: {line[:60]}")
    chapters.setdefault(chapter[1], []).append(verse.strip())

out = pathlib.Path(sys.argv[2])
out.mkdir(parents=True, exist_ok=True)
rows = [json.dumps({"text": "\n".join(verses)}) + "\n" for verses in chapters.values()]
(out / "valid.jsonl").write_text("".join(rows[EVERY - 1 :: EVERY]), encoding="ascii")
del rows[EVERY - 1 :: EVERY]
(out / "train.jsonl").write_text("".join(rows), encoding="ascii")
