#!/usr/bin/env python3
"""make_rows.py - rows for scripts/bench/cpu.sh.

    make_rows.py texts N OUT
        N texts of 600 random words, each of more than 512 tokens under any tokenizer, with a label
    make_rows.py padded TOKENIZER_DIR PAIRS longest|N OUT
        pairs with words in front that have no loss, so that a program that never pads computes on as
        many tokens as one that does: to the longest of 16 rows, or to N tokens. Prints the share of
        tokens that were there before.
"""
import json
import random
import sys


def texts(count, out):
    random.seed(0)
    letters = "abcdefghijklmnopqrstuvwxyz"
    for i in range(int(count)):
        words = ("".join(random.choices(letters, k=random.randint(2, 7))) for _ in range(600))
        out.write(json.dumps({"text": " ".join(words), "label": i % 2}) + "\n")


def padded(folder, pairs, to, out):
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder)

    def length(row):
        parts = (row["prompt"], row["completion"] + "\n")
        return sum(len(tokenizer(part, add_special_tokens=False).input_ids) for part in parts)

    with open(pairs, encoding="utf-8") as lines:
        rows = [json.loads(line) for line in lines]
    random.Random(0).shuffle(rows)
    lengths = [length(row) for row in rows]
    made = 0
    for first in range(0, len(rows), 16):
        here = lengths[first : first + 16]
        wanted = max(here) if to == "longest" else int(to)
        for row, had in zip(rows[first : first + 16], here):
            words = wanted - had
            while words > 0:  # the seam may take a token of its own
                long = dict(row, prompt=" the" * words + "\n" + row["prompt"])
                if length(long) <= wanted:
                    break
                words -= 1
            if words > 0:
                row = long
            made += length(row)
            out.write(json.dumps(row, ensure_ascii=False) + "\n")
    print(sum(lengths) / made)


kind, *arguments, path = sys.argv[1:]
with open(path, "w", encoding="utf-8") as file:
    dict(texts=texts, padded=padded)[kind](*arguments, file)
