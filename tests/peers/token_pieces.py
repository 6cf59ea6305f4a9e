#!/usr/bin/env python3
"""mbuyu's Unigram, SentencePiece and byte-fallback tokenizers against the libraries: the same ids.

    token_pieces.py HELPER [MBUYU] [--megabytes N] [--only WORD]

HELPER is the built peer_tokenize. The tokenizers are trained here, by `tokenizers` and
`sentencepiece`, with the steps that the files of T5, XLM-R, NLLB, Gemma, Llama-2, Phi-3 and Marian
have; each is compared over a generated corpus (token_ids.py) with the library that owns its format.
"""
import argparse
import io
import os
import random
import sys
import tempfile

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))

import sentencepiece  # noqa: E402
from sentencepiece import sentencepiece_model_pb2 as proto  # noqa: E402
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, trainers  # noqa: E402
from tokenizers import normalizers as N, pre_tokenizers as P, processors  # noqa: E402

from token_ids import WORDS, compare, corpus, run  # noqa: E402

ROOT = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..")


def training_text():
    """Lines to train on: the corpus' words in all their scripts, this repository's English and code."""
    rng = random.Random(5)
    lines = [" ".join(rng.choices(WORDS, k=12)) for _ in range(3000)]
    for name in ("README.md", "LICENSE", "core/alloc.c", "recipes/tokenizers/tokenizer.c"):
        with open(os.path.join(ROOT, name), encoding="utf-8") as f:
            lines += f.read().split("\n")
    return [line for line in lines if line.strip()]


def spm(lines, model_type, **options):
    """A trained SentencePiece model as a protobuf."""
    out = io.BytesIO()
    options = {"vocab_size": 3000, "character_coverage": 0.999, "num_threads": 1, "minloglevel": 2,
               "hard_vocab_limit": False, "max_sentence_length": 100000, **options}
    sentencepiece.SentencePieceTrainer.train(sentence_iterator=iter(lines), model_writer=out,
                                             model_type=model_type, **options)
    m = proto.ModelProto()
    m.ParseFromString(out.getvalue())
    return m


def with_template(tok, single, pair, names):
    special = [(n, tok.token_to_id(n)) for n in names]
    tok.post_processor = processors.TemplateProcessing(single=single, pair=pair, special_tokens=special)
    return tok


def special(names, **flags):
    return [AddedToken(n, normalized=False, special=True, **flags) for n in names]


def unigram_t5(m):
    tok = Tokenizer(models.Unigram([(p.piece, p.score) for p in m.pieces], unk_id=2, byte_fallback=False))
    tok.normalizer = N.Sequence([N.Precompiled(m.normalizer_spec.precompiled_charsmap), N.Replace(Regex(" {2,}"), " ")])
    tok.pre_tokenizer = P.Metaspace(replacement="▁", prepend_scheme="always")
    tok.decoder = decoders.Metaspace(replacement="▁", prepend_scheme="always")
    tok.add_special_tokens(special(["<pad>", "</s>", "<unk>"] + ["<extra_id_%d>" % i for i in range(100)]))
    return with_template(tok, "$A </s>", "$A </s> $B </s>", ["</s>"])


def unigram_xlmr(m):
    pieces = [("<s>", 0.0), ("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0)]
    pieces += [(p.piece, p.score) for p in m.pieces[3:]] + [("<mask>", 0.0)]
    tok = Tokenizer(models.Unigram(pieces, unk_id=3))
    tok.normalizer = N.Sequence([N.Precompiled(m.normalizer_spec.precompiled_charsmap), N.Replace(Regex(" {2,}"), " ")])
    tok.pre_tokenizer = P.Sequence([P.WhitespaceSplit(), P.Metaspace()])
    tok.decoder = decoders.Metaspace()
    tok.add_special_tokens(special(["<s>", "<pad>", "</s>", "<unk>"]))
    tok.add_special_tokens([AddedToken("<mask>", lstrip=True, special=True, normalized=True)])
    return with_template(tok, "<s> $A </s>", "<s> $A </s> </s> $B </s>", ["<s>", "</s>"])


def unigram_nllb(m):
    codes = ["eng_Latn", "swh_Latn", "fra_Latn", "arb_Arab"]
    pieces = [("<s>", 0.0), ("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0)]
    pieces += [(p.piece, p.score) for p in m.pieces[3:]] + [(c, 0.0) for c in codes] + [("<mask>", 0.0)]
    tok = Tokenizer(models.Unigram(pieces, unk_id=3))
    tok.normalizer = N.Precompiled(m.normalizer_spec.precompiled_charsmap)
    tok.pre_tokenizer = P.Metaspace(prepend_scheme="always")
    tok.decoder = decoders.Metaspace(prepend_scheme="always")
    tok.add_special_tokens(special(["<s>", "<pad>", "</s>", "<unk>"] + codes + ["<mask>"]))
    return with_template(tok, "eng_Latn $A </s>", "eng_Latn $A $B </s>", ["eng_Latn", "</s>"])


def unigram_bytes(m):
    """Unigram with byte fallback, spaces kept, Metaspace first, not split (as newer files have it)."""
    tok = Tokenizer(models.Unigram([(p.piece, p.score) for p in m.pieces], unk_id=0, byte_fallback=True))
    tok.normalizer = N.NFKC()
    tok.pre_tokenizer = P.Metaspace(prepend_scheme="first", split=False)
    tok.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)])
    tok.add_special_tokens(special(["<unk>", "<s>", "</s>"]))
    return with_template(tok, "<s> $A", "<s> $A $B", ["<s>"])


def unigram_nmt(m):
    """What the library's own Unigram trainers are usually given."""
    tok = unigram_t5(m)
    tok.normalizer = N.Sequence([N.Nmt(), N.NFKC(), N.Replace(Regex(" {2,}"), " ")])
    return tok


def bpe_of(m):
    """vocab and merges as transformers takes them from a SentencePiece BPE."""
    vocab = {p.piece: i for i, p in enumerate(m.pieces)}
    score = {p.piece: p.score for p in m.pieces}
    merges = []
    for piece in vocab:
        cuts = [(piece[:i], piece[i:]) for i in range(1, len(piece)) if piece[:i] in vocab and piece[i:] in vocab]
        merges += [(a, b, score[piece]) for a, b in sorted(cuts, key=lambda c: (vocab[c[0]], vocab[c[1]]))]
    merges.sort(key=lambda t: (t[2], len(t[0]), len(t[1])), reverse=True)
    return vocab, [(a, b) for a, b, _ in merges]


def bpe_llama2(m):
    vocab, merges = bpe_of(m)
    tok = Tokenizer(models.BPE(vocab, merges, unk_token="<unk>", fuse_unk=True, byte_fallback=True))
    tok.normalizer = N.Sequence([N.Prepend("▁"), N.Replace(" ", "▁")])
    tok.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)])
    tok.add_special_tokens(special(["<unk>", "<s>", "</s>"]))
    return with_template(tok, "<s> $A", "<s> $A <s> $B", ["<s>"])


