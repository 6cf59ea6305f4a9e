/* recipes/tokenizers/gguf_write.c - a tokenizer as the pairs of a GGUF file: what gguf.c reads.
 *
 * llama.cpp knows four models and, for byte-level BPE, ways to cut text by name. Which one a
 * tokenizer.json is, is told from its steps: its normalizer and pre-tokenizer are compared with those
 * of the table in gguf.c, and what is not in it is refused, because a wrong name changes ids without
 * any other sign. A SentencePiece BPE ("llama") has scores where tokenizer.json has merges: the token
 * that is made first has the highest.
 */
#include <stdio.h>
#include <string.h>

#include "core/alloc.h"
#include "recipes/tokenizers/model.h"

enum { NORMAL = 1, UNKNOWN = 2, CONTROL = 3, USER_DEFINED = 4, UNUSED = 5, BYTE = 6 };

struct source {
    const mb_tokenizer *t;
    mb_gguf_writer *w;
    mb_json root, model;
    int64_t rows; /* of the embedding */
};

/* ---- what the steps are ------------------------------------------------------------------- */

static mb_status flag(mb_json step, const char *key, bool otherwise, const char *yes, mb_bytes *out)
{
    bool on;

    MB_TRY(mb_json_get_bool(step, key, otherwise, &on));
    return on ? mb_bytes_puts(out, yes) : MB_OK;
}

static mb_status pattern(mb_json step, mb_bytes *out)
{
    const mb_json p = mb_json_get(step, "pattern");
    const char *text;

    MB_TRY(mb_json_get_string(p, "Regex", "", &text));
    if (*text == '\0')
        MB_TRY(mb_json_get_string(p, "String", "", &text));
    MB_TRY(mb_bytes_puts(out, text));
    MB_TRY(mb_json_get_string(step, "behavior", "", &text));
    return mb_bytes_puts(out, text);
}

/* Steps in a form that does not depend on how the file writes them: all that changes ids. */
static mb_status sign(mb_json step, mb_bytes *out)
{
    const char *type;

    if (!mb_json_is(step, MB_JSON_OBJECT))
        return MB_OK;
    MB_TRY(mb_json_get_string(step, "type", "", &type));
    if (strcmp(type, "Sequence") == 0) {
        mb_json list = mb_json_get(step, "pretokenizers");
        if (!mb_json_is_set(list))
            list = mb_json_get(step, "normalizers");
        for (mb_json_it it = mb_json_first(list); mb_json_more(&it); mb_json_next(&it))
            MB_TRY(sign(it.value, out));
        return MB_OK;
    }
    MB_TRY(mb_bytes_printf(out, "[%s ", type));
    if (strcmp(type, "Split") == 0 || strcmp(type, "Replace") == 0)
        MB_TRY(pattern(step, out));
    if (strcmp(type, "Split") == 0)
        MB_TRY(flag(step, "invert", false, " invert", out));
    if (strcmp(type, "ByteLevel") == 0)
        MB_TRY(flag(step, "add_prefix_space", true, " prefix", out));
    if (strcmp(type, "ByteLevel") == 0)
        MB_TRY(flag(step, "use_regex", true, " regex", out));
    if (strcmp(type, "Digits") == 0)
        MB_TRY(flag(step, "individual_digits", false, " each", out));
    return mb_bytes_puts(out, "]");
}

static mb_status sign_both(mb_json normalizer, mb_json pre_tokenizer, mb_bytes *out)
{
    out->n = 0;
    MB_TRY(sign(normalizer, out));
    MB_TRY(mb_bytes_puts(out, " | "));
    MB_TRY(sign(pre_tokenizer, out));
    return mb_bytes_end(out);
}

static mb_status sign_way(const tok_way *way, mb_bytes *out)
{
    mb_json_doc *normalizer = NULL, *pre = NULL;
    mb_status st = MB_OK;

    MB_TRY_GOTO(
        mb_json_parse(way->normalizer, strlen(way->normalizer), way->name, 0, MB_EBUG, &normalizer),
        st, done);
    MB_TRY_GOTO(
        mb_json_parse(way->pre_tokenizer, strlen(way->pre_tokenizer), way->name, 0, MB_EBUG, &pre),
        st, done);
    st = sign_both(mb_json_root(normalizer), mb_json_root(pre), out);
done:
    mb_json_free(normalizer);
    mb_json_free(pre);
    return st;
}

