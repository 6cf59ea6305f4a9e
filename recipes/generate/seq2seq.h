/* recipes/generate/seq2seq.h - how a recipe's encoder-decoder model is asked, and any by beam search:
 * sources as a batch, what starts answers, and what folder and recipe say about them.
 */
#ifndef MB_RECIPES_GENERATE_SEQ2SEQ_H
#define MB_RECIPES_GENERATE_SEQ2SEQ_H

#include "recipes/config/recipe.h"
#include "recipes/data/render.h"
#include "recipes/generate/search.h"

/* Rules and search of the model in folder `model`: what config.json and generation_config.json say,
 * then what is set in the recipe. *r is all zero before; the caller releases it also on failure. */
mb_status mb_search_settings(const mb_recipe *recipe, const char *model, const mb_tokenizer *tok,
                             mb_rules *r, mb_search_options *o) MB_MUST_USE;

/* A batch whose sequence i is rows[i]; its arrays have room for `tokens` and `n_seq`, at least what
 * they hold. The caller owns *out. */
mb_status mb_source_batch(const mb_ids *const *rows, int64_t n, int64_t tokens, int64_t n_seq,
                          mb_batch **out) MB_MUST_USE;

/* The text of an answer without special tokens, owned by the caller; n_text may be NULL. Embeddings may
 * have more rows than the tokenizer has tokens; an id that is none says nothing. */
mb_status mb_answer_decode(const mb_tokenizer *tok, const int32_t *id, int64_t n, char **text,
                           size_t *n_text) MB_MUST_USE;

/* The recipe's model with this head on its device, to answer with at most so many positions (0: all it
 * has), its weights from `bases` (may be NULL) where they can be. The caller frees the engine, then closes the
 * device, also on failure. */
mb_status mb_search_open(const mb_recipe *r, mb_head head, int64_t positions, mb_bases *bases,
                         mb_device **device, mb_engine **e) MB_MUST_USE;

#endif
