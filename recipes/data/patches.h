/* recipes/data/patches.h - images as a vision transformer reads them (autograd/models/vit.h).
 *
 * An image is `channels` planes of height x width numbers. Its patches are taken row by row; a patch
 * is a row of features: channels, then lines, then columns, as the kernel of the model's convolution
 * lies in memory. What is left over at the right and below, where a side is no multiple of the patch,
 * is not seen.
 */
#ifndef MB_RECIPES_DATA_PATCHES_H
#define MB_RECIPES_DATA_PATCHES_H

#include "autograd/model.h"

typedef struct mb_patches {
    int64_t height, width, channels, patch;
    int64_t prefix; /* tokens in front of the patches */
} mb_patches;

mb_patches mb_patches_of(const mb_model_config *c);
int64_t mb_patches_count(const mb_patches *p);  /* of an image */
int64_t mb_patches_tokens(const mb_patches *p); /* with those in front */
int64_t mb_patches_cols(const mb_patches *p);   /* numbers of a patch */

/* Gives a new batch room for the patches of max_seq images. */
mb_status mb_patches_reserve(const mb_patches *p, mb_batch *b) MB_MUST_USE;
/* Appends an image to the batch's tokens as sequence b->n_seq; its patches are the rows that
 * mb_patches_rows gives. */
void mb_patches_append(const mb_patches *p, mb_batch *b, int32_t ordinal);
/* Where the patches of sequence s are, (count, cols). */
float *mb_patches_rows(const mb_patches *p, const mb_batch *b, int64_t s);
void mb_patches_cut(const mb_patches *p, const float *planes, float *rows);
/* The other way; pixels of no patch stay as they are. */
void mb_patches_join(const mb_patches *p, const float *rows, float *planes);

#endif
