/* recipes/train/bases.h - models that stand on one base have its weights in memory once.
 *
 *     mb_bases *all;
 *     MB_TRY(mb_bases_new(&all));
 *     MB_TRY(mb_session_open(&(mb_session_options){.path = base, .bases = all, ...}, &a, NULL));
 *     MB_TRY(mb_session_open(&(mb_session_options){.path = base, .adapter_path = tuned, .bases = all, ...}, &b,
 *                            NULL));
 *     ...
 *     mb_engine_free(a);     the weights stay for b
 *     mb_engine_free(b);     and go with the last one
 *     mb_bases_free(all);    after all engines
 *
 * A base is what was read from the same files for a model of the same family: by device, number, length and
 * time of each, whatever the path; or from other files that give the same numbers, as the folders do that runs
 * on one GGUF file leave beside their adapters. (Every weight that the model reads of them is compared, tables
 * it has rows of tokens for as well; whatever is not known to be equal is another base.) The base's first files
 * are then read for all, so where they have blocks that stay (mb_model_keep_blocks), all models have them: open
 * the GGUF file first.
 *
 * Of a base a model takes every weight of its table that it does not train and that is kept there with the
 * same name, shape and type; adapters, modules an adapter has saved, tables it has rows of tokens for, and
 * weights the files lack are its own. What is taken is only read, so answers have the bits they have alone.
 *
 * Host memory only: models on other devices keep their own. Models are opened and freed one at a time; that
 * others run meanwhile does no harm.
 */
#ifndef MB_RECIPES_TRAIN_BASES_H
#define MB_RECIPES_TRAIN_BASES_H

#include "autograd/model.h"
#include "core/formats/tensor_file.h"

typedef struct mb_bases mb_bases;
typedef struct mb_base mb_base;

/* The caller owns *out. */
mb_status mb_bases_new(mb_bases **out) MB_MUST_USE;
void mb_bases_free(mb_bases *b); /* NULL is allowed. A base with users is MB_BUG */
/* Bytes of weights that are kept for others, of all bases. */
size_t mb_bases_bytes(const mb_bases *b);

/* ---- for mb_session_open and engines ------------------------------------------------------ */

/* The base whose files or numbers these are, new if need be, for m, of which it is known what is trained;
 * the caller has it until mb_base_leave. Takes f, also on failure. */
mb_status mb_base_enter(mb_bases *b, mb_tensor_file *f, const mb_model *m, mb_exec *ex,
                        mb_base **out) MB_MUST_USE;
/* What its models are read from; borrowed. */
mb_tensor_file *mb_base_file(const mb_base *b);
/* Frozen weights of m that are kept in the base get their place there, and are lent (mb_weight). After types
 * are chosen, before memory is taken. */
void mb_base_lend(const mb_base *b, mb_model *m);
/* After m was read: the frozen weights it read itself are kept from now on. They lie in *run, which is then
 * the base's (*run is NULL); with nothing to keep it stays the caller's. */
mb_status mb_base_keep(mb_base *b, const mb_model *m, mb_arena **run) MB_MUST_USE;
/* The last one frees the base's weights. NULL is allowed. */
void mb_base_leave(mb_base *b);

#endif
