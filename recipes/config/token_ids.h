/* recipes/config/token_ids.h - what trainable_token_indices says.
 *
 * Entries are ids ("7"), ranges whose both ends are meant ("7..9"), or "new": the tokens that
 * `mbuyu tokenizer extend` gave the model, which config.json has as
 *
 *     "mbuyu_new_tokens": {"first": 384, "last": 423}
 */
#ifndef MB_RECIPES_CONFIG_TOKEN_IDS_H
#define MB_RECIPES_CONFIG_TOKEN_IDS_H

#include "core/json.h"
#include "recipes/config/recipe.h"

/* MB_EARG: a sentence about the first entry that is none of these. */
mb_status mb_token_ids_check(const mb_strings *entries) MB_MUST_USE;

/* The ids in ascending order, of a model with `vocab` rows and this config.json; `path` is the model's. The caller
 * frees *ids. MB_EARG: an id without a row, or "new" of a model that says nothing of new tokens. */
mb_status mb_token_ids(const mb_strings *entries, mb_json config, const char *path, int64_t vocab,
                       int32_t **ids, int64_t *n) MB_MUST_USE;

/* Writes the key into a config.json. */
mb_status mb_token_ids_note(mb_json config, int64_t first, int64_t last) MB_MUST_USE;

#endif
