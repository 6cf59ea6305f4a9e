/* recipes/tokenizers/train.c - from text files to a tokenizer.json.
 *
 * A kind is the steps of the new tokenizer, as they are written, and its first tokens. The steps are
 * also what cuts the text into words: the file is first made with an empty vocabulary and read.
 */
#include "recipes/tokenizers/train.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/alloc.h"
#include "core/path.h"
#include "recipes/tokenizers/learn.h"

#define MARK "\xe2\x96\x81"
#define METASPACE                                     \
    "{\"type\":\"Metaspace\",\"replacement\":\"" MARK \
    "\",\"prepend_scheme\":\"always\",\"split\":"     \
    "true}"
#define BYTE_LEVEL(prefix)                                                           \
    "{\"type\":\"ByteLevel\",\"add_prefix_space\":" prefix ",\"trim_offsets\":true," \
    "\"use_regex\":true}"
#define TOKEN(name, id) \
    "\"" name "\":{\"id\":\"" name "\",\"ids\":[" id "],\"tokens\":[\"" name "\"]}"
#define SPECIAL(name) "{\"SpecialToken\":{\"id\":\"" name "\",\"type_id\":0}}"
#define A             "{\"Sequence\":{\"id\":\"A\",\"type_id\":0}}"
#define B             "{\"Sequence\":{\"id\":\"B\",\"type_id\":0}}"

enum model { BYTES, FALLBACK, UNIGRAM };

static const struct kind {
    const char *name;
    enum model model;
    const char *special[4]; /* the first ids */
    const char *normalizer, *pre_tokenizer, *post_processor, *decoder, *roles;
    bool ends; /* a line's end is learned from */
} kinds[] = {
    {"bpe",
     BYTES,
     {"<|endoftext|>"},
     "null",
     BYTE_LEVEL("false"),
     "null",
     BYTE_LEVEL("true"),
     "\"bos_token\":\"<|endoftext|>\",\"eos_token\":\"<|endoftext|>\"",
     true},
    {"llama",
     FALLBACK,
     {"<unk>", "<s>", "</s>"},
     "null",
     METASPACE,
     "{\"type\":\"TemplateProcessing\",\"single\":[" SPECIAL("<s>") "," A "],\"pair\":[" SPECIAL(
         "<s>") "," A "," SPECIAL("<s>") "," B "],\"special_tokens\":{" TOKEN("<s>", "1") "}}",
     "{\"type\":\"Sequence\",\"decoders\":[{\"type\":\"Replace\",\"pattern\":{\"String\":\"" MARK
     "\"},\"content\":\" \"},{\"type\":\"ByteFallback\"},{\"type\":\"Fuse\"},{\"type\":\"Strip\","
     "\"content\":\" \",\"start\":1,\"stop\":0}]}",
     "\"unk_token\":\"<unk>\",\"bos_token\":\"<s>\",\"eos_token\":\"</s>\"",
     true},
    {"unigram",
     UNIGRAM,
     {"<pad>", "</s>", "<unk>"},
     "{\"type\":\"Sequence\",\"normalizers\":[{\"type\":\"Nmt\"},{\"type\":\"NFKC\"},{\"type\":"
     "\"Replace\",\"pattern\":{\"Regex\":\" {2,}\"},\"content\":\" \"}]}",
     METASPACE,
     "{\"type\":\"TemplateProcessing\",\"single\":[" A
     "," SPECIAL("</s>") "],\"pair\":[" A "," SPECIAL("</s>") "," B "," SPECIAL(
         "</s>") "],\"special_tokens\":{" TOKEN("</s>", "1") "}}",
     METASPACE,
     "\"pad_token\":\"<pad>\",\"eos_token\":\"</s>\",\"unk_token\":\"<unk>\"",
     false},
};

struct trainer {
    const mb_tok_training *how;
    const struct kind *kind;
    mb_vocab *vocab; /* token -> id, in the order of ids */
    size_t n_special;
    mb_vocab *chars; /* the alphabet */
    tok_words words;
    tok_merges merges;
    tok_scored_list scored;
    mb_bytes out;
};

static mb_status put(struct trainer *t, const char *text)
{
    return mb_bytes_puts(&t->out, text);
}

