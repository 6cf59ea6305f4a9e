#!/usr/bin/env python3
"""WordNet's definitions as rows to sort by what they are about.

    build_wordnet.py DATA_NOUN OUT

DATA_NOUN is WordNet 3.0's data.noun (wndb(5WN)). OUT gets train.jsonl and valid.jsonl, rows {"text":
definition, "label": kind}, where the kind is the lexicographer's file the noun stands in
(lexnames(5WN)). Words themselves are left out: the definition has to be understood. As many rows of
each kind; which ones, and on which side, follows from a digest of the definition.
"""
import hashlib
import json
import pathlib
import sys

KINDS = {"05": "animal", "06": "artifact", "08": "body", "13": "food", "15": "place", "18": "person",
         "20": "plant", "27": "substance"}
TRAIN, VALID = 600, 75

rows = {kind: {} for kind in KINDS.values()}
for line in pathlib.Path(sys.argv[1]).read_text(encoding="utf-8").splitlines():
    if line.startswith("  "):  # the licence
        continue
    head, bar, gloss = line.partition(" | ")
    if not bar:
        sys.exit(f"not a noun: {line[:60]}")
    kind = KINDS.get(head.split()[1])
    text = gloss.split('; "')[0].strip()
    if kind and len(text.split()) >= 4:
        rows[kind][hashlib.sha256(text.encode()).hexdigest()] = {"text": text, "label": kind}

out = pathlib.Path(sys.argv[2])
out.mkdir(parents=True, exist_ok=True)
for name, first, last in (("train", 0, TRAIN), ("valid", TRAIN, TRAIN + VALID)):
    taken = [item for found in rows.values() for item in sorted(found.items())[first:last]]
    with open(out / f"{name}.jsonl", "w", encoding="utf-8") as to:
        for _, row in sorted(taken, key=lambda item: item[0][::-1]):
            to.write(json.dumps(row, ensure_ascii=False) + "\n")
