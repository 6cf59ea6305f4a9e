/* autograd/positions.h - fixed tables by position: waves, and buckets of distances. */
#ifndef MB_AUTOGRAD_POSITIONS_H
#define MB_AUTOGRAD_POSITIONS_H

#include "autograd/model.h"

/* Takes memory for the tables that the configuration asks for, and fills them unless the arena only
 * counts. */
mb_status mb_positions_bind(mb_model *m, mb_arena *run) MB_MUST_USE;

/* T5's bucket of a key `distance` after its query (Raffel et al. 2020, arXiv:1910.10683): distances
 * up to a quarter of the buckets (a half of them when only looking back) have their own, longer ones
 * share logarithmically up to max_distance. Computed in f32, as PyTorch does. */
int32_t mb_position_bucket(int64_t distance, bool both_ways, int64_t buckets, int64_t max_distance);

/* An element of fairseq's waves (mb_sinusoid), in a row of `width`: Whisper's encoder has them, too. */
float mb_position_wave(int64_t position, int64_t column, int64_t width);

#endif
