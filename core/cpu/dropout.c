/* core/cpu/dropout.c - dropout whose mask is a function, not a memory (core/rng.h).
 *
 * The four words of Philox block (ordinal, step, position, j) decide columns 4j .. 4j+3 of a row.
 * Blocks of a row differ in one counter word only, so 64 of them are computed side by side.
 */
#include "core/cpu/rows.h"
#include "core/cpu/strip.h"
#include "core/rng.h"

enum { BLOCKS = 64 }; /* 256 columns */

/* word[4*j + k]: word k of block first + j. */
MB_CPU_CLONES static void mask_words(uint32_t *restrict word, uint64_t key, uint32_t ordinal,
                                     uint32_t step, uint32_t position, uint32_t first)
{
#pragma omp simd
    for (int j = 0; j < BLOCKS; j++) {
        const mb_rng_block b = mb_philox(key, ordinal, step, position, first + (uint32_t)j);

        word[4 * j] = b.w[0];
        word[4 * j + 1] = b.w[1];
        word[4 * j + 2] = b.w[2];
        word[4 * j + 3] = b.w[3];
    }
}

MB_CPU_CLONES static void apply(float *y, const float *x, const uint32_t *word, float p,
                                float scale, bool acc, int64_t n)
{
    if (acc) {
#pragma omp simd
        for (int64_t i = 0; i < n; i++)
            y[i] += mb_rng_unit(word[i]) >= p ? x[i] * scale : 0.0f;
    } else {
#pragma omp simd
        for (int64_t i = 0; i < n; i++)
            y[i] = mb_rng_unit(word[i]) >= p ? x[i] * scale : 0.0f;
    }
}

mb_status mb_cpu_dropout(mb_exec *ex, mb_tensor *y, const mb_tensor *x, const mb_dropout *d,
                         bool acc)
{
    const int64_t rows = mb_rows(x), n = mb_cols(x);
    const uint64_t key = mb_rng_key(d->seed, d->site, 0);
    const float scale = 1.0f / (1.0f - d->p);

    MB_ASSERT(mb_rows(y) == rows && mb_cols(y) == n && d->p >= 0.0f && d->p <= 1.0f);
    const int team = mb_team(ex, rows * n);

#pragma omp parallel for num_threads(team) schedule(static)
    for (int64_t r = 0; r < rows; r++) {
        uint32_t word[4 * BLOCKS];
        mb_strip xs, ys;

        for (int64_t c = 0; c < n; c += 4 * BLOCKS) {
            const int64_t m = n - c < 4 * BLOCKS ? n - c : 4 * BLOCKS;

            mask_words(word, key, (uint32_t)d->ordinal[r], d->step, (uint32_t)d->position[r],
                       (uint32_t)(c / 4));
            const float *from = mb_strip_read(xs, x, r, c, m);
            float *to = mb_strip_open(ys, y, r, c, m, acc);

            apply(to, from, word, d->p, scale, acc, m);
            mb_strip_close(to, y, r, c, m);
        }
    }
    return MB_OK;
}
