/* recipes/data/patches.c - see recipes/data/patches.h. */
#include "recipes/data/patches.h"

#include <string.h>

#include "core/alloc.h"

mb_patches mb_patches_of(const mb_model_config *c)
{
    return (mb_patches){.height = c->image_height,
                        .width = c->image_width,
                        .channels = c->channels,
                        .patch = c->patch,
                        .prefix = c->image_prefix};
}

int64_t mb_patches_count(const mb_patches *p)
{
    return (p->height / p->patch) * (p->width / p->patch);
}

int64_t mb_patches_tokens(const mb_patches *p)
{
    return p->prefix + mb_patches_count(p);
}

int64_t mb_patches_cols(const mb_patches *p)
{
    return p->channels * p->patch * p->patch;
}

mb_status mb_patches_reserve(const mb_patches *p, mb_batch *b)
{
    const int64_t n = b->max_seq * mb_patches_count(p);

    b->feature_rows = (n + MB_ROW_PAD - 1) / MB_ROW_PAD * MB_ROW_PAD;
    b->feature_cols = mb_patches_cols(p);
    MB_TRY(MB_NEW_ARRAY(&b->features, b->feature_rows * b->feature_cols));
    MB_TRY(MB_NEW_ARRAY(&b->feature_row, b->tokens));
    for (int64_t t = 0; t < b->tokens; t++)
        b->feature_row[t] = -1;
    return MB_OK;
}

void mb_patches_append(const mb_patches *p, mb_batch *b, int32_t ordinal)
{
    const int64_t s = b->n_seq++, at = b->used, n = mb_patches_tokens(p);

    for (int64_t t = 0; t < n; t++) {
        b->ids[at + t] = t == 0 ? 0 : -1;
        b->segment[at + t] = t == 1 && p->prefix > 1 ? 0 : -1;
        b->position[at + t] = (int32_t)t;
        b->ordinal[at + t] = ordinal;
        b->feature_row[at + t] =
            t < p->prefix ? -1 : (int32_t)(s * mb_patches_count(p) + t - p->prefix);
    }
    b->start[s] = b->k_start[s] = (int32_t)at;
    b->len[s] = b->k_len[s] = (int32_t)n;
    b->seq_ordinal[s] = ordinal;
    b->seq_zero[s] = 0;
    b->used += n;
    b->max_len = n;
}

float *mb_patches_rows(const mb_patches *p, const mb_batch *b, int64_t s)
{
    return b->features + s * mb_patches_count(p) * b->feature_cols;
}

/* Line `y` of channel c in patch (i, j): where it is among the patches, and in the image. */
static int64_t in_rows(const mb_patches *p, int64_t i, int64_t j, int64_t c, int64_t y)
{
    return (((i * (p->width / p->patch) + j) * p->channels + c) * p->patch + y) * p->patch;
}

static int64_t in_planes(const mb_patches *p, int64_t i, int64_t j, int64_t c, int64_t y)
{
    return (c * p->height + i * p->patch + y) * p->width + j * p->patch;
}

static void move(const mb_patches *p, const float *from, float *to,
                 int64_t (*in)(const mb_patches *, int64_t, int64_t, int64_t, int64_t),
                 int64_t (*out)(const mb_patches *, int64_t, int64_t, int64_t, int64_t))
{
    const size_t line = (size_t)p->patch * sizeof *to;

    for (int64_t i = 0; i < p->height / p->patch; i++)
        for (int64_t j = 0; j < p->width / p->patch; j++)
            for (int64_t c = 0; c < p->channels; c++)
                for (int64_t y = 0; y < p->patch; y++)
                    memcpy(to + out(p, i, j, c, y), from + in(p, i, j, c, y), line);
}

void mb_patches_cut(const mb_patches *p, const float *planes, float *rows)
{
    move(p, planes, rows, in_planes, in_rows);
}

void mb_patches_join(const mb_patches *p, const float *rows, float *planes)
{
    move(p, rows, planes, in_rows, in_planes);
}
