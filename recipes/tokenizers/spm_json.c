/* recipes/tokenizers/spm_json.c - a SentencePiece file and its folder as a tokenizer.json.
 *
 * What a family makes of the pieces, as transformers' slow tokenizers do it:
 *
 *     alone      ids are places
 *     plain      (tokenizer.model: Llama, Gemma, Phi-3) places; BOS in front, if so configured
 *     t5         (spiece.model) places, then <extra_id_99> ... <extra_id_0>; </s> behind
 *     xlm-r      (sentencepiece.bpe.model) <s> <pad> </s> <unk>, places + 1, <mask>
 *     m2m-100    (the same and vocab.json) ids of vocab.json, then __af__ ...; __src__ A </s>
 *     marian     (source.spm, target.spm, vocab.json) ids of vocab.json; </s> behind
 *
 * The steps are ours (sentencepiece.c) because tokenizer.json has none with the same results.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/alloc.h"
#include "recipes/tokenizers/spm.h"

enum family { ALONE, PLAIN, T5, XLM_R, M2M, MARIAN };

/* transformers' FAIRSEQ_LANGUAGE_CODES["m2m100"], in the order of the ids. */
static const char m2m_languages[] =
    "af am ar ast az ba be bg bn br bs ca ceb cs cy da de el en es et fa ff fi fr fy ga gd gl gu "
    "ha he hi hr ht hu hy id ig ilo is it ja jv ka kk km kn ko lb lg ln lo lt lv mg mk ml mn mr ms "
    "my ne nl no ns oc or pa pl ps pt ro ru sd si sk sl so sq sr ss su sv sw ta th tl tn tr uk ur "
    "uz vi wo xh yi yo zh zu";

struct writer {
    const tok_spm *m;
    const tok_spm_source *from;
    enum family family;
    mb_json_doc *tokenizer, *config; /* NULL: not there */
    mb_vocab *ids;                   /* every token of the folder */
    int32_t unknown_id, end;         /* one past the last id */
    mb_bytes added;                  /* members of added_tokens */
    mb_bytes *out;
};

static mb_json setting(const struct writer *w, const char *key)
{
    return w->tokenizer == NULL ? (mb_json){0} : mb_json_get(mb_json_root(w->tokenizer), key);
}

static mb_status put(struct writer *w, const char *text)
{
    return mb_bytes_puts(w->out, text);
}

static const char *base_name(const char *path)
{
    const char *slash = strrchr(path, '/');
    return slash == NULL ? path : slash + 1;
}

static mb_status choose_family(struct writer *w)
{
    const char *name = base_name(w->from->path), *type = "", *class = "";

    if (w->config != NULL)
        MB_TRY(mb_json_get_string(mb_json_root(w->config), "model_type", "", &type));
    if (w->tokenizer != NULL)
        MB_TRY(mb_json_get_string(mb_json_root(w->tokenizer), "tokenizer_class", "", &class));
    if (w->from->config == NULL && w->from->tokenizer == NULL && w->from->vocab == NULL)
        w->family = ALONE;
    else if (w->from->vocab != NULL && strstr(name, ".spm") != NULL)
        w->family = MARIAN;
    else if (w->from->vocab != NULL && strcmp(name, "sentencepiece.bpe.model") == 0)
        w->family = M2M;
    else if (strcmp(name, "tokenizer.model") == 0)
        w->family = PLAIN;
    else if (strcmp(type, "xlm-roberta") == 0 || strncmp(class, "XLMRobertaTokenizer", 19) == 0)
        w->family = XLM_R;
    else if (strcmp(type, "t5") == 0 || strcmp(type, "mt5") == 0 || strcmp(type, "umt5") == 0 ||
             strncmp(class, "T5Tokenizer", 11) == 0)
        w->family = T5;
    else
        return MB_RAISE(MB_ENOTSUP,
                        "%s: how model_type \"%.40s\" numbers the pieces is not known; a "
                        "tokenizer.json saved by transformers is",
                        w->from->path, type);
    return MB_OK;
}

static mb_status name_id(struct writer *w, const char *token, size_t n, int32_t id)
{
    bool added;

    MB_TRY(mb_vocab_add(w->ids, token, n, id, &added));
    w->end = added && id >= w->end ? id + 1 : w->end;
    return MB_OK;
}

static mb_status name_next(struct writer *w, const char *token)
{
    return name_id(w, token, strlen(token), w->end);
}

