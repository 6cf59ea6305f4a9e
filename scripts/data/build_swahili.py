#!/usr/bin/env python3
"""Swahili-English pairs out of the FreeDict dictionaries that Debian packages.

    scripts/data/build_swahili.py --out DIR [--root /]

reads ROOT/usr/share/dictd/freedict-{swh-eng,eng-swh} (packages dict-freedict-swh-eng and
dict-freedict-eng-swh) and writes train.jsonl and valid.jsonl with {"prompt","completion"} rows, and
the same rows as chats in train.chat.jsonl and valid.chat.jsonl. Only the standard library is used.

There are two exercises: translate a word, and give a noun's plural. A twentieth of the words is
held out, chosen by a hash of the word; a plural goes where its singular goes, so that no word
family is on both sides. The same packages give the same bytes.

The dictionaries are (C) the FreeDict contributors, GPL-2.0-or-later, and so is what is made from
them: it is built where it is needed and not part of mbuyu.
"""
import argparse
import gzip
import hashlib
import json
import pathlib
import re

WORD = re.compile(r"[A-Za-z' -]+")
# "mtoto /mtoto/ <n, pl: {watoto}>": the word, its sound, its grammar, the rest
HEADWORD = re.compile(r"(?P<word>.+?)\s*/.*?/\s*(?:<[^>]*>)?(?P<rest>.*)")
NAMED_PLURAL = re.compile(r"pl: \{([^}]*)\}")
POINTER = re.compile(
    r"\s*(?:See also|Synonyms?|Inflection of|Compare|Imperative|Antonyms?|Singular of)\b"
)
PLURAL_OF = re.compile(r"Plural of \{([^}]*)\}:?\s*(.*)", re.S)
SENSE_NUMBER = re.compile(r"(?:^|\s)\d+\.\s+")
HELD_OUT = 0.05
MAX_GLOSSES = 6


def dictd_number(text):
    digits = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"
    value = 0
    for c in text:
        value = value * 64 + digits.index(c)
    return value


def articles(folder, name):
    """The distinct articles of a dictd database as (first line, rest), in the index's order."""
    text = gzip.open(folder / f"{name}.dict.dz").read()
    seen = set()
    for line in (folder / f"{name}.index").open(encoding="utf-8"):
        headword, *place = line.rstrip("\n").split("\t")
        start, size = map(dictd_number, place)
        if headword.startswith("00") or (start, size) in seen:
            continue  # 00-database-... describe the dictionary itself
        seen.add((start, size))
        first, _, rest = text[start : start + size].decode("utf-8").partition("\n")
        yield first, rest


def without_brackets(text):
    """Text without (remarks), nested ones included; a bracket without its partner goes alone."""
    inner = re.compile(r"\([^()]*\)")
    while inner.search(text):
        text = inner.sub(" ", text)
    return re.sub(r"[()]", " ", text)


def tidy(text):
    return re.sub(r"\s+", " ", text).strip()


def read_glosses(article):
    """An article's short glosses, and the singular where it only describes a plural."""
    lines = [line for line in article.split("\n") if not POINTER.match(line)]
    text, singular = "\n".join(lines).strip(), None
    plural = PLURAL_OF.fullmatch(text)
    if plural:
        singular, text = plural.groups()
    text = " " + without_brackets(text).replace("\n", " ")
    found = []
    for sense in SENSE_NUMBER.split(text):
        for gloss in sense.split(";"):
            gloss = re.sub(r"\s+", " ", re.sub(r"[{}]", "", gloss))
            gloss = re.sub(r"\s*,\s*", ", ", gloss).strip(" ,.")
            if re.search(r"[A-Za-z]", gloss):
                found.append(gloss)
    return singular, found