/* The name llama.cpp has for how this byte-level BPE cuts text. */
static mb_status find_way(const struct source *s, const char **name)
{
    mb_bytes own = {0}, other = {0};
    bool whole;
    mb_status st = MB_OK;

    *name = NULL;
    MB_TRY_GOTO(mb_json_get_bool(s->model, "ignore_merges", false, &whole), st, done);
    MB_TRY_GOTO(
        sign_both(mb_json_get(s->root, "normalizer"), mb_json_get(s->root, "pre_tokenizer"), &own),
        st, done);
    for (size_t i = 0; i < tok_n_ways && *name == NULL; i++) {
        MB_TRY_GOTO(sign_way(&tok_ways[i], &other), st, done);
        if (tok_ways[i].ignore_merges == whole && own.n == other.n &&
            memcmp(own.p, other.p, own.n) == 0)
            *name = tok_ways[i].name;
    }
    if (*name == NULL)
        st = MB_RAISE(MB_ENOTSUP,
                      "%s: llama.cpp has no name that mbuyu knows for how this tokenizer cuts "
                      "text: %.300s",
                      s->t->where, own.p);
done:
    mb_bytes_release(&own);
    mb_bytes_release(&other);
    return st;
}

/* Does a step of this type occur? */
static bool has_step(mb_json step, const char *type)
{
    const char *have;

    for (mb_json_it it = mb_json_first(step); mb_json_more(&it); mb_json_next(&it)) {
        if (mb_json_is(it.value, MB_JSON_OBJECT) || mb_json_is(it.value, MB_JSON_ARRAY)) {
            if (has_step(it.value, type))
                return true;
        } else if (it.key != NULL && strcmp(it.key, "type") == 0 &&
                   mb_json_is(it.value, MB_JSON_STRING) &&
                   mb_json_string(it.value, &have, NULL) == MB_OK && strcmp(have, type) == 0) {
            return true;
        }
    }
    return false;
}

static mb_json find_step(mb_json step, const char *type)
{
    const char *have;

    if (mb_json_is(step, MB_JSON_OBJECT) && mb_json_get_string(step, "type", "", &have) == MB_OK &&
        strcmp(have, type) == 0)
        return step;
    for (mb_json_it it = mb_json_first(step); mb_json_more(&it); mb_json_next(&it))
        if (mb_json_is(it.value, MB_JSON_OBJECT) || mb_json_is(it.value, MB_JSON_ARRAY)) {
            const mb_json found = find_step(it.value, type);
            if (mb_json_is_set(found))
                return found;
        }
    return (mb_json){0};
}

/* ---- tokens ------------------------------------------------------------------------------- */

static const char mark[] = "\xe2\x96\x81";

static int type_of(const struct source *s, int64_t i)
{
    const tok_entry *e = i < s->t->n_entries ? &s->t->entry[i] : NULL;
    unsigned byte;
    int end = 0;

    if (e == NULL || e->token == NULL)
        return UNUSED;
    if (i == s->t->role[MB_TOKEN_UNK])
        return strcmp(s->t->model->type, "BPE") == 0 &&
                       !mb_json_is_set(mb_json_get(s->model, "unk_token"))
                   ? CONTROL
                   : UNKNOWN;
    if (e->special)
        return CONTROL;
    if (e->added >= 0)
        return USER_DEFINED;
    if (e->n == 6 && sscanf(e->token, "<0x%2X>%n", &byte, &end) == 1 && end == 6)
        return BYTE;
    return NORMAL;
}

/* A token of WordPiece: one that begins a word is marked, one that goes on is not. */
static mb_status put_wordpiece(mb_gguf_writer *w, const tok_entry *e)
{
    char text[TOK_MAX_TOKEN_BYTES / 16];

    if (e->special || e->added >= 0)
        return mb_gguf_add_string(w, e->token, e->n);
    if (e->n > 2 && memcmp(e->token, "##", 2) == 0)
        return mb_gguf_add_string(w, e->token + 2, e->n - 2);
    MB_REQUIRE(e->n + sizeof mark < sizeof text, MB_ENOTSUP, "a token of %u bytes", e->n);
    memcpy(text, mark, sizeof mark - 1);
    memcpy(text + sizeof mark - 1, e->token, e->n);
    return mb_gguf_add_string(w, text, sizeof mark - 1 + e->n);
}