/* Everything before "model": the special tokens and the steps. */
static mb_status put_steps(struct trainer *t)
{
    const struct kind *k = t->kind;

    MB_TRY(
        put(t, "{\"version\":\"1.0\",\"truncation\":null,\"padding\":null,\n\"added_tokens\":["));
    for (size_t i = 0; i < t->n_special; i++) {
        size_t n;
        int32_t id;
        const char *token = mb_vocab_at(t->vocab, i, &n, &id);
        MB_TRY(mb_bytes_printf(&t->out, "%s\n{\"id\":%d,\"content\":", i > 0 ? "," : "", (int)id));
        MB_TRY(mb_bytes_json(&t->out, token, n));
        MB_TRY(put(t, ",\"single_word\":false,\"lstrip\":false,\"rstrip\":false,"
                      "\"normalized\":false,\"special\":true}"));
    }
    const char *const parts[] = {
        "],\n\"normalizer\":",    k->normalizer,     ",\n\"pre_tokenizer\":", k->pre_tokenizer,
        ",\n\"post_processor\":", k->post_processor, ",\n\"decoder\":",       k->decoder,
        ",\n\"model\":"};
    for (size_t i = 0; i < sizeof parts / sizeof *parts; i++)
        MB_TRY(put(t, parts[i]));
    return MB_OK;
}

static mb_status put_vocab(struct trainer *t)
{
    for (size_t i = 0; i < mb_vocab_count(t->vocab); i++) {
        size_t n;
        int32_t id;
        const char *token = mb_vocab_at(t->vocab, i, &n, &id);
        MB_TRY(put(t, i > 0 ? ",\n" : "\n"));
        MB_TRY(mb_bytes_json(&t->out, token, n));
        MB_TRY(mb_bytes_printf(&t->out, ":%d", (int)id));
    }
    return MB_OK;
}

static mb_status put_id(struct trainer *t, int32_t id)
{
    size_t n;
    int32_t same;
    const char *token = mb_vocab_at(t->vocab, (size_t)id, &n, &same);

    return mb_bytes_json(&t->out, token, n);
}

static mb_status put_bpe(struct trainer *t)
{
    const bool bytes = t->kind->model == BYTES;

    MB_TRY(put(t, "{\"type\":\"BPE\",\"dropout\":null,\"continuing_subword_prefix\":null,"
                  "\"end_of_word_suffix\":null,\"ignore_merges\":false,"));
    MB_TRY(
        put(t, bytes ? "\"unk_token\":null,\"fuse_unk\":false,\"byte_fallback\":false,\n\"vocab\":{"
                     : "\"unk_token\":\"<unk>\",\"fuse_unk\":true,\"byte_fallback\":true,\n"
                       "\"vocab\":{"));
    MB_TRY(put_vocab(t));
    MB_TRY(put(t, "},\n\"merges\":["));
    for (size_t i = 0; i < t->merges.n; i++) {
        MB_TRY(put(t, i > 0 ? ",\n[" : "\n["));
        MB_TRY(put_id(t, t->merges.at[i].left));
        MB_TRY(put(t, ","));
        MB_TRY(put_id(t, t->merges.at[i].right));
        MB_TRY(put(t, "]"));
    }
    return put(t, "]}}\n");
}

/* Scores have six digits after the point: every reader makes the same number of them. */
static mb_status put_unigram(struct trainer *t)
{
    MB_TRY(put(t, "{\"type\":\"Unigram\",\"unk_id\":2,\"byte_fallback\":false,\"vocab\":["));
    for (size_t i = 0; i < t->n_special; i++) {
        MB_TRY(put(t, i > 0 ? ",\n[" : "\n["));
        MB_TRY(put_id(t, (int32_t)i));
        MB_TRY(put(t, ",0.0]"));
    }
    for (size_t i = 0; i < t->scored.n; i++) {
        MB_TRY(put(t, ",\n["));
        MB_TRY(mb_bytes_json(&t->out, t->scored.at[i].p, t->scored.at[i].n));
        MB_TRY(mb_bytes_printf(&t->out, ",%.6f]", t->scored.at[i].score));
    }
    return put(t, "]}}\n");
}

static mb_status add_token(struct trainer *t, const char *token, size_t n)
{
    bool added;
    return mb_vocab_add(t->vocab, token, n, (int32_t)mb_vocab_count(t->vocab), &added);
}

static mb_status add_special(struct trainer *t)
{
    for (size_t i = 0; i < 4 && t->kind->special[i] != NULL; i++)
        MB_TRY(add_token(t, t->kind->special[i], strlen(t->kind->special[i])));
    for (size_t i = 0; i < t->how->n_special; i++)
        MB_TRY(add_token(t, t->how->special[i], strlen(t->how->special[i])));
    t->n_special = mb_vocab_count(t->vocab);
    return MB_OK;
}

struct letter {
    uint32_t c;
    int64_t count;
};