static mb_status read_vocab(struct writer *w)
{
    mb_json_doc *doc = NULL;
    size_t n;
    int32_t id;

    MB_TRY(mb_json_parse(w->from->vocab, w->from->n_vocab, "vocab.json", 0, MB_EMODEL, &doc));
    const mb_status st = tok_vocab_read(mb_json_root(doc), w->ids);
    mb_json_free(doc);
    MB_TRY(st);
    for (size_t i = 0; i < mb_vocab_count(w->ids); i++) {
        mb_vocab_at(w->ids, i, &n, &id);
        w->end = id >= w->end ? id + 1 : w->end;
    }
    MB_REQUIRE(mb_vocab_find(w->ids, "<unk>", 5) >= 0, MB_EMODEL,
               "%s: vocab.json has no token \"<unk>\"", w->from->path);
    return MB_OK;
}

static mb_status add_languages(struct writer *w)
{
    const int32_t base = (int32_t)mb_vocab_count(w->ids);
    char token[16];
    int32_t k = 0;

    for (const char *p = m2m_languages, *space; *p != '\0'; p = space + (*space == ' ')) {
        space = strchrnul(p, ' ');
        const size_t n = (size_t)(space - p);
        memcpy(token, "__", 2);
        memcpy(token + 2, p, n);
        memcpy(token + 2 + n, "__", 2);
        MB_TRY(name_id(w, token, n + 4, base + k++));
    }
    return MB_OK;
}

static mb_status name_places(struct writer *w, int32_t shift)
{
    for (size_t i = 0; i < w->m->n; i++)
        MB_TRY(name_id(w, w->m->piece[i].text, w->m->piece[i].n, (int32_t)i + shift));
    return MB_OK;
}

static mb_status add_extra_ids(struct writer *w)
{
    const char *type = "t5";
    int64_t n;
    char token[32];

    if (w->config != NULL)
        MB_TRY(mb_json_get_string(mb_json_root(w->config), "model_type", "t5", &type));
    n = strcmp(type, "t5") == 0 ? 100 : 0;
    if (mb_json_is_set(setting(w, "extra_ids")))
        MB_TRY(mb_json_int(setting(w, "extra_ids"), &n));
    MB_REQUIRE(n >= 0 && n <= 10000, MB_EMODEL, "%s: extra_ids is %lld", w->from->path,
               (long long)n);
    for (int64_t i = n - 1; i >= 0; i--) {
        snprintf(token, sizeof token, "<extra_id_%d>", (int)i);
        MB_TRY(name_next(w, token));
    }
    return MB_OK;
}

/* tokenizer_config.json's "added_tokens_decoder": {"32000": {"content": "<|user|>", ...}, ...} */
static mb_status name_added(struct writer *w)
{
    for (mb_json_it it = mb_json_first(setting(w, "added_tokens_decoder")); mb_json_more(&it);
         mb_json_next(&it)) {
        const char *text;
        char *end;
        mb_json content;
        size_t n;
        const long id = strtol(it.key, &end, 10);
        MB_TRY(mb_json_need(it.value, "content", MB_JSON_STRING, &content));
        MB_TRY(mb_json_string(content, &text, &n));
        if (*end != '\0' || end == it.key || id < 0 || id > w->end + 65536)
            return mb_json_fault(it.value, "has no usable id");
        MB_TRY(name_id(w, text, n, (int32_t)id));
    }
    return MB_OK;
}

static mb_status name_all(struct writer *w)
{
    static const char *const xlm[] = {"<s>", "<pad>", "</s>", "<unk>"};

    MB_TRY(mb_vocab_new(w->m->n + 256, &w->ids));
    if (w->family == MARIAN || w->family == M2M)
        MB_TRY(read_vocab(w));
    if (w->family == M2M)
        MB_TRY(add_languages(w));
    for (int32_t i = 0; w->family == XLM_R && i < 4; i++)
        MB_TRY(name_next(w, xlm[i]));
    if (w->family != MARIAN && w->family != M2M)
        MB_TRY(name_places(w, w->family == XLM_R));
    if (w->family == T5)
        MB_TRY(add_extra_ids(w));
    if (w->family == XLM_R)
        MB_TRY(name_next(w, "<mask>"));
    return name_added(w);
}

static mb_status put_added(struct writer *w, const char *token, size_t n, int32_t id,
                           const bool flag[5])
{
    static const char *const names[] = {"single_word", "lstrip", "rstrip", "normalized", "special"};
    mb_bytes *to = &w->added;

    MB_TRY(mb_bytes_printf(to, "%s\n{\"id\":%d,\"content\":", to->n > 0 ? "," : "", (int)id));
    MB_TRY(mb_bytes_json(to, token, n));
    for (int i = 0; i < 5; i++)
        MB_TRY(mb_bytes_printf(to, ",\"%s\":%s", names[i], flag[i] ? "true" : "false"));
    return mb_bytes_puts(to, "}");
}