static mb_status put_tokens(struct source *s, bool wordpiece)
{
    char name[32];

    MB_TRY(mb_gguf_begin_array(s->w, "tokenizer.ggml.tokens", MB_GGUF_STRINGS, (uint64_t)s->rows));
    for (int64_t i = 0; i < s->rows; i++) {
        const tok_entry *e = i < s->t->n_entries ? &s->t->entry[i] : NULL;
        const int n = snprintf(name, sizeof name, "[PAD%lld]", (long long)i);

        if (e == NULL || e->token == NULL)
            MB_TRY(mb_gguf_add_string(s->w, name, (size_t)n));
        else if (wordpiece)
            MB_TRY(put_wordpiece(s->w, e));
        else
            MB_TRY(mb_gguf_add_string(s->w, e->token, e->n));
    }
    MB_TRY(mb_gguf_begin_array(s->w, "tokenizer.ggml.token_type", MB_GGUF_I32S, (uint64_t)s->rows));
    for (int64_t i = 0; i < s->rows; i++)
        MB_TRY(mb_gguf_add_i32(s->w, type_of(s, i)));
    return MB_OK;
}

static mb_status put_scores(struct source *s, const float *score)
{
    MB_TRY(mb_gguf_begin_array(s->w, "tokenizer.ggml.scores", MB_GGUF_F32S, (uint64_t)s->rows));
    for (int64_t i = 0; i < s->rows; i++)
        MB_TRY(mb_gguf_add_f32(s->w, score[i]));
    return MB_OK;
}

/* The two parts of a merge, "a b" or ["a", "b"], borrowed. */
static mb_status merge_parts(mb_json merge, const char *part[2], size_t n[2])
{
    if (mb_json_is(merge, MB_JSON_ARRAY)) {
        MB_TRY(mb_json_string(mb_json_at(merge, 0), &part[0], &n[0]));
        return mb_json_string(mb_json_at(merge, 1), &part[1], &n[1]);
    }
    MB_TRY(mb_json_string(merge, &part[0], &n[0]));
    part[1] = memchr(part[0], ' ', n[0]);
    if (part[1] == NULL)
        return mb_json_fault(merge, "is no merge: two tokens with a space between are");
    n[1] = n[0] - (size_t)(part[1] - part[0]) - 1;
    n[0] -= n[1] + 1;
    part[1]++;
    return MB_OK;
}

static mb_status join(mb_json merge, const char *between, mb_bytes *out)
{
    const char *part[2];
    size_t n[2];

    out->n = 0;
    MB_TRY(merge_parts(merge, part, n));
    if (*between != '\0' &&
        (memchr(part[0], ' ', n[0]) != NULL || memchr(part[1], ' ', n[1]) != NULL))
        return mb_json_fault(merge, "joins a token with a space, which GGUF cannot say");
    MB_TRY(mb_bytes_add(out, part[0], n[0]));
    MB_TRY(mb_bytes_puts(out, between));
    return mb_bytes_add(out, part[1], n[1]);
}

/* ---- the four models ---------------------------------------------------------------------- */

static mb_status put_bpe(struct source *s)
{
    const mb_json merges = mb_json_get(s->model, "merges");
    const char *way;
    mb_bytes text = {0};
    mb_status st = MB_OK;

    MB_TRY(find_way(s, &way));
    MB_TRY(mb_gguf_put_string(s->w, "tokenizer.ggml.model", "gpt2"));
    MB_TRY(mb_gguf_put_string(s->w, "tokenizer.ggml.pre", way));
    MB_TRY(put_tokens(s, false));
    MB_TRY(
        mb_gguf_begin_array(s->w, "tokenizer.ggml.merges", MB_GGUF_STRINGS, mb_json_count(merges)));
    for (mb_json_it it = mb_json_first(merges); mb_json_more(&it); mb_json_next(&it)) {
        MB_TRY_GOTO(join(it.value, " ", &text), st, done);
        MB_TRY_GOTO(mb_gguf_add_string(s->w, text.p, text.n), st, done);
    }
done:
    mb_bytes_release(&text);
    return st;
}

