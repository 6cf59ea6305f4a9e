/* recipes/data/pictures.h - the pictures of a micro-batch, decoded, changed and cut into patches.
 *
 * A team of threads takes one picture each at a time; what comes out depends on the picture, the
 * seed, the step and its ordinal only. Memory is reserved for the largest picture of the store.
 *
 * With `ahead` pictures are made by as many threads of their own beforehand, once mb_pictures_expect has
 * said which: while a GPU computes, the processor has nothing better to do.
 */
#ifndef MB_RECIPES_DATA_PICTURES_H
#define MB_RECIPES_DATA_PICTURES_H

#include "recipes/data/patches.h"
#include "recipes/data/sampler.h"
#include "recipes/data/store.h"
#include "recipes/media/image_processor.h"

typedef struct mb_pictures_options {
    mb_image_processor processor;
    mb_patches patches;
    mb_augment augment; /* zero: none */
    int threads;
} mb_pictures_options;

typedef struct mb_pictures mb_pictures;

/* Room for the pictures of the stores (the second may be NULL). Copies the options; the caller owns
 * *out. */
mb_status mb_pictures_new(const mb_pictures_options *o, const mb_store *a, const mb_store *b,
                          mb_pictures **out) MB_MUST_USE;
void mb_pictures_free(mb_pictures *p); /* NULL is allowed */
const mb_pictures_options *mb_pictures_are(const mb_pictures *p);
/* What libpng and libjpeg may take besides, for the largest picture on all threads: an estimate. */
int64_t mb_pictures_library_bytes(const mb_pictures *p);

/* From now on `places` augmented pictures of training can be made ahead of mb_pictures_fill. */
mb_status mb_pictures_read_ahead(mb_pictures *p, int64_t places) MB_MUST_USE;
/* Rows of a micro-batch that will be filled after those expected already, augmented; as many as there is
 * room for. */
void mb_pictures_expect(mb_pictures *p, const mb_store *s, const mb_micro *micro, uint64_t seed,
                        uint32_t step);
bool mb_pictures_idle(const mb_pictures *p); /* reads ahead, and nothing is expected */
bool mb_pictures_reads_ahead(const mb_pictures *p);

/* Appends the rows of a micro-batch to an empty batch; `augmented`: as for training. MB_EDATA names a
 * picture that can no longer be read. */
mb_status mb_pictures_fill(mb_pictures *p, const mb_store *s, const mb_micro *micro, uint64_t seed,
                           uint32_t step, bool augmented, mb_batch *b) MB_MUST_USE;

#endif
