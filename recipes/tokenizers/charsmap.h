/* recipes/tokenizers/charsmap.h - SentencePiece's precompiled_charsmap.
 *
 * The bytes (little endian): u32 size of the trie, the trie as u32 units, the replacements one
 * after the other, each ended by a zero byte. The trie is a Darts-clone double array (S. Yata): a
 * unit has a label in its low byte, an offset to its children and whether a value ends there.
 * Source: sentencepiece src/normalizer.cc and darts.h, whose format this reads.
 */
#ifndef MB_RECIPES_TOKENIZERS_CHARSMAP_H
#define MB_RECIPES_TOKENIZERS_CHARSMAP_H

#include <stddef.h>
#include <stdint.h>

#include "core/status.h"

typedef struct mb_charsmap {
    char *bytes; /* owned; the file's */
    const char *unit;
    size_t n_units;
    const char *text; /* the replacements, ended by a zero of ours too */
    size_t n_text;
} mb_charsmap;

/* Copies the bytes. MB_EMODEL, beginning with `where`, when the sizes inside do not fit. */
mb_status mb_charsmap_init(mb_charsmap *m, const char *bytes, size_t n,
                           const char *where) MB_MUST_USE;
/* The same from base64 (RFC 4648 with padding). */
mb_status mb_charsmap_init_base64(mb_charsmap *m, const char *text, size_t n,
                                  const char *where) MB_MUST_USE;
void mb_charsmap_release(mb_charsmap *m);

/* What replaces the shortest (longest) rule that p[0..n) begins with: NULL when there is none, else
 * *replacement is borrowed and *used says how many bytes the rule has. */
const char *mb_charsmap_shortest(const mb_charsmap *m, const char *p, size_t n, size_t *n_out);
const char *mb_charsmap_longest(const mb_charsmap *m, const char *p, size_t n, size_t *used,
                                size_t *n_out);

#endif