/* A token's score is less by one than that of the one made before it. */
static mb_status scores_of_merges(struct source *s, float *score)
{
    mb_bytes text = {0};
    int64_t made = 0;
    mb_status st = MB_OK;

    for (mb_json_it it = mb_json_first(mb_json_get(s->model, "merges")); mb_json_more(&it);
         mb_json_next(&it)) {
        MB_TRY_GOTO(join(it.value, "", &text), st, done);
        const int32_t id = mb_vocab_find(s->t->vocab, text.p, text.n);
        if (id >= 0 && id < s->rows && score[id] == 0.0f)
            score[id] = -(float)++made;
    }
    for (int64_t i = 0; i < s->rows; i++)
        if (score[i] == 0.0f && type_of(s, i) == NORMAL)
            score[i] = -(float)++made;
done:
    mb_bytes_release(&text);
    return st;
}

/* Is a space put in front of a text? */
static mb_status has_prefix(const struct source *s, bool *yes)
{
    const mb_json space = find_step(mb_json_get(s->root, "pre_tokenizer"), "Metaspace");
    const char *scheme;
    bool on;

    *yes = has_step(mb_json_get(s->root, "normalizer"), "Prepend");
    if (!mb_json_is_set(space))
        return MB_OK;
    MB_TRY(mb_json_get_bool(space, "add_prefix_space", true, &on));
    MB_TRY(mb_json_get_string(space, "prepend_scheme", on ? "always" : "never", &scheme));
    *yes = strcmp(scheme, "never") != 0;
    return MB_OK;
}

static mb_status put_llama(struct source *s)
{
    float *score = NULL;
    bool prefix;

    MB_TRY(has_prefix(s, &prefix));
    MB_TRY(mb_gguf_put_string(s->w, "tokenizer.ggml.model", "llama"));
    MB_TRY(mb_gguf_put_string(s->w, "tokenizer.ggml.pre", "default"));
    MB_TRY(put_tokens(s, false));
    MB_TRY(MB_NEW_ARRAY(&score, s->rows));
    mb_status st = scores_of_merges(s, score);
    if (st == MB_OK)
        st = put_scores(s, score);
    mb_free(score);
    return st == MB_OK ? mb_gguf_put_bool(s->w, "tokenizer.ggml.add_space_prefix", prefix) : st;
}

static int sextet(char c)
{
    static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    const char *at = c != '\0' ? strchr(digits, c) : NULL;

    return at != NULL ? (int)(at - digits) : -1;
}

static mb_status put_charsmap(struct source *s)
{
    const mb_json step = find_step(mb_json_get(s->root, "normalizer"), "Precompiled");
    const char *text;
    size_t n = 0, length;
    uint8_t *bytes = NULL;
    uint32_t bits = 0;
    int have = 0;

    if (!mb_json_is_set(mb_json_get(step, "precompiled_charsmap")))
        return MB_OK;
    MB_TRY(mb_json_string(mb_json_get(step, "precompiled_charsmap"), &text, &length));
    MB_TRY(mb_alloc(length + 1, "a map of characters", (void **)&bytes));
    for (size_t i = 0; i < length && sextet(text[i]) >= 0; i++) {
        bits = bits << 6 | (uint32_t)sextet(text[i]);
        have += 6;
        if (have >= 8) {
            have -= 8;
            bytes[n++] = (uint8_t)(bits >> have);
        }
    }
    mb_status st = mb_gguf_begin_array(s->w, "tokenizer.ggml.precompiled_charsmap", MB_GGUF_U8S, n);
    if (st == MB_OK)
        st = mb_gguf_add_u8s(s->w, bytes, n);
    mb_free(bytes);
    return st;
}

static mb_status scores_of_pieces(struct source *s, float *score)
{
    int64_t i = 0;
    double value;

    for (mb_json_it it = mb_json_first(mb_json_get(s->model, "vocab")); mb_json_more(&it);
         mb_json_next(&it)) {
        MB_TRY(mb_json_real(mb_json_at(it.value, 1), &value));
        if (i < s->rows)
            score[i++] = (float)value;
    }
    for (; i < s->rows; i++)
        score[i] = type_of(s, i) == UNUSED ? -10000.0f : -1000.0f;
    return MB_OK;
}

