/* recipes/data/frames.h - sounds as a speech model's encoder reads them (autograd/models/whisper.c): a
 * source of equally long sequences, each token of which stands for two frames of log-mel features.
 */
#ifndef MB_RECIPES_DATA_FRAMES_H
#define MB_RECIPES_DATA_FRAMES_H

#include "autograd/model.h"

typedef struct mb_frames {
    int64_t bins;   /* numbers of a frame */
    int64_t tokens; /* of a sound: half its frames */
} mb_frames;

enum { MB_TOKENS_A_SECOND = 50 }; /* 16000 samples, 160 of them to a frame, 2 frames to a token */

/* For sounds of `seconds`; 0: as long as the model can hear. MB_EARG when that is longer. */
mb_status mb_frames_for(const mb_model_config *c, double seconds, mb_frames *out) MB_MUST_USE;

/* Gives a new batch room for the frames of all its tokens, zeroed. */
mb_status mb_frames_reserve(const mb_frames *f, mb_batch *b) MB_MUST_USE;
/* Appends a sound to the batch's tokens as sequence b->n_seq. */
void mb_frames_append(const mb_frames *f, mb_batch *b, int32_t ordinal);
/* Where the frames of sequence s are, (2 tokens, bins). */
float *mb_frames_rows(const mb_frames *f, const mb_batch *b, int64_t s);
/* Rows of frames from columns of them, (bins, 2 tokens), as transformers keeps them. */
void mb_frames_turn(const mb_frames *f, const float *columns, float *rows);

#endif
