/* recipes/tokenizers/wordpiece.c - WordPiece (Schuster & Nakajima 2012), BERT's model.
 *
 * A word is cut from the left, each time the longest token that fits; all but the first carry the
 * prefix "##". A word that cannot be cut so, or is too long, is one unknown token.
 */
#include <string.h>

#include "core/alloc.h"
#include "recipes/tokenizers/model.h"

struct wordpiece {
    const mb_vocab *vocab;
    mb_bytes prefix, unknown;
    int32_t unknown_id;
    size_t max_chars;
    size_t longest;
};

static void release(void *model)
{
    struct wordpiece *w = model;

    if (w == NULL)
        return;
    mb_bytes_release(&w->prefix);
    mb_bytes_release(&w->unknown);
    mb_free(w);
}

static mb_status read_settings(mb_json model, mb_vocab *vocab, struct wordpiece *w)
{
    mb_json v;
    int64_t max_chars;

    MB_TRY(mb_json_need(model, "vocab", MB_JSON_OBJECT, &v));
    MB_TRY(tok_vocab_read(v, vocab));
    MB_TRY(tok_read_content(model, "continuing_subword_prefix", "##", &w->prefix));
    MB_TRY(tok_read_content(model, "unk_token", "[UNK]", &w->unknown));
    MB_TRY(mb_bytes_end(&w->unknown));
    MB_TRY(mb_json_get_int(model, "max_input_chars_per_word", 100, &max_chars));
    if (max_chars < 1)
        return mb_json_fault(mb_json_get(model, "max_input_chars_per_word"), "must be positive");
    w->max_chars = (size_t)max_chars;
    w->vocab = vocab;
    w->longest = mb_vocab_longest(vocab);
    w->unknown_id = mb_vocab_find(vocab, w->unknown.p, w->unknown.n);
    if (w->unknown_id < 0)
        return mb_json_fault(model, "has the unknown token \"%.60s\", which is not in its vocab",
                             w->unknown.p);
    return MB_OK;
}

static mb_status load(mb_json model, const char *where, mb_vocab *vocab, void **out)
{
    struct wordpiece *w = NULL;

    (void)where;
    MB_TRY(MB_NEW(&w));
    const mb_status st = read_settings(model, vocab, w);
    if (st != MB_OK)
        release(w);
    else
        *out = w;
    return st;
}

/* The work space: the prefix and a candidate. */
static void work_release(void *work)
{
    mb_bytes_release(work);
}

/* The longest token at word[from..n); 0 bytes when there is none. */
static mb_status longest_token(const struct wordpiece *w, mb_bytes *candidate, const char *word,
                               size_t from, size_t n, const uint8_t *barred, int32_t *id,
                               size_t *bytes)
{
    const size_t prefix = from > 0 ? w->prefix.n : 0;
    size_t end = n;

    candidate->n = 0;
    MB_TRY(mb_bytes_add(candidate, w->prefix.p, prefix));
    MB_TRY(mb_bytes_add(candidate, word + from, n - from));
    if (end - from + prefix > w->longest)
        end = w->longest < prefix ? from : from + w->longest - prefix;
    for (; end > from; end--) {
        if (end < n && ((unsigned char)word[end] & 0xc0) == 0x80)
            continue; /* inside a character */
        *id = mb_vocab_find(w->vocab, candidate->p, prefix + end - from);
        if (*id >= 0 && (barred == NULL || !barred[*id]))
            break;
    }
    *bytes = end - from;
    return MB_OK;
}

static mb_status encode(const void *model, void *work, const char *word, size_t n,
                        const uint8_t *barred, mb_ids *out)
{
    const struct wordpiece *w = model;
    const size_t first = out->n;
    size_t chars = 0, bytes = 0;

    for (size_t i = 0; i < n; i++)
        chars += ((unsigned char)word[i] & 0xc0) != 0x80;
    if (chars > w->max_chars)
        return mb_ids_push(out, w->unknown_id);
    for (size_t at = 0; at < n; at += bytes) {
        int32_t id = -1;
        MB_TRY(longest_token(w, work, word, at, n, barred, &id, &bytes));
        if (bytes == 0) {
            out->n = first;
            return mb_ids_push(out, w->unknown_id);
        }
        MB_TRY(mb_ids_push(out, id));
    }
    return MB_OK;
}

static const char *unknown(const void *model)
{
    return ((const struct wordpiece *)model)->unknown.p;
}

const tok_model mb_tok_wordpiece = {.type = "WordPiece",
                                    .load = load,
                                    .free = release,
                                    .work_bytes = sizeof(mb_bytes),
                                    .work_release = work_release,
                                    .encode = encode,
                                    .unknown = unknown};