class Lexicon:
    def __init__(self):
        self.glosses = {}  # Swahili word -> English glosses
        self.plural = {}  # singular -> plural
        self.family = {}  # word -> the word whose hash decides for it

    def add(self, word, glosses):
        known = self.glosses.setdefault(word, [])
        for gloss in glosses:
            if gloss.lower() not in (k.lower() for k in known):
                known.append(gloss)

    def read_swahili(self, folder):
        only_plural = {}
        for first, rest in articles(folder, "freedict-swh-eng"):
            head = HEADWORD.fullmatch(first)
            if head is None:
                continue
            word = tidy(without_brackets(head["word"]))
            singular, glosses = read_glosses(rest)
            if not glosses or not WORD.fullmatch(word):
                continue
            for plural in NAMED_PLURAL.findall(head["rest"]):
                self.plural.setdefault(word, plural)
                self.family[plural] = word
            if singular is None:
                self.add(word, glosses)
            else:
                only_plural.setdefault(word, glosses)
                self.family[word] = singular
        for word, glosses in only_plural.items():
            if word not in self.glosses:  # a meaning of its own is better
                self.add(word, [", ".join(glosses[:2]) + " (plural)"])

    def read_english(self, folder):
        """The other direction adds glosses, and a few words."""
        for first, rest in articles(folder, "freedict-eng-swh"):
            head = HEADWORD.fullmatch(first)
            english = tidy(without_brackets(head["word"])) if head else ""
            if not english:
                continue
            for gloss in read_glosses(rest)[1]:
                for word in gloss.split(","):
                    self.add_reverse(word.strip().rstrip("!?"), english)

    def add_reverse(self, word, english):
        if not 2 <= len(word) <= 40 or not WORD.fullmatch(word):
            return
        known = self.glosses.get(word, [])
        if any("(plural)" in gloss for gloss in known):
            return
        if not re.search(rf"\b{re.escape(english.lower())}\b", " ".join(known).lower()):
            self.add(word, [english])

    def is_held_out(self, word):
        key = "mbuyu-swh:" + self.family.get(word, word).lower()
        number = int.from_bytes(hashlib.sha256(key.encode()).digest()[:8], "big")
        return number / 2**64 < HELD_OUT

    def exercises(self):
        """(kind, word, prompt, question for a chat, answer), shuffled the same way every time."""
        rows = []
        for word, glosses in self.glosses.items():
            prompt = f"Translate Swahili to English.\nSwahili: {word}\nEnglish:"
            question = f'What does the Swahili word "{word}" mean in English?'
            rows.append(("translate", word, prompt, question, "; ".join(glosses[:MAX_GLOSSES])))
        for word, plural in self.plural.items():
            if word == plural or not WORD.fullmatch(word + plural):
                continue
            prompt = f"Give the plural of the Swahili noun.\nSingular: {word}\nPlural:"
            question = f'What is the plural of the Swahili noun "{word}"?'
            rows.append(("plural", word, prompt, question, plural))
        return sorted(rows, key=lambda r: hashlib.sha256(f"{r[0]}\0{r[1]}".encode()).digest())


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--root", type=pathlib.Path, default=pathlib.Path("/"))
    parser.add_argument("--out", type=pathlib.Path, required=True)
    args = parser.parse_args()
    folder = args.root / "usr/share/dictd"
    lexicon = Lexicon()
    lexicon.read_swahili(folder)
    lexicon.read_english(folder)

    files = {name: [] for name in ("train", "valid", "train.chat", "valid.chat")}
    for _, word, prompt, question, answer in lexicon.exercises():
        part = "valid" if lexicon.is_held_out(word) else "train"
        files[part].append(dict(prompt=prompt, completion=" " + answer))
        turns = [dict(role="user", content=question), dict(role="assistant", content=answer)]
        files[part + ".chat"].append(dict(messages=turns))
    args.out.mkdir(parents=True, exist_ok=True)
    for name, rows in files.items():
        with (args.out / f"{name}.jsonl").open("w", encoding="utf-8") as out:
            out.writelines(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    print(f"{len(files['train'])} rows to train on, {len(files['valid'])} held out, in {args.out}")


if __name__ == "__main__":
    main()
