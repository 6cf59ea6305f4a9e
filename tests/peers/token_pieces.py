#!/usr/bin/env python3
"""mbuyu's Unigram, SentencePiece and byte-fallback tokenizers against the libraries: the same ids.

    token_pieces.py HELPER [MBUYU] [--megabytes N] [--only WORD]
    token_pieces.py --write DIR

HELPER is the built peer_tokenize. The tokenizers are trained here, by `tokenizers` and
`sentencepiece`, with the steps that the files of T5, XLM-R, NLLB, Gemma, Llama-2, Phi-3 and Marian
have; each is compared over a generated corpus (token_ids.py) with the library that owns its format.
What is trained on is the corpus' words and tests/data/tokenizers/english_and_c.txt, every 26th line of
this repository's documents and sources as they once were: a text that stays.
"""
import argparse
import io
import json
import os
import random
import re
import subprocess
import sys
import tempfile
import time

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))

import sentencepiece  # noqa: E402
from sentencepiece import sentencepiece_model_pb2 as proto  # noqa: E402
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, trainers  # noqa: E402
from tokenizers import normalizers as N, pre_tokenizers as P, processors  # noqa: E402

from token_ids import WORDS, compare, corpus, differ, run  # noqa: E402

DATA = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "data", "tokenizers")


def training_text():
    """Lines to train on: the corpus' words in all their scripts, English and code."""
    rng = random.Random(5)
    lines = [" ".join(rng.choices(WORDS, k=12)) for _ in range(3000)]
    return lines + english_and_c()[::4]


def english_and_c():
    with open(os.path.join(DATA, "english_and_c.txt"), encoding="utf-8") as f:
        return f.read().split("\n")[:-1]


# A word as generated sources have it: its pairs are many and all in one place.
ONE_WORD = "".join("\\x%02x" % b for line in english_and_c()[:100] for b in line.encode())[:16000]


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


SPM_KINDS = {
    "unigram": dict(model_type="unigram"),
    "unigram, case folded": dict(model_type="unigram", normalization_rule_name="nfkc_cf"),
    "unigram, spaces kept, symbols": dict(model_type="unigram", normalization_rule_name="identity", remove_extra_whitespaces=False,
                                          user_defined_symbols=["<sep>", "\u2581\u2581", "foo", "中文", "  "]),
    "unigram, bytes": dict(model_type="unigram", byte_fallback=True, add_dummy_prefix=False, control_symbols=["<ctl>"]),
    "unigram, space behind": dict(model_type="unigram", treat_whitespace_as_suffix=True),
    "bpe": dict(model_type="bpe"),
    "bpe, bytes, spaces kept": dict(model_type="bpe", byte_fallback=True, normalization_rule_name="identity",
                                    remove_extra_whitespaces=False, split_digits=True),
    "bpe, symbols, no prefix": dict(model_type="bpe", add_dummy_prefix=False, user_defined_symbols=["<sep>", "foo", "▁▁", "x▁y"],
                                    split_by_whitespace=False),
}


def compare_spm(name, helper, path, texts):
    """A .model file against sentencepiece itself."""
    sp = sentencepiece.SentencePieceProcessor(model_file=path)
    got, speed = run(helper, path, [dict(text=t) for t in texts])
    wrong, n_ids = 0, 0
    for i, (g, t) in enumerate(zip(got, texts)):
        ids = sp.encode(t)
        n_ids += len(ids)
        text = sp.decode(ids)
        for what, a, b in (("ids", g.get("ids", g.get("error")), ids), ("decoded", g.get("decoded"), text),
                           ("streamed", g.get("streamed"), text)):
            if a != b:
                wrong += 1
                if wrong <= 6:
                    differ(name, i, what, a, b)
                break
    size = sum(len(t.encode()) for t in texts)
    print(f"{name}: {len(texts)} texts, {size / 1e6:.2f} MB, {n_ids} ids: {wrong} differ ({speed})", flush=True)
    return wrong + abs(len(got) - len(texts))


def check_spm(args, lines):
    wrong = 0
    texts = corpus(args.megabytes, ["<s>", "</s>", "<unk>", "<sep>", "<ctl>", "▁", "▁▁", "foo", "<0x41>"], seed=3)
    with tempfile.TemporaryDirectory() as folder:
        for name, options in SPM_KINDS.items():
            if args.only and args.only not in "SentencePiece " + name:
                continue
            path = os.path.join(folder, "x.model")
            with open(path, "wb") as f:
                f.write(spm(lines, **options).SerializeToString())
            wrong += compare_spm("SentencePiece " + name, args.helper, path, texts)
        for path in args.spm or []:
            wrong += compare_spm(os.path.basename(path), args.helper, path, texts)
    return wrong


