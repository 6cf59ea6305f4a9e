/* recipes/serve/texts.h - the `input` of embeddings, classifications and translations: a text, token ids,
 * or a list of either; as ids. */
#ifndef MB_RECIPES_SERVE_TEXTS_H
#define MB_RECIPES_SERVE_TEXTS_H

#include "recipes/serve/api.h"

enum { MB_TEXTS_MOST = 2048 };

typedef struct mb_texts {
    mb_ids *at;
    int64_t n;
    int64_t tokens; /* of all */
} mb_texts;

typedef mb_status (*mb_text_encoder)(void *arg, const char *text, size_t n, mb_ids *out);

/* Each of 1 to `most` ids below `vocab`. The caller releases *out, also after a failure. */
mb_status mb_texts_read(mb_json input, mb_text_encoder encode, void *arg, int64_t vocab,
                        int64_t most, mb_texts *out, mb_fault *f) MB_MUST_USE;
void mb_texts_release(mb_texts *t);

#endif