static int common_first(const void *x, const void *y)
{
    const struct letter *a = x, *b = y;
    return a->count != b->count ? (a->count > b->count ? -1 : 1) : (a->c > b->c) - (a->c < b->c);
}

static int by_code(const void *x, const void *y)
{
    const struct letter *a = x, *b = y;
    return (a->c > b->c) - (a->c < b->c);
}

/* The most common characters that make up `coverage` of the text, in the order of their codes. */
static mb_status find_chars(struct trainer *t)
{
    enum { CODES = 0x110000 };
    struct letter *letter = NULL;
    int64_t total = 0, so_far = 0;
    size_t n = 0, keep = 0;
    mb_status st = MB_OK;

    MB_TRY(MB_NEW_ARRAY(&letter, CODES));
    for (size_t i = 0; i < t->words.n; i++) {
        const tok_word *w = &t->words.at[i];
        uint32_t c;
        for (const char *p = w->p, *end = p + w->n; p < end;) {
            p += mb_utf8_get(p, end, &c);
            letter[c].count += w->count;
            total += w->count;
        }
    }
    for (uint32_t c = 0; c < CODES; c++)
        if (letter[c].count > 0)
            letter[n++] = (struct letter){c, letter[c].count};
    if (n > 0)
        qsort(letter, n, sizeof *letter, common_first);
    for (; keep < n && (double)so_far < t->how->coverage * (double)total; keep++)
        so_far += letter[keep].count;
    if (keep > 0)
        qsort(letter, keep, sizeof *letter, by_code);
    st = mb_vocab_new(keep + 1, &t->chars);
    for (size_t i = 0; i < keep && st == MB_OK; i++) {
        char text[4];
        bool added;
        const size_t bytes = mb_utf8_put(letter[i].c, text);
        st = mb_vocab_add(t->chars, text, bytes, (int32_t)i, &added);
    }
    mb_free(letter);
    return st;
}

static int by_char(const void *x, const void *y)
{
    const uint32_t a = *(const uint32_t *)x, b = *(const uint32_t *)y;
    return (a > b) - (a < b);
}

/* The tokens a word can begin as: 256 bytes; or bytes by name and the alphabet. */
static mb_status add_alphabet(struct trainer *t)
{
    char text[8];

    if (t->kind->model == BYTES) {
        uint32_t code[256];
        for (unsigned b = 0; b < 256; b++)
            code[b] = tok_byte_to_char((uint8_t)b);
        qsort(code, 256, sizeof *code, by_char);
        for (unsigned b = 0; b < 256; b++)
            MB_TRY(add_token(t, text, mb_utf8_put(code[b], text)));
        return MB_OK;
    }
    for (unsigned b = 0; t->kind->model == FALLBACK && b < 256; b++) {
        snprintf(text, sizeof text, "<0x%02X>", b);
        MB_TRY(add_token(t, text, 6));
    }
    for (size_t i = 0; t->kind->model == FALLBACK && i < mb_vocab_count(t->chars); i++) {
        size_t n;
        int32_t id;
        const char *p = mb_vocab_at(t->chars, i, &n, &id);
        MB_TRY(add_token(t, p, n));
    }
    return MB_OK;
}

/* Characters without a token are left out, as they are by the library's trainer. */
static mb_status spell(void *with, const char *p, size_t n, mb_ids *out)
{
    const struct trainer *t = with;
    uint32_t c;

    for (const char *end = p + n; p < end;) {
        const size_t len = mb_utf8_get(p, end, &c);
        const int32_t id = mb_vocab_find(t->vocab, p, len);
        if (id >= 0)
            MB_TRY(mb_ids_push(out, id));
        p += len;
    }
    return MB_OK;
}

static mb_status learn(struct trainer *t)
{
    const int64_t size = t->how->vocab_size;

    if (t->kind->model != BYTES)
        MB_TRY(find_chars(t));
    MB_TRY(add_alphabet(t));
    const int64_t start = (int64_t)mb_vocab_count(t->vocab) +
                          (t->kind->model == UNIGRAM ? (int64_t)mb_vocab_count(t->chars) : 0);
    MB_REQUIRE(start <= size, MB_EARG,
               "vocab_size is %lld, but the special tokens, bytes and characters alone are %lld; a "
               "smaller coverage leaves rare characters out",
               (long long)size, (long long)start);
    if (t->kind->model == UNIGRAM)
        return tok_learn_unigram(&t->words, t->chars, t->vocab, (size_t)size - t->n_special,
                                 &t->scored);
    const tok_bpe_input in = {.words = &t->words,
                              .vocab_size = size,
                              .min_frequency = t->how->min_frequency,
                              .spell = spell,
                              .with = t};
    return tok_learn_bpe(&in, t->vocab, &t->merges);
}

