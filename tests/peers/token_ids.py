#!/usr/bin/env python3
"""mbuyu's tokenizers against the tokenizers library and transformers: the same ids and texts.

    token_ids.py HELPER [--smollm2 FILE.gguf] [--minilm DIR] [--gpt2 gpt2.tiktoken] [--megabytes N]
    token_ids.py --write-steps FILE

HELPER is the built peer_tokenize. Each material that is given is compared with the fixtures in
tests/data/fixtures/tokenizers.json and, over a generated corpus of many scripts, emoji, code, runs
of white space and special tokens, with the library. Every step a tokenizer.json can have is compared
on small made-up tokenizers; --write-steps keeps those, with the library's answers, as the data of
tests/unit/test_tokenizer.c.
"""
import argparse
import base64
import json
import os
import random
import subprocess
import sys
import tempfile
import unicodedata

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models
from tokenizers import normalizers as N, pre_tokenizers as P, processors

HERE = os.path.dirname(os.path.abspath(__file__))
FIXTURES = os.path.join(HERE, "..", "data", "fixtures", "tokenizers.json")

WORDS = """the of and to in is that for it was on are as with his they at be this from have or by one
had not but what all were when we there can an your which their said if do will each about how up out
don't we've I'LL you're it's O'Neil rock'n'roll naïve café Straße Ünïcödé ﬁne ½ ① Ångström İstanbul
habari ya asubuhi ng'ombe wang'u rafiki yangu mwalimu anafundisha watoto
кириллица Привет мир ещё ёлка العربية مرحبا بالعالم ١٢٣ שלום עולם हिन्दी नमस्ते क्षत्रिय বাংলা தமிழ் ไทย
สวัสดี 日本語 漢字かな交じり文 カタカナ ｶﾅ 中文分词 한국어 조선말 Ελληνικά ἀρχή Հայերեն ქართული አማርኛ ᏣᎳᎩ
𝒜𝓁𝓅𝒽𝒶 𠀀𪛖 ꙮ ſtop ǅ Ǆ ẞ ﬃ Ⅷ ² ³ ٣ 二 ４２ 3.14159 1e-5 0x1F600 1,000,000 2024-06-01 12:30:59
foo_bar fooBar() {return x->y[i++];} #include <stdio.h> // comment /* block */ <html> &amp; $x += 1;
def f(self, *args, **kw): https://example.org/a?b=c&d=e#f user@example.org C:\\dir \\n %d --flag=1 a&&b||c
😀 👩🏾‍🌾 🇹🇿🇰🇪 👨‍👩‍👧‍👦 ❤️ ☕︎ ✈ … — – “quoted” ‘single’ «guillemets» „low“ ¿qué? ¡hola! § ¶ † ‡ • ° € £ ¥""".split()
SPACES = [" "] * 20 + ["  ", "   ", " " * 7, "\n", "\n\n", "\r\n", "\t", "\t\t ", " \n ", "\n\n\n  ", "", "",
          "\u00a0", "\u3000", "\u200b", "\u200d", "\u2028", "\u0085", "\u180e", "\ufeff", "\x1f", "\x7f", "\v\f",
          "e\u0301", "a\u0327\u0301", "\u0301\u0316", "\u0300", "\u202e"]


def corpus(megabytes, specials, seed=11):
    """Lines of 1 to 400 pieces; beside words and spaces, code points drawn from everywhere that
    were assigned in Unicode 14: what is newer depends on the version PCRE2 and utf8proc have."""
    rng = random.Random(seed)
    size, lines = 0, []
    blocks = [(0x20, 0x7f), (0xa0, 0x250), (0x250, 0x600), (0x600, 0x1100), (0x1100, 0x2000),
              (0x2000, 0x2c00), (0x2c00, 0x3100), (0x3100, 0xa000), (0xa000, 0xd800),
              (0xe000, 0x10000), (0x10000, 0x20000), (0x1f300, 0x1fb00), (0x20000, 0x30000)]
    while size < megabytes * 1e6:
        out = []
        for _ in range(rng.choice([1, 3, 10, 40, 400])):
            kind = rng.random()
            if kind < 0.45:
                out.append(rng.choice(WORDS))
            elif kind < 0.80:
                out.append(rng.choice(SPACES))
            elif kind < 0.86:
                out.append(rng.choice("0123456789") * rng.randrange(1, 9))
            elif kind < 0.91:
                out.append(rng.choice("'.,;:!?-_()[]{}<>|/\\\"@#$%^&*+=~`") * rng.randrange(1, 4))
            elif kind < 0.93 and specials:
                out.append(rng.choice(specials))
            elif kind < 0.94:
                out.append(chr(rng.randrange(0x20, 0x250)) * rng.randrange(1, 200))
            else:
                drawn = (chr(rng.randrange(*rng.choice(blocks))) for _ in range(rng.randrange(1, 9)))
                out.append("".join(c for c in drawn if unicodedata.category(c) != "Cn"))
        text = "".join(out).replace("\0", "")
        lines.append(text)
        size += len(text.encode())
    return lines