def t5_folder(folder, lines):
    """spiece.model alone, as T5's slow tokenizer has it: the sentinels follow the pieces."""
    m = spm(lines, "unigram", **T5_IDS)
    write(folder, "spiece.model", m.SerializeToString())
    write_json(folder, "config.json", dict(model_type="t5"))
    write_json(folder, "tokenizer_config.json", dict(tokenizer_class="T5Tokenizer", extra_ids=100, model_max_length=int(1e30)))
    sp = sentencepiece.SentencePieceProcessor(model_proto=m.SerializeToString())
    ids = {"<extra_id_%d>" % i: len(m.pieces) + 99 - i for i in range(100)} | {"</s>": 1, "<pad>": 0, "<unk>": 2}

    def encode(text, special):
        cut = [t for t in re.split("(%s)" % "|".join(ids), text) if t]
        return [i for t in cut for i in ([ids[t]] if t in ids else sp.encode(t))] + [1] * special
    return ["<extra_id_0>", "<extra_id_99>", "</s>"], encode


def marian_folder(folder, lines):
    from transformers import MarianTokenizer
    for name, seed in (("source.spm", 1), ("target.spm", 2)):
        write(folder, name, spm(lines[seed::2], "unigram", vocab_size=2000).SerializeToString())
    pieces = []
    for name in ("source.spm", "target.spm"):
        sp = sentencepiece.SentencePieceProcessor(model_file=os.path.join(folder, name))
        pieces += [sp.id_to_piece(i) for i in range(3, sp.get_piece_size())][:-40]
    vocab = {t: i for i, t in enumerate(dict.fromkeys(["</s>", "<unk>"] + pieces + [">>swa<<", ">>eng<<", "<pad>"]))}
    write_json(folder, "vocab.json", vocab)
    write_json(folder, "config.json", dict(model_type="marian"))
    write_json(folder, "tokenizer_config.json", dict(tokenizer_class="MarianTokenizer", model_max_length=512))
    tok = MarianTokenizer.from_pretrained(folder)
    tok.punc_normalizer = lambda text: text  # sacremoses, where installed, is the caller's step
    return ["</s>", "<pad>"], lambda text, special: tok(text, add_special_tokens=special).input_ids


def m2m_folder(folder, lines):
    from transformers import M2M100Tokenizer
    m = spm(lines, "bpe")
    write(folder, "sentencepiece.bpe.model", m.SerializeToString())
    pieces = ["<s>", "<pad>", "</s>", "<unk>"] + [p.piece for p in m.pieces[3:]][:-50] + ["madeupword0000"]
    write_json(folder, "vocab.json", {t: i for i, t in enumerate(pieces)})
    write_json(folder, "config.json", dict(model_type="m2m_100"))
    write_json(folder, "tokenizer_config.json", dict(tokenizer_class="M2M100Tokenizer", src_lang="sw", tgt_lang="en"))
    tok = M2M100Tokenizer.from_pretrained(folder, src_lang="sw", tgt_lang="en")
    return ["</s>", "<pad>"], lambda text, special: tok(text, add_special_tokens=special).input_ids


def xlmr_folder(folder, lines):
    m = spm(lines, "unigram")
    write(folder, "sentencepiece.bpe.model", m.SerializeToString())
    write_json(folder, "config.json", dict(model_type="xlm-roberta"))
    sp = sentencepiece.SentencePieceProcessor(model_proto=m.SerializeToString())

    def encode(text, special):
        ids = [i + 1 if i else 3 for i in sp.encode(text)]
        return [0] + ids + [2] if special else ids
    return [], encode


def write(folder, name, data):
    with open(os.path.join(folder, name), "wb") as f:
        f.write(data)


def write_json(folder, name, value):
    write(folder, name, json.dumps(value, ensure_ascii=False).encode())