def bpe_phi3(m):
    """Llama's with Phi-3's added tokens, which take white space to their right."""
    tok = bpe_llama2(m)
    tok.add_special_tokens(special(["<|endoftext|>"]) + special(["<|user|>", "<|end|>", "<|assistant|>"], rstrip=True))
    return tok


def bpe_llama_metaspace(m):
    """legacy=false: no normalizer, Metaspace only at the start of the text."""
    tok = bpe_llama2(m)
    tok.normalizer = None
    tok.pre_tokenizer = P.Metaspace(replacement="▁", prepend_scheme="first", split=False)
    return tok


def bpe_gemma(m):
    vocab, merges = bpe_of(m)
    tok = Tokenizer(models.BPE(vocab, merges, unk_token="<unk>", fuse_unk=True, byte_fallback=True))
    tok.normalizer = N.Replace(" ", "▁")
    tok.pre_tokenizer = P.Split(" ", "merged_with_previous")
    tok.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()])
    tok.add_special_tokens(special(["<unk>", "<s>", "</s>", "<start_of_turn>", "<end_of_turn>"]))
    tok.add_tokens([AddedToken(t, normalized=False) for t in ("\n\n", "\n\n\n", "▁▁", "▁▁▁", "<h1>")])
    return with_template(tok, "<s> $A", "<s> $A <s> $B", ["<s>"])


T5_IDS = dict(pad_id=0, eos_id=1, unk_id=2, bos_id=-1)


def kinds(lines):
    t5 = spm(lines, "unigram", **T5_IDS)
    xlmr = spm(lines, "unigram")
    byte = spm(lines, "unigram", byte_fallback=True, normalization_rule_name="identity")
    bpe = spm(lines, "bpe", byte_fallback=True, normalization_rule_name="identity", remove_extra_whitespaces=False, split_digits=True)
    gemma = spm(lines, "bpe", byte_fallback=True, normalization_rule_name="identity", remove_extra_whitespaces=False,
                add_dummy_prefix=False, split_by_whitespace=True)
    yield "Unigram like T5", unigram_t5(t5)
    yield "Unigram like XLM-R", unigram_xlmr(xlmr)
    yield "Unigram like NLLB", unigram_nllb(xlmr)
    yield "Unigram with Nmt", unigram_nmt(t5)
    yield "Unigram with byte fallback", unigram_bytes(byte)
    yield "BPE like Llama-2", bpe_llama2(bpe)
    yield "BPE like Llama-2 (legacy off)", bpe_llama_metaspace(bpe)
    yield "BPE like Phi-3", bpe_phi3(bpe)
    yield "BPE like Gemma", bpe_gemma(gemma)


def check_json(args, lines):
    wrong = 0
    for name, tok in kinds(lines):
        if args.only and args.only not in name:
            continue
        with tempfile.TemporaryDirectory() as folder:
            tok.save(os.path.join(folder, "tokenizer.json"))
            names = [t.content for t in tok.get_added_tokens_decoder().values()]
            texts = corpus(args.megabytes, names)
            # The library's Unigram finds the names of special tokens in plain text; mbuyu does not.
            plain = [t for t in texts[: len(texts) // 3] if not any(n in t for n in names)]
            wrong += compare(name, args.helper, folder, tok, texts, plain=plain)
    return wrong


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("helper")
    parser.add_argument("mbuyu", nargs="?")
    parser.add_argument("--megabytes", type=float, default=1.2)
    parser.add_argument("--only", help="only kinds whose name has this word")
    args = parser.parse_args()
    lines = training_text()
    wrong = check_json(args, lines)
    sys.exit(1 if wrong else 0)


if __name__ == "__main__":
    main()
