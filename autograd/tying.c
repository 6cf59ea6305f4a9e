/* autograd/tying.c - a file that has an output head of its own although config.json ties it.
 *
 * transformers 5 writes `tie_word_embeddings: true` into every T5 model, those with a head of their own
 * among them, and when it reads one, the file decides: a head that is there and differs from the embedding
 * is not tied. So do we, for every family.
 */
#include <string.h>

#include "autograd/load.h"
#include "core/alloc.h"

enum { PIECE = 1 << 20 };

static const mb_weight_row *row_of(const mb_model_family *fam, int flag)
{
    for (const mb_weight_row *r = fam->globals; r != NULL && r->name != NULL; r++)
        if ((r->flags & flag) != 0 && strcmp(r->shape, "V D") == 0)
            return r;
    return NULL;
}

static mb_status same_bytes(const mb_tensor_file *f, int64_t a, int64_t b, bool *same)
{
    const mb_tensor_info *x = mb_tensor_file_info(f, a), *y = mb_tensor_file_info(f, b);
    char *buffer;
    mb_status st = MB_OK;

    *same = x->dtype == y->dtype && x->bytes == y->bytes;
    MB_TRY(mb_alloc(2 * PIECE, "two heads", (void **)&buffer));
    for (int64_t at = 0; *same && st == MB_OK && at < x->bytes; at += PIECE) {
        const int64_t n = x->bytes - at < PIECE ? x->bytes - at : PIECE;
        st = mb_tensor_file_read(f, a, buffer, at, n);
        if (st == MB_OK)
            st = mb_tensor_file_read(f, b, buffer + PIECE, at, n);
        *same = st == MB_OK && memcmp(buffer, buffer + PIECE, (size_t)n) == 0;
    }
    mb_free(buffer);
    return st;
}

static mb_status untie(const mb_model_family *fam, const mb_tensor_file *f, mb_json config)
{
    const mb_weight_row *head = row_of(fam, MB_W_HEAD), *embed = row_of(fam, MB_W_EMBED);
    bool tied, same;

    if (head == NULL || embed == NULL || mb_tensor_file_gguf(f) != NULL)
        return MB_OK;
    const int64_t a = mb_find_spelling(fam, f, head->name);
    const int64_t b = mb_find_spelling(fam, f, embed->name);
    MB_TRY(mb_json_get_bool(config, "tie_word_embeddings", true, &tied));
    if (a < 0 || b < 0 || !tied)
        return MB_OK;
    MB_TRY(same_bytes(f, a, b, &same));
    if (same)
        return MB_OK;
    /* what "tied" said besides, in T5 */
    if (!mb_json_is_set(mb_json_get(config, "scale_decoder_outputs")) &&
        strcmp(fam->name, "t5") == 0)
        MB_TRY(mb_json_set_bool(config, "scale_decoder_outputs", true));
    return mb_json_set_bool(config, "tie_word_embeddings", false);
}

mb_status mb_config_untie(const mb_model_family *fam, const char *folder, mb_json config)
{
    mb_tensor_file *f;
    mb_status st;

    if (mb_tensor_file_open(folder, &f) !=
        MB_OK) { /* whoever needs weights says why there are none */
        mb_status_clear();
        return MB_OK;
    }
    st = untie(fam, f, config);
    mb_tensor_file_close(f);
    return st;
}