def check_folders(args, lines):
    """Folders without a tokenizer.json against transformers' slow tokenizers (or their rules)."""
    wrong = 0
    for make in (t5_folder, marian_folder, m2m_folder, xlmr_folder):
        if args.only and args.only not in make.__name__:
            continue
        with tempfile.TemporaryDirectory() as folder:
            names, encode = make(folder, lines)
            texts = corpus(args.megabytes / 4, [], seed=9)
            # transformers strips text beside special tokens it finds.
            texts += [f"{a.strip()}{n}{b.strip()}" for a, b in zip(texts[:40], texts[40:80]) for n in names]
            rows = [dict(text=t, parse=True, special=bool(i % 2)) for i, t in enumerate(texts)]
            got, speed = run(args.helper, folder, rows)
            bad = 0
            for i, (g, t) in enumerate(zip(got, texts)):
                want = encode(t, bool(i % 2))
                if g.get("ids", g.get("error")) != want:
                    bad += 1
                    if bad <= 5:
                        differ(make.__name__, i, "ids", g.get("ids", []) or [g], want)
            print(f"{make.__name__}: {len(texts)} texts: {bad} differ ({speed})", flush=True)
            wrong += bad
    return wrong


def write_gguf(path, m, model, **flags):
    import gguf
    w = gguf.GGUFWriter(path, "llama" if model == "llama" else "t5")
    w.add_tokenizer_model(model)
    w.add_token_list([p.piece.encode() for p in m.pieces])
    w.add_token_scores([p.score for p in m.pieces])
    w.add_token_types([p.type for p in m.pieces])
    names = {p.piece: i for i, p in enumerate(m.pieces)}
    for key, name in (("bos", "<s>"), ("eos", "</s>"), ("unk", "<unk>")):
        if name in names:
            w.add_uint32(f"tokenizer.ggml.{'unknown' if key == 'unk' else key}_token_id", names[name])
    for key, on in flags.items():
        w.add_bool("tokenizer.ggml." + key, on)
    if model == "t5":
        w.add_precompiled_charsmap(m.normalizer_spec.precompiled_charsmap)
    w.write_header_to_file()
    w.write_kv_data_to_file()
    w.write_tensors_to_file()
    w.close()


def check_gguf(args, lines):
    """The tokenizer inside a GGUF file against the same steps in the library."""
    bpe = spm(lines, "bpe", byte_fallback=True, normalization_rule_name="identity", remove_extra_whitespaces=False, split_digits=True)
    t5 = spm(lines, "unigram", **T5_IDS)
    unigram = Tokenizer(models.Unigram([(p.piece, p.score) for p in t5.pieces], unk_id=2))
    unigram.normalizer = N.Precompiled(t5.normalizer_spec.precompiled_charsmap)
    unigram.pre_tokenizer = P.Sequence([P.WhitespaceSplit(), P.Metaspace()])
    unigram.decoder = decoders.Metaspace()
    unigram.add_special_tokens(special(["<pad>", "</s>", "<unk>"]))
    with_template(unigram, "$A </s>", "$A </s> $B </s>", ["</s>"])
    plain_gemma = bpe_llama2(bpe)
    plain_gemma.normalizer = N.Replace(" ", "▁")
    plain_gemma.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()])
    wrong = 0
    for name, m, tok, model, flags in (("GGUF llama", bpe, bpe_llama2(bpe), "llama", {}),
                                       ("GGUF llama without prefix", bpe, plain_gemma, "llama", dict(add_space_prefix=False)),
                                       ("GGUF t5", t5, unigram, "t5", {})):
        if args.only and args.only not in name:
            continue
        with tempfile.TemporaryDirectory() as folder:
            path = os.path.join(folder, "x.gguf")
            write_gguf(path, m, model, **flags)
            names = [t.content for t in tok.get_added_tokens_decoder().values()]
            texts = corpus(args.megabytes / 2, names)
            wrong += compare(name, args.helper, path, tok, texts, plain=[])
    return wrong


def mbuyu(args, *command):
    done = subprocess.run([args.mbuyu, *command], capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"mbuyu {' '.join(command)}: exit {done.returncode}: {done.stderr}")
    return done.stdout


def library_trained(kind, path, size, lines):
    """The library's own trainer with the same steps."""
    if kind == "bpe":
        tok = Tokenizer(models.BPE())
        tok.pre_tokenizer = P.ByteLevel(add_prefix_space=False)
        tok.decoder = decoders.ByteLevel()
        tok.train([path], trainers.BpeTrainer(vocab_size=size, special_tokens=["<|endoftext|>"], show_progress=False,
                                              initial_alphabet=P.ByteLevel.alphabet()))
    elif kind == "llama":
        tok = Tokenizer(models.BPE(unk_token="<unk>", fuse_unk=True, byte_fallback=True))
        tok.pre_tokenizer = P.Metaspace()
        tok.train([path], trainers.BpeTrainer(vocab_size=size, show_progress=False,
                                              special_tokens=["<unk>", "<s>", "</s>"] + ["<0x%02X>" % b for b in range(256)]))
    else:
        tok = Tokenizer(models.Unigram())
        tok.normalizer = N.Sequence([N.Nmt(), N.NFKC(), N.Replace(Regex(" {2,}"), " ")])
        tok.pre_tokenizer = P.Metaspace()
        tok.train_from_iterator(lines, trainers.UnigramTrainer(vocab_size=size, unk_token="<unk>", show_progress=False,
                                                               special_tokens=["<pad>", "</s>", "<unk>"]))
    return tok


