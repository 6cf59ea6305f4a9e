/* recipes/serve/blocks.h - which blocks of a cache are whose, and what is known to be in them.
 *
 * A block holds MB_BLOCK_TOKENS tokens' keys and values. It is used by as many as hold it; a full one
 * may be made known: under its tokens and the number of the known block before it, so that a number
 * stands for all tokens up to its block's end. Numbers are given once; where they are compared,
 * tokens are compared as well: what is found is what was asked for, never a collision.
 *
 * Blocks that nobody holds are taken again in this order: those nothing is known of, then those
 * unused for longest. No memory is taken but in mb_blocks_new. One thread.
 */
#ifndef MB_RECIPES_SERVE_BLOCKS_H
#define MB_RECIPES_SERVE_BLOCKS_H

#include <stdint.h>

#include "core/status.h"

enum { MB_BLOCK_TOKENS = 64 };

typedef struct mb_blocks mb_blocks;

/* The caller owns *out. */
mb_status mb_blocks_new(int64_t n, mb_blocks **out) MB_MUST_USE;
void mb_blocks_free(mb_blocks *b); /* NULL is allowed */

/* A block of which nothing is known, held once; -1: all are held. */
int32_t mb_blocks_take(mb_blocks *b);
/* Holds it less. */
void mb_blocks_drop(mb_blocks *b, int32_t block);

/* What stands for no tokens at all, of text number `root` (a model): its first blocks come after. */
uint64_t mb_blocks_root(int root);
/* The known block of these tokens behind those of `before`, held once more, its number in *number; -1:
 * none. */
int32_t mb_blocks_find(mb_blocks *b, uint64_t before, const int32_t *token, uint64_t *number);
/* Makes a block known, or, when one with the same is known already, drops it for that. Returns the
 * one to use. */
int32_t mb_blocks_publish(mb_blocks *b, int32_t block, uint64_t before, const int32_t *token,
                          uint64_t *number);

int64_t mb_blocks_count(const mb_blocks *b);
int64_t mb_blocks_held(const mb_blocks *b);  /* by anybody */
int64_t mb_blocks_known(const mb_blocks *b); /* and held by nobody */

#endif