def run(helper, model, rows, *flags):
    done = subprocess.run([helper, model, *flags], input="".join(json.dumps(r) + "\n" for r in rows).encode(),
                          capture_output=True, check=False)
    if done.returncode:
        sys.exit(f"{helper} {model}: exit {done.returncode}: {done.stderr.decode()}")
    lines = done.stdout.decode().split("\n")[:-1]
    return [json.loads(line) for line in lines], done.stderr.decode().strip().split("\n")[-1]


def differ(name, i, what, got, want):
    at = next((k for k, (a, b) in enumerate(zip(got, want)) if a != b), min(len(got), len(want)))
    print(f"  {name} line {i}: {what} differs at {at}: {got[max(0, at - 2):at + 4]!r}, "
          f"the peer {want[max(0, at - 2):at + 4]!r}")


def compare(name, helper, model, tok, texts, decode=True, plain=None):
    """Ids, with and without special tokens, types, pairs and texts of `model` and of the library;
    those of `plain` also with the names of special tokens taken for text."""
    tok.no_truncation()
    tok.no_padding()
    rows, want = [], []
    for i, text in enumerate(texts):
        rows.append(dict(text=text, parse=True, special=bool(i % 2)))
        want.append(tok.encode(text, add_special_tokens=bool(i % 2)))
    for a, b in zip(texts[:50], texts[50:100]):
        rows.append(dict(text=a, pair=b, parse=True, special=True))
        want.append(tok.encode(a, b))
    tok.encode_special_tokens = True
    plain = texts[: len(texts) // 4] if plain is None else plain
    rows += [dict(text=t) for t in plain]
    want += [tok.encode(t, add_special_tokens=False) for t in plain]
    tok.encode_special_tokens = False
    got, speed = run(helper, model, rows)
    wrong = 0
    for i, (g, w) in enumerate(zip(got, want)):
        checks = [("ids", g.get("ids", g.get("error")), w.ids), ("types", g.get("types", []), w.type_ids)]
        if decode and "ids" in g:
            text = tok.decode(w.ids, skip_special_tokens=False)
            checks += [("decoded", g["decoded"], text), ("streamed", g["streamed"], text)]
        bad = [c for c in checks if c[1] != c[2]]
        wrong += bool(bad)
        if bad and wrong <= 8:
            differ(name, i, *bad[0])
    size = sum(len(t.encode()) for t in texts)
    n_ids = sum(len(w.ids) for w in want)
    print(f"{name}: {len(want)} texts, {size / 1e6:.2f} MB, {n_ids} ids: {wrong} differ ({speed})")
    return wrong + abs(len(got) - len(want))


def fixtures(name, helper, model):
    cases = json.load(open(FIXTURES))[name]
    rows = [dict(text=c["text"], parse=True, special=s) for c in cases for s in (False, True)]
    got, _ = run(helper, model, rows)
    wrong = 0
    for i, c in enumerate(cases):
        a, b = got[2 * i], got[2 * i + 1]
        if a.get("ids") != c["ids"] or b.get("ids") != c["ids_special"] or a["decoded"] != c["decoded"]:
            wrong += 1
            print(f"  {name}: fixture {c['text']!r}: {a}")
    print(f"{name}: {len(cases)} fixtures: {wrong} differ")
    return wrong


def gpt2_from_ranks(path):
    """GPT-2's tokenizer.json from tiktoken's ranks: a merge is the cut a lower rank made."""
    ranks = {base64.b64decode(t): int(r) for t, r in (line.split() for line in open(path) if line.strip())}
    order = sorted(ranks, key=ranks.get)
    char = {}
    extra = 0
    for b in range(256):
        if 33 <= b <= 126 or 161 <= b <= 172 or b >= 174:
            char[b] = chr(b)
        else:
            char[b] = chr(256 + extra)
            extra += 1
    name = lambda t: "".join(char[b] for b in t)
    merges = []
    for token in order:
        if len(token) < 2:
            continue
        parts = [bytes([b]) for b in token]
        while len(parts) > 2:
            best = min(range(len(parts) - 1), key=lambda i: (ranks.get(parts[i] + parts[i + 1], 1 << 30), i))
            parts[best:best + 2] = [parts[best] + parts[best + 1]]
        merges.append((name(parts[0]), name(parts[1])))
    vocab = {name(t): ranks[t] for t in order}
    vocab["<|endoftext|>"] = len(vocab)
    tok = Tokenizer(models.BPE(vocab, merges))
    tok.pre_tokenizer = P.ByteLevel(add_prefix_space=False)
    tok.decoder = decoders.ByteLevel()
    tok.post_processor = processors.ByteLevel(trim_offsets=False)
    tok.add_special_tokens([AddedToken("<|endoftext|>", normalized=False)])
    return tok


def from_transformers(name, folder, helper, texts):
    """AutoTokenizer on what mbuyu saved, alone and beside a llama config.json."""
    from transformers import AutoTokenizer
    wrong = 0
    for config in (None, {"model_type": "llama", "architectures": ["LlamaForCausalLM"]}):
        if config:
            json.dump(config, open(os.path.join(folder, "config.json"), "w"))
        tok = AutoTokenizer.from_pretrained(folder)
        got, _ = run(helper, folder, [dict(text=t, parse=True, special=True) for t in texts])
        bad = sum(g.get("ids") != tok(t)["input_ids"] for g, t in zip(got, texts))
        chat = tok.apply_chat_template([{"role": "user", "content": "Hi"}], tokenize=False) if tok.chat_template else ""
        print(f"{name}: AutoTokenizer ({type(tok).__name__}{', config.json' if config else ''}) on the saved folder: "
              f"{len(texts)} texts: {bad} differ; eos {tok.eos_token!r} pad {tok.pad_token!r} "
              f"max {tok.model_max_length} chat {chat[-30:]!r}")
        wrong += bad
    return wrong


# --- every step -----------------------------------------------------------------------------------

TEXTS = ["", " ", "Hello, World! it's 1234 and 56.", "  two  spaces\t\tand\nnew\r\nlines ", "a b  c   d",
         "naïve café CAFÉ e\u0301 Ünïcödé \u212bngstr\u00f6m \ufb01ne \u2460 \u00bd İI", "A\u0301\u0327 a\u0316\u0301\u0315 z",
         "日本語テキスト and 中文 한국어", "Привет, мир! العربية ١٢٣ हिन्दी", "x-y_z (foo) [bar] {baz} $5 + 3 = 8 ^~`|<>",
         "👩🏾‍🌾🇹🇿 emoji", "zero\u200bwidth\u00a0nbsp\u3000wide\u2028sep\u0085nel\u180emvs", "▁meta▁space", "aXXbXcXX",
         "<s>special</s> <pad>[MASK] mask", "don't DON'T we'll I'Ve 'S", "1 22 333 4444 55555", "\u1100\u1161\u11a8 가각",
         "a,b;c:d", "--- === ...", "Ⅷ ² ٣ 二 ４２", "tab\x01ctrl\x7f\ufffd\ufeffend", "the cat's \"hat\" isn ' t do not"]
GPT4 = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
O200K = (r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?|"
         r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?|"
         r"\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+")
CL100K = r"'(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?+\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]++[\r\n]*|\s*[\r\n]|\s+(?!\S)|\s+"
QWEN = GPT4.replace("{1,3}", "")


def steps():
    """(name, normalizer, pre-tokenizer, decoder) to be run over TEXTS."""
    for n in (N.NFC(), N.NFD(), N.NFKC(), N.NFKD(), N.Lowercase(), N.StripAccents(), N.Strip(), N.Strip(right=False),
              N.Strip(left=False), N.Prepend("▁"), N.Replace("XX", "<x>"), N.Replace(Regex(r"\s+"), " "),
              N.Replace(Regex(r"(?i)[aeiou]"), ""), N.BertNormalizer(), N.BertNormalizer(lowercase=False),
              N.BertNormalizer(clean_text=False, strip_accents=False), N.BertNormalizer(handle_chinese_chars=False),
              N.BertNormalizer(lowercase=False, strip_accents=True), N.ByteLevel(),
              N.Sequence([N.NFD(), N.StripAccents(), N.Lowercase()]),
              N.Sequence([N.Prepend("▁"), N.Replace(" ", "▁")])):
        yield "normalizer", n, P.WhitespaceSplit(), None
    behaviors = ["removed", "isolated", "merged_with_previous", "merged_with_next", "contiguous"]
    for p in ([P.BertPreTokenizer(), P.ByteLevel(add_prefix_space=True), P.ByteLevel(add_prefix_space=False),
               P.ByteLevel(add_prefix_space=True, use_regex=False), P.Digits(individual_digits=True), P.Digits(),
               P.Whitespace(), P.WhitespaceSplit(), P.CharDelimiterSplit("X"), P.Metaspace(),
               P.Metaspace(prepend_scheme="never"), P.Metaspace(prepend_scheme="first"),
               P.Metaspace(prepend_scheme="first", split=False),
               P.Sequence([P.Digits(individual_digits=True), P.ByteLevel(add_prefix_space=False)]),
               P.Sequence([P.Whitespace(), P.Punctuation(), P.Digits()])]
              + [P.Punctuation(b) for b in behaviors]
              + [P.Split(pat, b, inv) for b in behaviors for inv in (False, True)
                 for pat in ("X", "XX", Regex(r"\s"), Regex(r"\w+"))]
              + [P.Sequence([P.Split(Regex(r), "isolated"), P.ByteLevel(add_prefix_space=False, use_regex=False)])
                 for r in (GPT4, O200K, CL100K, QWEN)]
              + [P.Split(Regex(r), "isolated") for r in (r"\d{2}", r"[\s\w]+", r"\p{Han}+|\p{Hangul}", r"\h+", r"^\w|\w$",
                                                         r"(?m:a.b)", r"\D", r"\S+\s", r"[[:punct:]]", r"(?=X)|\bw")]):
        yield "pre_tokenizer", None, p, None


def visible(normalizer, pre_tokenizer):
    """A BPE of single characters that marks the end of every word, so that cuts show in the ids."""
    chars = sorted(set("".join(TEXTS)) | {chr(c) for c in range(0x21, 0x180)} | set("▁Ġ"))
    vocab = {"<unk>": 0}
    for c in chars:
        for token in (c, c + "</w>"):
            vocab.setdefault(token, len(vocab))
    tok = Tokenizer(models.BPE(vocab, [], unk_token="<unk>", end_of_word_suffix="</w>"))
    if normalizer is not None:
        tok.normalizer = normalizer
    tok.pre_tokenizer = pre_tokenizer
    return tok


def added_cases():
    """Added tokens with all their flags, and post-processors."""
    base = lambda: visible(N.Lowercase(), P.WhitespaceSplit())
    texts = ["a <mask> b", "a<mask>b", "  <mask>  x", "word[W]word [W] x", "x [w] <MASK> y", "İ<L> <R> z", "Foo foo FOO xfoox",
             "<s><s></s>", "<abcd<abc<ab", "[W][W] [W]", "tail <mask>", "<mask>", "\u00a0<mask>\u2003!", "_[W]_ -[W]- é[W]"]
    for special in (True, False):
        for flags in (dict(), dict(lstrip=True), dict(rstrip=True), dict(lstrip=True, rstrip=True), dict(single_word=True),
                      dict(normalized=True), dict(normalized=False), dict(normalized=True, lstrip=True, single_word=True)):
            tok = base()
            add = tok.add_special_tokens if special else tok.add_tokens
            add([AddedToken(t, **flags) for t in ("<mask>", "[W]", "Foo", "<abc", "<abcd", "<ab", "<s>")])
            yield f"added special={special} {flags}", tok, texts
    for post in ("template", "bert", "roberta", "none"):
        tok = base()
        tok.add_special_tokens(["<cls>", "<sep>"])
        c, s = tok.token_to_id("<cls>"), tok.token_to_id("<sep>")
        if post == "template":
            tok.post_processor = processors.TemplateProcessing(
                single="<cls> $A:0 <sep>", pair="<cls> $A:0 <sep> $B:1 <sep>:1", special_tokens=[("<cls>", c), ("<sep>", s)])
        if post == "bert":
            tok.post_processor = processors.BertProcessing(("<sep>", s), ("<cls>", c))
        if post == "roberta":
            tok.post_processor = processors.Sequence([processors.ByteLevel(), processors.RobertaProcessing(("<sep>", s), ("<cls>", c))])
        yield f"post-processor {post}", tok, ["ab cd", "x", "", "hello world"]


def decoder_cases():
    """Decoders over the ids of what the text is cut into."""
    wp = lambda: Tokenizer(models.WordPiece({t: i for i, t in enumerate(
        ["[UNK]", "the", "cat", "##s", "'", "s", ".", ",", "!", "do", "not", "n't", "##ing", "walk", "ca", "it", "\"", "?", "'ve", "we"])},
        unk_token="[UNK]", max_input_chars_per_word=12))
    texts = ["the cats walking .", "the cat ' s , do not ! walk ?", "we 've n't", "cats's unknownword walkings", "walkingwalkingwalking"]
    for dec in (decoders.WordPiece(), decoders.WordPiece(cleanup=False), decoders.WordPiece(prefix="s"), None, decoders.Fuse(),
                decoders.Sequence([decoders.Replace("t", "TT"), decoders.Strip("a", 1, 1)]), decoders.Replace(Regex("[aeiou]"), "_"),
                decoders.Sequence([decoders.Fuse(), decoders.Strip("t", 1, 0)]), decoders.BPEDecoder("s"), decoders.Metaspace("t")):
        tok = wp()
        tok.pre_tokenizer = P.WhitespaceSplit()
        if dec is not None:
            tok.decoder = dec
        yield f"decoder {dec}", tok, texts
    spm = {"<unk>": 0}
    for b in range(256):
        spm["<0x%02X>" % b] = len(spm)
    for t in ["▁", "h", "e", "l", "o", "▁h", "el", "lo", "hello", "hel", "▁hello", "w", "é", "日"]:
        spm[t] = len(spm)
    merges = [("▁", "h"), ("e", "l"), ("l", "o"), ("h", "el"), ("hel", "lo"), ("▁", "hello")]
    for fuse in (True, False):
        for fallback in (True, False):
            tok = Tokenizer(models.BPE(spm, merges, unk_token="<unk>", fuse_unk=fuse, byte_fallback=fallback))
            tok.normalizer = N.Sequence([N.Prepend("▁"), N.Replace(" ", "▁")])
            tok.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)])
            yield f"sentencepiece-like fuse={fuse} fallback={fallback}", tok, ["hello hello", "héllo 日本 😀 xyz", " leading", "qq zz", "", "hellohellohello"]
    for extra in (dict(continuing_subword_prefix="##"), dict(ignore_merges=True), dict(unk_token="?"), dict()):
        sub = extra.get("continuing_subword_prefix", "")
        vocab = {t: i for i, t in enumerate(["?", "a", "b", "c", sub + "b_" if sub else "b_", "##a", "##b", "##c", "ab", "abc", "##bc", "bc", "cab"])}
        merges = [("a", sub + "b"), ("ab", sub + "c")] if sub else [("a", "b"), ("b", "c"), ("ab", "c")]
        tok = Tokenizer(models.BPE(vocab, merges, **extra))
        tok.pre_tokenizer = P.WhitespaceSplit()
        yield f"bpe {extra}", tok, ["abc", "aabbcc", "cab abc", "xaby", "abcabcabcabcabcabcabcabcabcabcabcabcabc", "bcbc"]