def per_word(tok, lines):
    return sum(len(tok.encode(t, add_special_tokens=False).ids) for t in lines) / sum(len(t.split()) for t in lines)


def check_training(args, lines):
    """`mbuyu tokenizer train` beside the trainers of the libraries, on the same text."""
    from transformers import AutoTokenizer
    lines = english_and_c() + [ONE_WORD] if args.text is None else open(args.text, encoding="utf-8").read().split("\n")
    held, wrong = lines[::10], 0
    with tempfile.TemporaryDirectory() as top:
        path = os.path.join(top, "text.txt")
        with open(path, "w", encoding="utf-8", newline="") as f:
            f.writelines(t + "\n" for i, t in enumerate(lines) if i % 10)
        for kind, size in (("bpe", 3000), ("llama", 3000), ("unigram", 2500)):
            if args.only and args.only not in "train " + kind:
                continue
            folder, again = os.path.join(top, kind), os.path.join(top, kind + "-again")
            start = time.time()
            command = ["tokenizer", "train", "--kind", kind, "--vocab-size", str(size), "--coverage", "1"]
            mbuyu(args, *command, "--output", folder, path)
            ours_s = time.time() - start
            os.environ["OMP_NUM_THREADS"] = "1"
            mbuyu(args, *command, "--output", again, path)
            del os.environ["OMP_NUM_THREADS"]
            same = open(os.path.join(folder, "tokenizer.json"), "rb").read() == open(os.path.join(again, "tokenizer.json"), "rb").read()
            start = time.time()
            theirs = library_trained(kind, path, size, [t for i, t in enumerate(lines) if i % 10])
            theirs_s = time.time() - start
            ours = Tokenizer.from_file(os.path.join(folder, "tokenizer.json"))
            a, b = per_word(ours, held), per_word(theirs, held)
            print(f"train {kind}: {ours.get_vocab_size()} tokens, the library {theirs.get_vocab_size()}; tokens per word held out "
                  f"{a:.4f}, the library {b:.4f} ({100 * (a / b - 1):+.2f} %); {ours_s:.1f} s, the library {theirs_s:.1f} s; "
                  f"one thread gives the same: {same}", flush=True)
            bad = not same or a > 1.03 * b
            if kind != "unigram":
                get = lambda t: (json.loads(t.to_str())["model"]["merges"], t.get_vocab())
                equal = get(ours) == get(theirs)
                if not equal:
                    at = next((i for i, (x, y) in enumerate(zip(get(ours)[0], get(theirs)[0])) if x != y), -1)
                    print(f"  merges differ at {at}: {get(ours)[0][at:at + 3]}, the library {get(theirs)[0][at:at + 3]}")
                print(f"train {kind}: merges and vocabulary equal to the library's: {equal}")
                bad = bad or not equal
            else:
                m = spm([t for i, t in enumerate(lines) if i % 10], "unigram", vocab_size=size, character_coverage=1.0)
                sp = sentencepiece.SentencePieceProcessor(model_proto=m.SerializeToString())
                c = sum(len(sp.encode(t)) for t in held) / sum(len(t.split()) for t in held)
                print(f"train unigram: sentencepiece {c:.4f} ({100 * (a / c - 1):+.2f} %)")
                bad = bad or a > 1.05 * c
            wrong += bad
            names = [t.content for t in ours.get_added_tokens_decoder().values()]
            texts = corpus(args.megabytes / 4, names)
            wrong += compare("trained " + kind, args.helper, folder, ours, texts, plain=[])
            fast = AutoTokenizer.from_pretrained(folder)
            got, _ = run(args.helper, folder, [dict(text=t, parse=True, special=True) for t in texts[:100]])
            wrong += sum(g["ids"] != fast(t).input_ids for g, t in zip(got, texts))
    return wrong


