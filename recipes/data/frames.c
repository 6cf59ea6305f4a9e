/* recipes/data/frames.c - see recipes/data/frames.h. */
#include "recipes/data/frames.h"

#include <math.h>

#include "core/alloc.h"

mb_status mb_frames_for(const mb_model_config *c, double seconds, mb_frames *out)
{
    const int64_t tokens =
        seconds > 0.0 ? (int64_t)ceil(seconds * MB_TOKENS_A_SECOND) : c->source_positions;

    MB_REQUIRE(tokens <= c->source_positions, MB_EARG,
               "audio_seconds is %g; the model hears %g seconds at most", seconds,
               (double)c->source_positions / MB_TOKENS_A_SECOND);
    *out = (mb_frames){.bins = c->mel_bins, .tokens = tokens};
    return MB_OK;
}

mb_status mb_frames_reserve(const mb_frames *f, mb_batch *b)
{
    b->feature_rows = 2 * b->tokens;
    b->feature_cols = f->bins;
    return MB_NEW_ARRAY(&b->features, b->feature_rows * b->feature_cols);
}

void mb_frames_append(const mb_frames *f, mb_batch *b, int32_t ordinal)
{
    const int64_t s = b->n_seq++, at = b->used;

    for (int64_t t = 0; t < f->tokens; t++) {
        b->ids[at + t] = 0;
        b->segment[at + t] = 0;
        b->position[at + t] = (int32_t)t;
        b->ordinal[at + t] = ordinal;
    }
    b->start[s] = b->k_start[s] = (int32_t)at;
    b->len[s] = b->k_len[s] = (int32_t)f->tokens;
    b->seq_ordinal[s] = ordinal;
    b->seq_zero[s] = 0;
    b->used += f->tokens;
    b->max_len = f->tokens;
}

float *mb_frames_rows(const mb_frames *f, const mb_batch *b, int64_t s)
{
    return b->features + s * 2 * f->tokens * f->bins;
}

void mb_frames_turn(const mb_frames *f, const float *columns, float *rows)
{
    const int64_t n = 2 * f->tokens;

    for (int64_t i = 0; i < n; i++)
        for (int64_t j = 0; j < f->bins; j++)
            rows[i * f->bins + j] = columns[j * n + i];
}
