/* recipes/train/proof.h - is what was exported the model? It is read again and held against it.
 *
 *     MB_TRY(mb_proof_take(e, tokenizer, file, &held, 0, &proof)); what the model says of some texts
 *     ... the model is written; its memory may be given back ...
 *     MB_TRY(mb_proof_hold(proof, &options, dtype));             what the written one says of them
 *
 * The written tokenizer must give the same ids, the written model about the same logits: how far they may
 * be apart depends on the type of the written weights. One line says how far they are, as largest difference
 * of a logit, as mean Kullback-Leibler divergence and as change of perplexity, where the model predicts
 * tokens.
 */
#ifndef MB_RECIPES_TRAIN_PROOF_H
#define MB_RECIPES_TRAIN_PROOF_H

#include "recipes/tokenizers/tokenizer.h"
#include "recipes/train/held_out.h"
#include "recipes/train/session.h"

enum { MB_PROOF_TEXTS = 16, MB_PROOF_TOKENS = 640 };

typedef struct mb_proof mb_proof;

/* Runs the model on the lines of `file`, or, when that is NULL, on rows that a run held out, or, where there
 * are none (held NULL, or n 0), on a text that mbuyu has; each cut to `most` tokens (0: the model's positions).
 * *out is NULL where there is nothing to read: models of pictures and sounds. The tokenizer is borrowed until the
 * proof is freed. */
mb_status mb_proof_take(mb_engine *e, const mb_tokenizer *t, const char *file,
                        const mb_held_out *held, int64_t most, mb_proof **out) MB_MUST_USE;
/* Opens what was written (o->path, o->adapter_path) and compares; `tokenizer` is the path its tokenizer is
 * read from, NULL: it has none; chat_template is what it must have, NULL: the model's own. Logs the line. MB_ENUM when the two differ by more than writing numbers as
 * `dtype` explains. */
mb_status mb_proof_hold(const mb_proof *p, const mb_session_options *o, const char *tokenizer,
                        const char *chat_template, mb_dtype dtype) MB_MUST_USE;
void mb_proof_free(mb_proof *p); /* NULL is allowed */

#endif