def all_steps():
    for i, (kind, normalizer, pre_tokenizer, _) in enumerate(steps()):
        tok = visible(normalizer, pre_tokenizer)
        shown = json.loads(tok.to_str())
        yield f"{kind} {json.dumps(shown[kind], ensure_ascii=False)[:150]}", tok, TEXTS
    yield from added_cases()
    yield from decoder_cases()


def check_steps(helper):
    wrong = count = 0
    with tempfile.TemporaryDirectory() as folder:
        for name, tok, texts in all_steps():
            tok.save(os.path.join(folder, "tokenizer.json"))
            rows = [dict(text=t, parse=True, special=True) for t in texts]
            rows += [dict(text=t, pair=u, parse=True, special=True) for t, u in zip(texts, texts[1:])]
            want = [tok.encode(t) for t in texts] + [tok.encode(t, u) for t, u in zip(texts, texts[1:])]
            got, _ = run(helper, folder, rows)
            bad = 0
            for i, (g, w) in enumerate(zip(got, want)):
                text = tok.decode(w.ids, skip_special_tokens=False)
                if (g.get("ids"), g.get("types"), g.get("decoded")) != (w.ids, w.type_ids, text):
                    bad += 1
                    if bad < 3:
                        print(f"  {name}: {rows[i]['text']!r}: {g.get('error')}")
                        print(f"    got  {[tok.id_to_token(k) for k in g.get('ids', [])]} {g.get('decoded')!r}")
                        print(f"    want {w.tokens} {text!r}")
                elif g["streamed"] != text:
                    print(f"  {name}: {rows[i]['text']!r} streams as {g['streamed']!r}, not {text!r}")
                    bad += 1
            wrong += bad > 0
            count += 1
    print(f"steps: {count} made-up tokenizers: {wrong} differ")
    return wrong