static bool is_added(const struct writer *w, const char *token, size_t n)
{
    const size_t len = n + 2;

    /* Marian's >>fra<<, M2M's __sw__, T5's <extra_id_7>: known by their form. */
    if (w->family == MARIAN)
        return len > 6 && memcmp(token, ">>", 2) == 0 && memcmp(token + n - 2, "<<", 2) == 0;
    if (w->family == M2M)
        return mb_vocab_find(w->ids, token, n) >= 0 && n >= 6 && memcmp(token, "__", 2) == 0 &&
               memcmp(token + n - 2, "__", 2) == 0;
    return w->family == T5 && n > 10 && memcmp(token, "<extra_id_", 10) == 0;
}

static mb_status collect_added(struct writer *w)
{
    static const char *const names[] = {"<s>", "</s>", "<pad>", "<unk>", "<mask>"};
    static const char *const keys[] = {"single_word", "lstrip", "rstrip", "normalized", "special"};
    const mb_json decoder = setting(w, "added_tokens_decoder");
    mb_vocab *seen = NULL;
    mb_status st = MB_OK;
    bool fresh;

    MB_TRY(mb_vocab_new(256, &seen));
    for (mb_json_it it = mb_json_first(decoder); mb_json_more(&it); mb_json_next(&it)) {
        bool flag[5];
        const char *text;
        size_t n;
        for (int i = 0; i < 5; i++)
            MB_TRY_GOTO(mb_json_get_bool(it.value, keys[i], i == 4, &flag[i]), st, done);
        MB_TRY_GOTO(mb_json_string(mb_json_get(it.value, "content"), &text, &n), st, done);
        MB_TRY_GOTO(mb_vocab_add(seen, text, n, 0, &fresh), st, done);
        if (fresh)
            MB_TRY_GOTO(put_added(w, text, n, mb_vocab_find(w->ids, text, n), flag), st, done);
    }
    const bool special[5] = {false, false, false, false, true};
    for (size_t i = 0; w->family != ALONE && i < sizeof names / sizeof *names; i++) {
        const size_t n = strlen(names[i]);
        const int32_t id = mb_vocab_find(w->ids, names[i], n);
        bool flag[5] = {false, strcmp(names[i], "<mask>") == 0, false, false, true};
        if (id < 0)
            continue;
        MB_TRY_GOTO(mb_vocab_add(seen, names[i], n, 0, &fresh), st, done);
        if (fresh)
            MB_TRY_GOTO(put_added(w, names[i], n, id, flag), st, done);
    }
    for (size_t i = 0; i < mb_vocab_count(w->ids); i++) {
        size_t n;
        int32_t id;
        const char *token = mb_vocab_at(w->ids, i, &n, &id);
        if (!is_added(w, token, n))
            continue;
        MB_TRY_GOTO(mb_vocab_add(seen, token, n, 0, &fresh), st, done);
        if (fresh)
            MB_TRY_GOTO(put_added(w, token, n, id, special), st, done);
    }
    for (size_t i = 0; i < w->m->n; i++) {
        const tok_spm_piece *piece = &w->m->piece[i];
        const int32_t id = mb_vocab_find(w->ids, piece->text, piece->n);
        if ((piece->type != TOK_PIECE_CONTROL && piece->type != TOK_PIECE_UNKNOWN) || id < 0)
            continue;
        MB_TRY_GOTO(mb_vocab_add(seen, piece->text, piece->n, 0, &fresh), st, done);
        if (fresh)
            MB_TRY_GOTO(put_added(w, piece->text, piece->n, id, special), st, done);
    }
done:
    mb_vocab_free(seen);
    return st;
}

static mb_status put_flag(struct writer *w, const char *name, bool on)
{
    return mb_bytes_printf(w->out, ",\"%s\":%s", name, on ? "true" : "false");
}