/* A tokenizer with the kind's steps, to cut words with. */
static mb_status make_cutter(struct trainer *t, mb_tokenizer **out)
{
    MB_TRY(put_steps(t));
    MB_TRY(put(t, t->kind->model == UNIGRAM
                      ? "{\"type\":\"Unigram\",\"vocab\":[[\"<pad>\",0],[\"</s>\",0],[\"<unk>\",0]]"
                      : "{\"type\":\"BPE\",\"merges\":[],\"vocab\":{\"a\":60000"));
    MB_TRY(put(t, t->kind->model == UNIGRAM ? "}}" : "}}}"));
    const mb_status st = tok_from_text(t->out.p, t->out.n, "the new tokenizer", out);
    t->out.n = 0;
    return st;
}

static mb_status write_files(struct trainer *t, const char *dir)
{
    char path[MB_PATH_MAX];

    MB_TRY(put_steps(t));
    MB_TRY(t->kind->model == UNIGRAM ? put_unigram(t) : put_bpe(t));
    MB_TRY(mb_path_mkdirs(dir));
    MB_TRY(mb_path_join(path, sizeof path, dir, "tokenizer.json"));
    MB_TRY(mb_file_write_atomic(path, t->out.p, t->out.n));
    t->out.n = 0;
    MB_TRY(put(t, "{\n\"tokenizer_class\":\"PreTrainedTokenizerFast\",\n"
                  "\"clean_up_tokenization_spaces\":false,\n"));
    MB_TRY(put(t, t->kind->roles));
    MB_TRY(put(t, "\n}\n"));
    MB_TRY(mb_path_join(path, sizeof path, dir, "tokenizer_config.json"));
    return mb_file_write_atomic(path, t->out.p, t->out.n);
}

static mb_status train(struct trainer *t, const char *const *files, size_t n_files, const char *dir,
                       mb_tok_report *report)
{
    mb_tokenizer *cutter = NULL;

    MB_TRY(mb_vocab_new(1024, &t->vocab));
    MB_TRY(add_special(t));
    MB_TRY(make_cutter(t, &cutter));
    const mb_status st =
        tok_words_count(cutter, files, n_files, t->kind->ends, 0, t->how->max_words, &t->words);
    mb_tokenizer_free(cutter);
    MB_TRY(st);
    MB_REQUIRE(t->words.n > 0, MB_EDATA, "the files have no words to learn from");
    MB_TRY(learn(t));
    MB_TRY(write_files(t, dir));
    *report = (mb_tok_report){.lines = t->words.lines,
                              .bytes = t->words.bytes,
                              .distinct = (int64_t)t->words.n,
                              .dropped = t->words.dropped,
                              .too_long = t->words.too_long,
                              .vocab_size = (int64_t)(mb_vocab_count(t->vocab) + t->scored.n)};
    for (size_t i = 0; i < t->words.n; i++)
        report->words += t->words.at[i].count;
    return MB_OK;
}

mb_status mb_tokenizer_train(const mb_tok_training *how, const char *const *files, size_t n_files,
                             const char *dir, mb_tok_report *report)
{
    struct trainer t = {.how = how};

    for (size_t i = 0; i < sizeof kinds / sizeof *kinds; i++)
        if (strcmp(how->kind, kinds[i].name) == 0)
            t.kind = &kinds[i];
    MB_REQUIRE(t.kind != NULL, MB_EARG,
               "\"%s\" is no kind of tokenizer: there are bpe, llama and unigram", how->kind);
    MB_REQUIRE(how->vocab_size >= 8 && how->vocab_size <= 1 << 24, MB_EARG,
               "vocab_size is %lld, not 8 to %d", (long long)how->vocab_size, 1 << 24);
    MB_REQUIRE(how->coverage > 0 && how->coverage <= 1, MB_EARG,
               "coverage is %g, not above 0 and at most 1", how->coverage);
    MB_REQUIRE(how->max_words >= 1000, MB_EARG, "max_words is %lld, not at least 1000",
               (long long)how->max_words);
    const mb_status st = train(&t, files, n_files, dir, report);
    mb_vocab_free(t.vocab);
    mb_vocab_free(t.chars);
    tok_words_release(&t.words);
    mb_free(t.merges.at);
    tok_scored_release(&t.scored);
    mb_bytes_release(&t.out);
    return st;
}
