/* recipes/metrics/tags.h - entities in rows of tags, as the seqeval package finds them by default.
 *
 * A tag is O, or B, I, E or S and a type ("B-PER"); IOB2 and IOBES in one, forgiving as conlleval is:
 * an entity begins at B and S, after O, or where the type changes, and ends before the next one
 * begins, before O, at E and S. Reference: Ramshaw & Marcus 1995; conlleval.pl.
 */
#ifndef MB_RECIPES_METRICS_TAGS_H
#define MB_RECIPES_METRICS_TAGS_H

#include "recipes/metrics/classes.h"
#include "recipes/tokenizers/bytes.h"

typedef struct mb_entity {
    int32_t type; /* id of its name */
    int64_t first, last;
} mb_entity;

/* The entities of n tags given as ids of rows' strings, in order. entity[] has room for n + 1. Types
 * get ids in `types`. */
mb_status mb_entities_of(const mb_answers *rows, const int32_t *tag, int64_t n, mb_vocab *types,
                         mb_entity *entity, int64_t *n_entities) MB_MUST_USE;

/* Per type, in the order of their names: entities that are right (type and both ends), labelled,
 * predicted. The caller owns *out; there is no confusion matrix. */
mb_status mb_tags_of(const mb_answers *rows, mb_classes **out) MB_MUST_USE;

#endif