static mb_status put_normalizer(struct writer *w)
{
    const tok_spm *m = w->m;
    bool first = true;

    MB_TRY(put(w, "\"normalizer\":{\"type\":\"SentencePiece\""));
    MB_TRY(put_flag(w, "add_dummy_prefix", m->prefix));
    MB_TRY(put_flag(w, "remove_extra_whitespaces", m->shrink));
    MB_TRY(put_flag(w, "escape_whitespaces", m->escape));
    MB_TRY(put_flag(w, "treat_whitespace_as_suffix", m->suffix));
    if (m->n_charsmap > 0) {
        MB_TRY(put(w, ",\"precompiled_charsmap\":\""));
        MB_TRY(mb_bytes_base64(w->out, m->charsmap, m->n_charsmap));
        MB_TRY(put(w, "\""));
    }
    MB_TRY(put(w, ",\"user_defined\":["));
    for (size_t i = 0; i < m->n; i++) {
        if (m->piece[i].type != TOK_PIECE_USER)
            continue;
        MB_TRY(put(w, first ? "" : ","));
        MB_TRY(mb_bytes_json(w->out, m->piece[i].text, m->piece[i].n));
        first = false;
    }
    MB_TRY(put(w, "]},\n\"decoder\":{\"type\":\"SentencePiece\""));
    MB_TRY(put_flag(w, "add_dummy_prefix", m->prefix));
    MB_TRY(put_flag(w, "remove_extra_whitespaces", m->shrink));
    MB_TRY(put_flag(w, "byte_fallback", m->byte_fallback));
    MB_TRY(put(w, ",\"unknown\":"));
    MB_TRY(mb_bytes_json(w->out, m->piece[m->unknown].text, m->piece[m->unknown].n));
    MB_TRY(put(w, ",\"surface\":"));
    MB_TRY(mb_bytes_json(w->out, m->surface, m->n_surface));
    return put(w, "},\n");
}

static mb_status put_pieces(struct writer *w)
{
    const tok_spm *m = w->m;
    mb_vocab *placed = NULL;
    mb_status st = MB_OK;
    bool fresh;

    MB_TRY(mb_vocab_new(m->n, &placed));
    for (size_t i = 0; i < m->n; i++) {
        const tok_spm_piece *p = &m->piece[i];
        MB_TRY_GOTO(put(w, i == 0 ? "\n[" : ",\n["), st, done);
        MB_TRY_GOTO(mb_bytes_json(w->out, p->text, p->n), st, done);
        MB_TRY_GOTO(mb_bytes_printf(w->out, ",%.9g,%d,%d]", (double)p->score, p->type,
                                    (int)mb_vocab_find(w->ids, p->text, p->n)),
                    st, done);
        MB_TRY_GOTO(mb_vocab_add(placed, p->text, p->n, 0, &fresh), st, done);
        if (!fresh) {
            st = MB_RAISE(MB_EMODEL, "%s: piece %zu, \"%.*s\", is there twice", w->from->path, i,
                          (int)(p->n < 60 ? p->n : 60), p->text);
            goto done;
        }
    }
    for (size_t i = 0; i < mb_vocab_count(w->ids); i++) {
        size_t n;
        int32_t id;
        const char *token = mb_vocab_at(w->ids, i, &n, &id);
        if (mb_vocab_find(placed, token, n) >= 0)
            continue;
        MB_TRY_GOTO(put(w, ",\n["), st, done);
        MB_TRY_GOTO(mb_bytes_json(w->out, token, n), st, done);
        MB_TRY_GOTO(mb_bytes_printf(w->out, ",0,%d,%d]", TOK_PIECE_OTHER, (int)id), st, done);
    }
done:
    mb_vocab_free(placed);
    return st;
}

/* What stands before and behind a text, and between two: names, or "" for nothing. */
struct around {
    char before[32];
    const char *after, *between;
};

static mb_status find_around(const struct writer *w, struct around *a)
{
    const char *language;
    bool on;

    *a = (struct around){"", "", ""};
    if (w->family == ALONE)
        return MB_OK;
    a->after = "</s>";
    if (w->family == PLAIN) {
        const mb_json root = w->tokenizer != NULL ? mb_json_root(w->tokenizer) : (mb_json){0};
        MB_TRY(mb_json_get_bool(root, "add_bos_token", true, &on));
        snprintf(a->before, sizeof a->before, "%s", on ? "<s>" : "");
        if (on && mb_vocab_find(w->ids, "<bos>", 5) >= 0)
            snprintf(a->before, sizeof a->before, "<bos>");
        MB_TRY(mb_json_get_bool(root, "add_eos_token", false, &on));
        a->after = !on ? "" : mb_vocab_find(w->ids, "<eos>", 5) >= 0 ? "<eos>" : "</s>";
        return MB_OK;
    }
    if (w->family == T5)
        a->between = "</s>";
    if (w->family == XLM_R) {
        snprintf(a->before, sizeof a->before, "<s>");
        a->between = "</s></s>";
    }
    if (w->family == M2M) {
        const mb_json root = w->tokenizer != NULL ? mb_json_root(w->tokenizer) : (mb_json){0};
        MB_TRY(
            mb_json_get_string(root, w->from->target ? "tgt_lang" : "src_lang", "en", &language));
        snprintf(a->before, sizeof a->before, "__%.24s__", language);
    }
    return MB_OK;
}