def write_steps(path):
    """One line each; the first is the model that the lines without one share."""
    shared = json.loads(visible(None, P.WhitespaceSplit()).to_str())["model"]
    with open(path, "w") as f:
        put = lambda row: f.write(json.dumps(row, ensure_ascii=False) + "\n")
        put(dict(model=shared))
        for name, tok, texts in all_steps():
            cases = []
            for t in texts:
                e = tok.encode(t)
                cases.append(dict(text=t, ids=e.ids, decoded=tok.decode(e.ids, skip_special_tokens=False)))
            shown = json.loads(tok.to_str())
            if shown["model"] == shared:
                del shown["model"]
            put(dict(name=name, tokenizer=shown, cases=cases))


def characters(helper):
    """Every code point through every normaliser and class; differences are Unicode versions."""
    every = [chr(c) for c in range(1, 0x110000) if not 0xd800 <= c < 0xe000]
    total = 0
    with tempfile.TemporaryDirectory() as folder:
        vocab = {"<unk>": 0}
        for b in range(256):
            vocab["<0x%02X>" % b] = len(vocab)
        for name, normalizer, pre in (
                ("BertNormalizer", N.BertNormalizer(), None), ("NFC", N.NFC(), None), ("NFKC", N.NFKC(), None), ("NFD", N.NFD(), None),
                ("NFKD", N.NFKD(), None), ("Lowercase", N.Lowercase(), None), ("StripAccents", N.StripAccents(), None), ("Strip", N.Strip(), None),
                ("Punctuation", None, P.Punctuation("removed")), ("Digits", None, P.Split(Regex(r"\p{N}"), "removed")),
                ("WhitespaceSplit", None, P.WhitespaceSplit()), ("Whitespace", None, P.Split(Regex(r"\w"), "removed")),
                ("letters", None, P.Split(Regex(r"\p{L}"), "removed")), ("spaces", None, P.Split(Regex(r"\s"), "removed")),
                ("class word", None, P.Split(Regex(r"[\w]"), "removed")), ("Whitespace words", None, P.Whitespace()),
                ("not word", None, P.Split(Regex(r"\W"), "removed")), ("not space", None, P.Split(Regex(r"[^\s]"), "removed")),
                ("posix punct", None, P.Split(Regex("[[:punct:]]"), "removed")), ("posix alpha", None, P.Split(Regex("[[:alpha:]]"), "removed")),
                ("Han", None, P.Split(Regex(r"\p{Han}"), "removed")), ("marks", None, P.Split(Regex(r"\p{M}"), "removed")),
                ("symbols", None, P.Split(Regex(r"[\p{P}\p{S}]"), "removed")), ("upper", None, P.Split(Regex(r"[\p{Lu}\p{Lt}]"), "removed")),
                ("caseless", None, P.Split(Regex(r"(?i:'s|k|[ß-ö])"), "removed"))):
            tok = Tokenizer(models.BPE(vocab, [], unk_token="<unk>", byte_fallback=True))
            if normalizer is not None:
                tok.normalizer = normalizer
            if pre is not None:
                tok.pre_tokenizer = pre
            tok.save(os.path.join(folder, "tokenizer.json"))
            got, _ = run(helper, folder, [dict(text=c) for c in every])
            want = tok.encode_batch(every, add_special_tokens=False)
            bad = [ord(c) for c, g, w in zip(every, got, want) if g.get("ids") != w.ids]
            runs = []
            for c in bad:
                if runs and runs[-1][1] == c - 1:
                    runs[-1][1] = c
                else:
                    runs.append([c, c])
            print(f"characters: {name}: {len(bad)} of {len(every)} differ",
                  " ".join(f"{a:04X}-{b:04X}" if a < b else f"{a:04X}" for a, b in runs[:60]), flush=True)
            total += len(bad)
    return total


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("helper", nargs="?")
    for option in ("--smollm2", "--minilm", "--gpt2", "--write-steps"):
        parser.add_argument(option)
    parser.add_argument("--megabytes", type=float, default=2)
    parser.add_argument("--characters", action="store_true", help="also every code point, for information")
    args = parser.parse_args()
    if args.write_steps:
        write_steps(args.write_steps)
        return
    wrong = check_steps(args.helper)
    with tempfile.TemporaryDirectory() as top:
        if args.gpt2:
            folder = os.path.join(top, "gpt2")
            os.mkdir(folder)
            tok = gpt2_from_ranks(args.gpt2)
            tok.save(os.path.join(folder, "tokenizer.json"))
            wrong += fixtures("gpt2", args.helper, folder)
            wrong += compare("gpt2", args.helper, folder, tok, corpus(args.megabytes, ["<|endoftext|>"]))
        if args.minilm:
            tok = Tokenizer.from_file(os.path.join(args.minilm, "tokenizer.json"))
            wrong += fixtures("minilm", args.helper, args.minilm)
            wrong += compare("minilm", args.helper, args.minilm, tok, corpus(args.megabytes, ["[CLS]", "[SEP]", "[MASK]", "[PAD]", "[UNK]"]))
            texts = ["word " * n for n in (0, 100, 126, 127, 200)]
            tok = Tokenizer.from_file(os.path.join(args.minilm, "tokenizer.json"))
            tok.no_padding()
            got, _ = run(args.helper, args.minilm, [dict(text=t, special=True, truncate=True) for t in texts]
                         + [dict(text=t, pair=u, special=True, truncate=True) for t in texts for u in texts])
            want = [tok.encode(t).ids for t in texts] + [tok.encode(t, u).ids for t in texts for u in texts]
            bad = sum(g.get("ids") != w for g, w in zip(got, want))
            print(f"minilm: {len(want)} truncations: {bad} differ")
            wrong += bad
        if args.smollm2:
            folder = os.path.join(top, "smollm2")
            run(args.helper, args.smollm2, [], "--save", folder)
            tok = Tokenizer.from_file(os.path.join(folder, "tokenizer.json"))
            specials = [t.content for t in tok.get_added_tokens_decoder().values()]
            texts = corpus(args.megabytes, specials)
            wrong += fixtures("smollm2", args.helper, args.smollm2)
            wrong += fixtures("smollm2", args.helper, folder)
            wrong += compare("smollm2", args.helper, args.smollm2, tok, texts)
            wrong += from_transformers("smollm2", folder, args.helper, texts[:400])
    if args.characters:
        characters(args.helper)
    sys.exit(1 if wrong else 0)


if __name__ == "__main__":
    main()