static mb_status put_unigram(struct source *s)
{
    const mb_json normalizer = mb_json_get(s->root, "normalizer");
    const bool shrink = has_step(mb_json_get(s->root, "pre_tokenizer"), "WhitespaceSplit") ||
                        has_step(normalizer, "Replace");
    float *score = NULL;
    bool prefix;

    MB_TRY(has_prefix(s, &prefix));
    MB_TRY(mb_gguf_put_string(s->w, "tokenizer.ggml.model", "t5"));
    MB_TRY(mb_gguf_put_string(s->w, "tokenizer.ggml.pre", "default"));
    MB_TRY(put_tokens(s, false));
    MB_TRY(MB_NEW_ARRAY(&score, s->rows));
    mb_status st = scores_of_pieces(s, score);
    if (st == MB_OK)
        st = put_scores(s, score);
    mb_free(score);
    MB_TRY(st);
    MB_TRY(mb_gguf_put_bool(s->w, "tokenizer.ggml.add_space_prefix", prefix));
    MB_TRY(mb_gguf_put_bool(s->w, "tokenizer.ggml.remove_extra_whitespaces", shrink));
    return put_charsmap(s);
}

static mb_status put_bert(struct source *s)
{
    MB_TRY(mb_gguf_put_string(s->w, "tokenizer.ggml.model", "bert"));
    MB_TRY(mb_gguf_put_string(s->w, "tokenizer.ggml.pre", "default"));
    return put_tokens(s, true);
}

/* ---- all of it ---------------------------------------------------------------------------- */

static const char *const role_keys[MB_TOKEN_ROLES] = {
    "tokenizer.ggml.bos_token_id",       "tokenizer.ggml.eos_token_id",
    "tokenizer.ggml.padding_token_id",   "tokenizer.ggml.unknown_token_id",
    "tokenizer.ggml.seperator_token_id", "tokenizer.ggml.cls_token_id",
    "tokenizer.ggml.mask_token_id"};

/* Special tokens, whether texts begin and end with them, and what else ends an answer. */
static mb_status put_roles(struct source *s, const mb_ids *ends, bool framed)
{
    const int32_t eos = s->t->role[MB_TOKEN_EOS];

    for (int r = 0; r < MB_TOKEN_ROLES; r++)
        if (s->t->role[r] >= 0)
            MB_TRY(mb_gguf_put_u32(s->w, role_keys[r], (uint32_t)s->t->role[r]));
    for (size_t i = 0; i < ends->n; i++)
        if (ends->id[i] != eos) {
            MB_TRY(mb_gguf_put_u32(s->w, "tokenizer.ggml.eot_token_id", (uint32_t)ends->id[i]));
            break;
        }
    if (!framed) /* what BERT puts around a text is part of that model */
        return MB_OK;
    MB_TRY(mb_gguf_put_bool(s->w, "tokenizer.ggml.add_bos_token", mb_tokenizer_adds_bos(s->t)));
    return mb_gguf_put_bool(s->w, "tokenizer.ggml.add_eos_token", mb_tokenizer_adds_eos(s->t));
}

static mb_status put_all(struct source *s, const mb_ids *ends, const char *template)
{
    const char *type = s->t->model->type;
    const bool bytes = has_step(mb_json_get(s->root, "pre_tokenizer"), "ByteLevel");
    mb_status (*put)(struct source * s) = strcmp(type, "WordPiece") == 0 ? put_bert
                                          : strcmp(type, "Unigram") == 0 ? put_unigram
                                          : bytes                        ? put_bpe
                                                                         : put_llama;

    MB_REQUIRE(!has_step(s->root, "SentencePiece"), MB_ENOTSUP,
               "%s: is a SentencePiece file, which goes into GGUF only as a tokenizer.json",
               s->t->where);
    MB_REQUIRE(s->t->n_entries <= s->rows, MB_EMODEL,
               "%s has %d tokens, the model's embedding only %lld rows", s->t->where,
               s->t->n_entries, (long long)s->rows);
    if (template == NULL)
        template = "";
    MB_TRY(put(s));
    MB_TRY(put_roles(s, ends, put != put_bert));
    return *template != '\0' ? mb_gguf_put_string(s->w, "tokenizer.chat_template", template)
                             : MB_OK;
}

mb_status mb_tokenizer_put_gguf(const mb_tokenizer *t, int64_t rows, const mb_ids *ends,
                                const char *chat_template, mb_gguf_writer *w)
{
    struct source s = {.t = t, .w = w, .rows = rows};
    mb_json_doc *doc;

    MB_TRY(mb_json_parse(t->file[0].text, t->file[0].n, t->where, 0, MB_EMODEL, &doc));
    s.root = mb_json_root(doc);
    s.model = mb_json_get(s.root, "model");
    const mb_status st =
        put_all(&s, ends, chat_template != NULL ? chat_template : mb_tokenizer_chat_template(t));
    mb_json_free(doc);
    return st;
}