static mb_status put_special(struct writer *w, const char *name)
{
    if (*name == '\0')
        return MB_OK;
    MB_TRY(put(w, w->out->p[w->out->n - 1] == '[' ? "" : ","));
    MB_TRY(put(w, "{\"SpecialToken\":{\"id\":"));
    MB_TRY(mb_bytes_json(w->out, name, strlen(name)));
    return put(w, ",\"type_id\":0}}");
}

static mb_status put_text(struct writer *w, char which)
{
    return mb_bytes_printf(w->out, "%s{\"Sequence\":{\"id\":\"%c\",\"type_id\":0}}",
                           w->out->p[w->out->n - 1] == '[' ? "" : ",", which);
}

static mb_status put_known(struct writer *w, const char *name)
{
    if (*name == '\0')
        return MB_OK;
    const int32_t id = mb_vocab_find(w->ids, name, strlen(name));
    MB_REQUIRE(id >= 0, MB_EMODEL, "%s: there is no token \"%s\"", w->from->path, name);
    MB_TRY(put(w, w->out->p[w->out->n - 1] == '{' ? "" : ","));
    MB_TRY(mb_bytes_json(w->out, name, strlen(name)));
    MB_TRY(put(w, ":{\"id\":"));
    MB_TRY(mb_bytes_json(w->out, name, strlen(name)));
    return mb_bytes_printf(w->out, ",\"ids\":[%d]}", (int)id);
}

static mb_status put_template(struct writer *w)
{
    struct around a;

    MB_TRY(find_around(w, &a));
    if (*a.before == '\0' && *a.after == '\0')
        return MB_OK;
    MB_TRY(put(w, "\"post_processor\":{\"type\":\"TemplateProcessing\",\"single\":["));
    MB_TRY(put_special(w, a.before));
    MB_TRY(put_text(w, 'A'));
    MB_TRY(put_special(w, a.after));
    MB_TRY(put(w, "],\"pair\":["));
    MB_TRY(put_special(w, a.before));
    MB_TRY(put_text(w, 'A'));
    for (const char *p = a.between; *p != '\0'; p += 4)
        MB_TRY(put_special(w, "</s>"));
    if (w->family == PLAIN)
        MB_TRY(put_special(w, a.before));
    MB_TRY(put_text(w, 'B'));
    MB_TRY(put_special(w, a.after));
    MB_TRY(put(w, "],\"special_tokens\":{"));
    MB_TRY(put_known(w, a.before));
    MB_TRY(put_known(w, a.after));
    return put(w, "}},\n");
}

static mb_status write_all(struct writer *w)
{
    MB_TRY(choose_family(w));
    MB_TRY(name_all(w));
    MB_TRY(collect_added(w));
    MB_TRY(put(w, "{\"version\":\"1.0\",\"added_tokens\":["));
    MB_TRY(mb_bytes_add(w->out, w->added.p, w->added.n));
    MB_TRY(put(w, "],\n"));
    MB_TRY(put_normalizer(w));
    MB_TRY(put_template(w));
    MB_TRY(mb_bytes_printf(w->out, "\"model\":{\"type\":\"%s\",\"sentencepiece\":true",
                           w->m->bpe ? "SentencePieceBPE" : "Unigram"));
    MB_TRY(put_flag(w, "by_name", w->family == MARIAN || w->family == M2M));
    MB_TRY(put_flag(w, "byte_fallback", w->m->byte_fallback));
    MB_TRY(mb_bytes_printf(w->out, ",\"unk_id\":%lld,\"vocab\":[", (long long)w->m->unknown));
    MB_TRY(put_pieces(w));
    return put(w, "]}}\n");
}

mb_status tok_spm_to_json(const tok_spm *m, const tok_spm_source *from, mb_bytes *out)
{
    struct writer w = {.m = m, .from = from, .out = out};
    mb_status st = MB_OK;

    if (from->tokenizer != NULL)
        st = mb_json_parse(from->tokenizer, from->n_tokenizer, "tokenizer_config.json", 0,
                           MB_EMODEL, &w.tokenizer);
    if (st == MB_OK && from->config != NULL)
        st = mb_json_parse(from->config, from->n_config, "config.json", 0, MB_EMODEL, &w.config);
    if (st == MB_OK)
        st = write_all(&w);
    mb_json_free(w.tokenizer);
    mb_json_free(w.config);
    mb_vocab_free(w.ids);
    mb_bytes_release(&w.added);
    return st;
}
