#!/usr/bin/env python3
"""compare_answers.py PAIRS BEFORE AFTER - what a model says of held-out words, before and after.

PAIRS is valid.jsonl of build_swahili.py; BEFORE and AFTER are what `mbuyu generate` printed for its
prompts. An answer is right when it is one of the dictionary's glosses, or all of them. Prints the
words that only the trained model gets right, some it does not, and the counts.
"""
import json
import re
import sys


def read(path):
    with open(path, encoding="utf-8") as file:
        return [json.loads(line) for line in file]


def right(answer, dictionary):
    answer = answer.strip().lower()
    glosses = [gloss.strip().lower() for gloss in re.split("[;,]", dictionary)]
    return bool(answer) and (answer in glosses or answer == dictionary.strip().lower())


def word(prompt):
    kind, name = re.search(r"(Swahili|Singular): (.*)\n", prompt).groups()
    return name if kind == "Swahili" else f"plural of {name}"


def main():
    pairs, before, after = map(read, sys.argv[1:4])
    rows = [(word(p["prompt"]), p["completion"].strip(), b["completion"].strip(), a["completion"].strip())
            for p, b, a in zip(pairs, before, after)]
    learned = [r for r in rows if right(r[3], r[1]) and not right(r[2], r[1])]
    missed = [r for r in rows if not right(r[3], r[1])]
    layout = "  {:<22} {:<26} {:<26} {}"
    print(layout.format("word", "dictionary", "before", "after"))
    for row in learned[:12]:
        print(layout.format(*(text if len(text) < 26 else text[:22] + "..." for text in row)))
    print("  and, still wrong:")
    for row in missed[:4]:
        print(layout.format(*(text if len(text) < 26 else text[:22] + "..." for text in row)))
    print(f"right of {len(rows)} words that were not trained on: "
          f"{sum(right(r[2], r[1]) for r in rows)} before, {sum(right(r[3], r[1]) for r in rows)} after")


main()
