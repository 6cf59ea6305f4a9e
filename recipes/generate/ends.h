/* recipes/generate/ends.h - which tokens end an answer of a model. */
#ifndef MB_RECIPES_GENERATE_ENDS_H
#define MB_RECIPES_GENERATE_ENDS_H

#include "recipes/data/template.h"

/* Adds, each once: those of the model's generation_config.json and config.json, or of its GGUF file; the
 * tokenizer's EOS; the end of a turn in the chat template (chat NULL: there is none). MB_EMODEL. */
mb_status mb_answer_ends(const char *model, const mb_tokenizer *t, const mb_chat *chat,
                         mb_ids *ends) MB_MUST_USE;

/* Is the token one of n that end an answer? */
static inline bool mb_is_end(const int32_t *end, int64_t n, int32_t id)
{
    for (int64_t i = 0; i < n; i++)
        if (end[i] == id)
            return true;
    return false;
}

#endif
