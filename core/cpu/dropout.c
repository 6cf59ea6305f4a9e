/* core/cpu/dropout.c - dropout whose mask is a function, not a memory (core/rng.h).
 *
 * The four words of Philox block (ordinal, step, position, j) decide columns 4j .. 4j+3 of a row.
 * Blocks of a row differ in one counter word only, so many are computed side by side.
 */
#include "core/cpu/rows.h"
#include "core/cpu/strip.h"
#include "core/rng.h"

enum { COLUMNS = 4 * MB_PHILOX_BLOCKS };

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
        uint32_t word[COLUMNS];
        mb_strip xs, ys;

        for (int64_t c = 0; c < n; c += COLUMNS) {
            const int64_t m = n - c < COLUMNS ? n - c : COLUMNS;

            mb_cpu_philox(word, key, (uint32_t)d->ordinal[r], d->step, (uint32_t)d->position[r],
                          (uint32_t)(c / 4));
            const float *from = mb_strip_read(xs, x, r, c, m);
            float *to = mb_strip_open(ys, y, r, c, m, acc);

            apply(to, from, word, d->p, scale, acc, m);
            mb_strip_close(to, y, r, c, m);
        }
    }
    return MB_OK;
}