def wordpiece(lines, folder):
    tok = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    tok.normalizer = N.BertNormalizer()
    tok.pre_tokenizer = P.BertPreTokenizer()
    tok.decoder = decoders.WordPiece()
    tok.train_from_iterator(lines, trainers.WordPieceTrainer(vocab_size=1000, special_tokens=["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"],
                                                             show_progress=False))
    tok.save(os.path.join(folder, "tokenizer.json"))
    write_json(folder, "tokenizer_config.json", dict(tokenizer_class="PreTrainedTokenizerFast", unk_token="[UNK]", pad_token="[PAD]"))


def tiny_model(folder, rows, family):
    import torch
    from transformers import BertConfig, BertForMaskedLM, LlamaConfig, LlamaForCausalLM, T5Config, T5ForConditionalGeneration
    torch.manual_seed(0)
    if family == "llama":
        model = LlamaForCausalLM(LlamaConfig(vocab_size=rows, hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4,
                                             num_key_value_heads=2, tie_word_embeddings=False))
    elif family == "bert":
        model = BertForMaskedLM(BertConfig(vocab_size=rows, hidden_size=32, num_hidden_layers=1, num_attention_heads=2, intermediate_size=64))
    else:
        model = T5ForConditionalGeneration(T5Config(vocab_size=rows, d_model=32, d_kv=8, d_ff=64, num_layers=1, num_heads=4))
    model.save_pretrained(folder)


