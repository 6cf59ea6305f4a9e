#!/usr/bin/env python3
"""GPT-2's tokenizer.json out of its ranks: gpt2_tokenizer.py RANKS OUT

RANKS has a line "base64(bytes) rank" per token. A byte-level BPE token that is not a single byte was
made by one merge: running BPE on its bytes with only the earlier tokens ends with the two parts of
that merge. Only the standard library is used.
"""
import base64
import json
import pathlib
import sys


def visible_bytes():
    """GPT-2's one printable character per byte."""
    kept = [*range(33, 127), *range(161, 173), *range(174, 256)]
    moved = (b for b in range(256) if b not in kept)
    return {**{b: chr(b) for b in kept}, **{b: chr(256 + n) for n, b in enumerate(moved)}}


def last_merge(token, rank_of):
    parts = [token[i : i + 1] for i in range(len(token))]
    while len(parts) > 2:
        ranked = [(rank_of.get(a + b, sys.maxsize), i) for i, (a, b) in enumerate(zip(parts, parts[1:]))]
        _, i = min(ranked)
        parts[i : i + 2] = [parts[i] + parts[i + 1]]
    return parts


def main():
    ranks, out = sys.argv[1], pathlib.Path(sys.argv[2])
    pairs = (line.split() for line in open(ranks))
    rank_of = {base64.b64decode(token): int(rank) for token, rank in pairs}
    letters = visible_bytes()
    show = lambda token: "".join(letters[b] for b in token)
    ordered = sorted(rank_of, key=rank_of.get)
    vocab = {show(token): rank_of[token] for token in ordered}
    merges = [[show(p) for p in last_merge(token, rank_of)] for token in ordered if len(token) > 1]
    end = len(vocab)
    vocab["<|endoftext|>"] = end
    byte_level = dict(type="ByteLevel", add_prefix_space=False, trim_offsets=True, use_regex=True)
    special = dict(id=end, content="<|endoftext|>", single_word=False, lstrip=False, rstrip=False)
    document = dict(
        version="1.0",
        truncation=None,
        padding=None,
        added_tokens=[dict(special, normalized=False, special=True)],
        normalizer=None,
        pre_tokenizer=byte_level,
        post_processor=dict(byte_level, trim_offsets=False),
        decoder=byte_level,
        model=dict(
            type="BPE",
            dropout=None,
            unk_token=None,
            continuing_subword_prefix="",
            end_of_word_suffix="",
            fuse_unk=False,
            byte_fallback=False,
            ignore_merges=False,
            vocab=vocab,
            merges=merges,
        ),
    )
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(json.dumps(document, ensure_ascii=False), encoding="utf-8")


if __name__ == "__main__":
    main()
