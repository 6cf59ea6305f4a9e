/* recipes/tokenizers/encoder.c - a model at work, and the ids of the words it met last. */
#include "recipes/tokenizers/encoder.h"

#include <string.h>

#include "core/alloc.h"
#include "recipes/tokenizers/model.h"

enum { SLOTS = 1 << 14, MOST_BYTES = 36, MOST_IDS = 12 };

struct tok_slot {
    uint8_t bytes, n; /* bytes 0: empty */
    bool barred;
    char word[MOST_BYTES];
    int32_t id[MOST_IDS];
};

mb_status tok_encoder_init(tok_encoder *e, const tok_model *model, const void *data)
{
    *e = (tok_encoder){.model = model, .data = data};
    mb_status st = mb_alloc(model->work_bytes, "a tokenizer's work space", &e->work);
    if (st == MB_OK)
        st = MB_NEW_ARRAY(&e->slot, SLOTS);
    if (st != MB_OK)
        tok_encoder_release(e);
    return st;
}

void tok_encoder_release(tok_encoder *e)
{
    if (e->work != NULL)
        e->model->work_release(e->work);
    mb_free(e->work);
    mb_free(e->slot);
    *e = (tok_encoder){0};
}

static void keep(struct tok_slot *s, const char *word, size_t n, bool barred, const int32_t *id,
                 size_t n_ids)
{
    if (n_ids > MOST_IDS)
        return;
    s->bytes = (uint8_t)n;
    s->n = (uint8_t)n_ids;
    s->barred = barred;
    memcpy(s->word, word, n);
    if (n_ids > 0)
        memcpy(s->id, id, n_ids * sizeof *id);
}

static mb_status encode_part(tok_encoder *e, const char *word, size_t n, const uint8_t *barred,
                             mb_ids *out)
{
    if (n > MOST_BYTES)
        return e->model->encode(e->data, e->work, word, n, barred, out);
    struct tok_slot *s = &e->slot[mb_bytes_hash(word, n) & (SLOTS - 1)];
    if (s->bytes == n && s->barred == (barred != NULL) && memcmp(s->word, word, n) == 0)
        return mb_ids_append(out, s->id, s->n);
    const size_t first = out->n;
    MB_TRY(e->model->encode(e->data, e->work, word, n, barred, out));
    keep(s, word, n, barred != NULL, out->id + first, out->n - first);
    return MB_OK;
}

mb_status tok_encoder_word(tok_encoder *e, const char *word, size_t n, const uint8_t *barred,
                           mb_ids *out)
{
    if (e->model->part == NULL)
        return encode_part(e, word, n, barred, out);
    for (size_t at = 0, len; at < n; at += len) {
        MB_TRY(e->model->part(e->data, word + at, n - at, &len));
        MB_TRY(encode_part(e, word + at, len, barred, out));
    }
    return MB_OK;
}