def check_extending(args, _):
    """`mbuyu tokenizer extend`: transformers loads model and tokenizer; new rows are means of old ones."""
    from transformers import AutoModelForCausalLM, AutoModelForMaskedLM, AutoModelForSeq2SeqLM, AutoTokenizer
    lines, wrong = english_and_c(), 0
    with tempfile.TemporaryDirectory() as top:
        path = os.path.join(top, "text.txt")
        write(top, "text.txt", "\n".join(lines).encode())
        for kind, family, auto in (("bpe", "llama", AutoModelForCausalLM), ("llama", "llama", AutoModelForCausalLM),
                                   ("unigram", "t5", AutoModelForSeq2SeqLM), ("wordpiece", "bert", AutoModelForMaskedLM)):
            if args.only and args.only not in "extend " + kind:
                continue
            base, new = os.path.join(top, kind), os.path.join(top, kind + "-new")
            os.makedirs(base)
            if kind == "wordpiece":
                wordpiece(lines[: len(lines) // 3], base)
            else:
                short = os.path.join(top, "short.txt")
                write(top, "short.txt", "\n".join(lines[: len(lines) // 3]).encode())
                mbuyu(args, "tokenizer", "train", "--kind", kind, "--vocab-size", "1000", "--output", base, short)
            rows = 1007  # seven more than tokens, as models have
            tiny_model(base, rows, family)
            print(mbuyu(args, "tokenizer", "extend", base, "--add", "200", "--output", new, path).replace("\n", "\n  ").rstrip())
            old, ext = AutoTokenizer.from_pretrained(base), AutoTokenizer.from_pretrained(new)
            fast = Tokenizer.from_file(os.path.join(new, "tokenizer.json"))
            a, b = per_word(Tokenizer.from_file(os.path.join(base, "tokenizer.json")), lines[9::10]), per_word(fast, lines[9::10])
            print(f"extend {kind}: {len(old)} tokens, now {len(ext)}; tokens per word held out {a:.3f}, now {b:.3f}")
            names = [t.content for t in fast.get_added_tokens_decoder().values()]
            wrong += compare("extended " + kind, args.helper, new, fast, corpus(args.megabytes / 4, names), plain=[])
            before, after = auto.from_pretrained(base), auto.from_pretrained(new)
            bad = len(ext) != len(old) + 200 or b >= a or after.config.vocab_size != len(old) + 200
            for what in ("get_input_embeddings", "get_output_embeddings"):
                x, y = getattr(before, what)().weight, getattr(after, what)().weight
                bad = bad or y.shape[0] != len(old) + 200 or not (x[: len(old)] == y[: len(old)]).all()
                # The first new token is a pair of old ones.
                parts = x[: len(old)]
                first = y[len(old)]
                means = (parts[:, None, :] + parts[None, :, :]).div(2).sub(first).abs().amax(-1)
                bad = bad or float(means.min().detach()) > 1e-6
            ids = ext("the value of a tensor", return_tensors="pt").input_ids
            extra = dict(decoder_input_ids=ids) if family == "t5" else {}
            bad = bad or not after(ids, **extra).logits.isfinite().all()
            print(f"extend {kind}: transformers loads it, old rows kept, the first new row a mean of two old ones: {not bad}", flush=True)
            wrong += bool(bad)
    return wrong


FIXTURE_TEXTS = ["Habari ya asubuhi, rafiki yangu.", "  two  spaces ", "", " ", "ﬁne ½ ① Ångström e\u0301 ｶﾅ", "naïve café <s> </s> <sep>",
                 "日本語 😀 x▁y", "a\tb\nc\r\nd", "foofoo  foo", "\u3000wide\u3000", "<0x41> <unk> <extra_id_0>", "tail ", "x" * 70,
                 "the of and to in is that for it was on are as with his they at be this", "क्षत्रिय ไทย ١٢٣ 3.14159"]


def write_fixtures(folder):
    """What tests/unit/test_tokenizer.c reads: two .model files and their ids; a tokenizer.json a line."""
    lines = [t for t in FIXTURE_TEXTS if t.strip()] * 20 + [" ".join(WORDS[:60])] * 5
    rules = os.path.join(folder, "rules.tsv")
    with open(rules, "w", encoding="utf-8") as f:
        for a, b in (("ﬁ", "fi"), ("½", "1/2"), ("①", "1"), ("e\u0301", "é"), ("ｶ", "カ"), ("\u3000", " "), ("\t", " "), ("\n", " "), ("\r", ""), ("A", "a"), ("Å", "A")):
            f.write(" ".join("%X" % ord(c) for c in a) + "\t" + " ".join("%X" % ord(c) for c in b) + "\n")
    small = dict(normalization_rule_tsv=rules, character_coverage=1.0, minloglevel=2)
    for name, options in (("unigram", dict(model_type="unigram", vocab_size=220, user_defined_symbols=["<sep>", "foo"], **small)),
                          ("bpe", dict(model_type="bpe", vocab_size=480, byte_fallback=True, remove_extra_whitespaces=False, **small))):
        m = spm(lines, **options)
        m.trainer_spec.ClearField("input")
        m.normalizer_spec.ClearField("normalization_rule_tsv")
        write(folder, name + ".model", m.SerializeToString())
        sp = sentencepiece.SentencePieceProcessor(model_proto=m.SerializeToString())
        with open(os.path.join(folder, name + ".jsonl"), "w", encoding="utf-8") as f:
            for t in FIXTURE_TEXTS:
                f.write(json.dumps(dict(text=t, ids=sp.encode(t), decoded=sp.decode(sp.encode(t))), ensure_ascii=False) + "\n")
    os.remove(rules)
    with open(os.path.join(folder, "pieces.jsonl"), "w", encoding="utf-8") as f:
        uni = proto.ModelProto.FromString(open(os.path.join(folder, "unigram.model"), "rb").read())
        bpe = proto.ModelProto.FromString(open(os.path.join(folder, "bpe.model"), "rb").read())
        for name, make, m in (("XLM-R", unigram_xlmr, uni), ("NLLB", unigram_nllb, uni), ("Nmt", unigram_nmt, uni), ("bytes", unigram_bytes, uni),
                              ("Llama-2", bpe_llama2, bpe), ("Phi-3", bpe_phi3, bpe), ("Gemma", bpe_gemma, bpe)):
            tok = make(m)
            cases = [dict(text=t, ids=tok.encode(t).ids, decoded=tok.decode(tok.encode(t).ids, skip_special_tokens=False)) for t in FIXTURE_TEXTS]
            f.write(json.dumps(dict(name=name, tokenizer=json.loads(tok.to_str()), cases=cases), ensure_ascii=False) + "\n")


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("helper", nargs="?")
    parser.add_argument("mbuyu", nargs="?")
    parser.add_argument("--megabytes", type=float, default=1.05)
    parser.add_argument("--spm", action="append", metavar="FILE.model", help="also this SentencePiece file")
    parser.add_argument("--only", help="only kinds whose name has this word")
    parser.add_argument("--text", metavar="FILE", help="learn from this text instead of english_and_c.txt")
    parser.add_argument("--write", metavar="DIR", help="write the data of tests/unit/test_tokenizer.c")
    args = parser.parse_args()
    if args.write:
        write_fixtures(args.write)
        return
    lines = training_text()
    wrong = check_json(args, lines) + check_spm(args, lines) + check_folders(args, lines) + check_gguf(args, lines)
    wrong += check_training(args, lines) + check_extending(args, lines) if args.mbuyu else 0
    sys.exit(1 if wrong else 0)


if __name__ == "__main__":
    main()
