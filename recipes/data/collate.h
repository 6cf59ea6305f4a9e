/* recipes/data/collate.h - rows of a token store become an mb_batch (autograd/batch.h).
 *
 * A target nobody knows (rows that are only predicted) has weight 0.
 *
 * Buffers are made once, for the largest micro-batch of the run; filling one allocates nothing.
 *
 *     next token     hidden row t predicts ids[t+1] where that token is trained
 *     second side    the tokens before MB_MARK_SECOND are the source's batch; of the others all but the
 *                    last are the decoder's, each of which predicts the next
 *     class          one target per sequence, its label; of pictures, too
 *     values         one per sequence, with a number for each class (1: it has it) or each output
 *     tokens         one per token that begins a labelled word, its class
 *     span           two per sequence of half the weight: the answer's first and last token
 *     sentences      one per row, its anchor; sequences are all anchors, then their own candidates, then
 *                    the rest, so a row is several of them
 *     masked         Devlin et al. 2019: 15 % of the tokens that are not special are predicted; of
 *                    these 80 % are replaced by [MASK], 10 % by a random token, 10 % kept. The
 *                    choice is drawn with the key (seed, MB_SITE_MLM, step) at (ordinal, position).
 */
#ifndef MB_RECIPES_DATA_COLLATE_H
#define MB_RECIPES_DATA_COLLATE_H

#include "autograd/batch.h"
#include "recipes/data/listen.h"
#include "recipes/data/pictures.h"
#include "recipes/data/sampler.h"
#include "recipes/data/store.h"

typedef enum mb_target_kind {
    MB_TARGET_NEXT,
    MB_TARGET_CLASS,
    MB_TARGET_MASKED,
    MB_TARGET_SECOND,
    MB_TARGET_VALUES, /* several classes at once, numbers */
    MB_TARGET_TOKENS,
    MB_TARGET_SPAN,
    MB_TARGET_SENTENCES,
} mb_target_kind;

typedef struct mb_collate_options {
    mb_target_kind kind;
    uint64_t seed;          /* of the run */
    int32_t mask_id;        /* masked only */
    int64_t vocab_size;     /* masked only: random tokens are below */
    float masked_share;     /* masked only: 0 means 0.15 */
    int64_t max_positions;  /* > 0: positions must be below; a longer row is refused */
    int64_t largest;        /* tokens of the largest micro-batch, for the shape classes */
    int64_t source_largest; /* second side: of the largest source; `largest` is a decoder's then, */
    int64_t both_largest;   /* and this of both together */
    mb_listener *listener;  /* of rows about sounds, which become the batch's source; NULL: none */
    mb_frames frames;       /* of a sound */
    mb_pictures *pictures;  /* of stores of pictures; borrowed */
    bool augmented;         /* pictures are changed as for training */
    int64_t n_values;       /* values: numbers of a target; sentences: 1 */
    int64_t segments;       /* token types the model knows; 1: all tokens are of the first */
} mb_collate_options;

/* Tokens rounded up to the shape class: multiples of 48 up to 480, then at most 24 more sizes up
 * to the one that holds max_tokens; all multiples of MB_ROW_PAD. Never more than
 * mb_shape_class(max_tokens, max_tokens). */
int64_t mb_shape_class(int64_t tokens, int64_t max_tokens);

/* The same for the two sides of a pair, whose classes meet in all combinations: a twelfth of the
 * largest, in multiples of MB_ROW_PAD. */
int64_t mb_side_class(int64_t tokens, int64_t max_tokens);

/* Tokens of row r's source. */
int64_t mb_store_source_tokens(const mb_store *s, int64_t r);

/* A batch with room for `max_tokens` (rounded up to its class) and max_seq sequences, zeroed; the
 * caller owns *out. */
mb_status mb_batch_new(int64_t max_tokens, int64_t max_seq, mb_batch **out) MB_MUST_USE;
/* Room for n values with each target. */
mb_status mb_batch_reserve_values(mb_batch *b, int64_t n) MB_MUST_USE;
/* Clears what is behind the last target. */
void mb_batch_end_targets(mb_batch *b);
void mb_batch_free(mb_batch *b); /* NULL is allowed */

/* Fills `b` with the rows of a micro-batch. MB_EBUG when they do not fit its buffers. */
mb_status mb_collate(const mb_collate_options *o, const mb_store *s, const mb_micro *micro,
                     uint32_t step, mb_batch *b) MB_MUST_USE;

/* Targets of all rows of a step under masking, which no table holds; what the loss is divided by. */
int64_t mb_masked_targets(const mb_collate_options *o, const mb_store *s, const mb_step *st);

#endif
